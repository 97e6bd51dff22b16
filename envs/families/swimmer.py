"""Swimmer that must swim at an unknown speed (`swimmer-vel`).

The robot is Gymnasium's `swimmer.xml` (Runge-Kutta integrator), four physics steps of 0.01 s per action, as in
Swimmer-v5. The reward is -abs(v - speed) - 1e-4 ‖a‖², v the displacement of the torso along x over a control step
divided by its 0.04 s. (In the code of ProMP, whose task this is, the error lacks its minus sign and so is rewarded.)

| variant | task | steps |
|---|---|---|
| v5 (default) | speed U[0.1, 0.2] m/s | 200 |

Observation, Swimmer-v5's (index: meaning, joint, unit): 0 angle of the torso in the plane, free_body_rot, rad; 1-2
angles of the two joints, rad; 3-4 x and y velocity of the torso, slider1 and slider2, m/s; 5 its angular velocity,
free_body_rot, rad/s; 6-7 velocities of the two joints, rad/s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.bodies.locomotion import arrow_along_x, speed, uniform_start
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms
from metarl.envs.models import gymnasium_model
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks

RESET_NOISE = 0.1
"""Half-width of the uniform noise on qpos (m, rad) and qvel (m/s, rad/s), as in v5."""
CONTROL_WEIGHT = 1e-4


@dataclass(frozen=True, kw_only=True)
class SwimmerVel(MujocoFamily):
    """Swim at a given speed."""

    variant: str
    source: str
    name: str = "swimmer-vel"
    summary: str = "swim at an unknown speed, with three links"
    horizon: int = 200
    step_seconds: float = 0.04
    frame_skip: int = 4
    action_low: tuple[float, ...] = (-1.0, -1.0)
    action_high: tuple[float, ...] = (1.0, 1.0)
    action_unit: str = "of the motor's full torque"
    remember: tuple[str, ...] = ("qpos",)
    observables: tuple[Observable, ...] = (
        Observable("angle of the torso", "free_body_rot", "rad"),
        Observable("angle of motor1_rot", "motor1_rot", "rad"),
        Observable("angle of motor2_rot", "motor2_rot", "rad"),
        Observable("x velocity of the torso", "slider1", "m/s"),
        Observable("y velocity of the torso", "slider2", "m/s"),
        Observable("angular velocity of the torso", "free_body_rot", "rad/s"),
        Observable("angular velocity of motor1_rot", "motor1_rot", "rad/s"),
        Observable("angular velocity of motor2_rot", "motor2_rot", "rad/s"),
    )
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (speed(0.1, 0.2, beyond=0.1),)))

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's swimmer."""
        return gymnasium_model("swimmer.xml")

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the stretched pose with Swimmer-v5's noise."""
        return uniform_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return angles and velocities."""
        return torch.cat((state["qpos"][:, 2:], state["qvel"]), dim=1)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the (negative) speed error and effort."""
        velocity = (state["qpos"][:, 0] - before["qpos"][:, 0]) / self.step_seconds
        return {
            "velocity": -(velocity - tasks["velocity"]).abs(),
            "control": -CONTROL_WEIGHT * action.square().sum(1),
        }

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow as long as five seconds of the wanted speed."""
        position = torch.nn.functional.pad(state["qpos"][:, :2], (0, 1))
        return (arrow_along_x(position, tasks["velocity"] * 5.0),)


FAMILIES = (
    SwimmerVel(
        variant="v5",
        source="Swimmer-v5 of Gymnasium with the task of Rothfuss et al. 2018 (ProMP), its sign put right",
    ),
)
"""The first variant of a family is its default."""
