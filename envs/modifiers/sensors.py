"""Sensors that are not exact: `+noise`, new in every step, and `+bias`, the same as long as the task is.

Observations are grouped by their unit (`Family.observables`). Each group has a parameter of its own, or with `=each`
every number of an observation; a level of 1 is:

| unit | name | noise, standard deviation | bias |
|---|---|---|---|
| m, dm | position | 0.01 m | 0.01 m |
| rad | angle | 0.01 rad | 0.02 rad |
| m/s, dm/s | velocity | 0.1 m/s | 0.05 m/s |
| rad/s | turn | 0.2 rad/s | 0.1 rad/s |
| m/s² | acceleration | 0.5 m/s² | 0.2 m/s² |
| N | force | 1 N | 1 N |
| N m | torque | 0.1 N m | 0.1 N m |
| 1 | ratio | 0.01 | 0.01 |

`+noise=LOW..HIGH` are levels from 0 (default 0..1), uniform in training, half as far again out of distribution; the
noise is normal and independent over numbers and steps. `+bias=LOW..HIGH` are levels of either sign (default -1..1).
Parts of a unit vector or a quaternion (unit 1) get it like any number, and are not normalised again. What no sensor
measures stays exact: of robot files commands, the previous action, and whether something touches. Reward and ends are
of the true state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs import chance
from metarl.envs.family import Family, State, on
from metarl.envs.modifiers.effect import Effect, salted
from metarl.envs.modifiers.ranges import PerEach
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.types import Tasks

SALT = 0x5E4504


@dataclass(frozen=True)
class Kind:
    """What sensors of one unit are like at level 1, in that unit."""

    name: str
    noise: float
    bias: float


KINDS = {
    "m": Kind("position", 0.01, 0.01),
    "dm": Kind("position_dm", 0.1, 0.1),
    "rad": Kind("angle", 0.01, 0.02),
    "m/s": Kind("velocity", 0.1, 0.05),
    "dm/s": Kind("velocity_dm", 1.0, 0.5),
    "rad/s": Kind("turn", 0.2, 0.1),
    "m/s²": Kind("acceleration", 0.5, 0.2),
    "N": Kind("force", 1.0, 1.0),
    "N m": Kind("torque", 0.1, 0.1),
    "1": Kind("ratio", 0.01, 0.01),
}
"""By the unit of an observation."""


@dataclass(frozen=True, kw_only=True)
class Sensing(PerEach):
    """What noise and bias have in common: a range of levels, for all numbers of a unit or for each number."""

    name: ClassVar[str]
    """Of a value, for its description."""

    def size(self, kind: Kind) -> float:
        """Return what a level of 1 is, in the kind's unit."""
        raise NotImplementedError

    def parts(self, base: Family) -> tuple[tuple[Parameter, ...], Tensor]:
        """Return the parameters, and of every number of an observation which of their components it has.

        What is exact has the one behind them all, which is 0.

        Raises:
            UserError: an observation has a unit that is none of `KINDS`, or nothing is measured.
        """
        low, high = self.bounds
        units = [None if row.exact else row.unit or "1" for row in base.observables]
        for unit, row in zip(units, base.observables, strict=True):
            if unit is not None and unit not in KINDS:
                raise UserError(
                    f"got +{self.word} for {base.full_name}: no {self.word} is known of the unit '{unit}' of "
                    f"'{row.meaning}', only of {', '.join(KINDS)}: leave +{self.word} out, or mend the family's table"
                )
        measured = [unit for unit in units if unit is not None]
        if not measured:
            raise UserError(
                f"got +{self.word} for {base.full_name}: no sensor measures anything that it observes: leave "
                f"+{self.word} out"
            )
        parameters, pick, begun = [], torch.zeros(len(units), dtype=torch.long), 0
        for unit in dict.fromkeys(measured):
            kind, places = KINDS[unit], [index for index, other in enumerate(units) if other == unit]
            size, count = self.size(kind), len(places) if self.per == "each" else 1
            reach = 0.5 * (high - low)
            ood = ((high * size, (high + reach) * size),)
            if self.least < 0.0:
                ood = (((low - reach) * size, low * size), *ood)
            parameter = Parameter(
                name=f"{kind.name}_{self.word}",
                unit="" if unit == "1" else unit,
                description=f"{self.name} of {_whose(units.count(unit), count)}",
                scale="uniform",
                low=low * size,
                high=high * size,
                size=count,
                ood=ood,
            )
            parameters.append(parameter)
            pick[places] = torch.arange(begun, begun + count) if count > 1 else begun
            begun += count
        pick[[index for index, unit in enumerate(units) if unit is None]] = begun
        return tuple(parameters), pick


def _whose(numbers: int, count: int) -> str:
    """Return in words of which numbers one value, or each of `count`, is."""
    return "the only one" if numbers == 1 else f"each of {count}" if count > 1 else f"all {numbers}"


class _Sensed(Effect):
    """Values of the parameters for every number of an observation."""

    def __init__(self, parameters: tuple[Parameter, ...], pick: Tensor) -> None:
        self.parameters, self.pick = parameters, pick
        self.some_exact = int(pick.max()) == sum(parameter.size for parameter in parameters)

    def values(self, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return them, one for every number."""
        columns = [tasks[parameter.name] for parameter in self.parameters]
        columns = [value if value.dim() == 2 else value[:, None] for value in columns]
        if self.some_exact:
            columns.append(torch.zeros_like(columns[0][:, :1]))
        together = torch.cat(columns, 1)
        return together.index_select(1, on(together, self.pick))


class Noisy(_Sensed):
    """Normal noise, new in every step."""

    draws = True

    def observe(self, observation: Float[Tensor, "B O"], state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Add the noise."""
        noise = chance.normal(*salted(state, SALT), observation.shape[1])
        return torch.addcmul(observation, noise, self.values(tasks))


class Biased(_Sensed):
    """An offset that stays."""

    def observe(self, observation: Float[Tensor, "B O"], state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Add the offset."""
        return observation + self.values(tasks)


@dataclass(frozen=True, kw_only=True)
class Noise(Sensing):
    """Every number that is observed has noise, of a standard deviation that is a part of the task."""

    word: ClassVar[str] = "noise"
    usual: ClassVar[tuple[float, float]] = (0.0, 1.0)
    example: ClassVar[str] = "0.5..2"
    name: ClassVar[str] = "standard deviation of the noise"

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "sensors of unknown noise"

    def size(self, kind: Kind) -> float:
        """Return the standard deviation at level 1."""
        return kind.noise

    def effect(self, base: Family) -> Effect:
        """Return the noise of a family."""
        return Noisy(*self.parts(base))


@dataclass(frozen=True, kw_only=True)
class Bias(Sensing):
    """Every number that is observed has an offset that is a part of the task."""

    word: ClassVar[str] = "bias"
    usual: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    least: ClassVar[float] = -float("inf")
    example: ClassVar[str] = "-2..2"
    name: ClassVar[str] = "offset"

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "sensors of unknown offsets"

    def size(self, kind: Kind) -> float:
        """Return the offset at level 1."""
        return kind.bias

    def effect(self, base: Family) -> Effect:
        """Return the offsets of a family."""
        return Biased(*self.parts(base))
