"""Whether the state in a checkpoint is one that what is trained could have, before it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from metarl.plain import shown


def check_fits(stored: Any, now: Any, where: str = "it") -> None:
    """Check that a stored state has the entries, types, kinds of numbers and shapes of a fresh one, and no NaN.

    Nor are tensors infinite that a fresh one has finite.

    Args:
        stored: tensors and plain data.
        now: `state_dict()` of what is to be brought to it. What is still None or empty there may be anything.
        where: what is checked, for error texts.

    Raises:
        ValueError: it does not fit; says where.
    """
    if isinstance(now, Tensor):
        if not isinstance(stored, Tensor):
            raise ValueError(f"{where} is {shown(stored)} where a tensor is needed")
        if (stored.dtype, stored.shape) != (now.dtype, now.shape):
            raise ValueError(f"{where} is {_kind(stored)} where {_kind(now)} is needed")
    elif isinstance(now, Mapping) and set(now) == {"state", "param_groups"}:
        # Of an optimiser, which looks at its own: see metarl/learning/optimisers.py.
        if not isinstance(stored, Mapping) or set(stored) != set(now):
            raise ValueError(f"{where} is {shown(stored)} where the state of an optimiser is needed")
        if not (
            isinstance(stored["state"], Mapping) and all(isinstance(of, Mapping) for of in stored["state"].values())
        ):
            raise ValueError(f"{where} is no state of an optimiser")
        if not isinstance(stored["param_groups"], list):
            raise ValueError(f"{where} has no groups of an optimiser")
        now = None
    elif isinstance(now, Mapping):
        if not isinstance(stored, Mapping):
            raise ValueError(f"{where} is {shown(stored)} where a mapping is needed")
        if now and (differ := sorted(map(str, set(stored) ^ set(now)))):
            raise ValueError(f"{where} has other entries than it should, such as {shown(differ[0])}")
    elif isinstance(now, list | tuple):
        if type(stored) is not type(now) or (now and len(stored) != len(now)):
            raise ValueError(f"{where} is {shown(stored)} where {len(now)} entries are needed")
    elif now is not None and type(stored) is not type(now):
        raise ValueError(f"{where} is {shown(stored)} where {type(now).__name__} is needed")
    for key, value in _entries(stored):
        inner = now[key] if now and isinstance(now, Mapping | list | tuple) else None
        check_fits(value, inner, f"{where}.{key}" if where != "it" else str(key))
    if _has_nan(stored):
        raise ValueError(f"{where} is not a number (NaN)")
    if _has_infinity(stored) and isinstance(now, Tensor) and not _has_infinity(now):
        raise ValueError(f"{where} is infinite")


def _entries(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _has_nan(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    return isinstance(value, float) and value != value


def _has_infinity(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isinf().any())


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
