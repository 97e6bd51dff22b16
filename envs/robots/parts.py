"""The library of observation parts: what a robot can measure, by name.

A part says what its numbers are, one row of the observation table each, and returns them. Fields that MuJoCo derives
(positions of bodies and sites, sensors, forces, contacts) describe the state before the last physics substep, as in all
families.
"""

from __future__ import annotations

from typing import Any

import mujoco
import torch
from torch import Tensor

from metarl.envs.family import Observable, State, on
from metarl.envs.robots.building import (
    NAME,
    PREVIOUS,
    Build,
    Library,
    Part,
    into_base,
    pick,
    up_in_base,
)
from metarl.envs.robots.form import Flag, Key, Listed, Text, Word
from metarl.envs.robots.naming import joints, one, some, unit_of_joint
from metarl.errors import UserError, nearest
from metarl.types import Tasks

PARTS = Library()
"""Every part."""

NAMES = Listed(Text(), single=True)
"""Names or patterns."""
JOINTS = Key(NAMES, "hinges and slides, by name or pattern, in this order", ("*",))
AXES = "xyz"

SENSOR_UNITS = {
    "TOUCH": "N",
    "ACCELEROMETER": "m/s²",
    "VELOCIMETER": "m/s",
    "GYRO": "rad/s",
    "FORCE": "N",
    "TORQUE": "N m",
    "MAGNETOMETER": "T",
    "RANGEFINDER": "m",
    "JOINTPOS": "rad",
    "JOINTVEL": "rad/s",
    "TENDONPOS": "m",
    "TENDONVEL": "m/s",
    "ACTUATORPOS": "rad",
    "ACTUATORVEL": "rad/s",
    "ACTUATORFRC": "N m",
    "JOINTACTFRC": "N m",
    "BALLQUAT": "",
    "BALLANGVEL": "rad/s",
    "JOINTLIMITPOS": "rad",
    "JOINTLIMITVEL": "rad/s",
    "JOINTLIMITFRC": "N m",
    "FRAMEPOS": "m",
    "FRAMEQUAT": "",
    "FRAMEXAXIS": "",
    "FRAMEYAXIS": "",
    "FRAMEZAXIS": "",
    "FRAMELINVEL": "m/s",
    "FRAMEANGVEL": "rad/s",
    "FRAMELINACC": "m/s²",
    "FRAMEANGACC": "rad/s²",
    "SUBTREECOM": "m",
    "SUBTREELINVEL": "m/s",
    "SUBTREEANGMOM": "N m s",
    "CLOCK": "s",
}
"""Kinds of sensors that can be observed -> their units; of slides the same with m for rad."""


@PARTS.piece(joints=JOINTS, relative=Key(Flag(), "from the pose at the start; else as in the model", True))
def joint_positions(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return positions of joints."""
    chosen = joints(build.model, keys["joints"], f"{where}.joints")
    columns = [int(build.model.jnt_qposadr[joint]) for joint in chosen]
    take, home = pick("qpos", columns), build.home[columns]
    relative = keys["relative"] and bool((home != 0.0).any())
    names = build.named("joint")
    what = "position from its start" if relative else "position"

    def see(state: State, tasks: Tasks) -> Tensor:
        found = take(state)
        return found - on(found, home) if relative else found

    rows = (Observable(f"{what} of {names[i]}", names[i], unit_of_joint(build.model, i)) for i in chosen)
    return Part(observables=tuple(rows), see=see)


@PARTS.piece(joints=JOINTS)
def joint_velocities(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return velocities of joints."""
    chosen = joints(build.model, keys["joints"], f"{where}.joints")
    take = pick("qvel", [int(build.model.jnt_dofadr[joint]) for joint in chosen])
    names = build.named("joint")
    rows = (Observable(f"velocity of {names[i]}", names[i], f"{unit_of_joint(build.model, i)}/s") for i in chosen)
    return Part(observables=tuple(rows), see=lambda state, tasks: take(state))


@PARTS.piece()
def gyro(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the angular velocity of the base, in its own frame."""
    _, first = build.free(where)
    return _of_base(build, "angular velocity", "rad/s", lambda state: state["qvel"][:, first + 3 : first + 6])


@PARTS.piece()
def projected_gravity(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the direction of gravity in the frame of the base."""
    first, _ = build.free(where)
    rows = tuple(
        Observable(f"{axis} of gravity's direction, seen from the base", _base_name(build), "") for axis in AXES
    )
    turn = slice(first + 3, first + 7)
    return Part(observables=rows, see=lambda state, tasks: -up_in_base(state["qpos"][:, turn]))


@PARTS.piece()
def base_velocity(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the linear velocity of the base, in its own frame; few robots can measure it."""
    first, speed = build.free(where)

    def see(state: State) -> Tensor:
        return into_base(state["qpos"][:, first + 3 : first + 7], state["qvel"][:, speed : speed + 3])

    return _of_base(build, "velocity", "m/s", see)


@PARTS.piece()
def base_height(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the height of the base in the world."""
    first, _ = build.free(where)
    row = Observable("height of the base", _base_name(build), "m")
    return Part(observables=(row,), see=lambda state, tasks: state["qpos"][:, first + 2 : first + 3])


@PARTS.piece()
def base_orientation(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the orientation of the base, a quaternion w x y z."""
    first, _ = build.free(where)
    rows = tuple(Observable(f"{axis} of the base's quaternion", _base_name(build), "") for axis in "wxyz")
    return Part(observables=rows, see=lambda state, tasks: state["qpos"][:, first + 3 : first + 7])


@PARTS.piece(
    of=Key(Word(("site", "body", "geom")), "what kind of thing it is"),
    name=Key(Text(), "its name"),
    relative_to=Key(Text(), "a body, in whose frame it is told; the world if not given", ""),
)
def position(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the position of a site, a body or a geom."""
    number = one(build.model, keys["of"], keys["name"], f"{where}.name")
    field = {"site": "site_xpos", "body": "xpos", "geom": "geom_xpos"}[keys["of"]]
    build.read(field)
    other = one(build.model, "body", keys["relative_to"], f"{where}.relative_to") if keys["relative_to"] else None
    if other is not None:
        build.read("xpos", "xquat")

    def see(state: State, tasks: Tasks) -> Tensor:
        found = state[field][:, number]
        if other is None:
            return found
        return into_base(state["xquat"][:, other], found - state["xpos"][:, other])

    seen_from = f", seen from {keys['relative_to']}" if other is not None else ""
    rows = (Observable(f"{axis} of {keys['name']}{seen_from}", keys["name"], "m") for axis in AXES)
    return Part(observables=tuple(rows), see=see)


@PARTS.piece(geoms=Key(NAMES, "geoms, by name or pattern"))
def contacts(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return whether geoms touch anything, 0 or 1 each."""
    names = build.named("geom")
    chosen = some(names, keys["geoms"], "geom", f"{where}.geoms")
    touch = touching(build, [names[i] for i in chosen])
    rows = (Observable(f"whether {names[i]} touches anything", names[i], "", exact=True) for i in chosen)
    return Part(observables=tuple(rows), see=lambda state, tasks: touch(state))


def touching(build: Build, geoms: list[str]):
    """Return what tells of geoms whether they touch anything, [B, N] of 0 and 1."""
    places = []
    for name in geoms:
        keys = {"type": mujoco.mjtSensor.mjSENS_CONTACT, "objtype": mujoco.mjtObj.mjOBJ_GEOM, "objname": name}
        # What is found, of one contact, unreduced.
        places.append(build.sensor(1, **keys, intprm=[1, 0, 1]).start)
    take = pick("sensordata", places)
    return lambda state: (take(state) > 0.0).to(torch.float64)


@PARTS.piece(name=Key(Text(), "its name in the model"))
def sensor(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return what a sensor of the model measures."""
    number = one(build.model, "sensor", keys["name"], f"{where}.name")
    kind = mujoco.mjtSensor(build.model.sensor_type[number]).name.removeprefix("mjSENS_")
    if kind not in SENSOR_UNITS:
        known = [name.lower() for name in SENSOR_UNITS]
        raise UserError(f"{where}.name: the sensor '{keys['name']}' is a {kind.lower()}.{nearest(kind.lower(), known)}")
    unit = SENSOR_UNITS[kind]
    if build.model.sensor_objtype[number] == mujoco.mjtObj.mjOBJ_JOINT and "rad" in unit:
        unit = unit.replace("rad", unit_of_joint(build.model, int(build.model.sensor_objid[number])))
    build.read("sensordata")
    start, size = int(build.model.sensor_adr[number]), int(build.model.sensor_dim[number])
    axes = [f" {i}" for i in range(size)] if size > 1 else [""]
    rows = (Observable(f"{kind.lower()} of {keys['name']}{axis}", keys["name"], unit) for axis in axes)
    return Part(observables=tuple(rows), see=lambda state, tasks: state["sensordata"][:, start : start + size])


@PARTS.piece()
def actuator_forces(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the forces of all actuators."""
    build.read("actuator_force")
    rows = (
        Observable(f"force of {name}", name, force_unit(build.model, i))
        for i, name in enumerate(build.named("actuator"))
    )
    return Part(observables=tuple(rows), see=lambda state, tasks: state["actuator_force"])


def force_unit(model: mujoco.MjModel, actuator: int) -> str:
    """Return the unit of an actuator's force."""
    on_joint = model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_JOINT
    joint = int(model.actuator_trnid[actuator, 0])
    return "N m" if on_joint and model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_SLIDE else "N"


@PARTS.piece()
def previous_action(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return the action of the step before, -1..1 of its bounds; 0 at the start of an episode."""
    build.carry(PREVIOUS)
    names = build.named("actuator")
    rows = (Observable(f"previous action of {name}", name, "of its bounds", exact=True) for name in names)
    return Part(observables=tuple(rows), see=lambda state, tasks: state[PREVIOUS])


@PARTS.piece(names=Key(Listed(NAME, single=True), "tasks that are commands; the agent is told them"))
def command(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return commands: what the robot is told to do, so that it is no longer unknown."""
    units = [build.commands.get(name, "") for name in keys["names"]]
    pairs = zip(keys["names"], units, strict=True)
    values = [build.wanted(name, unit, f"{where}.names") for name, unit in pairs]

    def see(state: State, tasks: Tasks) -> Tensor:
        return torch.stack([torch.as_tensor(value(tasks)) for value in values], dim=1)

    rows = zip(keys["names"], units, strict=True)
    return Part(observables=tuple(Observable(f"command {name}", "-", unit, exact=True) for name, unit in rows), see=see)


def _of_base(build: Build, what: str, unit: str, see: Any) -> Part:
    rows = tuple(Observable(f"{axis} of the base's {what}", _base_name(build), unit) for axis in AXES)
    return Part(observables=rows, see=lambda state, tasks: see(state))


def _base_name(build: Build) -> str:
    return build.named("body")[build.carrier("", "base")]
