"""`push-shape`: push an object of unseen shape, mass and friction to an unknown place on the table.

The arm and its observation are those of bodies/arm.py, the shapes those of bodies/shapes.py. The goal is a parameter of
the task and is not observed, as in the other families of this package: an agent finds it, and how the object slides, by
trial. An episode starts with the object lying ahead of the half-open gripper, at any heading.

| parameter | training | out of distribution |
|---|---|---|
| kind | bar, L, T, plate, block, cylinder | cross, ellipsoid |
| length | 0.07 to 0.14 m; test tasks have held-out lengths | 0.14 to 0.17 m |
| width, branch | 0.2 to 0.35, 0.12 to 0.2 of the length | |
| height | 0.03 to 0.06 m | |
| mass | 0.1 to 0.5 kg | |
| friction | 0.2 to 0.8 | |
| goal | a disc of 0.1 m about (0.54, 0) m | |

Reward per step: `goal` is minus the distance of the object's centre of mass from the goal, dm; `reach` is minus half
the distance, dm, of the grip point from where to push: 0.05 m from the object's centre of mass, straight away from the
goal, nearer where the object is within 0.04 m of it; `success` is 1 there. (With the way to the object itself in its
place some agents push straight ahead only, and never learn to bring the object to the side.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.arm import DM, OBJECT, Arm, any_heading, around, goal_marker, hand_of
from metarl.envs.bodies.shapes import shape_parameters
from metarl.envs.family import Marker, State, Terms, on
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks

GOAL_MIDDLE = (0.54, 0.0)
"""Middle of the disc of goals, x and y in m."""
CENTRE = torch.tensor(GOAL_MIDDLE, dtype=torch.float64)
NEAR = 0.04
"""Distance from the goal that counts as success, m."""
BEHIND = 0.05
"""Way from the object's centre of mass to where it is to be pushed, m."""


@dataclass(frozen=True, kw_only=True)
class PushShape(Arm):
    """Push the object to the goal."""

    name: str = "push-shape"
    summary: str = "push an object of unseen shape, mass and friction to an unknown place"
    horizon: int = 100
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        goal = Parameter(
            name="goal", unit="m", description=f"where to push it, from {GOAL_MIDDLE}", scale="disc", radius=0.1
        )
        shape = shape_parameters(friction=(0.2, 0.8))
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (*shape, goal)))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the object ahead of the gripper."""
        worlds = len(tasks)
        x, y = (around(middle, 0.02, worlds, generator) for middle in (0.4, 0.0))
        heading = any_heading(worlds, generator)
        behind = x - 0.62 * tasks["length"] - around(0.03, 0.01, worlds, generator)
        aside, turn = (around(0.0, half, worlds, generator) for half in (0.02, 0.2))
        hand = torch.stack([behind, y + aside, around(0.012, 0.005, worlds, generator), turn], dim=1)
        opening = around(0.03, 0.01, worlds, generator)
        return self.start(tasks, hand=hand, opening=opening, place=torch.stack([x, y, heading], dim=1))

    def away(self, state: State, tasks: Tasks) -> Float[Tensor, "B 2"]:
        """Return the way from the goal to the object, m."""
        return state["qpos"][:, OBJECT : OBJECT + 2] - goal_of(tasks)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the (negative) distances and the bonus."""
        away = self.away(state, tasks)
        distance = away.norm(dim=1)
        behind = state["qpos"][:, OBJECT : OBJECT + 3].clone()
        behind[:, :2] += BEHIND * away / distance.clamp_min(NEAR)[:, None]
        grip, _ = hand_of(state["qpos"])
        return {
            "goal": -DM * distance,
            "reach": -0.5 * DM * (behind - grip).norm(dim=1),
            "success": (distance < NEAR).double(),
        }

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose object is at the goal."""
        return self.away(state, tasks).norm(dim=1) < NEAR

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return a ball that holds the object's centre of mass in a success."""
        return (goal_marker(goal_of(tasks), 0.0, NEAR),)


def goal_of(tasks: Tasks) -> Float[Tensor, "B 2"]:
    """Return the goals' places on the table, m."""
    return tasks["goal"] + on(tasks["goal"], CENTRE)


FAMILIES = (PushShape(),)
"""The first variant of a family is its default."""
