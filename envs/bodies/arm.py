"""The arm, its gripper and the object on its table, shared by `push-shape`, `grasp-shape` and `reach-over`.

The robot is `assets/arm.xml`, made for this package: shoulder and elbow turn in the plane, a lift carries the hand up
and down, a wrist turns it, two coupled fingers close. The fingers always point straight down, so that a policy has
to find where the hand goes and not how to keep it upright. Each actuator is a velocity servo of limited force with
gravity compensated: no action holds the arm where it is, random actions move it smoothly.

Action (index: servo, top speed): 0 shoulder, 0.8 rad/s; 1 elbow, 1.2 rad/s; 2 lift, 0.3 m/s; 3 wrist, 2 rad/s;
4 gripper, 0.1 m/s for each finger, positive opens. All in fractions of the top speed, -1 to 1.

Observation, lengths in dm so that all entries are of order 1 (index: meaning, unit): 0 shoulder, 1 elbow, 2 wrist,
rad; 3 height of the finger tips, 4 way of a finger from the middle, dm; 5-7 velocities of the former, rad/s; 8-9 of
the latter, dm/s; 10-12 x, y, z of the object's centre of mass, dm; 13-15 its velocity, dm/s; 16-18 the object's angular
velocity about its own axes, rad/s; 19-20 x and y of the grip point, which lies between the finger tips, dm; 21-22
cosine and sine of the hand's heading; 23-25 from the grip point to the object, ahead, left and up of the hand, dm;
26-28 the object's x axis; 29-30 x and y of its z axis. Places are told from the middle of the table, (0.45, 0, 0) m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.bodies.shapes import PARTS, ROTATION, Compound, compound, entries
from metarl.envs.family import Marker, MujocoFamily, Observable, State, View, on
from metarl.types import Tasks

MODEL = Path(__file__).parent / "assets" / "arm.xml"

UPPER, FORE = 0.35, 0.35
"""Lengths of the upper arm and the forearm, m."""
MIDDLE = (0.45, 0.0)
"""The middle of the table, x and y in m."""
TIPS = 0.015
"""Height of the grip point above the finger tips, m."""
OPEN = 0.06
"""Way of either finger from the middle when the hand is open, m."""
DM = 10.0
"""Decimetres in a metre."""

SHOULDER, ELBOW, LIFT, WRIST, LEFT, RIGHT = range(6)
"""Places of the robot's joints in qpos and qvel; the object follows."""
OBJECT = 6
"""First place of the object in qpos (x, y, z, quaternion) and in qvel (velocity, angular velocity)."""
OBJECT_BODY = 7
TABLE_GEOM, FIRST_PART = 0, 10
"""Indices of the table and of the object's first part among the geoms."""

OBSERVABLES = (
    Observable("angle of the shoulder", "shoulder", "rad"),
    Observable("angle of the elbow", "elbow", "rad"),
    Observable("angle of the wrist", "wrist", "rad"),
    Observable("height of the finger tips", "lift", "dm"),
    Observable("way of a finger from the middle", "left finger", "dm"),
    Observable("angular velocity of the shoulder", "shoulder", "rad/s"),
    Observable("angular velocity of the elbow", "elbow", "rad/s"),
    Observable("angular velocity of the wrist", "wrist", "rad/s"),
    Observable("velocity of the lift", "lift", "dm/s"),
    Observable("velocity of a finger", "left finger", "dm/s"),
    *(Observable(f"{axis} of the object", "object", "dm") for axis in "xyz"),
    *(Observable(f"{axis} velocity of the object", "object", "dm/s") for axis in "xyz"),
    *(Observable(f"angular velocity of the object about its {axis}", "object", "rad/s") for axis in "xyz"),
    *(Observable(f"{axis} of the grip point", "hand", "dm") for axis in "xy"),
    Observable("cosine of the hand's heading", "hand", "1"),
    Observable("sine of the hand's heading", "hand", "1"),
    *(Observable(f"way from the grip point to the object, {way}", "hand", "dm") for way in ("ahead", "left", "up")),
    *(Observable(f"{axis} of the object's x axis", "object", "1") for axis in "xyz"),
    *(Observable(f"{axis} of the object's z axis", "object", "1") for axis in "xy"),
)

_ROBOT = (SHOULDER, ELBOW, WRIST, LIFT, LEFT)
_VELOCITY = 13
"""First place of the velocities in (qpos, qvel)."""
READ = torch.tensor(
    [*_ROBOT, *(_VELOCITY + i for i in _ROBOT), *range(OBJECT, OBJECT + 3), *range(_VELOCITY + 6, _VELOCITY + 12)]
)
"""Places in (qpos, qvel) of the observations 0 to 18."""
SCALE = torch.tensor([1.0, 1.0, 1.0, DM, DM] * 2 + [DM] * 6 + [1.0] * 3, dtype=torch.float64)
"""What they are multiplied by."""
SHIFT = torch.tensor([0.0] * 10 + [DM * MIDDLE[0], DM * MIDDLE[1]] + [0.0] * 7, dtype=torch.float64)
"""What is then taken off."""
TURNS = torch.zeros(13, 6, dtype=torch.float64)
"""Joints in qpos whose angles sum up to the headings of upper arm, forearm and hand, twice."""
TURNS[SHOULDER] = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
TURNS[ELBOW] = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
TURNS[WRIST] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
QUARTER = torch.tensor([0.0] * 3 + [-math.pi / 2.0] * 3, dtype=torch.float64)
"""Makes sines of the second three cosines."""
HAND = torch.zeros(6, 4, dtype=torch.float64)
"""From these cosines and sines to x, y of the hand, m, and the cosine and sine of its heading."""
HAND[:3, 0] = HAND[3:, 1] = torch.tensor([UPPER, FORE, 0.0], dtype=torch.float64)
HAND[2, 2] = HAND[5, 3] = 1.0
AXES = torch.stack((*ROTATION[:, 0], *ROTATION[:2, 2]), dim=1)
"""The x axis of a body and the x, y of its z axis."""
CENTRE = torch.tensor(MIDDLE, dtype=torch.float64)


FROM_THE_SIDE = View(centre=(0.42, 0.0, 0.04), distance=0.75, azimuth=130.0, elevation=-38.0)


@dataclass(frozen=True, kw_only=True)
class Arm(MujocoFamily):
    """The robot, its table and an object of the task's shape; what it is to do is the subclass's."""

    variant: str = "v1"
    source: str = "defined in this package"
    step_seconds: float = 0.05
    frame_skip: int = 5
    action_low: tuple[float, ...] = (-1.0,) * 5
    action_high: tuple[float, ...] = (1.0,) * 5
    action_unit: str = "of the servo's top speed"
    camera: str | View = FROM_THE_SIDE
    no_switch: str = "an object that changed its shape would burst out of the hand or the table"
    observables: tuple[Observable, ...] = OBSERVABLES

    def model_spec(self) -> mujoco.MjSpec:
        """Return the arm, its table and an object."""
        return mujoco.MjSpec.from_file(str(MODEL))

    def object_of(self, tasks: Tasks) -> Compound:
        """Return the objects of the tasks."""
        return compound(*(tasks[name] for name in ("kind", "length", "width", "branch", "height", "mass")))

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the objects' shape, mass, inertia and friction."""
        shape = self.object_of(tasks)
        parts = slice(FIRST_PART, FIRST_PART + len(PARTS))
        fields = {name: self.repeated(name, len(tasks)) for name in ("geom_size", "geom_pos", "geom_friction")}
        fields["geom_size"][:, parts] = shape.geom_size
        fields["geom_pos"][:, parts] = shape.centre
        fields["geom_friction"][:, parts, 0] = tasks["friction"][:, None]
        names = ("body_mass", "body_inertia", "body_ipos", "body_iquat")
        body = {name: self.repeated(name, len(tasks)) for name in names}
        body["body_mass"][:, OBJECT_BODY] = shape.mass
        body["body_inertia"][:, OBJECT_BODY] = shape.inertia
        body["body_ipos"][:, OBJECT_BODY] = 0.0
        body["body_iquat"][:, OBJECT_BODY] = shape.quaternion
        return fields | body

    def repeated(self, field: str, worlds: int) -> Float[Tensor, "B ..."]:
        """Return a field of the model once per world, to be changed."""
        value = torch.from_numpy(getattr(self.model, field).copy())
        return value.expand(worlds, *value.shape).clone()

    def start(
        self,
        tasks: Tasks,
        *,
        hand: Float[Tensor, "B 4"],
        opening: Float[Tensor, " B"],
        place: Float[Tensor, "B 3"],
    ) -> dict[str, Float[Tensor, "B ..."]]:
        """Return everything at rest.

        Args:
            tasks: one per world.
            hand: x, y of the grip point, m; height of the finger tips, m; heading, rad.
            opening: way of either finger from the middle, m.
            place: x, y of the object, m; its heading, rad.
        """
        shoulder, elbow = joints_of(hand[:, 0], hand[:, 1])
        zero = torch.zeros_like(opening)
        robot = (shoulder, elbow, hand[:, 2], hand[:, 3] - shoulder - elbow, opening, opening)
        half = place[:, 2] / 2
        height = self.object_of(tasks).rest
        thing = (place[:, 0], place[:, 1], height, half.cos(), zero, zero, half.sin())
        qpos = torch.stack((*robot, *thing), dim=1)
        return {"qpos": qpos, "qvel": torch.zeros(len(tasks), self.model.nv, dtype=torch.float64)}

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return pose and velocities of robot and object."""
        qpos = state["qpos"]
        direct = torch.cat((qpos, state["qvel"]), dim=1).index_select(1, on(qpos, READ))
        direct = direct * on(qpos, SCALE) - on(qpos, SHIFT)
        grip, facing = hand_of(qpos)
        cosine, sine = facing.unbind(1)
        away = DM * (qpos[:, OBJECT : OBJECT + 3] - grip)
        x, y, up = away.unbind(1)
        hand = torch.stack((x * cosine + y * sine, y * cosine - x * sine, up), dim=1)
        axes = entries(qpos[:, OBJECT + 3 :], on(qpos, AXES))
        return torch.cat((direct, DM * (grip[:, :2] - on(qpos, CENTRE)), facing, hand, axes), dim=1)


def hand_of(qpos: Float[Tensor, "B Q"]) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 2"]]:
    """Return the place of the grip point, m, and the cosine and sine of the hand's heading, of the moment of qpos."""
    hand = (qpos @ on(qpos, TURNS) + on(qpos, QUARTER)).cos() @ on(qpos, HAND)
    return torch.cat((hand[:, :2], qpos[:, LIFT : LIFT + 1] + TIPS), dim=1), hand[:, 2:]


def from_grip(state: State) -> Float[Tensor, " B"]:
    """Return how far the object's centre of mass is from the grip point, m."""
    grip, _ = hand_of(state["qpos"])
    return (state["qpos"][:, OBJECT : OBJECT + 3] - grip).norm(dim=1)


def joints_of(x: Float[Tensor, " B"], y: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return the angles of shoulder and elbow, rad, that bring the hand to x, y (m): the inverse of `hand_of`."""
    cosine = (x * x + y * y - UPPER**2 - FORE**2) / (2.0 * UPPER * FORE)
    elbow = cosine.clamp(-1.0, 1.0).acos()
    return torch.atan2(y, x) - torch.atan2(FORE * elbow.sin(), UPPER + FORE * elbow.cos()), elbow


def goal_marker(place: Float[Tensor, "B 2"], height: float, radius: float) -> Marker:
    """Return a ball at the goal.

    Args:
        place: x, y, m.
        height: z, m.
        radius: distance from it that counts as success, m.
    """
    return Marker(position=torch.cat((place, torch.full_like(place[:, :1], height)), dim=1), radius=radius)


def around(middle: float, half_width: float, worlds: int, generator: torch.Generator) -> Float[Tensor, " B"]:
    """Draw numbers uniformly from an interval."""
    return middle + half_width * (2.0 * torch.rand(worlds, generator=generator, dtype=torch.float64) - 1.0)


def any_heading(worlds: int, generator: torch.Generator) -> Float[Tensor, " B"]:
    """Draw headings uniformly from the full circle, rad."""
    return around(0.0, math.pi, worlds, generator)
