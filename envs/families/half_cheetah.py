"""HalfCheetah that must run in an unknown direction (`half-cheetah-dir`) or at an unknown speed (`half-cheetah-vel`).

The robot is Gymnasium's `half_cheetah.xml`, five physics steps of 0.01 s per action, as in HalfCheetah-v5. Velocity is
the torso's displacement over a control step divided by its 0.05 s (the 2017 code took the centre-of-mass velocity of
its own simulator: absolute returns of its tables do not carry over, gaps closed do).

| variant | goal | control cost | steps | observation |
|---|---|---|---|---|
| v5 (default) | direction ±1; speed U[0, 2] m/s | 0.1 | 200 | HalfCheetah-v5's 17 |
| maml17 | direction ±1; speed U[0, 2] m/s | 0.05 | 200 | the 17 and the torso's x |
| promp18 | speed U[0, 3] m/s | 0.05 | 100 | 17 |
| pearl19 | speed U[0, 3] m/s, 100 train and 30 test tasks | 0.05 | 200 | 17 |
| varibad20 | speed U[0, 3] m/s, 2 episodes a trial | 0.05 | 200 | 17 |

Observation (index: meaning, joint, unit): 0 z of the torso, rootz, m; 1 pitch, rooty, rad; 2-4 back thigh, shin,
foot, rad; 5-7 front thigh, shin, foot, rad; 8 x velocity, rootx, m/s; 9 z velocity, rootz, m/s; 10 pitch velocity,
rooty, rad/s; 11-16 velocities of the six joints, rad/s; 17 (maml17 only) x of the torso, rootx, m. The 2017 code
appended the whole torso position; y is constant and z is already index 0, so only x is added.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.bodies.locomotion import arrow_along_x, direction, planar_observables, speed
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms
from metarl.envs.models import gymnasium_model, noisy_start
from metarl.space.parameter_space import FixedTasks, ParameterSpace
from metarl.types import Tasks

RESET_NOISE = 0.1
"""Half-width of the uniform noise on qpos (m, rad) and scale of the normal noise on qvel (m/s, rad/s), as in v5."""

TORSO_HEIGHT = 0.7
"""Height of the torso where rootz is 0, m."""

JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")

OBSERVABLES = planar_observables(JOINTS)
TORSO_X = Observable("x of the torso", "rootx", "m")


@dataclass(frozen=True, kw_only=True)
class HalfCheetah(MujocoFamily):
    """The robot, its observation and its control cost; what it is rewarded for is the subclass's."""

    variant: str
    source: str
    control_weight: float
    observe_x: bool = False
    horizon: int = 200
    step_seconds: float = 0.05
    frame_skip: int = 5
    action_low: tuple[float, ...] = (-1.0,) * 6
    action_high: tuple[float, ...] = (1.0,) * 6
    action_unit: str = "of the motor's full torque"
    remember: tuple[str, ...] = ("qpos",)
    observables: tuple[Observable, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "observables", (*OBSERVABLES, TORSO_X) if self.observe_x else OBSERVABLES)
        object.__setattr__(self, "space", self.make_space())

    def make_space(self) -> ParameterSpace:
        """Return the task parameters."""
        raise TypeError("HalfCheetah has no tasks of its own: use HalfCheetahDir or HalfCheetahVel")

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's half cheetah."""
        return gymnasium_model("half_cheetah.xml")

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the standing pose with HalfCheetah-v5's noise."""
        return noisy_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose and velocities."""
        parts = [state["qpos"][:, 1:], state["qvel"]]
        if self.observe_x:
            parts.append(state["qpos"][:, :1])
        return torch.cat(parts, dim=1)

    def velocity(self, before: State, state: State) -> Float[Tensor, " B"]:
        """Return the torso's mean x velocity over the control step, m/s."""
        return (state["qpos"][:, 0] - before["qpos"][:, 0]) / self.step_seconds

    def torso(self, state: State) -> Float[Tensor, "B 3"]:
        """Return the torso's position, m."""
        x, z = state["qpos"][:, 0], state["qpos"][:, 1]
        return torch.stack((x, torch.zeros_like(x), z + TORSO_HEIGHT), dim=1)

    def control_cost(self, action: Float[Tensor, "B A"]) -> Float[Tensor, " B"]:
        """Return the (negative) reward for effort."""
        return -self.control_weight * action.square().sum(1)


@dataclass(frozen=True, kw_only=True)
class HalfCheetahDir(HalfCheetah):
    """Run forward or backward as fast as possible; reward direction * v - w‖a‖². Train and test tasks coincide."""

    name: str = "half-cheetah-dir"
    summary: str = "run forward or backward as fast as possible"

    def make_space(self) -> ParameterSpace:
        """Return the direction."""
        return ParameterSpace(self.full_name, (direction(),))

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return speed in the wanted direction and effort."""
        forward = tasks["direction"] * self.velocity(before, state)
        return {"forward": forward, "control": self.control_cost(action)}

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow in the wanted direction."""
        return (arrow_along_x(self.torso(state), tasks["direction"]),)


@dataclass(frozen=True, kw_only=True)
class HalfCheetahVel(HalfCheetah):
    """Run at a given speed; reward -abs(v - goal) - w‖a‖²."""

    top_speed: float
    """Upper end of the training range, m/s."""
    fixed: FixedTasks | None = None
    name: str = "half-cheetah-vel"
    summary: str = "run at an unknown speed"

    def make_space(self) -> ParameterSpace:
        """Return the speed."""
        return ParameterSpace(self.full_name, (speed(0.0, self.top_speed, beyond=1.0),), fixed=self.fixed)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the (negative) speed error and effort."""
        error = (self.velocity(before, state) - tasks["velocity"]).abs()
        return {"velocity": -error, "control": self.control_cost(action)}

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow as long as half a second of the wanted speed."""
        return (arrow_along_x(self.torso(state), tasks["velocity"] / 2.0),)


V5 = "HalfCheetah-v5 of Gymnasium with the task of Finn et al. 2017 (MAML)"
MAML17 = "Finn et al. 2017 (MAML)"

FAMILIES = (
    HalfCheetahDir(variant="v5", source=V5, control_weight=0.1),
    HalfCheetahDir(variant="maml17", source=MAML17, control_weight=0.05, observe_x=True),
    HalfCheetahVel(variant="v5", source=V5, control_weight=0.1, top_speed=2.0),
    HalfCheetahVel(variant="maml17", source=MAML17, control_weight=0.05, top_speed=2.0, observe_x=True),
    HalfCheetahVel(
        variant="promp18", source="Rothfuss et al. 2018 (ProMP)", control_weight=0.05, top_speed=3.0, horizon=100
    ),
    HalfCheetahVel(
        variant="pearl19",
        source="Rakelly et al. 2019 (PEARL)",
        control_weight=0.05,
        top_speed=3.0,
        fixed=FixedTasks(train=100, test=30, seed=0),
    ),
    HalfCheetahVel(variant="varibad20", source="Zintgraf et al. 2020 (VariBAD)", control_weight=0.05, top_speed=3.0),
)
"""The first variant of a family is its default."""
