"""The state of what is trained, before it is kept: a checkpoint with NaN would be worth less than the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from metarl.errors import NotFiniteError


def infinite(state: Any) -> set[str]:
    """Return which tensors of a state have infinities, as a mask may."""
    return {name for name, value in _tensors(state) if value.is_floating_point() and bool(value.isinf().any())}


def size_of(state: Any) -> int:
    """Return the bytes of the tensors of a state."""
    return sum(value.numel() * value.element_size() for _, value in _tensors(state))


def check_finite(state: Any, allowed: set[str]) -> None:
    """Refuse a state with tensors that are not finite.

    Args:
        state: of what is trained.
        allowed: tensors that had infinities when the training began, and may have some now.

    Raises:
        NotFiniteError: names the first one.
    """
    for name, value in _tensors(state):
        # A sum is not finite where a number is not, or, harmlessly, where it overflows.
        if not value.is_floating_point() or bool(value.sum().isfinite()) or bool(value.isfinite().all()):
            continue
        if name not in allowed or bool(value.isnan().any()):
            raise NotFiniteError(f"'{name}' of what is trained is not finite, and no checkpoint of it is written")


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of a state with where they stand in it."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping | list | tuple):
        for key, part in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _tensors(part, f"{name}/{key}" if name else str(key))
