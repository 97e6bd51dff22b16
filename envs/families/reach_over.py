"""`reach-over`: reach an unknown place behind an obstacle of unseen shape without knocking it over.

The arm and its observation are those of bodies/arm.py, the shapes those of bodies/shapes.py: an obstacle stands on the
table with its long side across the way, the hand starts low before it, the goal is low behind it. The goal is a
parameter of the task and is not observed, nor is the obstacle's size: what is felt and what is rewarded tells of them.

| parameter | training | out of distribution |
|---|---|---|
| kind | bar, L, T, plate, block, cylinder | cross, ellipsoid |
| length | 0.12 to 0.18 m; test tasks have held-out lengths | 0.18 to 0.21 m |
| width, branch | 0.2 to 0.35, 0.12 to 0.2 of the length | |
| height | 0.06 to 0.13 m | |
| mass | 0.2 to 0.8 kg | |
| friction | 0.3 to 1 | |
| goal | a disc of 0.06 m about (0.6, 0) m, 0.03 m above the table | |

Reward per step: `reach` is minus the horizontal distance of the grip point from the goal, dm; `lower` is minus half its
difference in height, dm, times a factor that is 1 above the goal and falls off with that distance (so that the way over
the obstacle costs nothing); `knock` is minus 3 times the way the obstacle was moved, dm, minus its lean, 0 upright to 1
flat; `success` is 1 while the grip point is within 0.03 m of the goal and the obstacle within 0.03 m of its place and
within 20 degrees of upright.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.arm import DM, OBJECT, Arm, around, goal_marker, hand_of
from metarl.envs.bodies.shapes import shape_parameters
from metarl.envs.family import Marker, State, Terms, on
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks

GOAL_MIDDLE = (0.6, 0.0)
"""Middle of the disc of goals, x and y in m."""
GOAL_HEIGHT = 0.03
"""Height of the goals above the table, m."""
OBSTACLE = (0.39, 0.0)
"""Where the obstacle stands, x and y in m."""
NEAR = 0.03
"""Distance from the goal that counts as success, m, and how far the obstacle may be moved for it."""
UPRIGHT = math.cos(math.radians(20.0))
"""Least cosine of the obstacle's lean in a success."""
ABOVE = 0.06
"""Horizontal distance over which the height begins to matter, m."""

CENTRE = torch.tensor(GOAL_MIDDLE, dtype=torch.float64)
PLACE = torch.tensor(OBSTACLE, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class ReachOver(Arm):
    """Reach over the obstacle."""

    name: str = "reach-over"
    summary: str = "reach an unknown place behind an obstacle of unseen shape without knocking it over"
    horizon: int = 100
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        goal = Parameter(
            name="goal", unit="m", description=f"where to reach, from {GOAL_MIDDLE}", scale="disc", radius=0.06
        )
        shape = shape_parameters(
            length=(0.12, 0.18), longer=(0.18, 0.21), height=(0.06, 0.13), mass=(0.2, 0.8), friction=(0.3, 1.0)
        )
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (*shape, goal)))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the hand before the obstacle."""
        worlds = len(tasks)
        x, y = around(0.23, 0.01, worlds, generator), around(0.0, 0.05, worlds, generator)
        tips, heading = around(0.02, 0.01, worlds, generator), around(0.0, 0.3, worlds, generator)
        hand = torch.stack([x, y, tips, heading], dim=1)
        place = torch.stack([*PLACE.expand(worlds, 2).unbind(1), around(math.pi / 2, 0.3, worlds, generator)], dim=1)
        return self.start(tasks, hand=hand, opening=around(0.02, 0.015, worlds, generator), place=place)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the (negative) distances, the harm to the obstacle and the bonus."""
        away, height = self.to_goal(state, tasks)
        moved, upright = self.obstacle(state)
        return {
            "reach": -DM * away,
            "lower": -0.5 * DM * height.abs() * (-(away / ABOVE).square()).exp(),
            "knock": -3.0 * DM * moved - (1.0 - upright).clamp_max(1.0),
            "success": self._met(away, height, moved, upright).double(),
        }

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose grip point is at the goal, with the obstacle in its place."""
        return self._met(*self.to_goal(state, tasks), *self.obstacle(state))

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return a ball that holds the grip point in a success."""
        return (goal_marker(tasks["goal"] + CENTRE, GOAL_HEIGHT, NEAR),)

    def _met(self, away: Tensor, height: Tensor, moved: Tensor, upright: Tensor) -> Bool[Tensor, " B"]:
        return (torch.hypot(away, height) < NEAR) & (moved < NEAR) & (upright > UPRIGHT)

    def to_goal(self, state: State, tasks: Tasks) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Return the grip point's horizontal distance from the goal and its height above it, m."""
        grip, _ = hand_of(state["qpos"])
        return (grip[:, :2] - tasks["goal"] - on(grip, CENTRE)).norm(dim=1), grip[:, 2] - GOAL_HEIGHT

    def obstacle(self, state: State) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Return how far the obstacle was moved, m, and the cosine of its lean."""
        x, y = state["qpos"][:, OBJECT + 4 : OBJECT + 6].unbind(1)
        moved = (state["qpos"][:, OBJECT : OBJECT + 2] - on(x, PLACE)).norm(dim=1)
        return moved, 1.0 - 2.0 * (x * x + y * y)


FAMILIES = (ReachOver(),)
"""The first variant of a family is its default."""
