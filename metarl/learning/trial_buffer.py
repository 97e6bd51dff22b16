"""A buffer of the latest trials, to learn again from whole ones.

All ranks hold the trials of all of them: what is drawn of them, and learned, is the same however many ranks there are.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.learning.trials import Trials
from metarl.ranks import Ranks
from metarl.types import EnvSpec

PARTS = ("observations", "actions", "rewards", "ended", "mask", "finals")
"""What is kept of trials, as they were met; `finals` are the last observations of their episodes."""


class TrialBuffer:
    """The latest trials, at most N.

    Args:
        size: N.
        spec: the family's sizes.
        episodes: of a trial, n.
        device: where they are kept.

    Attributes:
        parts: by name, [N, ...]; trials are padded to the longest that there can be. None before the first.
        lengths: of the trials, [N] on the CPU.
        count: how many trials are in it.
        place: of the next one; the oldest is there once all places are taken.
    """

    def __init__(self, size: int, spec: EnvSpec, episodes: int, device: torch.device) -> None:
        steps = episodes * spec.horizon
        self.size, self.device = size, device
        self.shapes: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(PARTS, (steps,)),
            "observations": (steps, spec.observation_size),
            "actions": (steps, spec.action_size),
            "finals": (episodes, spec.observation_size),
        }
        self.parts: dict[str, Tensor] | None = None
        self.lengths = torch.zeros(size, dtype=torch.long)
        self.count, self.place = 0, 0

    def _room(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {
            name: torch.zeros(self.size, *shape, dtype=dtype, device=self.device) for name, shape in self.shapes.items()
        }

    def add(self, trials: Trials, finals: Float[Tensor, "M n O"], ranks: Ranks) -> None:
        """Put trials of all ranks in the places of the oldest; of more than N the last N."""
        if self.parts is None:
            self.parts = self._room(trials.rewards.dtype)
        count = len(finals) * ranks.size
        own = ranks.rows(count)
        places = torch.arange(self.place, self.place + min(count, self.size), device=self.device) % self.size
        for name, part in self.parts.items():
            rows = finals if name == "finals" else getattr(trials, name)
            # Each rank's own stand where the others have zeros.
            whole = part.new_zeros(count, *part.shape[1:])
            whole[own.start : own.stop, : rows.shape[1]] = rows
            part[places] = ranks.sum(whole)[-len(places) :]
        self.lengths = self.parts["mask"].sum(1).long().cpu()
        self.count = min(self.count + count, self.size)
        self.place = (self.place + len(places)) % self.size

    def take(self, rows: Int[Tensor, " N"], longest: int) -> tuple[Trials, Float[Tensor, "N n O"]]:
        """Return some trials, padded to `longest` steps, and the last observations of their episodes."""
        assert self.parts is not None
        found = {name: part[rows] for name, part in self.parts.items()}
        finals = found.pop("finals")
        found = {name: part[:, :longest] for name, part in found.items()}
        # Whether the time limit cut them matters to values alone.
        never = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
        return Trials(**found, final=finals[:, -1], cut=never), finals

    def state_dict(self) -> dict[str, Any]:
        """Return the trials that are in it, in their places."""
        kept = self.parts or {}
        return {
            "trials": {name: part[: self.count].to("cpu", copy=True) for name, part in kept.items()},
            "place": self.place,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the trials.

        Raises:
            ValueError: they are others than these settings make.
        """
        trials, place = state["trials"], state["place"]
        self.parts, self.count, self.place = None, 0, 0
        if not trials:
            return
        count = len(trials["mask"])
        found = {name: tuple(trials[name].shape) for name in PARTS}
        wanted = {name: (count, *self.shapes[name]) for name in PARTS}
        # Where not all places are taken, the next trial comes behind those that are.
        if found != wanted or count > self.size or place != (count if count < self.size else place % self.size):
            raise ValueError(
                f"the stored trials are {found} with place {place}: there is room for {self.size} of {self.shapes}"
            )
        self.parts = self._room(trials["mask"].dtype)
        for name, part in self.parts.items():
            part[:count] = trials[name].to(self.device)
        self.lengths = self.parts["mask"].sum(1).long().cpu()
        self.count, self.place = count, place
