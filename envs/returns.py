"""What a family's functions return, looked at in the first reset and the first step of its worlds.

Later ones return the same kinds of tensors: only shapes and types are looked at, never a number, so that no device is
waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    fields = state if isinstance(state, Mapping) else {"": state}
    for name, value in fields.items():
        whole = isinstance(state, Mapping) and isinstance(name, str)
        if not whole or not isinstance(value, Tensor) or value.shape[:1] != (num_worlds,):
            got = f"{_said(value)} for {name!r}" if isinstance(state, Mapping) else _said(value)
            raise _wrong(family, "reset_state", got, f"a dict: name of a state field -> tensor [{num_worlds}, ...]")
    missing = [name for name in family.carried if name not in fields]
    if missing:
        raise _wrong(family, "reset_state", f"no {', '.join(missing)}", "all fields that are `carried`")


def check_carried(family: Family, function: str, carried: Mapping[str, Tensor], values: object) -> None:
    """Refuse what are no values of fields that a family carries.

    Args:
        family: the family.
        function: that returned them, `begin` or `carry`.
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
        right = isinstance(value, Tensor) and (value.shape, value.dtype) == (field.shape, field.dtype)
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
    if not isinstance(command, Tensor) or command.shape != size or command.dtype not in FLOATS:
        wanted = f"floats {list(size)}: a row a world, a number for each " + ("action" if model is None else "actuator")
        raise _wrong(family, "command", _said(command), wanted)
    if forces is None or model is None:
        return
    size = (num_worlds, model.nbody, 6)
    if not isinstance(forces, Tensor) or forces.shape != size or forces.dtype not in FLOATS:
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
    if not isinstance(observation, Tensor) or observation.shape != size or observation.dtype not in FLOATS:
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
        right = isinstance(value, Tensor) and value.shape == (num_worlds,) and value.dtype in FLOATS
        if not right or not isinstance(name, str) or not name.isprintable() or not name or "/" in name:
            raise _wrong(family, "reward_terms", f"{_said(value)} for {name!r}", f"{wanted}; names have no slash")
    for function, value in ends.items():
        right = isinstance(value, Tensor) and value.shape == (num_worlds,) and value.dtype == torch.bool
        if value is not None and not right:
            raise _wrong(family, function, _said(value), f"booleans [{num_worlds}], or None")


def _wrong(family: Family, function: str, got: str, wanted: str) -> UserError:
    return UserError(f"{family.full_name}: {function} returned {got}. It has to return {wanted}.")


def _said(value: Any) -> str:
    """Return what a value is, in a few words."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
