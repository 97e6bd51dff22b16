"""Ant that walks to a goal over unknown ground (`ant-terrain`): what it has to adapt to is the ground.

The robot is Gymnasium's `ant.xml`, five physics steps of 0.01 s per action as in Ant-v5, on the height field of
`bodies/terrain.py` in place of the plane. Its integrator is Euler's in place of Runge-Kutta's: 3.6 times as fast, and
as stable on this ground (longer steps are not: feet sank into it). Goal and start are on one tile of 10 x 10 m.

| variant | observation |
|---|---|
| v1 (default) | blind: pose, velocities and the way to the goal |
| scan | these and the height of the ground at 49 points around the torso |

Task: difficulty and kind of the ground (see `bodies/terrain.py`), and the goal, 2.5 to 3.5 m from the start in any
direction. The goal is in the observation; the ground is not, but for what the scan shows.

Reward of a step: progress, the distance to the goal before less after the step, per second (m/s); 1 for survival,
the last step included; -0.5 ‖a‖²; -5e-4 ‖clip(cfrc_ext)‖² (N, N m, clipped to -1 to 1): the scale of Ant-v5. An
episode ends when the torso's height above the ground below it leaves 0.2 to 1.0 m, or when the torso leaves the square
of ±4.3 m, from where its feet (up to 1.14 m from the torso) would get beyond the flat border of the next tile. It is a
success within 0.5 m of the goal. It lasts 200 steps (10 s).

Observation (index: meaning, joint, unit): 0-26 as in `ant.py`, where z (0) is from the ground at the start; 27-28 x and
y from the torso to the goal, in the axes of the world as the velocities are, m; 29-77 (scan only) height of the ground
less the torso's, m, at the points of a 7 x 7 grid, 0.3 m apart, centred below the torso and turned with its heading
(the direction of its x axis seen from above).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.locomotion import compute_contact_forces
from metarl.envs.bodies.terrain import CAMERA, DIFFICULTY, KIND, Ground, add_camera, goal_marker, scan_observables
from metarl.envs.families.ant import HIGHEST, LOWEST, OBSERVABLES, RESET_NOISE
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms, View, on
from metarl.envs.models import gymnasium_model, noisy_start
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks

CONTROL_WEIGHT = 0.5
"""Reward lost per squared action, as in Ant-v5."""
CONTACT_WEIGHT = 5e-4
"""Reward lost per squared clipped contact force, as in Ant-v5."""
GOAL_TOLERANCE = 0.5
"""Distance of the torso from the goal within which the goal is reached, m."""
EDGE = 4.3
"""Distance from the middle of the tile along x or y that the torso must not reach, m."""

GROUND = Ground(length=10.0, width=10.0, spacing=(0.125, 0.125), start=1.35, border=0.5)
"""It starts with its limbs straight, feet 1.21 m from the torso, which is up to 0.14 m from the middle."""

SCAN = tuple((0.3 * x, 0.3 * y) for x in range(-3, 4) for y in range(-3, 4))
"""Points of the height scan, m ahead and to the left of the torso."""

SCAN_X, SCAN_Y = torch.tensor([[[x, -y] for x, y in SCAN], [[y, x] for x, y in SCAN]], dtype=torch.float64).mT
"""`heading @ SCAN_X` and `heading @ SCAN_Y` are the same from the torso in the axes of the world, m."""
X_AXIS = torch.tensor(
    [[1, 0, 0, 0, 0, 0, 0, 2], [0, 1, 0, 0, 0, 0, 2, 0], [0, 0, -1, 0, 0, 0, 0, 0], [0, 0, 0, -1, 0, 0, 0, 0]],
    dtype=torch.float64,
)
"""Two quadratic forms of a quaternion, side by side: w² + x² - y² - z² and 2 w z + 2 x y."""

GOAL = Parameter(
    name="goal", unit="m", description="x and y of the goal from the start", scale="disc", low=2.5, radius=3.5
)


@dataclass(frozen=True, kw_only=True)
class AntTerrain(MujocoFamily):
    """Walk to a goal in sight, over unknown ground."""

    variant: str
    scan: bool
    """Whether the ground around the torso is observed."""
    name: str = "ant-terrain"
    summary: str = "walk to a goal over unknown ground, on four legs"
    source: str = "defined here, after Ant-v5 of Gymnasium"
    horizon: int = 200
    step_seconds: float = 0.05
    frame_skip: int = 5
    no_switch: str = "the ground would change under its feet"
    action_low: tuple[float, ...] = (-1.0,) * 8
    action_high: tuple[float, ...] = (1.0,) * 8
    action_unit: str = "of the motor's full torque"
    fields: tuple[str, ...] = ("qpos", "qvel", "cfrc_ext")
    remember: tuple[str, ...] = ("qpos",)
    camera: str | View = CAMERA
    observables: tuple[Observable, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        goal = tuple(Observable(f"{axis} from the torso to the goal", "root", "m") for axis in "xy")
        seen = scan_observables(SCAN) if self.scan else ()
        object.__setattr__(self, "observables", (*OBSERVABLES, *goal, *seen))
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (DIFFICULTY, KIND, GOAL)))

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's ant on the ground of all tiles."""
        spec = gymnasium_model("ant.xml")
        compute_contact_forces(spec, "torso")
        GROUND.add_to(spec)
        add_camera(spec, "torso", beside=4.5, above=6.0)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
        return spec

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Put the tile of every task under its world."""
        return GROUND.place(self.model, tasks)

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the standing pose with Ant-v5's noise, in the middle of the tile."""
        return noisy_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose, velocities, the way to the goal and what is seen of the ground."""
        qpos = state["qpos"]
        parts = [qpos[:, 2:], state["qvel"], tasks["goal"] - qpos[:, :2]]
        if self.scan:
            ahead = heading(qpos[:, 3:7])
            x, y = (torch.addmm(qpos[:, i : i + 1], ahead, on(qpos, scan)) for i, scan in enumerate((SCAN_X, SCAN_Y)))
            parts.append(GROUND.height(GROUND.tile(tasks), x, y) - qpos[:, 2:3])
        return torch.cat(parts, dim=1)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return progress towards the goal, survival and costs."""
        nearer = self.distance(before, tasks) - self.distance(state, tasks)
        forces = state["cfrc_ext"].clamp(-1.0, 1.0).flatten(1)
        return {
            "progress": nearer / self.step_seconds,
            "survive": torch.ones_like(nearer),
            "control": -CONTROL_WEIGHT * action.square().sum(1),
            "contact": -CONTACT_WEIGHT * forces.square().sum(1),
        }

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which ants have fallen, jumped off or left their tile."""
        return ~(self.healthy(state, tasks) & (state["qpos"][:, :2].abs() < EDGE).all(1))

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose torso is at the goal."""
        return self.distance(state, tasks) < GOAL_TOLERANCE

    def healthy(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose torso is at a healthy height above the ground below it."""
        x, y, z = state["qpos"][:, :3].split(1, dim=1)
        above = (z - GROUND.height(GROUND.tile(tasks), x, y)).squeeze(1)
        return (above >= LOWEST) & (above <= HIGHEST)

    def distance(self, state: State, tasks: Tasks) -> Float[Tensor, " B"]:
        """Return the distance from the torso to the goal in the plane, m."""
        return (tasks["goal"] - state["qpos"][:, :2]).norm(dim=1)

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return the goal."""
        return (goal_marker(GROUND, tasks, tasks["goal"]),)

    def crop(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Draw the world's own tile only."""
        GROUND.crop(model, data)


def heading(quaternion: Float[Tensor, "B 4"]) -> Float[Tensor, "B 2"]:
    """Return the direction of the x axis of a turned body, seen from above: a unit vector.

    Args:
        quaternion: w, x, y, z.
    """
    seen = ((quaternion @ on(quaternion, X_AXIS)).unflatten(1, (2, 4)) * quaternion[:, None]).sum(2)
    return seen / seen.norm(dim=1, keepdim=True)


FAMILIES = (AntTerrain(variant="v1", scan=False), AntTerrain(variant="scan", scan=True))
"""The first variant of a family is its default."""
