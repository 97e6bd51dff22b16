"""What task parameters do to a robot: to rows of model fields, and to parts of the observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.modifiers.dynamics import nominal
from metarl.envs.robots.naming import TURNING, names_of, some, unit_of_joint
from metarl.envs.robots.quantities import QUANTITIES, Quantity
from metarl.envs.robots.varied import AXES
from metarl.errors import UserError
from metarl.types import Tasks

SERVO = (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE)
"""Gain and bias of an actuator that goes to a position."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a task parameter does to some numbers of a model field."""

    parameter: str
    field: str
    """In `mjModel`; `opt.NAME` for an option, which has no rows."""
    rows: Tensor
    """Rows of the field, N."""
    columns: tuple[int, ...]
    """Numbers of a row, C; empty where a row is one number."""
    do: str
    """`add`, `multiply` or `set`."""
    per: Tensor
    """Which number of the parameter each of them takes, [N, C]."""
    weight: Tensor
    """What that is multiplied by first, [N, C]."""
    gain: int | None = None
    """Column of `actuator_gainprm` whose present number it is multiplied by too."""


def changes_of(model: mujoco.MjModel, name: str, keys: Mapping[str, Any]) -> tuple[int, list[Change]]:
    """Return how many numbers a task parameter has, and what it does to the model.

    Args:
        model: the robot.
        name: of the task.
        keys: of its entry, about a quantity of the model.

    Raises:
        UserError: the model has no such thing, or it cannot be changed so.
    """
    where, target = f"tasks.{name}", keys["target"]
    quantity = QUANTITIES[target][keys["quantity"]]
    if target == "world":
        columns = _columns(quantity, keys["axis"])
        size = len(columns) or 1
        rows, per = torch.zeros(1, dtype=torch.long), torch.arange(size)[None]
        return size, [_change(name, quantity.field, rows, columns, keys["do"], per)]
    found = some(names_of(model, target), keys[target], target, join_of(where, target))
    _check_unit(model, target, found, keys, where)
    rows = torch.tensor(_rows(model, target, quantity, found, where))
    columns = _columns(quantity, keys["axis"])
    wide = len(columns) if quantity.axes == 3 and keys["do"] != "multiply" else 1
    size = (len(found) if keys["each"] else 1) * wide
    first = torch.arange(len(found))[:, None] * wide if keys["each"] else torch.zeros(len(found), 1, dtype=torch.long)
    per = (first + torch.arange(wide)).expand(len(found), max(1, len(columns)))
    _check_values(model, quantity, rows, columns, keys, where)
    return size, _expanded(model, name, quantity, rows, columns, keys, per)


def join_of(where: str, key: str) -> str:
    """Return the path of a key of a task."""
    return f"{where}.{key}"


def _columns(quantity: Quantity, axis: str | None) -> tuple[int, ...]:
    if quantity.axes == 1:
        return () if quantity.component is None else (quantity.component,)
    return tuple(range(quantity.axes)) if axis is None else (AXES[axis],)


def _change(name: str, field: str, rows: Tensor, columns: tuple[int, ...], do: str, per: Tensor, **more: Any) -> Change:
    weight = torch.ones(len(rows), max(1, len(columns)), dtype=torch.float64)
    return Change(parameter=name, field=field, rows=rows, columns=columns, do=do, per=per, **{"weight": weight, **more})


def _expanded(
    model: mujoco.MjModel,
    name: str,
    quantity: Quantity,
    rows: Tensor,
    columns: tuple[int, ...],
    keys: Mapping[str, Any],
    per: Tensor,
) -> list[Change]:
    """Return all that has to change together, so that the physics is what the task says."""
    do, what = keys["do"], keys["quantity"]
    once = per[:, :1]
    main = _change(name, quantity.field, rows, columns, do, per)
    if what == "mass" and do != "add":
        # The same shape of another density.
        mass = torch.from_numpy(model.body_mass[rows.numpy()].copy())[:, None].expand(-1, 3)
        weight = torch.ones_like(mass) if do == "multiply" else 1.0 / mass
        return [main, _change(name, "body_inertia", rows, (0, 1, 2), "multiply", once.expand(-1, 3), weight=weight)]
    if what == "kp":
        minus = (
            -torch.ones(len(rows), 1, dtype=torch.float64) if do != "multiply" else torch.ones(len(rows), 1).double()
        )
        return [main, _change(name, "actuator_biasprm", rows, (1,), do, once, weight=minus)]
    if what == "kd" and do != "multiply":
        return [_change(name, quantity.field, rows, columns, do, once, weight=-torch.ones(len(rows), 1).double())]
    if what == "effort" and do == "set":
        weight = torch.tensor([[-1.0, 1.0]], dtype=torch.float64).expand(len(rows), 2)
        return [_change(name, quantity.field, rows, columns, do, once.expand(-1, 2), weight=weight)]
    if what == "effort":
        return [_change(name, quantity.field, rows, columns, do, once.expand(-1, 2))]
    if what == "strength":
        wide = (0, 1, 2)
        both = [_change(name, f, rows, wide, do, once.expand(-1, 3)) for f in ("actuator_gainprm", "actuator_biasprm")]
        return [*both, _change(name, "actuator_forcerange", rows, (0, 1), do, once.expand(-1, 2))]
    if what == "offset":
        # The force is kp (control + offset - position).
        return [_change(name, quantity.field, rows, columns, do, once, gain=0)]
    return [main]


def changed(model: mujoco.MjModel, changes: Sequence[Change], tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
    """Return the model fields of every world, as its task says.

    Args:
        model: the robot.
        changes: made one after the other.
        tasks: one per world, on the host.
    """
    count, result = len(tasks), {}
    for change in changes:
        if change.field not in result:
            value = nominal(model, change.field)
            result[change.field] = value.expand(count, *value.shape).clone()
        whole = result[change.field]
        # [B, rows, columns]: a view.
        table = (
            whole.reshape(count, 1, -1) if change.field.startswith("opt.") else whole.reshape(count, len(whole[0]), -1)
        )
        given = tasks[change.parameter].reshape(count, -1)
        value = given[:, change.per] * change.weight
        if change.gain is not None:
            gains = result.get("actuator_gainprm", nominal(model, "actuator_gainprm").expand(count, -1, -1))
            value = value * gains[:, change.rows, change.gain, None]
        columns = list(change.columns) or [0]
        old = table[:, change.rows[:, None], columns]
        new = {"add": old + value, "multiply": old * value, "set": value}[change.do]
        table[:, change.rows[:, None], columns] = new
    return result


# -- checks -----------------------------------------------------------------------------------------------------------


def _rows(model: mujoco.MjModel, target: str, quantity: Quantity, found: Sequence[int], where: str) -> list[int]:
    """Return the rows of a quantity's field; refuse things that do not have it."""
    names = names_of(model, target)
    if target == "joint":
        odd = [names[i] for i in found if model.jnt_type[i] not in TURNING]
        if odd:
            raise UserError(f"{where}.joint: '{odd[0]}' is neither a hinge nor a slide joint. Name such joints.")
        if quantity.field.startswith("dof_"):
            return [int(model.jnt_dofadr[i]) for i in found]
        return [int(model.jnt_qposadr[i]) for i in found] if quantity.field == "qpos_spring" else list(found)
    if target == "body" and quantity.field == "body_ipos":
        # MuJoCo takes short cuts where a body's centre of mass is its frame's origin.
        simple = [names[i] for i in found if model.body_simple[i]]
        if simple:
            raise UserError(
                f"{where}.body: the centre of mass of '{simple[0]}' cannot vary: it is alone on its joints, and in "
                "the middle of its frame. Give the body an <inertial> with another pos."
            )
    return list(found)


def _check_unit(model: mujoco.MjModel, target: str, found: Sequence[int], keys: Mapping[str, Any], where: str) -> None:
    """Refuse the unit of hinges for slides, and both in one task."""
    units = QUANTITIES[target][keys["quantity"]].units
    if len(units) < 2 or keys["do"] == "multiply":
        return
    for i in found:
        joint = i if target == "joint" else int(model.actuator_trnid[i, 0])
        turns = target == "actuator" and model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_JOINT
        needed = units[0] if turns or unit_of_joint(model, joint) == "rad" else units[1]
        if keys["unit"] != needed:
            name = names_of(model, target)[i]
            raise UserError(
                f"{where}.unit: got {keys['unit']}, but of '{name}' it is {needed}. Write one task for each."
            )


def _check_values(
    model: mujoco.MjModel,
    quantity: Quantity,
    rows: Tensor,
    columns: tuple[int, ...],
    keys: Mapping[str, Any],
    where: str,
) -> None:
    """Refuse what would make a number less than 0 that cannot be, or multiply nothing, or servos that are none."""
    what, do = keys["quantity"], keys["do"]
    if keys["target"] == "actuator" and what in ("kp", "kd", "offset"):
        for i in rows.tolist():
            if (model.actuator_gaintype[i], model.actuator_biastype[i]) != tuple(map(int, SERVO)):
                name = names_of(model, "actuator")[i]
                raise UserError(f"{where}.actuator: '{name}' is no servo, and has no {what}. Take gear or strength.")
    value = nominal(model, quantity.field)[rows]
    value = value.reshape(len(rows), -1)[:, list(columns) or [0]]
    if what == "kd":
        value = -value
    least = keys["least"]
    if what == "effort":
        value = value[:, 1:]
        if not all(model.actuator_forcelimited[i] for i in rows.tolist()):
            raise UserError(f"{where}.actuator: one of them has no largest force. Give it a forcerange, or an effort.")
    if do == "multiply" and not bool(value.any()):
        raise UserError(f"{where}: the {what} is 0 in the model, so that nothing changes. Take do: add or set.")
    if what == "mass" and do == "set" and bool((value <= 0.0).any()):
        raise UserError(f"{where}: one of the bodies has no mass, and no shape to be made heavier. Take do: add.")
    smallest = {"add": float(value.min()) + least, "multiply": least, "set": least}[do]
    strict = what in ("mass", "inertia", "size")
    if quantity.positive and (smallest <= 0.0 if strict else smallest < 0.0):
        limit = "0 or less" if strict else "less than 0"
        raise UserError(f"{where}: the {what} would get {limit}. Raise the low end of its range, or of ood.")
