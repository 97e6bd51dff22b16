"""Names of a model: what is there, and what a pattern in a robot file stands for."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import mujoco

from metarl.errors import UserError, nearest

KINDS = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
    "keyframe": mujoco.mjtObj.mjOBJ_KEY,
}
"""What a file may name."""
COUNTS = {
    "body": "nbody",
    "geom": "ngeom",
    "joint": "njnt",
    "actuator": "nu",
    "site": "nsite",
    "sensor": "nsensor",
    "keyframe": "nkey",
}
TURNING = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
"""Joints of one number."""


def names_of(model: mujoco.MjModel, kind: str) -> list[str]:
    """Return the names of everything of a kind, in the order of the model; what has none is called by its number."""
    names = (mujoco.mj_id2name(model, KINDS[kind], i) for i in range(getattr(model, COUNTS[kind])))
    return [name or f"{kind} {i}" for i, name in enumerate(names)]


def one(model: mujoco.MjModel, kind: str, name: str, where: str) -> int:
    """Return the number of what a file names.

    Args:
        model: the robot.
        kind: one of `KINDS`.
        name: its name.
        where: the key, for the error.

    Raises:
        UserError: there is nothing of this name; it lists what there is.
    """
    names = names_of(model, kind)
    if name not in names:
        raise UserError(f"{where}: the model has no {kind} '{name}'.{nearest(name, names)}")
    return names.index(name)


def some(names: Sequence[str], patterns: Sequence[str], kind: str, where: str) -> list[int]:
    """Return the numbers of what patterns stand for, each once, in the order of the patterns.

    Args:
        names: of all there is.
        patterns: names, in which `*` stands for any letters, `?` for one, and `[ab]` for one of these.
        kind: what they are.
        where: the key, for the error.

    Raises:
        UserError: a pattern stands for nothing.
    """
    found: list[int] = []
    for pattern in patterns:
        fits = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
        if not fits:
            raise UserError(f"{where}: the model has no {kind} '{pattern}'.{nearest(pattern, names)}")
        found += [i for i in fits if i not in found]
    return found


def joints(model: mujoco.MjModel, patterns: Sequence[str], where: str) -> list[int]:
    """Return the numbers of joints of one number (hinges and slides) that patterns stand for; errors as in `some`."""
    names = names_of(model, "joint")
    turning = [i for i in range(model.njnt) if model.jnt_type[i] in TURNING]
    chosen = some([names[i] for i in turning], patterns, "hinge or slide joint", where)
    return [turning[i] for i in chosen]


def unit_of_joint(model: mujoco.MjModel, joint: int) -> str:
    """Return the unit of a hinge's or a slide's position."""
    return "m" if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE else "rad"


def base_of(model: mujoco.MjModel, name: str) -> int | None:
    """Return the number of the free joint that carries the robot; None where there is none.

    Args:
        model: the robot.
        name: of the body on it; empty: the first free joint's.

    Raises:
        UserError: the body is not there, or on no free joint.
    """
    free = [i for i in range(model.njnt) if model.jnt_type[i] == mujoco.mjtJoint.mjJNT_FREE]
    if not name:
        return free[0] if free else None
    body = one(model, "body", name, "base")
    for joint in free:
        if model.jnt_bodyid[joint] == body:
            return joint
    bodies = [names_of(model, "body")[model.jnt_bodyid[joint]] for joint in free]
    raise UserError(f"base: the body '{name}' has no free joint; those that have one: {', '.join(bodies) or 'none'}.")
