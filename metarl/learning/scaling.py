"""Observations in any unit: what a policy, and the baseline beside it, are shown of them.

    shown = clip((observation - mean) / (3 deviation), -5, 5)

So nearly all that is shown lies in -1..1. Of numbers as large as 1 deviation gradient steps are so much longer that
adaptation goes too far from its second step on (agents/README.md has the figures).

Pixels of pictures that have an encoder are brought to 0..1 by the bounds of their space instead.

Mean and deviation are those of all that a training has met. They stand still within an iteration, so that all of its
data are of one policy, and take in its episodes at its end. Before anything was met all is shown as 0: what a first
policy does must not hang on the unit either.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.nets.moments import Moments
from metarl.nets.pictures import pixels_in_bounds
from metarl.ranks import ALONE, Ranks
from metarl.types import EnvSpec, Picture, Trajectories

DEVIATIONS = 3.0
"""How many of them are shown as 1."""

LARGEST_SHOWN = 5.0
"""What is shown is cut off there."""


@dataclass(frozen=True)
class Scale:
    """A way to show observations; a value, which no later update changes.

    Attributes:
        mean, deviation: of every number, [O] float64; or [M, O], for every task its own.
        limit: what is shown is cut off there, [O].
        known: whether anything has been met; if not, `deviation` is infinite.
        pictures: whose pixels are shown by their bounds, whatever was met.
    """

    mean: Float[Tensor, "*M O"]
    deviation: Float[Tensor, "*M O"]
    limit: Float[Tensor, " O"]
    known: bool
    pictures: tuple[Picture, ...] = ()
    _there: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __call__(self, observations: Float[Tensor, "*N O"]) -> Float[Tensor, "*N O"]:
        """Return what is shown; where the scale has a task axis, M is the first axis of the observations."""
        key = observations.device, observations.dtype
        if key not in self._there:
            self._there[key] = tuple(x.to(observations) for x in (self.mean, self.deviation, self.limit))
        mean, deviation, limit = self._there[key]
        if mean.dim() == 2:
            shape = (len(mean), *[1] * (observations.dim() - 2), mean.shape[1])
            mean, deviation = mean.view(shape), deviation.view(shape)
        scaled = ((observations - mean) / (DEVIATIONS * deviation)).clamp(-limit, limit)
        return pixels_in_bounds(scaled, observations, self.pictures)

    def described(self) -> dict[str, Any]:
        """Return what is taken off, divided by and cut off (see `Part`)."""
        return {"mean": self.mean, "divisor": DEVIATIONS * self.deviation, "limit": float(self.limit.max())}

    def twin(self, observation: Tensor) -> Scale:
        """Return a scale with numbers of its own, of the device and the type of an observation."""
        mean, deviation, limit = (x.to(observation, copy=True) for x in (self.mean, self.deviation, self.limit))
        return replace(self, mean=mean, deviation=deviation, limit=limit, _there={})

    def take_over(self, other: Scale) -> None:
        """Copy the numbers of another scale into a twin of such a scale."""
        for mine, its in zip(
            (self.mean, self.deviation, self.limit), (other.mean, other.deviation, other.limit), strict=True
        ):
            mine.copy_(its)

    def of(self, experience: Trajectories) -> Trajectories:
        """Return the episodes as they are shown, zero in the padding."""
        return replace(
            experience,
            observations=self(experience.observations) * experience.mask.unsqueeze(-1),
            final_observations=self(experience.final_observations),
        )

    def met(self, experience: Trajectories) -> Scale:
        """Return the scale of a learner that knows none: that of its first episodes, of each task by itself."""
        found = []
        for observations, mask in zip(experience.observations, experience.mask, strict=True):
            moments = Moments(observations.shape[-1])
            moments.update(observations[mask > 0])
            found.append((moments.mean, moments.deviation))
        mean, deviation = (torch.stack(rows) for rows in zip(*found, strict=True))
        return Scale(mean, deviation, self.limit, known=True, pictures=self.pictures)


class Scaler:
    """The scale of a training.

    Args:
        spec: the family's sizes, and the pictures that have an encoder.
        on: whether there is one; if not, observations are shown as they are, but for the pixels of `spec.pictures`.

    Attributes:
        moments: of all that was met; None where it is off.
    """

    def __init__(self, spec: EnvSpec, *, on: bool = True) -> None:
        self.moments = Moments(spec.observation_size) if on else None
        self.size = spec.observation_size
        self.pictures = spec.pictures

    @property
    def scale(self) -> Scale | None:
        """How observations are shown now; None: as they are."""
        if self.moments is None:
            if not self.pictures:
                return None
            # What is shown of all other numbers are they themselves.
            zero = torch.zeros(self.size, dtype=torch.float64)
            return Scale(zero, zero + 1.0 / DEVIATIONS, zero + torch.inf, known=True, pictures=self.pictures)
        known = self.known
        deviation = self.moments.deviation if known else torch.full_like(self.moments.mean, torch.inf)
        return Scale(self.moments.mean, deviation, torch.full_like(deviation, LARGEST_SHOWN), known, self.pictures)

    @property
    def known(self) -> bool:
        """Whether observations can be shown: something was met, or the scale is off."""
        return self.moments is None or bool(self.moments.count.any())

    def update(self, played: list[Trajectories], ranks: Ranks = ALONE) -> None:
        """Take in the episodes of an iteration, as the environment gave them; those of all ranks."""
        if self.moments is not None:
            rows = torch.cat([episodes.observations[episodes.mask > 0] for episodes in played])
            self.moments.update(rows, ranks=ranks)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments under `observation`; nothing where the scale is off."""
        return {} if self.moments is None else {"observation": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the moments from an agent's state.

        Raises:
            ValueError: there are none, or of another size.
        """
        if self.moments is not None:
            if "observation" not in state:
                raise ValueError("there is no scale of observations in it: use scale_observations=False")
            self.moments.load_state_dict(state["observation"])


def shown(scale: Scale | None, experience: Trajectories) -> Trajectories:
    """Return the episodes as they are shown; as they are where there is no scale."""
    return experience if scale is None else scale.of(experience)
