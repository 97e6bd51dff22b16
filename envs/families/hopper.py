"""Hopper that must hop forward with unknown dynamics (`hopper-rand-params`).

The robot is Gymnasium's `hopper.xml` (Runge-Kutta integrator), four physics steps of 0.002 s per action, as in
Hopper-v5. An episode ends when the torso sinks to 0.7 m, its pitch leaves -0.2 to 0.2 rad, or any angle (rad) or
velocity (m/s, rad/s) leaves -100 to 100. The reward is v + survival - 0.001 ‖a‖², v the torso's displacement along x
over a control step divided by its 0.008 s.

| variant | task | survival | steps |
|---|---|---|---|
| v5 (default) | factors below | 1 a step, 0 once fallen | 200 |
| pearl19 | the same; 40 train and 10 test tasks | 1 a step | 200 |

The factors multiply every entry of body_mass, body_inertia and geom_friction by 1.5^U(-3, 3) and of dof_damping by
1.3^U(-3, 3); entries that are zero stay out.

Observation, Hopper-v5's (index: meaning, joint, unit): 0 z of the torso, rootz, m; 1 pitch, rooty, rad; 2-4 thigh, leg,
foot, rad; 5 x velocity, rootx, m/s; 6 z velocity, rootz, m/s; 7 pitch velocity, rooty, rad/s; 8-10 velocities of the
three joints, rad/s. Velocities are clipped to -10 to 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.locomotion import RandParams, planar_observables, uniform_start
from metarl.envs.family import Observable, State, Terms
from metarl.envs.models import gymnasium_model
from metarl.space.parameter_space import FixedTasks
from metarl.types import Tasks

RESET_NOISE = 5e-3
"""Half-width of the uniform noise on qpos (m, rad) and qvel (m/s, rad/s), as in v5."""
LOWEST = 0.7
"""Height to which the torso of a healthy robot must not sink, m."""
LARGEST_PITCH = 0.2
"""Largest pitch of a healthy torso, either way, rad."""
LARGEST_STATE = 100.0
"""Largest angle or velocity of a healthy robot, either way, rad, m/s and rad/s."""
LARGEST_VELOCITY = 10.0
"""Observed velocities are clipped to this, either way, m/s and rad/s."""

JOINTS = ("thigh_joint", "leg_joint", "foot_joint")

OBSERVABLES = planar_observables(JOINTS)


@dataclass(frozen=True, kw_only=True)
class HopperRandParams(RandParams):
    """Hop forward as fast as possible with unknown masses, inertias, frictions and dampings."""

    variant: str
    source: str
    survive_fallen: bool
    """Whether the step in which the robot falls earns the reward for survival too."""
    name: str = "hopper-rand-params"
    summary: str = "hop forward with unknown masses, inertias, frictions and dampings, on one leg"
    survive_reward: float = 1.0
    control_weight: float = 1e-3
    horizon: int = 200
    step_seconds: float = 0.008
    frame_skip: int = 4
    action_low: tuple[float, ...] = (-1.0,) * 3
    action_high: tuple[float, ...] = (1.0,) * 3
    action_unit: str = "of the motor's full torque"
    remember: tuple[str, ...] = ("qpos",)
    observables: tuple[Observable, ...] = OBSERVABLES

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's hopper."""
        return gymnasium_model("hopper.xml")

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the standing pose with Hopper-v5's noise."""
        return uniform_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose and clipped velocities."""
        return torch.cat((state["qpos"][:, 1:], state["qvel"].clamp(-LARGEST_VELOCITY, LARGEST_VELOCITY)), dim=1)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return forward speed, survival and effort."""
        survive = torch.full_like(action[:, 0], self.survive_reward)
        return {
            "forward": (state["qpos"][:, 0] - before["qpos"][:, 0]) / self.step_seconds,
            "survive": survive if self.survive_fallen else survive * self.healthy(state),
            "control": -self.control_weight * action.square().sum(1),
        }

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which robots have fallen."""
        return ~self.healthy(state)

    def healthy(self, state: State) -> Bool[Tensor, " B"]:
        """Return whose torso is upright and high enough, with no angle or velocity out of hand."""
        qpos = state["qpos"]
        tame = torch.cat((qpos[:, 2:], state["qvel"]), dim=1).abs().amax(1) < LARGEST_STATE
        return tame & (qpos[:, 1] > LOWEST) & (qpos[:, 2].abs() < LARGEST_PITCH)


FAMILIES = (
    HopperRandParams(
        variant="v5",
        source="Hopper-v5 of Gymnasium with the task of Rothfuss et al. 2018 (ProMP)",
        survive_fallen=False,
    ),
    HopperRandParams(
        variant="pearl19",
        source="Rakelly et al. 2019 (PEARL)",
        survive_fallen=True,
        fixed=FixedTasks(train=40, test=10, seed=0),
    ),
)
"""The first variant of a family is its default."""
