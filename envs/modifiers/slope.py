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
from metarl.envs.modifiers.dynamics import nominal
from metarl.envs.modifiers.effect import Effect
from metarl.envs.modifiers.ranges import Ranged
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.types import Tasks

GRAVITY = "opt.gravity"
STEEPEST = math.pi / 2
"""rad."""


@dataclass(frozen=True, kw_only=True)
class Slope(Ranged):
    """The ground is a slope of unknown angle and heading.

    Raises:
        UserError: the angles are no range within 0 and a right angle.
    """

    word: ClassVar[str] = "slope"
    what: ClassVar[str] = "angles"
    usual: ClassVar[tuple[float, float]] = (0.0, 0.2)
    example: ClassVar[str] = "0..0.3 (rad)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounds[1] > STEEPEST:
            raise UserError(f"got angles of +slope up to {self.bounds[1]:g}: give radians, at most {STEEPEST:.2f}")

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "ground of unknown slope"

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
