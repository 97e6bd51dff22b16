"""What ends an episode, by name; and when a task's goal is met."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from metarl.envs.family import State
from metarl.envs.robots.building import Build, Library, Told, up_in_base
from metarl.envs.robots.form import Key, Number, Table, Text
from metarl.envs.robots.naming import joints, some
from metarl.envs.robots.parts import NAMES, touching
from metarl.envs.robots.rewards import BODY, REACH, distance_of, height_of
from metarl.errors import UserError
from metarl.types import Tasks

ENDS = Library()
"""Everything that ends an episode."""

BELOW = Key(Number(), "it ends where it is less", None)
ABOVE = Key(Number(), "it ends where it is more", None)

SUCCESS = Table({**REACH, "below": Key(Number(above=0.0), "distance that counts as there, m")})
"""`success` of a robot file."""


@ENDS.piece(below=BELOW, above=ABOVE, body=BODY)
def height(build: Build, where: str, keys: dict[str, Any]) -> Told:
    """Return whether a body is too low or too high, m."""
    return _outside(height_of(build, keys["body"], f"{where}.body"), where, keys)


@ENDS.piece(above=Key(Number(above=0.0, high=math.pi), "it ends where the tilt is more, rad"))
def tilt(build: Build, where: str, keys: dict[str, Any]) -> Told:
    """Return whether the base is tilted too far from upright, rad."""
    first, _ = build.free(where)
    least = math.cos(keys["above"])
    return lambda state, tasks: up_in_base(state["qpos"][:, first + 3 : first + 7])[:, 2] < least


@ENDS.piece(geoms=Key(NAMES, "geoms that are to touch nothing, by name or pattern"))
def contact(build: Build, where: str, keys: dict[str, Any]) -> Told:
    """Return whether one of some geoms touches anything."""
    names = build.named("geom")
    touch = touching(build, [names[i] for i in some(names, keys["geoms"], "geom", f"{where}.geoms")])
    return lambda state, tasks: touch(state).sum(1) > 0.0


@ENDS.piece(joint=Key(Text(), "a hinge or slide joint"), below=BELOW, above=ABOVE)
def joint_position(build: Build, where: str, keys: dict[str, Any]) -> Told:
    """Return whether a joint's position is too low or too high, rad or m."""
    joint = joints(build.model, [keys["joint"]], f"{where}.joint")[0]
    column = int(build.model.jnt_qposadr[joint])
    return _outside(lambda state: state["qpos"][:, column], where, keys)


def _outside(measure: Callable[[State], Tensor], where: str, keys: dict[str, Any]) -> Told:
    below, above = keys["below"], keys["above"]
    if below is None and above is None:
        raise UserError(f"{where}: got neither of below and above. Give one of them, or both.")
    if below is not None and above is not None and below >= above:
        raise UserError(f"{where}: got below {below:g} and above {above:g}, so that every episode ends. Swap them.")

    low, high = -math.inf if below is None else below, math.inf if above is None else above

    def told(state: State, tasks: Tasks) -> Tensor:
        value = measure(state)
        return (value < low) | (value > high)

    return told


def success_of(build: Build, where: str, keys: dict[str, Any]) -> Told:
    """Return what tells whether a site is where it is to get."""
    measure, _ = distance_of(build, where, keys)
    return lambda state, tasks: measure(state, tasks) < keys["below"]
