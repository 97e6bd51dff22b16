"""Ant that must run forward or backward (`ant-dir`), anywhere in the plane (`ant-dir-2d`) or at a speed (`ant-vel`).

It does not know which direction or speed is wanted. The robot is Gymnasium's `ant.xml` (Runge-Kutta integrator), five
physics steps of 0.01 s per action, as in Ant-v5. An episode ends when the torso's height leaves 0.2 to 1.0 m. Velocity
v is Ant-v5's: the displacement of the torso body's `xpos` over a control step divided by its 0.05 s. (`xpos` lags one
physics step, see `MujocoFamily`; so the first step of an episode shows only four fifths of its displacement. The 2017
code took the centre-of-mass velocity of its own simulator: absolute returns of its tables do not carry over, gaps
closed do.)

| family | task | its reward | variants |
|---|---|---|---|
| ant-dir | direction ±1 | direction * v_x | v5, maml17 |
| ant-dir-2d | heading, a unit vector of uniform angle | heading · v | v5, promp18 |
| ant-vel | speed U[0, 3] m/s | 1 - abs(v_x - speed) | v5, maml17 |

| variant | control cost | contact cost | survival | ends below | steps | observation |
|---|---|---|---|---|---|---|
| v5 (default) | 0.5 ‖a‖² | 5e-4 ‖clip(cfrc_ext)‖² | 1 a step, 0 once fallen | 0.2 m | 200 | Ant-v5's 27 |
| maml17 | 0.005 ‖a‖² | 5e-4 ‖clip(cfrc_ext)‖² | 0.05 a step | 0.2 m | 200 | the 27 and the torso's x and y |
| promp18 | 0.5 ‖a‖² | 5e-4 ‖clip(cfrc_ext)‖² | 1 a step | 0 m | 200 | the 27 |

Actions are fractions of a motor's full torque (150 N m), which is what the 2017 code divides by before it squares them.
`cfrc_ext` is the external force (N) and torque (N m) on every body, clipped to -1 to 1 per component. MuJoCo's step
computes it at the start of its last physics step, Gymnasium at the last Runge-Kutta stage of that step, so this one
term is not Ant-v5's: over 20,000 steps with random actions a third differed, by 6e-4 on average over all steps and by
1.1e-2 at most, while its mean was -1.0e-3 in both. Everything else is Ant-v5's, bit for bit.

Observation (index: meaning, joint, unit): 0 z of the torso, root, m; 1-4 orientation of the torso as a quaternion
w, x, y, z, root, 1; 5-12 angles of hip_1, ankle_1, hip_2, ankle_2, hip_3, ankle_3, hip_4, ankle_4, rad; 13-15 x, y, z
velocity of the torso, root, m/s; 16-18 its angular velocity about its own x, y, z, root, rad/s; 19-26 velocities of
the eight joints, rad/s; 27-28 (maml17 only) x and y of the torso, root, m. The 2017 code appended the whole torso
position; z is already index 0, so only x and y are added. The clipped forces, which all three may have, stay out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.locomotion import arrow, arrow_along_x, compute_contact_forces, direction, heading, speed
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms, View
from metarl.envs.models import gymnasium_model, noisy_start
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks

RESET_NOISE = 0.1
"""Half-width of the uniform noise on qpos (m, 1, rad) and scale of the normal noise on qvel (m/s, rad/s), as in v5."""
LOWEST, HIGHEST = 0.2, 1.0
"""Height of the torso between which the ant counts as healthy, m."""
TORSO = 1
"""Index of the torso among the bodies (0 is the world)."""

JOINTS = ("hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3", "hip_4", "ankle_4")

OBSERVABLES = (
    Observable("z of the torso", "root", "m"),
    *(Observable(f"orientation of the torso, quaternion {part}", "root", "1") for part in "wxyz"),
    *(Observable(f"angle of {joint}", joint, "rad") for joint in JOINTS),
    *(Observable(f"{axis} velocity of the torso", "root", "m/s") for axis in "xyz"),
    *(Observable(f"angular velocity of the torso about its {axis}", "root", "rad/s") for axis in "xyz"),
    *(Observable(f"angular velocity of {joint}", joint, "rad/s") for joint in JOINTS),
)
TORSO_XY = (Observable("x of the torso", "root", "m"), Observable("y of the torso", "root", "m"))
FROM_ABOVE = View(centre="torso", distance=4.5)
"""Shows where an arrow in the plane points."""


@dataclass(frozen=True, kw_only=True)
class Ant(MujocoFamily):
    """The robot, its observation, its costs and its fall; what it is rewarded for is the subclass's."""

    variant: str
    source: str
    control_weight: float
    survive_reward: float
    """Reward of every step."""
    survive_fallen: bool
    """Whether the step in which the ant falls earns it too."""
    contact_weight: float = 5e-4
    lowest: float = LOWEST
    """Height of the torso below which the ant has fallen, m."""
    observe_xy: bool = False
    horizon: int = 200
    step_seconds: float = 0.05
    frame_skip: int = 5
    action_low: tuple[float, ...] = (-1.0,) * 8
    action_high: tuple[float, ...] = (1.0,) * 8
    action_unit: str = "of the motor's full torque"
    fields: tuple[str, ...] = ("qpos", "qvel", "xpos", "cfrc_ext")
    remember: tuple[str, ...] = ("xpos",)
    observables: tuple[Observable, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        observables = (*OBSERVABLES, *TORSO_XY) if self.observe_xy else OBSERVABLES
        object.__setattr__(self, "observables", observables)
        object.__setattr__(self, "space", self.make_space())

    def make_space(self) -> ParameterSpace:
        """Return the task parameters."""
        raise TypeError("Ant has no tasks of its own: use AntDir or another subclass")

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's ant."""
        spec = gymnasium_model("ant.xml")
        compute_contact_forces(spec, "torso")
        return spec

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the standing pose with Ant-v5's noise."""
        return noisy_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose and velocities."""
        parts = [state["qpos"][:, 2:], state["qvel"]]
        if self.observe_xy:
            parts.append(state["qpos"][:, :2])
        return torch.cat(parts, dim=1)

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return which ants have fallen or jumped off."""
        return ~self.healthy(state)

    def healthy(self, state: State) -> Bool[Tensor, " B"]:
        """Return whose torso is at a healthy height."""
        height = state["qpos"][:, 2]
        return (height >= self.lowest) & (height <= HIGHEST)

    def velocity(self, before: State, state: State) -> Float[Tensor, "B 2"]:
        """Return the torso's mean x and y velocity over the control step, m/s."""
        return (state["xpos"][:, TORSO, :2] - before["xpos"][:, TORSO, :2]) / self.step_seconds

    def costs(self, state: State, action: Float[Tensor, "B A"]) -> Terms:
        """Return the reward for survival, where there is one, and the (negative) ones for effort and contact."""
        forces = state["cfrc_ext"].clamp(-1.0, 1.0).flatten(1)
        terms = {}
        if self.survive_reward > 0.0:
            survive = torch.full_like(forces[:, 0], self.survive_reward)
            terms["survive"] = survive if self.survive_fallen else survive * self.healthy(state)
        terms["control"] = -self.control_weight * action.square().sum(1)
        terms["contact"] = -self.contact_weight * forces.square().sum(1)
        return terms


@dataclass(frozen=True, kw_only=True)
class AntDir(Ant):
    """Run forward or backward as fast as possible. Train and test tasks coincide."""

    name: str = "ant-dir"
    summary: str = "run forward or backward as fast as possible, on four legs"

    def make_space(self) -> ParameterSpace:
        """Return the direction."""
        return ParameterSpace(self.full_name, (direction(),))

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return speed in the wanted direction, and the costs."""
        forward = tasks["direction"] * self.velocity(before, state)[:, 0]
        return {"forward": forward, **self.costs(state, action)}

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow in the wanted direction."""
        return (arrow_along_x(state["qpos"][:, :3], tasks["direction"]),)


@dataclass(frozen=True, kw_only=True)
class AntDir2d(Ant):
    """Run in any direction of the plane as fast as possible."""

    name: str = "ant-dir-2d"
    summary: str = "run in an unknown direction of the plane, on four legs"
    camera: str | View = FROM_ABOVE

    def make_space(self) -> ParameterSpace:
        """Return the direction."""
        return ParameterSpace(self.full_name, (heading(),))

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return speed in the wanted direction, and the costs."""
        forward = (tasks["heading"] * self.velocity(before, state)).sum(1)
        return {"forward": forward, **self.costs(state, action)}

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow in the wanted direction."""
        return (arrow(state["qpos"][:, :3], tasks["heading"]),)


@dataclass(frozen=True, kw_only=True)
class AntVel(Ant):
    """Run at a given speed."""

    name: str = "ant-vel"
    summary: str = "run at an unknown speed, on four legs"

    def make_space(self) -> ParameterSpace:
        """Return the speed."""
        return ParameterSpace(self.full_name, (speed(0.0, 3.0, beyond=1.0),))

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return 1 less the speed error, and the costs."""
        error = (self.velocity(before, state)[:, 0] - tasks["velocity"]).abs()
        return {"velocity": 1.0 - error, **self.costs(state, action)}

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return an arrow as long as half a second of the wanted speed."""
        return (arrow_along_x(state["qpos"][:, :3], tasks["velocity"] / 2.0),)


FAMILIES = (
    AntDir(
        variant="v5",
        source="Ant-v5 of Gymnasium with the task of Finn et al. 2017 (MAML)",
        control_weight=0.5,
        survive_reward=1.0,
        survive_fallen=False,
    ),
    AntDir(
        variant="maml17",
        source="Finn et al. 2017 (MAML)",
        control_weight=0.005,
        survive_reward=0.05,
        survive_fallen=True,
        observe_xy=True,
    ),
    AntDir2d(
        variant="v5",
        source="Ant-v5 of Gymnasium with the task of Rothfuss et al. 2018 (ProMP)",
        control_weight=0.5,
        survive_reward=1.0,
        survive_fallen=False,
    ),
    AntDir2d(
        variant="promp18",
        source="code of Rothfuss et al. 2018 (ProMP)",
        control_weight=0.5,
        survive_reward=1.0,
        survive_fallen=True,
        lowest=0.0,
    ),
    AntVel(
        variant="v5",
        source="Ant-v5 of Gymnasium with the task of Finn et al. 2017 (MAML)",
        control_weight=0.5,
        survive_reward=1.0,
        survive_fallen=False,
    ),
    AntVel(
        variant="maml17",
        source="Finn et al. 2017 (MAML)",
        control_weight=0.005,
        survive_reward=0.05,
        survive_fallen=True,
        observe_xy=True,
    ),
)
"""The first variant of a family is its default."""
