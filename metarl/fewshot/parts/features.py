"""Features of support sets and queries by one backbone, and the averages that its norms keep of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes
from metarl.fewshot.parts.backbones import Backbone
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.norms import BatchNorm, Moment, Norm
from metarl.ranks import ALONE, Ranks
from metarl.types import Params


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A backbone with its parameters and batch-norm policy: M episodes to features."""

    backbone: Backbone
    params: Params
    batch_norm: BatchNorm
    averages: Sequence[Moment] | None = None

    def both(
        self, support: Float[Tensor, "M S *item"], x: Float[Tensor, "M Q *item"]
    ) -> tuple[Float[Tensor, "M S F"], Float[Tensor, "M Q F"]]:
        """Return the features of support sets and queries in one pass."""
        size = support.shape[1]
        norm = Norm(self.batch_norm, support=size, averages=self.averages)
        features = self.backbone(self.params, torch.cat((support, x), dim=1), norm)
        return features[:, :size], features[:, size:]


class RunningMoments:
    """Averages of the moments of every norm layer over training, for the batch-norm policy `running`.

    Args:
        ranks: which of them take in the moments of their own episodes each.
        momentum: weight of the newest.
    """

    def __init__(self, ranks: Ranks = ALONE, momentum: float = 0.1) -> None:
        self.ranks = ranks
        self.momentum = momentum
        self.averages: list[Moment] | None = None

    @torch.no_grad()
    def measure(self, backbone: Backbone, params: Params, episodes: Episodes, *, by_task: bool = False) -> None:
        """Take in the moments of all items of some episodes; arguments as of the backbone."""
        seen: list[Moment] = []
        everything = torch.cat((episodes.support.x, episodes.query_x), dim=1)
        backbone(params, everything, Norm("running", seen=seen), by_task=by_task)
        self.update(seen)

    @torch.no_grad()
    def update(self, seen: Sequence[Moment]) -> None:
        """Take in the moments of one pass; their mean over episodes, where they have such an axis."""
        own = [Moment(*(part.mean(0) if part.dim() == 2 else part for part in moment)) for moment in seen]
        now = self.ranks.mean(own)
        if self.averages is None:
            self.averages = now
        else:
            self.averages = [
                Moment(*(old.lerp(new, self.momentum) for old, new in zip(before, after, strict=True)))
                for before, after in zip(self.averages, now, strict=True)
            ]

    def state_dict(self) -> list[tuple[Tensor, Tensor]] | None:
        """Return the averages."""
        return (
            None if self.averages is None else [(m.mean.cpu().clone(), m.variance.cpu().clone()) for m in self.averages]
        )

    def load_state_dict(self, state: Any, device: torch.device) -> None:
        """Restore the averages; raise ValueError where they are none."""
        if state is not None and not (isinstance(state, list) and all(map(_is_moment, state))):
            raise ValueError("the stored averages are no pairs of tensors with finite numbers")
        self.averages = None if state is None else [Moment(m.to(device), v.to(device)) for m, v in state]


def _is_moment(pair: Any) -> bool:
    """Tell whether something is a mean and a variance of the same size."""
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(value, Tensor) for value in pair):
        return False
    return pair[0].shape == pair[1].shape and all(bool(value.isfinite().all()) for value in pair)


def averages_for(batch_norm: BatchNorm, setting: Setting, moments: RunningMoments) -> Sequence[Moment] | None:
    """Return the averages that a batch-norm policy needs at test; None where it needs none.

    Raises:
        UserError: it needs averages, and the learner was trained under another policy.
    """
    if batch_norm != "running" or setting.backbone.norms == 0:
        return None
    if moments.averages is None:
        raise UserError(
            "Got the batch norm 'running', and this learner has no averages: it was trained with "
            f"'{setting.batch_norm}'. Use that one, or train with --batch-norm running."
        )
    return moments.averages
