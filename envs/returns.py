"""What a family's functions return, looked at in the first reset and the first step of its worlds.

Later ones return the same kinds of tensors: only shapes and types are looked at, never a number, so that no device is
waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from metarl.envs.family import Family, MujocoFamily
from metarl.errors import UserError

FLOATS = (torch.float32, torch.float64)


def check_start(family: Family, num_worlds: int, state: object) -> None:
    """Refuse a state to begin with that is no tensor of every field, with a row a world.

    Args:
        family: the family.
        num_worlds: of the worlds that begin, B.
        state: what `reset_state` returned.

    Raises:
        UserError: says what it returned and what is needed.
    """
    wanted = f"a dict: name of a state field -> tensor [{num_worlds}, ...]"
    if not isinstance(state, Mapping) or not state:
        raise _wrong(family, "reset_state", _said(state), wanted)
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain(value) or value.shape[:1] != (num_worlds,):
            raise _wrong(family, "reset_state", f"{_said(value)} for {name!r}", wanted)
    missing = [name for name in family.carried if name not in state]
    if missing:
        raise _wrong(family, "reset_state", f"no {', '.join(missing)}", "all fields that are `carried`")


def check_advanced(family: Family, before: Mapping[str, Tensor], after: object) -> None:
    """Refuse a state after a step that has not the fields of the one before.

    Args:
        family: the family.
        before: the state before the step.
        after: what `advance` returned.

    Raises:
        UserError: says what it returned and what is needed.
    """
    wanted = f"a dict with all fields of the state, {', '.join(before)}, each of the shape that it had"
    if not isinstance(after, Mapping):
        raise _wrong(family, "advance", _said(after), wanted)
    for name in {**before, **after}:
        if name not in after or name not in before:
            what = "nothing" if name not in after else "a field that reset_state did not,"
            raise _wrong(family, "advance", f"{what} for {name!r}", wanted)
        if not _is_plain(after[name]) or after[name].shape != before[name].shape:
            raise _wrong(family, "advance", f"{_said(after[name])} for {name!r}", wanted)


def check_carried(family: Family, function: str, carried: Mapping[str, Tensor], values: object) -> None:
    """Refuse what are no values of fields that a family carries.

    Args:
        family: the family.
        function: that returned them, `begin`, `command` or `carry`.
        carried: the fields.
        values: what it returned.

    Raises:
        UserError: says what it returned and what is needed.
    """
    if not isinstance(values, Mapping):
        raise _wrong(family, function, _said(values), "a dict: name of a carried field -> tensor")
    for name, value in values.items():
        field = carried.get(name) if isinstance(name, str) else None
        if field is None:
            raise _wrong(family, function, f"{name!r}", f"none but the carried fields {', '.join(carried)}")
        right = _is_plain(value) and (value.shape, value.dtype) == (field.shape, field.dtype)
        if not right:
            raise _wrong(family, function, f"{_said(value)} for {name!r}", f"{_said(field)}, as `reset_state` began it")


def check_drive(family: Family, num_worlds: int, command: object, forces: object) -> None:
    """Refuse what cannot reach the actuators of a step, or push its bodies.

    Args:
        family: the family.
        num_worlds: B.
        command: what `command` returned.
        forces: what `disturb` returned.

    Raises:
        UserError: says what it returned and what is needed.
    """
    model = family.model if isinstance(family, MujocoFamily) else None
    size = (num_worlds, family.action_size if model is None else model.nu)
    if not _is_plain(command) or command.shape != size or command.dtype not in FLOATS:
        wanted = f"floats {list(size)}: a row a world, a number for each " + ("action" if model is None else "actuator")
        raise _wrong(family, "command", _said(command), wanted)
    if forces is None or model is None:
        return
    size = (num_worlds, model.nbody, 6)
    if not _is_plain(forces) or forces.shape != size or forces.dtype not in FLOATS:
        wanted = f"floats {list(size)}: a force and a torque on each body of each world, or None"
        raise _wrong(family, "disturb", _said(forces), wanted)


def check_observation(family: Family, num_worlds: int, observation: object) -> None:
    """Refuse what is no observation.

    Args:
        family: the family.
        num_worlds: B.
        observation: what `observe` returned.

    Raises:
        UserError: says what it returned and what is needed.
    """
    size = (num_worlds, family.observation_size)
    if not _is_plain(observation) or observation.shape != size or observation.dtype not in FLOATS:
        wanted = f"floats {list(size)}: a row a world, a number for each of its `observables`"
        raise _wrong(family, "observe", _said(observation), wanted)


def check_step(family: Family, num_worlds: int, terms: object, ends: Mapping[str, object]) -> None:
    """Refuse rewards and ends of a step that are none.

    Args:
        family: the family.
        num_worlds: B.
        terms: what `reward_terms` returned.
        ends: name of a function that tells something of every world -> what it returned.

    Raises:
        UserError: says what it returned and what is needed.
    """
    wanted = f"a dict: name -> floats [{num_worlds}], with at least one entry"
    if not isinstance(terms, Mapping) or not terms:
        raise _wrong(family, "reward_terms", _said(terms), wanted)
    for name, value in terms.items():
        right = _is_plain(value) and value.shape == (num_worlds,) and value.dtype in FLOATS
        if not right or not isinstance(name, str) or not name.isprintable() or not name or "/" in name:
            raise _wrong(family, "reward_terms", f"{_said(value)} for {name!r}", f"{wanted}; names have no slash")
    for function, value in ends.items():
        right = _is_plain(value) and value.shape == (num_worlds,) and value.dtype == torch.bool
        if value is not None and not right:
            raise _wrong(family, function, _said(value), f"booleans [{num_worlds}], or None")


def _is_plain(value: object) -> TypeGuard[Tensor]:
    """Tell whether a value is a tensor with numbers in their places."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _wrong(family: Family, function: str, got: str, wanted: str) -> UserError:
    return UserError(f"{family.full_name}: {function} returned {got}. It has to return {wanted}.")


def _said(value: Any) -> str:
    """Return what a value is, in a few words."""
    if isinstance(value, Tensor):
        kind = "sparse " if value.layout != torch.strided else "meta " if value.is_meta else ""
        return f"{kind}{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
