"""Actuators that are not what the data sheet says: `+gains` makes four things unknown, each by a factor.

| parameter | what it multiplies | of |
|---|---|---|
| kp_factor | stiffness of position servos: gain, and the bias of the position | actuators that pull to a position |
| kd_factor | damping of servos: the bias of the velocity, and the gain of velocity servos | those with such a bias |
| strength_factor | every force, whatever it comes from | all |
| saturation_factor | the largest force | all that have one |

The largest force is the model's `forcerange`; of a motor without one, what its gain makes of the largest control, so
that a factor above 1 leaves it as it is. A servo without a `forcerange` has no largest force. What an actuator does
not have has no parameter. Factors are log-uniform, by default from 0.8 to 1.25; `+gains=LOW..HIGH` gives others to all
four, `=each` one for every actuator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import mujoco
import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.envs.family import Family, MujocoFamily
from metarl.envs.modifiers.dynamics import Scaling, Target, driving, factor_parameter, nominal
from metarl.envs.modifiers.effect import Effect, Scaled, limit
from metarl.envs.modifiers.ranges import PerEach
from metarl.errors import UserError
from metarl.types import Tasks

GAIN, BIAS, LIMIT = "actuator_gainprm", "actuator_biasprm", "actuator_forcerange"
POSITION, VELOCITY = 1, 2
"""Places of a bias that is proportional to them."""


@dataclass(frozen=True, kw_only=True)
class Gains(PerEach):
    """Unknown gains, strength and saturation of the actuators, by factors above 0."""

    word: ClassVar[str] = "gains"
    what: ClassVar[str] = "factors"
    least: ClassVar[float] = math.ulp(0.0)
    usual: ClassVar[tuple[float, float]] = (0.8, 1.25)
    example: ClassVar[str] = "0.5..2"

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "unknown gains, strength and saturation of the actuators"

    def shortest(self, base: Family) -> Gains:
        """Return the same without what is default anyway; of a single actuator there is one factor."""
        assert isinstance(base, MujocoFamily)
        return replace(super().shortest(base), per=self.per if base.model.nu > 1 else "all")

    def effect(self, base: Family) -> Effect:
        """Return the factors of a robot.

        Raises:
            UserError: it has no actuators, or some that are neither motors nor servos.
        """
        assert isinstance(base, MujocoFamily)
        model = base.model
        if model.nu == 0:
            raise UserError(f"got +gains for {base.full_name}: this robot has no actuators, leave it out")
        every = driving(model)
        stiff, damped = (model.actuator_biasprm[:, place] != 0.0 for place in (POSITION, VELOCITY))
        limited, most = _limits(model)
        gains, entries = _rows(model, GAIN), _rows(model, BIAS)
        parts = (
            ("kp_factor", "stiffness of the servos", stiff, {GAIN: gains, BIAS: entries & _places(model, 0, POSITION)}),
            (
                "kd_factor",
                "damping of the servos",
                damped,
                {GAIN: gains & torch.from_numpy(~stiff)[:, None], BIAS: entries & _places(model, VELOCITY)},
            ),
            ("strength_factor", "force of the actuators", every, {GAIN: gains, BIAS: entries}),
            ("saturation_factor", "largest force of the actuators", limited, {LIMIT: _rows(model, LIMIT)}),
        )
        scalings = [self._scaling(name, what, rows, places) for name, what, rows, places in parts if rows.any()]
        return Scaled(*scalings, limited=most)

    def _scaling(
        self, name: str, what: str, rows: Bool[np.ndarray, " N"], places: dict[str, Bool[Tensor, "N D"]]
    ) -> Scaling:
        """Return the factor of some actuators in some places of their fields."""
        each = self.per == "each"
        count = int(rows.sum()) if each else 1
        number = np.where(rows, np.cumsum(rows) - 1 if each else 0, -1)
        targets = tuple(
            Target(field=field, pick=torch.where(chosen, torch.from_numpy(number)[:, None], -1))
            for field, chosen in places.items()
        )
        one = f"a factor for each of {count}" if each else f"one factor for all {int(rows.sum())}"
        return Scaling(parameter=factor_parameter(name, f"{what}: {one}", *self.bounds, count), targets=targets)


def _rows(model: mujoco.MjModel, field: str) -> Bool[Tensor, "N D"]:
    return torch.ones(getattr(model, field).shape, dtype=torch.bool)


def _places(model: mujoco.MjModel, *places: int) -> Bool[Tensor, "N D"]:
    """Return some columns of the biases."""
    chosen = torch.zeros(model.actuator_biasprm.shape, dtype=torch.bool)
    chosen[:, list(places)] = True
    return chosen


def _limits(model: mujoco.MjModel) -> tuple[Bool[np.ndarray, " N"], dict[int, float]]:
    """Return which actuators have a largest force, and that of those for which the model does not say it."""
    said = np.asarray(model.actuator_forcelimited, dtype=bool)
    motors = (
        (model.actuator_gaintype == mujoco.mjtGain.mjGAIN_FIXED)
        & (model.actuator_biastype == mujoco.mjtBias.mjBIAS_NONE)
        & (model.actuator_dyntype == mujoco.mjtDyn.mjDYN_NONE)
        & np.asarray(model.actuator_ctrllimited, dtype=bool)
    )
    largest = np.abs(model.actuator_gainprm[:, 0]) * np.abs(model.actuator_ctrlrange).max(axis=1)
    most = {int(index): float(largest[index]) for index in np.flatnonzero(motors & ~said)}
    return said | motors, most


class Strong(Effect):
    """Actuators that are stronger or weaker than the model's, all in the same way.

    Args:
        base: the family.
        strength: factor on every force.
        saturation: factor on the largest force of those that have one; None leaves it as it is.
    """

    def __init__(self, base: MujocoFamily, strength: float, saturation: float | None) -> None:
        self.factors = {GAIN: strength, BIAS: strength} | ({} if saturation is None else {LIMIT: saturation})
        self.limited = {} if saturation is None else _limits(base.model)[1]

    def prepare(self, model: mujoco.MjModel) -> None:
        """Limit forces of which the model does not say how large they may be."""
        limit(model, self.limited)

    def apply(self, model: mujoco.MjModel, fields: Mapping[str, Tensor], tasks: Tasks) -> dict[str, Tensor]:
        """Return the fields, multiplied."""
        found = dict(fields)
        for field, factor in self.factors.items():
            own = fields[field] if field in fields else torch.stack([nominal(model, field)] * len(tasks))
            found[field] = own * factor
        return found
