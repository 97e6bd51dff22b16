"""The library of reward terms, by name. A file gives each a weight; a cost has a negative one.

Every term is a number of one step and of no unit that the weight has to know of: what it is stands beside it. Actions
count in -1..1 of their bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.bodies.locomotion import SHORTEST_ARROW, arrow
from metarl.envs.family import Marker, State, on
from metarl.envs.robots.building import COMMAND, PREVIOUS, Build, Library, Term, into_base, pick, up_in_base
from metarl.envs.robots.form import Key, Listed, Number, Text, Word
from metarl.envs.robots.naming import joints, one, some
from metarl.envs.robots.parts import JOINTS, NAMES, touching
from metarl.errors import UserError
from metarl.types import Tasks

TERMS = Library()
"""Every term."""

BODY = Key(Text(), "the body that is meant; the robot's base if not given", "")
WIDTH = Number(above=0.0)
Measured = Callable[[State, State], Float[Tensor, " B"]]


# -- velocity ---------------------------------------------------------------------------------------------------------

VELOCITY = {
    "axis": Key(Word(("x", "y", "z")), "of the base's own frame, or the world's", "x"),
    "frame": Key(Word(("base", "world")), "whose axis it is", "base"),
    "joint": Key(Text(), "a slide joint whose velocity is meant, in place of the base's", ""),
    "measure": Key(
        Word(("now", "mean")), "at the end of the step, or the mean over it (frame: world, or joint)", "now"
    ),
}
"""Keys of terms about a velocity."""


def _velocity(build: Build, where: str, keys: dict[str, Any]) -> Measured:
    """Return what measures a velocity, m/s."""
    mean, seconds, number = keys["measure"] == "mean", build.step_seconds, "xyz".index(keys["axis"])
    if keys["joint"]:
        joint = one(build.model, "joint", keys["joint"], f"{where}.joint")
        if build.model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_SLIDE:
            raise UserError(f"{where}.joint: '{keys['joint']}' is no slide joint. Name one, or leave the key out.")
        column, speed = int(build.model.jnt_qposadr[joint]), int(build.model.jnt_dofadr[joint])
    else:
        first, first_speed = build.free(where)
        column, speed = first + number, first_speed + number
        if keys["frame"] == "base":
            if mean:
                raise UserError(f"{where}.measure: got mean in the frame of the base, which turns. Take frame: world.")
            turn, line = slice(first + 3, first + 7), slice(first_speed, first_speed + 3)
            return lambda before, state: into_base(state["qpos"][:, turn], state["qvel"][:, line])[:, number]
    if mean:
        build.keep("qpos")
        return lambda before, state: (state["qpos"][:, column] - before["qpos"][:, column]) / seconds
    return lambda before, state: state["qvel"][:, speed]


def _arrow(build: Build, keys: dict[str, Any], wanted: Callable[[Tasks], Tensor | float]):
    """Return what shows a wanted velocity, where it is one of the base along the ground; else None."""
    if keys["joint"] or build.base is None or keys["axis"] == "z":
        return None
    first, _ = build.free("")
    along = "xy".index(keys["axis"])

    def marker(state: State, tasks: Tasks) -> Marker:
        root, length = state["qpos"][:, first : first + 3], torch.as_tensor(wanted(tasks))
        tip = torch.zeros(len(root), 2, dtype=torch.float64)
        # With a tip even where nothing is wanted.
        tip[:, along] = torch.where(length.abs() < SHORTEST_ARROW, SHORTEST_ARROW, length)
        return arrow(root, tip)

    return marker


@TERMS.piece(
    **VELOCITY,
    command=Key(COMMAND, "what it is to be, m/s: a number, or a task that is a command"),
    width=Key(WIDTH, "error at which it is 1/e = .37, m/s", 0.25),
)
def track_velocity(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return how near a velocity is to a wanted one: exp(-(error / width)²), 0 to 1."""
    measure = _velocity(build, where, keys)
    wanted, width = build.wanted(keys["command"], "m/s", f"{where}.command"), keys["width"]
    return Term(
        reward=lambda before, state, action, tasks: _near(measure(before, state) - wanted(tasks), width),
        marker=_arrow(build, keys, wanted),
    )


@TERMS.piece(**VELOCITY, command=Key(COMMAND, "what it is to be, m/s: a number, or a task that is a command"))
def velocity_error(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return how far a velocity is from a wanted one, m/s: a cost."""
    measure = _velocity(build, where, keys)
    wanted = build.wanted(keys["command"], "m/s", f"{where}.command")
    return Term(
        reward=lambda before, state, action, tasks: (measure(before, state) - wanted(tasks)).abs(),
        marker=_arrow(build, keys, wanted),
    )


@TERMS.piece(**VELOCITY, command=Key(COMMAND, "what it is multiplied by, such as a direction of -1 or 1", 1.0))
def velocity(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return a velocity, m/s: to go as fast as possible."""
    measure, wanted = _velocity(build, where, keys), build.wanted(keys["command"], "", f"{where}.command")
    return Term(reward=lambda before, state, action, tasks: measure(before, state) * wanted(tasks))


@TERMS.piece(
    command=Key(COMMAND, "what it is to be, rad/s: a number, or a task that is a command", 0.0),
    width=Key(WIDTH, "error at which it is 1/e = .37, rad/s", 0.5),
)
def track_turning(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return how near the base's angular velocity about its vertical axis is to a wanted one, 0 to 1."""
    _, first = build.free(where)
    wanted, width = build.wanted(keys["command"], "rad/s", f"{where}.command"), keys["width"]
    return Term(reward=lambda b, state, a, tasks: _near(state["qvel"][:, first + 5] - wanted(tasks), width))


# -- posture ----------------------------------------------------------------------------------------------------------


@TERMS.piece()
def alive(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return 1 in every step, where episodes can end early."""
    return Term(reward=lambda before, state, action, tasks: torch.ones_like(state["qpos"][:, 0]))


@TERMS.piece()
def upright(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the cosine of the base's tilt: 1 upright, 0 on its side, -1 upside down."""
    first, _ = build.free(where)
    return Term(reward=lambda b, state, a, tasks: up_in_base(state["qpos"][:, first + 3 : first + 7])[:, 2])


@TERMS.piece(
    target=Key(COMMAND, "what it is to be, m: a number, or a task that is a command"),
    body=BODY,
    width=Key(WIDTH, "error at which it is 1/e = .37, m", 0.05),
)
def height(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return how near a body's height is to a wanted one: exp(-(error / width)²), 0 to 1."""
    measure = height_of(build, keys["body"], f"{where}.body")
    wanted, width = build.wanted(keys["target"], "m", f"{where}.target"), keys["width"]
    return Term(reward=lambda before, state, action, tasks: _near(measure(state) - wanted(tasks), width))


def height_of(build: Build, body: str, where: str) -> Callable[[State], Tensor]:
    """Return what measures a body's height in the world, m; of the base, the present one."""
    number = build.carrier(body, where)
    if build.base is not None and number == build.model.jnt_bodyid[build.base]:
        column = build.free(where)[0] + 2
        return lambda state: state["qpos"][:, column]
    build.read("xpos")
    return lambda state: state["xpos"][:, number, 2]


@TERMS.piece(joints=JOINTS)
def posture(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the sum of squared positions of joints from their start, rad² or m²: a cost."""
    chosen = joints(build.model, keys["joints"], f"{where}.joints")
    columns = [int(build.model.jnt_qposadr[joint]) for joint in chosen]
    take, home = pick("qpos", columns), build.home[columns]
    return Term(reward=lambda b, state, a, tasks: (take(state) - on(state["qpos"], home)).square().sum(1))


@TERMS.piece(joints=JOINTS)
def joint_speed(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the sum of squared velocities of joints, (rad/s)² or (m/s)²: a cost."""
    chosen = joints(build.model, keys["joints"], f"{where}.joints")
    take = pick("qvel", [int(build.model.jnt_dofadr[joint]) for joint in chosen])
    return Term(reward=lambda before, state, action, tasks: take(state).square().sum(1))


@TERMS.piece()
def rocking(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the sum of squared angular velocities of the base about its x and y axes, (rad/s)²: a cost."""
    _, first = build.free(where)
    return Term(reward=lambda b, state, a, tasks: state["qvel"][:, first + 3 : first + 5].square().sum(1))


@TERMS.piece()
def bouncing(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the squared vertical velocity of the base, (m/s)²: a cost."""
    _, first = build.free(where)
    return Term(reward=lambda before, state, action, tasks: state["qvel"][:, first + 2].square())


# -- effort -----------------------------------------------------------------------------------------------------------


@TERMS.piece()
def action(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the sum of squared actions: a cost."""
    return Term(reward=lambda before, state, action, tasks: action.square().sum(1))


@TERMS.piece()
def action_rate(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the sum of squared changes of the action from one step to the next: a cost."""
    build.carry(PREVIOUS)
    build.keep(PREVIOUS)
    return Term(reward=lambda before, state, action, tasks: (action - before[PREVIOUS]).square().sum(1))


@TERMS.piece()
def torque(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the sum of squared forces of all actuators, (N m)² or N²: a cost."""
    build.read("actuator_force")
    return Term(reward=lambda before, state, action, tasks: state["actuator_force"].square().sum(1))


@TERMS.piece()
def power(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the mechanical power of all actuators, each counted as spent, W: a cost."""
    build.read("actuator_force", "actuator_velocity")
    return Term(reward=lambda b, s, a, tasks: (s["actuator_force"] * s["actuator_velocity"]).abs().sum(1))


# -- contact ----------------------------------------------------------------------------------------------------------


@TERMS.piece(geoms=Key(NAMES, "the feet, geoms by name or pattern"))
def foot_slip(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the sum of squared horizontal velocities of the feet that touch anything, (m/s)²: a cost."""
    names = build.named("geom")
    feet = [names[i] for i in some(names, keys["geoms"], "geom", f"{where}.geoms")]
    touch = touching(build, feet)
    columns: list[int] = []
    for name in feet:
        kind, geom = mujoco.mjtSensor.mjSENS_FRAMELINVEL, mujoco.mjtObj.mjOBJ_GEOM
        start = build.sensor(3, type=kind, objtype=geom, objname=name).start
        columns += [start, start + 1]
    take = pick("sensordata", columns)

    def reward(before: State, state: State, action: Tensor, tasks: Tasks) -> Tensor:
        speed = take(state).unflatten(1, (len(feet), 2)).square().sum(2)
        return (speed * touch(state)).sum(1)

    return Term(reward=reward)


@TERMS.piece(geoms=Key(NAMES, "geoms that are to touch nothing, by name or pattern"))
def contact(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return how many of some geoms touch anything: a cost."""
    names = build.named("geom")
    touch = touching(build, [names[i] for i in some(names, keys["geoms"], "geom", f"{where}.geoms")])
    return Term(reward=lambda before, state, action, tasks: touch(state).sum(1))


# -- reaching ---------------------------------------------------------------------------------------------------------

REACH = {
    "site": Key(Text(), "the site that is to get there"),
    "to": Key(
        Listed(COMMAND, least=3, most=3), "a point: three numbers or commands, m; or leave it out for to_site", None
    ),
    "to_site": Key(Text(), "another site that it is to get to", ""),
    "offset": Key(Listed(Number(), least=3, most=3), "added to the point, m", (0.0, 0.0, 0.0)),
}
"""Keys of terms about a distance."""


def distance_of(build: Build, where: str, keys: dict[str, Any]):
    """Return what measures the distance of a site from where it is to get, m, and that point."""
    site = one(build.model, "site", keys["site"], f"{where}.site")
    if (keys["to"] is None) == (keys["to_site"] == ""):
        raise UserError(f"{where}: got {'both' if keys['to_site'] else 'neither'} of to and to_site. Give one of them.")
    build.read("site_xpos")
    offset = torch.tensor(keys["offset"], dtype=torch.float64)
    other = one(build.model, "site", keys["to_site"], f"{where}.to_site") if keys["to_site"] else None
    axes = [build.wanted(axis, "m", f"{where}.to[{i}]") for i, axis in enumerate(keys["to"] or ())]

    def goal(state: State, tasks: Tasks) -> Tensor:
        if other is not None:
            return state["site_xpos"][:, other] + on(state["site_xpos"], offset)
        # Numbers are made here: in a step nothing is copied from the host.
        blank = torch.zeros_like(state["qpos"][:, 0])
        return torch.stack([blank + axis(tasks) for axis in axes], dim=1) + on(state["site_xpos"], offset)

    def measure(state: State, tasks: Tasks) -> Tensor:
        return (state["site_xpos"][:, site] - goal(state, tasks)).norm(dim=1)

    return measure, goal


def _ball(goal: Callable[[State, Tasks], Tensor]) -> Callable[[State, Tasks], Marker]:
    return lambda state, tasks: Marker(position=goal(state, tasks), radius=0.02)


@TERMS.piece(**REACH)
def distance(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return the distance of a site from a point or another site, m: a cost."""
    measure, goal = distance_of(build, where, keys)
    return Term(reward=lambda before, state, action, tasks: measure(state, tasks), marker=_ball(goal))


@TERMS.piece(**REACH, width=Key(WIDTH, "distance at which it is 1/e = .37, m", 0.1))
def reach(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return how near a site is to a point or another site: exp(-(distance / width)²), 0 to 1."""
    measure, goal = distance_of(build, where, keys)
    width = keys["width"]
    return Term(reward=lambda b, state, a, tasks: _near(measure(state, tasks), width), marker=_ball(goal))


def _near(error: Float[Tensor, " B"], width: float) -> Float[Tensor, " B"]:
    return torch.exp(-((error / width).square()))
