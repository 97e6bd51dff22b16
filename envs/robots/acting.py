"""How a robot is driven: which joints get actuators, how often it is told, from which pose, and within which bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.models import MOST_SUBSTEPS
from metarl.envs.robots.naming import TURNING, joints, names_of, one, some, unit_of_joint
from metarl.errors import UserError

NEAR = 1e-6
"""How near a control step has to be to whole physics steps, of one."""


def chosen_joints(model: mujoco.MjModel, groups: tuple[dict[str, Any], ...]) -> list[tuple[str, dict[str, Any]]]:
    """Return which joints get which actuators, in the order of the model."""
    names = names_of(model, "joint")
    driven = {int(model.actuator_trnid[i, 0]) for i in range(model.nu) if model.actuator_trntype[i] in (0, 1)}
    found: dict[int, dict[str, Any]] = {}
    for i, group in enumerate(groups):
        where = f"actuators[{i}]"
        needed = "effort" if group["kind"] == "motor" else "kp"
        if group[needed] is None:
            raise UserError(f"{where}.{needed}: missing, and a {group['kind']} needs it.")
        if group["kind"] == "motor" and (group["kp"] is not None or group["kd"]):
            raise UserError(f"{where}: got kp or kd for a motor, which has none. Leave them out, or take kind: servo.")
        for joint in joints(model, group["joints"], f"{where}.joints"):
            if joint in found or joint in driven:
                raise UserError(f"{where}.joints: '{names[joint]}' has an actuator already. Name other joints.")
            if model.joint(joint).name == "":
                raise UserError(f"{where}.joints: {names[joint]} has no name in the model. Give it one there.")
            found[joint] = group
    return [(names[joint], found[joint]) for joint in sorted(found)]


def frame_skip_of(content: Mapping[str, Any], time_step: float) -> int:
    """Return the physics steps of a control step."""
    rate, skip = content["control_rate"], content["frame_skip"]
    if (rate is None) == (skip is None):
        raise UserError(
            f"control_rate: got {'neither it nor' if rate is None else 'it and'} frame_skip. Give one of them."
        )
    if skip is not None:
        return skip
    if rate * time_step * MOST_SUBSTEPS < 1.0 - NEAR:
        raise UserError(
            f"control_rate: got {rate:g} Hz, and a time step of {time_step:g} s, which are more than {MOST_SUBSTEPS:,} "
            "physics steps of a control step. Raise one of them."
        )
    exact = 1.0 / (rate * time_step)
    whole = max(1, round(exact))
    if abs(exact - whole) > NEAR * whole:
        below, above = max(1, math.floor(exact)), math.ceil(exact)
        rates = " or ".join(f"{1.0 / (n * time_step):.10g}" for n in dict.fromkeys((above, below)))
        raise UserError(
            f"control_rate: got {rate:g} Hz, which is {exact:.6g} steps of {time_step:g} s and no whole number. "
            f"Take {rates}, or another time_step."
        )
    return whole


def home_of(model: mujoco.MjModel, start: Mapping[str, Any]) -> Float[Tensor, " Q"]:
    """Return the pose at the start, without noise."""
    pose = model.qpos0.copy()
    if start["keyframe"]:
        pose = model.key_qpos[one(model, "keyframe", start["keyframe"], "start.keyframe")].copy()
        if not np.isfinite(pose).all():
            raise UserError(
                f"start.keyframe: '{start['keyframe']}' has a number that is not finite in qpos. Correct it in the "
                "model."
            )
        _check_joints(model, start["keyframe"], pose)
    for pattern, value in start["pose"].items():
        for joint in joints(model, [pattern], f"start.pose.{pattern}"):
            low, high = model.jnt_range[joint]
            if model.jnt_limited[joint] and not low - NEAR <= value <= high + NEAR:
                name = names_of(model, "joint")[joint]
                unit = unit_of_joint(model, joint)
                raise UserError(
                    f"start.pose.{pattern}: got {value:g} {unit}, but '{name}' goes from {low:g} to {high:g} {unit}."
                )
            pose[model.jnt_qposadr[joint]] = value
    if start["place"] is not None:
        free = [i for i in range(model.njnt) if model.jnt_type[i] == mujoco.mjtJoint.mjJNT_FREE]
        if not free:
            raise UserError("start.place: the robot has no free joint, and stands where its model says. Leave it out.")
        pose[model.jnt_qposadr[free[0]] :][:3] = start["place"]
    return torch.from_numpy(pose)


def _check_joints(model: mujoco.MjModel, keyframe: str, pose: np.ndarray) -> None:
    """Refuse a keyframe with a joint outside its range."""
    names = names_of(model, "joint")
    for joint in range(model.njnt):
        first, kind = int(model.jnt_qposadr[joint]), model.jnt_type[joint]
        if kind in TURNING and model.jnt_limited[joint]:
            low, high = model.jnt_range[joint]
            if not low - NEAR <= pose[first] <= high + NEAR:
                unit = unit_of_joint(model, joint)
                raise UserError(
                    f"start.keyframe: '{keyframe}' has {pose[first]:g} {unit} for '{names[joint]}', which goes from "
                    f"{low:g} to {high:g} {unit}. Correct it in the model."
                )


def bounds_of(
    model: mujoco.MjModel, action: Mapping[str, Any], home: Float[Tensor, " Q"]
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Return the bounds of actions, and their unit."""
    names, reach = names_of(model, "actuator"), action["reach"]
    bounds: list[tuple[float, float]] = [(math.nan, math.nan)] * model.nu
    for i in range(model.nu):
        if model.actuator_ctrllimited[i]:
            bounds[i] = (float(model.actuator_ctrlrange[i, 0]), float(model.actuator_ctrlrange[i, 1]))
    if reach is not None:
        far = reach if isinstance(reach, dict) else {"*": reach}
        for pattern, value in far.items():
            where = f"action.reach.{pattern}" if isinstance(reach, dict) else "action.reach"
            for i in some(names, [pattern], "actuator", where):
                if not _is_servo(model, i):
                    raise UserError(f"{where}: '{names[i]}' is no servo on a joint. Name such ones by pattern.")
                middle = float(home[model.jnt_qposadr[model.actuator_trnid[i, 0]]])
                bounds[i] = (middle - value, middle + value)
    unlimited = [name for name, (low, _) in zip(names, bounds, strict=True) if math.isnan(low)]
    if unlimited:
        raise UserError(f"action.reach: missing, and the actuator '{unlimited[0]}' has no ctrlrange. Give one of them.")
    servos = {
        unit_of_joint(model, int(model.actuator_trnid[i, 0])) if _is_servo(model, i) else "" for i in range(model.nu)
    }
    unit = action["unit"] or (servos.pop() if len(servos) == 1 else "") or "of the actuators' controls"
    return tuple(low for low, _ in bounds), tuple(high for _, high in bounds), unit


def _is_servo(model: mujoco.MjModel, actuator: int) -> bool:
    """Tell whether an actuator goes to a position of a joint."""
    on_joint = model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_JOINT
    kind = model.actuator_biastype[actuator] == mujoco.mjtBias.mjBIAS_AFFINE
    gains = model.actuator_gainprm[actuator, 0], -model.actuator_biasprm[actuator, 1]
    return bool(on_joint and kind and gains[0] > 0.0 and np.isclose(*gains))
