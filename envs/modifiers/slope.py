"""Ground that may be a slope: `+slope` turns gravity by a drawn angle, downhill along a drawn heading.

The model's ground stays as it is, and its z axis stays the one across it: heights are measured from the ground, and
the task's directions are along it. Gravity g along -z becomes g (sin a cos h, sin a sin h, -cos a). A robot that moves
in the plane of x and z only feels the part along x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from metarl.envs.family import Family, MujocoFamily
from metarl.envs.modifiers.arguments import Arguments, between, read
from metarl.envs.modifiers.dynamics import nominal
from metarl.envs.modifiers.effect import Effect
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.types import Tasks

GRAVITY = "opt.gravity"
STEEPEST = math.pi / 2
"""rad."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """The ground is a slope of unknown angle and heading.

    Raises:
        UserError: the angles are no range within 0 and a right angle.
    """

    low: float | None = None
    """Smallest angle in training, rad; 0 if not given."""
    high: float | None = None
    """Largest angle in training, rad; 0.2 if not given."""

    word: ClassVar[str] = "slope"

    def __post_init__(self) -> None:
        between(self.word, self.low, self.high, self.bounds, 0.0, "angles")
        if self.bounds[1] > STEEPEST:
            raise UserError(f"got angles of +slope up to {self.bounds[1]:g}: give radians, at most {STEEPEST:.2f}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the training range, rad."""
        return 0.0 if self.low is None else self.low, 0.2 if self.high is None else self.high

    @classmethod
    def read(cls, text: str) -> Slope:
        """Return it from its text in a name."""
        given = read(text, ("+slope", "+slope=0..0.3 (rad)"), ())
        return cls(low=given.low, high=given.high)

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "ground of unknown slope"

    @property
    def arguments(self) -> Arguments:
        """What stands in a name."""
        return Arguments(self.low, self.high)

    def shortest(self, base: Family) -> Slope:
        """Return the same without what is default anyway."""
        return Slope() if Slope().bounds == self.bounds else self

    def effect(self, base: Family) -> Effect:
        """Return the slope of a robot.

        Raises:
            UserError: it feels no gravity, or one that is not along -z.
        """
        assert isinstance(base, MujocoFamily)
        x, y, z = base.model.opt.gravity
        if x != 0.0 or y != 0.0 or z >= 0.0:
            raise UserError(
                f"got +slope for {base.full_name}, whose gravity is {x:g}, {y:g}, {z:g} m/s²: only one along -z is "
                "turned. Leave +slope out"
            )
        low, high = self.bounds
        angle = Parameter(
            name="slope_angle",
            unit="rad",
            description="angle of the ground",
            scale="uniform",
            low=low,
            high=high,
            ood=() if high == STEEPEST else (high, min(STEEPEST, high + 0.5 * (high - low))),
        )
        heading = Parameter(
            name="slope_heading", unit="", description="x and y of the way downhill", scale="sphere", size=2
        )
        return Turned((angle, heading))


class Turned(Effect):
    """Gravity that is turned."""

    def __init__(self, parameters: tuple[Parameter, ...]) -> None:
        self.parameters = parameters

    def apply(self, model: mujoco.MjModel, fields: Mapping[str, Tensor], tasks: Tasks) -> dict[str, Tensor]:
        """Turn what the worlds have otherwise, along -z."""
        pull = fields[GRAVITY] if GRAVITY in fields else nominal(model, GRAVITY).expand(len(tasks), -1)
        angle = tasks["slope_angle"][:, None]
        turned = torch.cat((-pull[:, 2:] * angle.sin() * tasks["slope_heading"], pull[:, 2:] * angle.cos()), 1)
        return {**fields, GRAVITY: turned}
