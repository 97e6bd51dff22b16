"""Walker2d that must walk at an unknown speed (`walker2d-vel`) or with unknown dynamics (`walker2d-rand-params`).

The robot is Gymnasium's `walker2d_v5.xml` (v5) or `walker2d.xml` (the others: the right foot has a friction of 0.9 in
place of 1.9, as in the simulators of those papers), Runge-Kutta integrator, physics steps of 0.002 s. An episode ends
when the torso's height leaves 0.8 to 2.0 m or its pitch -1 to 1 rad. Velocity v is the torso's displacement over a
control step divided by its duration. Every variant costs 0.001 ‖a‖² and takes 200 steps.

| variant | reward of the task | task | survival | physics steps |
|---|---|---|---|---|
| walker2d-vel@v5 (default) | 1 - abs(v - speed) | speed U[0, 2] m/s | 1 a step, 0 once fallen | 4 |
| walker2d-vel@promp18 | -abs(v - speed) | speed U[0, 10] m/s | 15 a step | 8 |
| walker2d-rand-params@v5 (default) | v | factors below | 1 a step, 0 once fallen | 4 |
| walker2d-rand-params@pearl19 | v | the same; 40 train and 10 test tasks | 1 a step | 5 |
| walker2d-rand-params@varibad20 | v | the same, 2 episodes a trial | 1 a step | 4 |

In walker2d-vel a robot that stands still never earns less than one that has fallen, in either variant: falling would
pay otherwise. The factors of walker2d-rand-params multiply every entry of body_mass, body_inertia and geom_friction by
1.5^U(-3, 3) and of dof_damping by 1.3^U(-3, 3); entries that are zero stay out.

Observation, Walker2d-v5's (index: meaning, joint, unit): 0 z of the torso, rootz, m; 1 pitch, rooty, rad; 2-4 right
thigh, leg, foot, rad; 5-7 left thigh, leg, foot, rad; 8 x velocity, rootx, m/s; 9 z velocity, rootz, m/s; 10 pitch
velocity, rooty, rad/s; 11-16 velocities of the six joints, rad/s. Velocities are clipped to -10 to 10.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.locomotion import RandParams, arrow_along_x, planar_observables, speed, uniform_start
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms
from metarl.envs.models import gymnasium_model
from metarl.space.parameter_space import FixedTasks, ParameterSpace
from metarl.types import Tasks

RESET_NOISE = 5e-3
"""Half-width of the uniform noise on qpos (m, rad) and qvel (m/s, rad/s), as in v5."""
LOWEST, HIGHEST = 0.8, 2.0
"""Height of the torso between which the robot counts as healthy, m."""
LARGEST_PITCH = 1.0
"""Largest pitch of a healthy torso, either way, rad."""
LARGEST_VELOCITY = 10.0
"""Observed velocities are clipped to this, either way, m/s and rad/s."""

JOINTS = ("thigh_joint", "leg_joint", "foot_joint", "thigh_left_joint", "leg_left_joint", "foot_left_joint")

OBSERVABLES = planar_observables(JOINTS)


@dataclass(frozen=True, kw_only=True)
class Walker2d(MujocoFamily):
    """The robot, its observation, its costs and its fall; what it is rewarded for is the subclass's."""

    variant: str
    source: str
    file: str
    """Model among Gymnasium's."""
    survive_reward: float
    """Reward of every step."""
    survive_fallen: bool
    """Whether the step in which the robot falls earns it too."""
    control_weight: float = 1e-3
    horizon: int = 200
    step_seconds: float = 0.008
    frame_skip: int = 4
    action_low: tuple[float, ...] = (-1.0,) * 6
    action_high: tuple[float, ...] = (1.0,) * 6
    action_unit: str = "of the motor's full torque"
    remember: tuple[str, ...] = ("qpos",)
    observables: tuple[Observable, ...] = OBSERVABLES
    space: ParameterSpace = field(init=False)

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's walker."""
        return gymnasium_model(self.file)

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the standing pose with Walker2d-v5's noise."""
        return uniform_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose and clipped velocities."""
        return torch.cat((state["qpos"][:, 1:], state["qvel"].clamp(-LARGEST_VELOCITY, LARGEST_VELOCITY)), dim=1)

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which robots have fallen or jumped off."""
        return ~self.healthy(state)

    def healthy(self, state: State) -> Bool[Tensor, " B"]:
        """Return whose torso is upright at a healthy height."""
        height, pitch = state["qpos"][:, 1], state["qpos"][:, 2]
        return (height > LOWEST) & (height < HIGHEST) & (pitch.abs() < LARGEST_PITCH)

    def velocity(self, before: State, state: State) -> Float[Tensor, " B"]:
        """Return the torso's mean x velocity over the control step, m/s."""
        return (state["qpos"][:, 0] - before["qpos"][:, 0]) / self.step_seconds

    def costs(self, state: State, action: Float[Tensor, "B A"]) -> Terms:
        """Return the reward for survival and the (negative) one for effort."""
        survive = torch.full_like(action[:, 0], self.survive_reward)
        return {
            "survive": survive if self.survive_fallen else survive * self.healthy(state),
            "control": -self.control_weight * action.square().sum(1),
        }


@dataclass(frozen=True, kw_only=True)
class Walker2dVel(Walker2d):
    """Walk at a given speed."""

    top_speed: float
    """Upper end of the training range, m/s."""
    bonus: float
    """What a step without any speed error earns."""
    name: str = "walker2d-vel"
    summary: str = "walk at an unknown speed, on two legs"

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (speed(0.0, self.top_speed, beyond=1.0),)))

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the bonus less the speed error, survival and effort."""
        error = (self.velocity(before, state) - tasks["velocity"]).abs()
        return {"velocity": self.bonus - error, **self.costs(state, action)}

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow as long as a third of a second of the wanted speed."""
        x, z = state["qpos"][:, 0], state["qpos"][:, 1]
        return (arrow_along_x(torch.stack((x, torch.zeros_like(x), z), dim=1), tasks["velocity"] / 3.0),)


@dataclass(frozen=True, kw_only=True)
class Walker2dRandParams(RandParams, Walker2d):
    """Walk forward as fast as possible with unknown masses, inertias, frictions and dampings."""

    name: str = "walker2d-rand-params"
    summary: str = "walk forward with unknown masses, inertias, frictions and dampings, on two legs"

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return forward speed, survival and effort."""
        return {"forward": self.velocity(before, state), **self.costs(state, action)}


V5, OLD = "walker2d_v5.xml", "walker2d.xml"

FAMILIES = (
    Walker2dVel(
        variant="v5",
        source="Walker2d-v5 of Gymnasium with the task form of Finn et al. 2017 (MAML)",
        file=V5,
        survive_reward=1.0,
        survive_fallen=False,
        top_speed=2.0,
        bonus=1.0,
    ),
    Walker2dVel(
        variant="promp18",
        source="code of Rothfuss et al. 2018 (ProMP)",
        file=OLD,
        survive_reward=15.0,
        survive_fallen=True,
        top_speed=10.0,
        bonus=0.0,
        step_seconds=0.016,
        frame_skip=8,
    ),
    Walker2dRandParams(
        variant="v5",
        source="Walker2d-v5 of Gymnasium with the task of Rothfuss et al. 2018 (ProMP)",
        file=V5,
        survive_reward=1.0,
        survive_fallen=False,
    ),
    Walker2dRandParams(
        variant="pearl19",
        source="Rakelly et al. 2019 (PEARL)",
        file=OLD,
        survive_reward=1.0,
        survive_fallen=True,
        step_seconds=0.01,
        frame_skip=5,
        fixed=FixedTasks(train=40, test=10, seed=0),
    ),
    Walker2dRandParams(
        variant="varibad20",
        source="Zintgraf et al. 2020 (VariBAD)",
        file=OLD,
        survive_reward=1.0,
        survive_fallen=True,
    ),
)
"""The first variant of a family is its default."""
