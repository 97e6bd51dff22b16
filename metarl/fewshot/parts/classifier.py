"""An ordinary classifier of all training classes, trained on batches of items: what some few-shot learners begin with.

Batch norm while training takes its statistics over the batch, under every policy, and the averages are kept: so that
at test each of the policies can be asked for, `running` too.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as nnf

from metarl.errors import UserError
from metarl.fewshot.episodes import Source
from metarl.fewshot.parts.features import Embedder, RunningMoments, averages_for
from metarl.fewshot.parts.learner import Setting, check_items
from metarl.fewshot.parts.norms import BatchNorm, Moment, Norm
from metarl.fewshot.parts.optimiser import Optimiser, OptimiserConfig
from metarl.fewshot.parts.scores import accuracy
from metarl.nets.policy import MLP
from metarl.seeding import Streams
from metarl.types import Metrics, Params

MOMENTUM = 0.1
"""Weight of the newest batch in the mean of the features."""


def classifier_optimiser() -> OptimiserConfig:
    """Return the optimiser that suits a classifier of images of 28 x 28 pixels."""
    return OptimiserConfig(learning_rate=3e-3, halve_every=400)


@runtime_checkable
class BatchSource(Protocol):
    """A source that also gives batches of items of all its classes."""

    def batch(
        self, split: str, number: int, size: int, seed: int
    ) -> tuple[Float[Tensor, "n *item"], Int[Tensor, " n"]]:
        """Return items with their classes (see `metarl.fewshot.classes.ClassData.batch`)."""
        ...


def head_scores(params: Params, features: Float[Tensor, "*M n F"], cosine_scale: float) -> Float[Tensor, "*M n C"]:
    """Return the scores of a head.

    Args:
        params: `weight`, [F, C] or [M, F, C]; and `bias`, [C] or [M, C], of a linear head.
        features: of items.
        cosine_scale: scores are so many times the cosines of features and weights; 0 for a linear head.
    """
    if cosine_scale:
        cosines = nnf.normalize(features, dim=-1) @ nnf.normalize(params["weight"], dim=-2)
        return cosine_scale * cosines
    return features @ params["weight"] + params["bias"].unsqueeze(-2)


class Classifier:
    """A backbone with a linear or cosine head over the training classes.

    Args:
        name: of the learner that has it, for errors.
        setting: what it is made for.
        batch_size: items of an update.
        optimiser: its settings.
        cosine_scale: as in `head_scores`.
        streams: `init` draws the initial parameters.
        device: where everything lives.

    Raises:
        UserError: the data have no classes.
    """

    def __init__(
        self,
        name: str,
        setting: Setting,
        *,
        batch_size: int,
        optimiser: OptimiserConfig,
        cosine_scale: float,
        streams: Streams,
        device: torch.device,
    ) -> None:
        if setting.outputs or not setting.classes:
            raise UserError(
                f"{name} begins with a classifier of all training classes, and this data has none, or no one list of "
                "them. Use another learner, such as proto or maml."
            )
        self.name = name
        self.setting = setting
        self.batch_size = batch_size
        self.cosine_scale = cosine_scale
        self.device = device
        backbone = setting.backbone.init(streams["init"], setting.dtype)
        head = MLP(inputs=setting.backbone.features, hidden=(), outputs=setting.classes)
        own = head.init(streams["init"], setting.dtype)
        params = {**backbone, "head.weight": own["w0"]}
        if not cosine_scale:
            params["head.bias"] = own["b0"]
        self.params = {key: value.to(device) for key, value in params.items()}
        self.optimiser = Optimiser(optimiser, self.params, setting.ranks)
        self.moments = RunningMoments(setting.ranks)
        self.mean: Tensor | None = None

    def update(self, source: Source, number: int) -> Metrics:
        """Take one step on a batch.

        Raises:
            UserError: the source gives no batches, or items of another shape.
        """
        if not isinstance(source, BatchSource):
            raise UserError(f"{self.name} needs batches of all classes, and {source.name} gives episodes only.")
        check_items(self.setting, source)
        ranks = self.setting.ranks
        items = source.batch("train", number, self.batch_size, self.setting.seed)
        x, y = (ranks.own(part).to(self.device) for part in items)
        seen: list[Moment] = []
        features = self.setting.backbone(self.params, x, Norm("running", seen=seen, ranks=ranks))
        head = {key.removeprefix("head."): value for key, value in self.params.items() if key.startswith("head.")}
        scores = head_scores(head, features, self.cosine_scale)
        loss = nnf.cross_entropy(scores, y)
        metrics = self.optimiser.descend(loss, number)
        if seen:
            self.moments.update(seen)
        mean = ranks.mean(features.detach().mean(0))
        self.mean = mean if self.mean is None else self.mean.lerp(mean, MOMENTUM)
        hits = accuracy(scores.detach()[None], y[None])
        return {"train/loss": float(loss.detach()), "train/accuracy": float(hits), **metrics}

    def embedder(self, batch_norm: BatchNorm | None) -> Embedder:
        """Return the backbone for new tasks, under a policy or the setting's."""
        policy = batch_norm or self.setting.batch_norm
        averages = averages_for(policy, self.setting, self.moments)
        params = {key: value.detach() for key, value in self.params.items()}
        return Embedder(backbone=self.setting.backbone, params=params, batch_norm=policy, averages=averages)

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimiser and averages."""
        mean = None if self.mean is None else self.mean.cpu().clone()
        return {**self.optimiser.state_dict(), "moments": self.moments.state_dict(), "mean": mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything; raise ValueError where it does not fit."""
        mean = state["mean"]
        if not (mean is None or (isinstance(mean, Tensor) and mean.dim() == 1 and bool(mean.isfinite().all()))):
            raise ValueError("the stored mean of the features is no row of finite numbers")
        self.optimiser.load_state_dict(state)
        self.moments.load_state_dict(state["moments"], self.device)
        self.mean = None if mean is None else mean.to(self.device)
