"""Reacher: an arm of two links in the plane that must touch a goal which it cannot see (`reacher-goal`).

The robot is Gymnasium's `reacher.xml` (Runge-Kutta integrator), two physics steps of 0.01 s per action, as in
Reacher-v5. The reward is -‖fingertip - goal‖ - ‖a‖², the distance in m. An episode never ends early. The goal is
reached while the balls of fingertip and goal touch, at 0.019 m between their centres.

| variant | task | steps |
|---|---|---|
| v5 (default) | goal uniform in a disc of 0.2 m around the shoulder | 50 |

In Reacher-v5 the goal is drawn at every reset and seen; here it is the task. Out of distribution lies the ring between
0.2 m and the 0.21 m that the arm can reach. The target's body in the model touches nothing, rests where it is and is
not drawn: a marker shows the goal.

Observation (index: meaning, name in the model, unit): 0-1 cosine of the angles of joint0 and joint1, 1; 2-3 their
sine, 1; 4-5 their velocities, rad/s; 6-7 x and y of the fingertip, m. But for rounding, these are Reacher-v5's numbers
0-3 and 6-7, and its last two with the goal added back. The fingertip lags one physics step, see `MujocoFamily`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms, View
from metarl.envs.models import gymnasium_model
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks

ANGLE_NOISE = 0.1
"""Half-width of the uniform noise on the two angles, rad, as in v5."""
VELOCITY_NOISE = 5e-3
"""Half-width of the uniform noise on their velocities, rad/s, as in v5."""
GOAL_RADIUS = 0.2
"""Radius of the disc of goals, m."""
REACH = 0.21
"""Distance of the fingertip from the shoulder with the arm stretched, m."""
GOAL_SIZE, GOAL_HEIGHT = 0.009, 0.01
"""Radius of the goal's ball and its height, which is the arm's, m."""
TOUCH = 0.01 + GOAL_SIZE
"""Radii of the balls of fingertip and goal together, m."""
FINGERTIP = 3
"""Index of the fingertip among the bodies (0 is the world)."""
FROM_ABOVE = View(centre=(0.0, 0.0, 0.0), distance=0.75, elevation=-90.0)


@dataclass(frozen=True, kw_only=True)
class ReacherGoal(MujocoFamily):
    """Move the fingertip to an unseen goal."""

    variant: str
    source: str
    name: str = "reacher-goal"
    summary: str = "touch an unseen goal with an arm of two links"
    horizon: int = 50
    step_seconds: float = 0.02
    frame_skip: int = 2
    action_low: tuple[float, ...] = (-1.0, -1.0)
    action_high: tuple[float, ...] = (1.0, 1.0)
    action_unit: str = "of the motor's full torque"
    fields: tuple[str, ...] = ("qpos", "qvel", "xpos")
    camera: str | View = FROM_ABOVE
    observables: tuple[Observable, ...] = (
        Observable("cosine of the angle of joint0", "joint0", "1"),
        Observable("cosine of the angle of joint1", "joint1", "1"),
        Observable("sine of the angle of joint0", "joint0", "1"),
        Observable("sine of the angle of joint1", "joint1", "1"),
        Observable("angular velocity of joint0", "joint0", "rad/s"),
        Observable("angular velocity of joint1", "joint1", "rad/s"),
        Observable("x of the fingertip", "fingertip", "m"),
        Observable("y of the fingertip", "fingertip", "m"),
    )
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        goal = Parameter(
            name="goal",
            unit="m",
            description="x and y of the goal",
            scale="disc",
            radius=GOAL_RADIUS,
            ood=(GOAL_RADIUS, REACH),
        )
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (goal,)))

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's reacher."""
        spec = gymnasium_model("reacher.xml")
        spec.geom("target").rgba = [0.0, 0.0, 0.0, 0.0]
        return spec

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the stretched arm with Reacher-v5's noise."""
        noise = torch.rand(len(tasks), 4, generator=generator, dtype=torch.float64) * 2.0 - 1.0
        qpos = torch.from_numpy(self.model.qpos0).repeat(len(tasks), 1)
        qpos[:, :2] += ANGLE_NOISE * noise[:, :2]
        qvel = torch.zeros_like(qpos)
        qvel[:, :2] = VELOCITY_NOISE * noise[:, 2:]
        return {"qpos": qpos, "qvel": qvel}

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return the arm's pose and velocities."""
        angles = state["qpos"][:, :2]
        return torch.cat((angles.cos(), angles.sin(), state["qvel"][:, :2], state["xpos"][:, FINGERTIP, :2]), dim=1)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the (negative) distance to the goal and effort."""
        return {"distance": -self.distance(state, tasks), "control": -action.square().sum(1)}

    def distance(self, state: State, tasks: Tasks) -> Float[Tensor, " B"]:
        """Return the distance of the fingertip from the goal, m."""
        return torch.linalg.vector_norm(state["xpos"][:, FINGERTIP, :2] - tasks["goal"], dim=1)

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose fingertip touches the goal."""
        return self.distance(state, tasks) < TOUCH

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return a ball at the goal."""
        height = torch.full_like(tasks["goal"][:, :1], GOAL_HEIGHT)
        return (Marker(position=torch.cat((tasks["goal"], height), dim=1), radius=GOAL_SIZE),)


FAMILIES = (
    ReacherGoal(
        variant="v5",
        source="Reacher-v5 of Gymnasium with the goal as the task",
    ),
)
"""The first variant of a family is its default."""
