"""Ant that must go to a point which it cannot see (`ant-goal`).

The robot, its actions and its costs are those of `ant.py`. An episode never ends early, in the v5 variant too: every
step away from the goal costs, so that an early end would pay.

| variant | task | control cost | contact cost | survival | steps |
|---|---|---|---|---|---|
| v5 (default) | goal uniform in a disc of 3 m | 0.5 ‖a‖² | 5e-4 ‖clip(cfrc_ext)‖² | 1 a step, 0 when fallen | 200 |
| promp18 | goal uniform in a disc of 3 m | 0.1 ‖a‖² | 5e-4 ‖clip(cfrc_ext)‖² | none | 200 |
| pearl19 | as promp18; 150 train and 30 test tasks | 0.1 ‖a‖² | 5e-4 ‖clip(cfrc_ext)‖² | none | 200 |

The reward of the task is -‖xy - goal‖1, m, of the torso after the step. (The published code reads the torso's `xpos`,
which lags one physics step of 0.01 s.) A goal counts as reached within 0.5 m of the torso, as in AntMaze of D4RL.

Observation (index: meaning, joint, unit): 0-1 x and y of the torso, root, m; 2-28 the 27 of `ant.py`. This is Ant-v5's
with positions and without forces, bit for bit; the published variants saw the clipped contact forces too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.families.ant import OBSERVABLES, TORSO_XY, Ant
from metarl.envs.family import Marker, State, Terms, View
from metarl.space.parameter_space import FixedTasks, Parameter, ParameterSpace
from metarl.types import Tasks

GOAL_RADIUS = 3.0
"""Radius of the disc of goals, m; a ring of 1 m around it is out of distribution."""
GOAL_TOLERANCE = 0.5
"""Distance of the torso from the goal within which the goal is reached, m."""
FROM_ABOVE = View(centre=(0.0, 0.0, 0.0), distance=11.0, elevation=-65.0)


@dataclass(frozen=True, kw_only=True)
class AntGoal(Ant):
    """Go to an unseen point and stay there."""

    fixed: FixedTasks | None = None
    name: str = "ant-goal"
    summary: str = "go to an unseen point in the plane, on four legs"
    fields: tuple[str, ...] = ("qpos", "qvel", "cfrc_ext")
    remember: tuple[str, ...] = ()
    camera: str | View = FROM_ABOVE

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "observables", (*TORSO_XY, *OBSERVABLES))

    def make_space(self) -> ParameterSpace:
        """Return the goal."""
        goal = Parameter(
            name="goal",
            unit="m",
            description="x and y of the goal",
            scale="disc",
            radius=GOAL_RADIUS,
            ood=(GOAL_RADIUS, GOAL_RADIUS + 1.0),
        )
        return ParameterSpace(self.full_name, (goal,), fixed=self.fixed)

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return position, pose and velocities."""
        return torch.cat((state["qpos"], state["qvel"]), dim=1)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the (negative) distance to the goal along both axes, and the costs."""
        distance = (state["qpos"][:, :2] - tasks["goal"]).abs().sum(1)
        return {"distance": -distance, **self.costs(state, action)}

    def terminated(self, state: State, tasks: Tasks) -> None:
        """Return None: an ant that has fallen lies there until the time is up."""

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose torso is at the goal."""
        return (state["qpos"][:, :2] - tasks["goal"]).norm(dim=1) < GOAL_TOLERANCE

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return a ball at the goal."""
        return (Marker(position=torch.nn.functional.pad(tasks["goal"], (0, 1)), radius=0.2),)


FAMILIES = (
    AntGoal(
        variant="v5",
        source="Ant-v5 of Gymnasium with the task of Rothfuss et al. 2018 (ProMP)",
        control_weight=0.5,
        survive_reward=1.0,
        survive_fallen=False,
    ),
    AntGoal(
        variant="promp18",
        source="Rothfuss et al. 2018 (ProMP)",
        control_weight=0.1,
        survive_reward=0.0,
        survive_fallen=True,
    ),
    AntGoal(
        variant="pearl19",
        source="Rakelly et al. 2019 (PEARL)",
        control_weight=0.1,
        survive_reward=0.0,
        survive_fallen=True,
        fixed=FixedTasks(train=150, test=30, seed=0),
    ),
)
"""The first variant of a family is its default."""
