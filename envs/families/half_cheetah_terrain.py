"""HalfCheetah that runs to a goal ahead over unknown ground (`half-cheetah-terrain`).

What it has to adapt to is the ground. The robot is Gymnasium's `half_cheetah.xml`, five physics steps of 0.01 s per
action as in HalfCheetah-v5, on the height field of `bodies/terrain.py` in place of the plane. The robot is planar: it
stays at y = 0, and its tile is a strip of ground of 24 m that varies along x only. It starts in the middle. Its
contacts are
soft: under saturated actions a foot sinks in by up to 0.12 m for a step or two, as on Gymnasium's plane.

| variant | observation |
|---|---|
| v1 (default) | blind: pose, velocities and the way to the goal |
| scan | these and the height of the ground at 13 points from 0.8 m behind the torso to 1.6 m ahead |

Task: difficulty and kind of the ground (see `bodies/terrain.py`), and the distance of the goal from the start, 5 to 9
m. The goal is in the observation; the ground is not, but for what the scan shows.

Reward of a step: progress, the distance to the goal before less after the step, per second (m/s); -0.1 ‖a‖², as in
HalfCheetah-v5. Beyond the goal the way back is progress. An episode ends when the torso leaves the strip's ±11 m; as in
HalfCheetah-v5 no pose ends it. It is a success within 0.5 m of the goal. It lasts 200 steps (10 s).

Observation (index: meaning, joint, unit): 0-16 as in `half_cheetah.py`, where z (0) is from its value at the start;
17 x from the torso to the goal, m; 18-30 (scan only) height of the ground less the torso's, m, at points 0.2 m apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.bodies.terrain import CAMERA, DIFFICULTY, KIND, Ground, add_camera, goal_marker, scan_observables
from metarl.envs.families.half_cheetah import OBSERVABLES, RESET_NOISE
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms, View, on
from metarl.envs.models import gymnasium_model, noisy_start
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks

CONTROL_WEIGHT = 0.1
"""Reward lost per squared action, as in HalfCheetah-v5."""
GOAL_TOLERANCE = 0.5
"""Distance of the torso from the goal within which the goal is reached, m."""
EDGE = 11.0
"""Distance from the middle of the strip that the torso must not reach, m."""
TORSO_HEIGHT = 0.7
"""Height of the torso above the ground at the start where its z is 0, m."""

GROUND = Ground(length=24.0, width=1.5, spacing=(0.1, 0.5), across=False, start=1.0, border=0.5)
"""When it starts, all of the cheetah is within 0.9 m of the middle."""

SCAN = tuple((0.2 * x, 0.0) for x in range(-4, 9))
"""Points of the height scan, m ahead and to the left of the torso."""

AHEAD = torch.tensor([[x for x, _ in SCAN]], dtype=torch.float64)
"""The same, m ahead of the torso only."""
NO_Y = torch.zeros(1, 1, dtype=torch.float64)
"""Where the robot always is, m."""

DISTANCE = Parameter(
    name="distance", unit="m", description="of the goal ahead of the start", scale="uniform", low=5.0, high=9.0
)


@dataclass(frozen=True, kw_only=True)
class HalfCheetahTerrain(MujocoFamily):
    """Run to a goal in sight, over unknown ground."""

    variant: str
    scan: bool
    """Whether the ground around the torso is observed."""
    name: str = "half-cheetah-terrain"
    summary: str = "run to a goal over unknown ground"
    source: str = "defined here, after HalfCheetah-v5 of Gymnasium"
    horizon: int = 200
    step_seconds: float = 0.05
    frame_skip: int = 5
    no_switch: str = "the ground would change under its feet"
    action_low: tuple[float, ...] = (-1.0,) * 6
    action_high: tuple[float, ...] = (1.0,) * 6
    action_unit: str = "of the motor's full torque"
    remember: tuple[str, ...] = ("qpos",)
    camera: str | View = CAMERA
    observables: tuple[Observable, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        goal = Observable("x from the torso to the goal", "rootx", "m")
        seen = scan_observables(SCAN) if self.scan else ()
        object.__setattr__(self, "observables", (*OBSERVABLES, goal, *seen))
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (DIFFICULTY, KIND, DISTANCE)))

    def model_spec(self) -> mujoco.MjSpec:
        """Return Gymnasium's half cheetah on the ground of all tiles."""
        spec = gymnasium_model("half_cheetah.xml")
        GROUND.add_to(spec)
        add_camera(spec, "torso", beside=3.6, above=1.2)
        return spec

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Put the tile of every task under its world."""
        return GROUND.place(self.model, tasks)

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the standing pose with HalfCheetah-v5's noise, in the middle of the strip."""
        return noisy_start(self.model, RESET_NOISE, generator, len(tasks))

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose, velocities, the way to the goal and what is seen of the ground."""
        qpos = state["qpos"]
        parts = [qpos[:, 1:], state["qvel"], tasks["distance"][:, None] - qpos[:, :1]]
        if self.scan:
            ground = GROUND.height(GROUND.tile(tasks), qpos[:, :1] + on(qpos, AHEAD), on(qpos, NO_Y))
            parts.append(ground - TORSO_HEIGHT - qpos[:, 1:2])
        return torch.cat(parts, dim=1)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return progress towards the goal and effort."""
        nearer = self.away(before, tasks) - self.away(state, tasks)
        return {"progress": nearer / self.step_seconds, "control": -CONTROL_WEIGHT * action.square().sum(1)}

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which cheetahs have left their strip."""
        return ~(state["qpos"][:, 0].abs() < EDGE)

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return whose torso is at the goal."""
        return self.away(state, tasks) < GOAL_TOLERANCE

    def away(self, state: State, tasks: Tasks) -> Float[Tensor, " B"]:
        """Return the distance from the torso to the goal along x, m."""
        return (tasks["distance"] - state["qpos"][:, 0]).abs()

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return the goal."""
        goal = torch.stack([tasks["distance"], torch.zeros_like(tasks["distance"])], dim=1)
        return (goal_marker(GROUND, tasks, goal),)

    def crop(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Draw the world's own tile only."""
        GROUND.crop(model, data)


FAMILIES = (HalfCheetahTerrain(variant="v1", scan=False), HalfCheetahTerrain(variant="scan", scan=True))
"""The first variant of a family is its default."""
