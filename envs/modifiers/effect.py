"""What a modifier does to a family, in the places where a family can be changed.

A modifier of a name (`Noise`, `Delay`, ...) is plain data; its `effect` on a family is one of these. Whatever an
effect does not say is left as it is, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs import chance
from metarl.envs.family import State
from metarl.envs.modifiers.dynamics import Scaling, scaled
from metarl.space.parameter import Parameter
from metarl.types import Tasks

KEY, STEP = "+key", "+step"
"""Carried fields of families whose modifiers draw: the key of an episode, and the control step of now."""


class Effect:
    """What a modifier does.

    Attributes:
        parameters: the task parameters that it adds.
        carried: the state fields that it carries from step to step.
        draws: whether it needs random numbers of every step.
    """

    parameters: tuple[Parameter, ...] = ()
    carried: tuple[str, ...] = ()
    draws: bool = False

    def prepare(self, model: mujoco.MjModel) -> None:
        """Change a model of the family's own in what cannot differ between worlds."""

    def apply(self, model: mujoco.MjModel, fields: Mapping[str, Tensor], tasks: Tasks) -> dict[str, Tensor]:
        """Return the model fields of every world, from those that it has otherwise."""
        return dict(fields)

    def start(self, worlds: int) -> dict[str, Tensor]:
        """Return the carried fields of new episodes."""
        return {}

    def command(
        self, action: Float[Tensor, "B A"], state: State, tasks: Tasks
    ) -> tuple[Float[Tensor, "B A"], dict[str, Tensor]]:
        """Return what is passed on of an action towards the actuators, and the carried fields that change with it."""
        return action, {}

    def disturb(self, state: State, tasks: Tasks) -> Float[Tensor, "B N 6"] | None:
        """Return forces on bodies, which are added to those of others."""
        return None

    def observe(self, observation: Float[Tensor, "B O"], state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return what is passed on of an observation towards the agent."""
        return observation


class Scaled(Effect):
    """Factors of model fields.

    Args:
        scalings: the factors and where they go, one parameter each.
        limited: largest forces of actuators of which the model does not say them.
    """

    def __init__(self, *scalings: Scaling, limited: Mapping[int, float] | None = None) -> None:
        self.scalings, self.limited = scalings, dict(limited or {})
        self.parameters = tuple(scaling.parameter for scaling in scalings)

    def prepare(self, model: mujoco.MjModel) -> None:
        """Limit the actuators' forces."""
        limit(model, self.limited)

    def apply(self, model: mujoco.MjModel, fields: Mapping[str, Tensor], tasks: Tasks) -> dict[str, Tensor]:
        """Return the fields, scaled."""
        return scaled(model, fields, self.scalings, tasks)


def limit(model: mujoco.MjModel, most: Mapping[int, float]) -> None:
    """Limit the forces of actuators of a model.

    Args:
        model: is changed.
        most: number of an actuator -> its largest force.
    """
    for index, force in most.items():
        model.actuator_forcelimited[index] = True
        model.actuator_forcerange[index] = -force, force


def salted(state: State, salt: int) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """Return key and step of an effect's own random numbers.

    Args:
        state: with the key and the step of the episode.
        salt: one a kind of effect, so that no two have the same numbers.
    """
    return state[KEY] ^ salt, state[STEP]


def first_keys(generator: torch.Generator, worlds: int) -> dict[str, Tensor]:
    """Return the fields that all effects which draw have in common."""
    return {KEY: chance.keys(generator, worlds), STEP: torch.zeros(worlds, dtype=torch.long)}
