"""Pushes: `+push` hits one body at drawn times, in drawn directions along the ground, with a drawn impulse.

In every control step the body is pushed with the probability `push_rate` times the step's seconds (at most 1), by a
constant force through its centre of mass during the whole step, whose impulse is `push_impulse`. Both are parts of the
task; when and whereto is drawn in every step, and evenly over all directions in the plane of x and y. A robot that
moves in the plane of x and z only feels the part along x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from metarl.envs import chance
from metarl.envs.family import Family, MujocoFamily, State
from metarl.envs.modifiers.effect import Effect, salted
from metarl.envs.modifiers.masses import body_of, moving_mass
from metarl.envs.modifiers.ranges import OnBody
from metarl.space.parameter import Parameter
from metarl.types import Tasks

SALT = 0x9054
SLOW, FAST = 0.25, 1.0
"""Change of velocity that the default impulses would give the whole robot, m/s."""
RARELY, OFTEN = 0.2, 1.0
"""Pushes a second."""


@dataclass(frozen=True, kw_only=True)
class Push(OnBody):
    """A body is pushed now and then, by default so that the whole robot would get 0.25 to 1 m/s."""

    word: ClassVar[str] = "push"
    what: ClassVar[str] = "impulses"
    unit: ClassVar[str] = "N s"

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "pushes of unknown strength and rate"

    def usual(self, base: MujocoFamily) -> tuple[float, float]:
        """Return the ends of the training range where they are not given, N s."""
        mass = moving_mass(base.model)
        return SLOW * mass, FAST * mass

    def effect(self, base: Family) -> Effect:
        """Return the pushes of a robot."""
        assert isinstance(base, MujocoFamily)
        low, high = self.bounds(base)
        body = body_of(base, self.word, self.body)
        impulse = Parameter(
            name="push_impulse",
            unit="N s",
            description=f"impulse of a push of {base.model.body(body).name or f'body {body}'}",
            scale="uniform",
            low=low,
            high=high,
            ood=(high, high + 0.5 * (high - low)),
        )
        rate = Parameter(
            name="push_rate",
            unit="1/s",
            description="pushes a second",
            scale="uniform",
            low=RARELY,
            high=OFTEN,
            ood=(OFTEN, 1.5 * OFTEN),
        )
        return Pushed((impulse, rate), body, base.model.nbody, base.step_seconds)


class Pushed(Effect):
    """Forces on one body.

    Args:
        parameters: impulse and rate.
        body: which of the model.
        bodies: of the model.
        seconds: of a control step.
    """

    draws = True

    def __init__(self, parameters: tuple[Parameter, ...], body: int, bodies: int, seconds: float) -> None:
        self.parameters, self.body, self.bodies, self.seconds = parameters, body, bodies, seconds

    def disturb(self, state: State, tasks: Tasks) -> Float[Tensor, "B N 6"]:
        """Return the force of the coming step, which may be none."""
        when, whereto = chance.uniform(*salted(state, SALT), 2).unbind(1)
        strength = tasks["push_impulse"] / self.seconds * (when < tasks["push_rate"] * self.seconds)
        angle = 2.0 * math.pi * whereto
        forces = strength.new_zeros(len(strength), self.bodies, 6)
        forces[:, self.body, 0], forces[:, self.body, 1] = strength * angle.cos(), strength * angle.sin()
        return forces
