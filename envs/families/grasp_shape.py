"""`grasp-shape`: grasp and lift an object of unseen shape, mass and friction.

The arm and its observation are those of bodies/arm.py, the shapes those of bodies/shapes.py. An episode starts with the
open hand above the object, which is turned by up to 0.4 rad and up to 0.02 m off along x and y.

| parameter | training | out of distribution |
|---|---|---|
| kind | bar, L, T, plate, block, cylinder | cross, ellipsoid |
| length | 0.07 to 0.14 m; test tasks have held-out lengths | 0.14 to 0.17 m |
| width, branch | 0.2 to 0.35, 0.12 to 0.2 of the length | |
| height | 0.03 to 0.06 m | |
| mass | 0.1 to 0.5 kg | |
| friction | 0.5 to 1.2 | |

Reward per step: `reach` is minus the distance of the object's centre of mass from the grip point, dm; `close` is how
far the hand is closed, 0 to 1, times how near that distance is to zero, 1 at 0 falling to 0 at 0.04 m; `lift` is the
clearance of the object from the table, dm, 0 to 1, times 4; `success` is 1 while the task is met: the clearance is
0.05 m or more and the centre of mass within 0.08 m of the grip point.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.arm import DM, LEFT, OBJECT, OPEN, Arm, around, from_grip
from metarl.envs.bodies.shapes import clearance, shape_parameters
from metarl.envs.family import State, Terms
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks

LIFTED = 0.05
"""Clearance that counts as success, m."""
HELD = 0.08
"""Distance from the grip point up to which an object may be in the gripper, m."""
CLOSE = 0.04
"""Distance from the grip point within which closing the hand is rewarded, m."""


@dataclass(frozen=True, kw_only=True)
class GraspShape(Arm):
    """Grasp the object and lift it."""

    name: str = "grasp-shape"
    summary: str = "grasp and lift an object of unseen shape, mass and friction"
    horizon: int = 100
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", ParameterSpace(self.full_name, shape_parameters(friction=(0.5, 1.2))))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the open hand above the object."""
        worlds = len(tasks)
        x, y = around(0.45, 0.03, worlds, generator), around(0.0, 0.03, worlds, generator)
        off_x, off_y = (around(0.0, 0.02, worlds, generator) for _ in range(2))
        tips, heading = around(0.085, 0.015, worlds, generator), around(0.0, 0.4, worlds, generator)
        turn = around(0.0, 0.4, worlds, generator)
        hand = torch.stack([x + off_x, y + off_y, tips, heading], dim=1)
        place = torch.stack([x, y, heading + turn], dim=1)
        return self.start(tasks, hand=hand, opening=around(0.055, 0.004, worlds, generator), place=place)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return what leads to the grasp, the height and the bonus."""
        away, height = from_grip(state), self.height(state, tasks)
        closed = 1.0 - (state["qpos"][:, LEFT] / OPEN).clamp(0.0, 1.0)
        return {
            "reach": -DM * away,
            "close": closed * (1.0 - away / CLOSE).clamp_min(0.0),
            "lift": 4.0 * (DM * height).clamp(0.0, 1.0),
            "success": self._met(away, height).double(),
        }

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose object is lifted."""
        return self._met(from_grip(state), self.height(state, tasks))

    def _met(self, away: Tensor, height: Tensor) -> Bool[Tensor, " B"]:
        return (height >= LIFTED) & (away < HELD)

    def height(self, state: State, tasks: Tasks) -> Float[Tensor, " B"]:
        """Return how high the object is above the table, m."""
        qpos = state["qpos"]
        return clearance(tasks, qpos[:, OBJECT : OBJECT + 3], qpos[:, OBJECT + 3 : OBJECT + 7])


FAMILIES = (GraspShape(),)
"""The first variant of a family is its default."""
