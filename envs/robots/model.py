"""The model of a robot file: MJCF or URDF, the files that belong to it, and what the robot file adds to it.

A model is read by MuJoCo. Which files it takes is found out before: they are regular files of a size, a run keeps their
hashes, and what cannot be followed exactly (a model within a model) is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import mujoco

from metarl.envs.models import compiled as as_engines_run_it
from metarl.envs.robots.naming import TURNING
from metarl.errors import UserError, nearest
from metarl.files import open_regular, read_regular

LARGEST = 1 << 26
"""Bytes that a file of a model may have."""
MOST = 1000
"""Files that a model may have."""
SUFFIXES = (".xml", ".mjcf", ".urdf")
SUN = (0.0, 0.0, 3.0)
"""Where the light stands that a floor comes with, m."""
INTEGRATORS = {
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
    "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT,
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    "rk4": mujoco.mjtIntegrator.mjINT_RK4,
}


def read(folder: Path, options: Mapping[str, Any]) -> tuple[mujoco.MjSpec, tuple[Path, ...]]:
    """Return a model, not compiled yet, and all files that it takes.

    Args:
        folder: where the robot file is.
        options: `model` of the robot file, with all keys.

    Raises:
        UserError: a file is missing or cannot be read, or the model is none.
    """
    file = folder / options["file"]
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"model.file: got '{options['file']}'. Give an MJCF or URDF file, which ends in .xml or .urdf.")
    texts = _texts(file)
    try:
        spec = mujoco.MjSpec.from_file(str(file))
    except ValueError as error:
        raise UserError(f"model.file: {file} cannot be read: {_said(error)}. Mend it there.") from error
    if options["meshes"]:
        spec.meshdir = str((folder / options["meshes"]).resolve())
    others = list(dict.fromkeys(_others(spec, file)))
    for other, what in others:
        if not other.exists():
            hint = "" if options["meshes"] else ", or say with model.meshes in which folder such files are"
            raise UserError(
                f"model.file: {file.name} takes the {what} {other}, which is not there. Bring it there{hint}."
            )
        open_regular(other, LARGEST).close()
    if options["free_joint"]:
        _set_free(spec, options["free_joint"])
    if options["floor"]:
        _add_floor(spec, 1.0 if options["floor"] is True else options["floor"]["friction"])
    return spec, tuple(dict.fromkeys((*texts, *(path for path, _ in others))))


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Return the compiled model, and leave the spec as it is; say in one line why there is none.

    Raises:
        UserError: MuJoCo refuses it: a keyframe of another size, a mesh that is none, a body without mass.
    """
    try:
        return as_engines_run_it(spec.copy())
    except ValueError as error:
        said = _said(error)
        key = "start.keyframe" if "keyframe" in said else "model.file"
        raise UserError(f"{key}: MuJoCo cannot compile the model: {said}. Mend it there.") from error


def check_keyframe(spec: mujoco.MjSpec, model: mujoco.MjModel, name: str) -> None:
    """Refuse a keyframe with fewer numbers than the model has: MuJoCo fills them up with zeros."""
    for key in spec.keys:
        if key.name == name and len(key.qpos) not in (0, model.nq):
            raise UserError(
                f"start.keyframe: '{name}' has {len(key.qpos)} numbers for qpos, and the model {model.nq}. Correct it "
                "in the model, or give start.pose."
            )


def _said(error: ValueError) -> str:
    return " ".join(str(error).split()).removeprefix("Error: ").removeprefix("XML Error: ").rstrip(".")


# -- its files --------------------------------------------------------------------------------------------------------


def _texts(file: Path) -> list[Path]:
    """Return a model's file, and those that it includes."""
    found: list[Path] = []
    waiting = [(file, "model.file")]
    while waiting:
        path, where = waiting.pop()
        if path in found:
            continue
        if len(found) == MOST:
            raise UserError(f"{where}: the model includes more than {MOST} files. Write them into fewer.")
        try:
            content = read_regular(path, LARGEST)
        except FileNotFoundError as error:
            raise UserError(
                f"{where}: there is no file {path}. Correct the path, which is from {_from(where)}."
            ) from error
        found.append(path)
        for tag, name in _named(content, path):
            if tag != "include":
                raise UserError(
                    f"model.file: {path.name} takes the model {name} within a model, whose files are not followed. "
                    "Write all of it into one file (MjSpec.to_xml), and give that."
                )
            # MuJoCo looks beside the main file.
            waiting.append((file.parent / name, f"model.file: {path.name}"))
    return found


def _from(where: str) -> str:
    return "the folder of the robot file" if where == "model.file" else "the folder of the model"


def _named(content: bytes, path: Path) -> list[tuple[str, str]]:
    """Return the files that an XML text includes, or takes as models, with the tag that names them."""
    found: list[tuple[str, str]] = []

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if tag in ("include", "model") and "file" in attributes:
            found.append((tag, attributes["file"]))

    def refuse(*_: Any) -> None:
        raise UserError(f"model.file: {path} declares entities of its own. Write out what they stand for.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise UserError(f"model.file: {path} is no XML: {error}. Mend it there.") from error
    return found


def _others(spec: mujoco.MjSpec, file: Path) -> Iterable[tuple[Path, str]]:
    """Yield the meshes, textures, height fields and skins of a model, with what they are."""
    folder = file.parent
    for mesh in spec.meshes:
        yield from _at(folder, spec.meshdir, mesh.file, spec.strippath, "mesh")
    for field in spec.hfields:
        yield from _at(folder, spec.meshdir, field.file, spec.strippath, "height field")
    for skin in spec.skins:
        yield from _at(folder, spec.meshdir, skin.file, spec.strippath, "skin")
    for texture in spec.textures:
        for name in (texture.file, *texture.cubefiles):
            yield from _at(folder, spec.texturedir, name, spec.strippath, "texture")


def _at(folder: Path, inner: str, name: str, strip: bool, what: str) -> Iterable[tuple[Path, str]]:
    """Yield where MuJoCo looks for a file that a model names, if it names one."""
    if name:
        yield folder / inner / (Path(name).name if strip else name), what


# -- what the robot file adds -----------------------------------------------------------------------------------------


def _set_free(spec: mujoco.MjSpec, name: str) -> None:
    """Let a body move freely, as the root of a URDF robot that walks."""
    body = next((body for body in spec.bodies if body.name == name), None)
    if body is None:
        known = [body.name for body in spec.worldbody.bodies]
        raise UserError(f"model.free_joint: the model has no body '{name}'.{nearest(name, known)}")
    if body.parent != spec.worldbody:
        raise UserError(
            f"model.free_joint: the body '{name}' is carried by another one. Name one that stands in the world."
        )
    if body.joints:
        raise UserError(f"model.free_joint: the body '{name}' has a joint already. Leave the key out.")
    body.add_freejoint(name=f"{name}_free")


def _add_floor(spec: mujoco.MjSpec, friction: float) -> None:
    """Add a plane at height 0, with a pattern to be seen, and a light."""
    if any(geom.name == "floor" for geom in spec.geoms):
        raise UserError("model.floor: the model has a geom 'floor' already. Leave the key out.")
    spec.add_texture(
        name="floor",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.35, 0.4, 0.45],
        rgb2=[0.45, 0.5, 0.55],
        width=256,
        height=256,
    )
    material = spec.add_material(name="floor", texrepeat=[2.0, 2.0], texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0.0, 0.0, 0.05],
        friction=[friction, 0.005, 0.0001],
        # Whatever the model's own defaults are, all of it stands on the floor.
        contype=1,
        conaffinity=1,
        condim=3,
        material="floor",
    )
    spec.worldbody.add_light(pos=list(SUN), dir=[0.0, 0.0, -1.0], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)


def add_actuators(spec: mujoco.MjSpec, chosen: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Add actuators to joints.

    Args:
        spec: the model.
        chosen: names of joints, each with a group of `actuators` of the robot file: its keys.
    """
    joints = {joint.name: joint for joint in spec.joints}
    for name, group in chosen:
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        effort, kp, kd = group["effort"], group["kp"], group["kd"]
        if group["kind"] == "motor":
            actuator.gainprm[0] = effort
            actuator.ctrllimited, actuator.ctrlrange = mujoco.mjtLimited.mjLIMITED_TRUE, [-1.0, 1.0]
        else:
            # The force is kp (control - position) - kd speed, and at most the effort.
            actuator.gainprm[0] = kp
            actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
            actuator.biasprm[:3] = [0.0, -kp, -kd]
            # `auto`: it is limited where the joint is.
            actuator.inheritrange = 1.0 if _is_limited(joints[name]) else 0.0
        if effort is not None:
            actuator.forcelimited, actuator.forcerange = mujoco.mjtLimited.mjLIMITED_TRUE, [-effort, effort]
        if group["armature"] is not None:
            joints[name].armature = group["armature"]


def _is_limited(joint: Any) -> bool:
    if joint.type not in [mujoco.mjtJoint(kind) for kind in TURNING]:
        return False
    automatic = joint.limited == mujoco.mjtLimited.mjLIMITED_AUTO and joint.range[0] < joint.range[1]
    return bool(automatic or joint.limited == mujoco.mjtLimited.mjLIMITED_TRUE)
