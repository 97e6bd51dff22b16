"""Humanoid that must run in an unknown direction of the plane (`humanoid-dir`).

The robot is Gymnasium's `humanoid.xml` (Runge-Kutta integrator, PGS solver), five physics steps of 0.003 s per action,
as in Humanoid-v5. An episode ends when the torso's height leaves 1.0 to 2.0 m. The reward is

    1.25 heading · v + survival - 0.1 ‖a‖² - min(10, 5e-7 ‖cfrc_ext‖²)

v is the displacement of the centre of mass over a control step divided by its 0.015 s. (It lags one physics step, see
`MujocoFamily`.) The published code divides a quarter of the displacement by the 0.003 s of a physics step: the same.

| variant | task | survival | steps |
|---|---|---|---|
| v5 (default) | heading, a unit vector of uniform angle | 5 a step, 0 once fallen | 200 |
| pearl19 | the same; 100 train and 30 test tasks | 5 a step | 200 |

`cfrc_ext` is the external force (N) and torque (N m) on every body. MuJoCo's step computes it at the start of its last
physics step, Gymnasium at the last Runge-Kutta stage of that step, so the contact cost is only close to Humanoid-v5's.

Observation, Humanoid-v5's without inertias, body velocities and forces (index: meaning, joint, unit): 0 z of the torso,
root, m; 1-4 orientation of the torso as a quaternion w, x, y, z, root, 1; 5-21 angles of the joints in the order of
JOINTS, rad; 22-24 x, y, z velocity of the torso, root, m/s; 25-27 its angular velocity about its own x, y, z, root,
rad/s; 28-44 velocities of the joints, rad/s. The 348 numbers of Humanoid-v5 and the 376 of the published variant add
what follows from these (inertias, velocities and positions of the bodies), constants (their masses), the last action
times the gear, and contact forces that are zero for most bodies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.locomotion import arrow, compute_contact_forces, heading, uniform_start
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms, View
from metarl.envs.models import gymnasium_model
from metarl.space.parameter_space import FixedTasks, ParameterSpace
from metarl.types import Tasks

RESET_NOISE = 1e-2
"""Half-width of the uniform noise on qpos (m, 1, rad) and qvel (m/s, rad/s), as in v5."""
LOWEST, HIGHEST = 1.0, 2.0
"""Height of the torso between which the robot counts as healthy, m."""
FORWARD_WEIGHT = 1.25
CONTROL_WEIGHT = 0.1
CONTACT_WEIGHT = 5e-7
LARGEST_CONTACT_COST = 10.0
SURVIVE_REWARD = 5.0
TORSO = 1
"""Index of the torso, the root of the robot, among the bodies (0 is the world)."""

JOINTS = (
    "abdomen_z",
    "abdomen_y",
    "abdomen_x",
    "right_hip_x",
    "right_hip_z",
    "right_hip_y",
    "right_knee",
    "left_hip_x",
    "left_hip_z",
    "left_hip_y",
    "left_knee",
    "right_shoulder1",
    "right_shoulder2",
    "right_elbow",
    "left_shoulder1",
    "left_shoulder2",
    "left_elbow",
)

OBSERVABLES = (
    Observable("z of the torso", "root", "m"),
    *(Observable(f"orientation of the torso, quaternion {part}", "root", "1") for part in "wxyz"),
    *(Observable(f"angle of {joint}", joint, "rad") for joint in JOINTS),
    *(Observable(f"{axis} velocity of the torso", "root", "m/s") for axis in "xyz"),
    *(Observable(f"angular velocity of the torso about its {axis}", "root", "rad/s") for axis in "xyz"),
    *(Observable(f"angular velocity of {joint}", joint, "rad/s") for joint in JOINTS),
)
FROM_ABOVE = View(centre="torso", distance=4.5)
"""Shows where an arrow in the plane points."""


@dataclass(frozen=True, kw_only=True)
class HumanoidDir(MujocoFamily):
    """Run in any direction of the plane as fast as possible."""

    variant: str
    source: str
    survive_fallen: bool
    """Whether the step in which the robot falls earns the reward for survival too."""
    fixed: FixedTasks | None = None
    name: str = "humanoid-dir"
    summary: str = "run in an unknown direction of the plane, on two legs"
    horizon: int = 200
    step_seconds: float = 0.015
    frame_skip: int = 5
    action_low: tuple[float, ...] = (-0.4,) * 17
    action_high: tuple[float, ...] = (0.4,) * 17
    action_unit: str = "of the motor's gear (25 to 300 N m)"
    camera: str | View = FROM_ABOVE
    fields: tuple[str, ...] = ("qpos", "qvel", "subtree_com", "cfrc_ext")
    remember: tuple[str, ...] = ("subtree_com",)
    observables: tuple[Observable, ...] = OBSERVABLES
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (heading(),), fixed=self.fixed))

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's humanoid."""
        spec = gymnasium_model("humanoid.xml")
        compute_contact_forces(spec, "torso")
        return spec

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the standing pose with Humanoid-v5's noise."""
        return uniform_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose and velocities."""
        return torch.cat((state["qpos"][:, 2:], state["qvel"]), dim=1)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return speed in the wanted direction, survival, effort and contact."""
        moved = state["subtree_com"][:, TORSO, :2] - before["subtree_com"][:, TORSO, :2]
        survive = torch.full_like(action[:, 0], SURVIVE_REWARD)
        impact = CONTACT_WEIGHT * state["cfrc_ext"].flatten(1).square().sum(1)
        return {
            "forward": FORWARD_WEIGHT / self.step_seconds * (tasks["heading"] * moved).sum(1),
            "survive": survive if self.survive_fallen else survive * self.healthy(state),
            "control": -CONTROL_WEIGHT * action.square().sum(1),
            "contact": -impact.clamp(max=LARGEST_CONTACT_COST),
        }

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which robots have fallen or jumped off."""
        return ~self.healthy(state)

    def healthy(self, state: State) -> Bool[Tensor, " B"]:
        """Return whose torso is at a healthy height."""
        height = state["qpos"][:, 2]
        return (height > LOWEST) & (height < HIGHEST)

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow in the wanted direction."""
        return (arrow(state["qpos"][:, :3], tasks["heading"]),)


FAMILIES = (
    HumanoidDir(
        variant="v5",
        source="Humanoid-v5 of Gymnasium with the task of Rakelly et al. 2019 (PEARL)",
        survive_fallen=False,
    ),
    HumanoidDir(
        variant="pearl19",
        source="Rakelly et al. 2019 (PEARL)",
        survive_fallen=True,
        fixed=FixedTasks(train=100, test=30, seed=0),
    ),
)
"""The first variant of a family is its default."""
