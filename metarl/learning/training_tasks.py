"""Training tasks that are drawn once and met again, as an agent needs that keeps what it played of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.errors import UserError
from metarl.types import EnvSpec, Tasks


def all_different(count: int, size: int, times: int, generator: torch.Generator) -> Iterator[Int[Tensor, " m"]]:
    """Yield `size` of `count` numbers some times over, all different where there are as many."""
    for _ in range(times):
        orders = [torch.randperm(count, generator=generator) for _ in range(-(-size // count))]
        yield torch.cat(orders)[:size]


def once_each(tasks: Tasks) -> Tasks:
    """Return the tasks without those that are there already: a family may have fewer than were asked for."""
    seen: dict[str, int] = {}
    for number, record in enumerate(tasks.records()):
        seen.setdefault(repr(record), number)
    return tasks.select(list(seen.values()))


def stored_tasks(values: Any, spec: EnvSpec, most: int) -> Tasks:
    """Return training tasks from a checkpoint.

    Args:
        values: by the names of their parameters.
        spec: of their family.
        most: how many there may be.

    Raises:
        ValueError: they are none.
    """
    columns = list(values.values())
    lengths = {len(column) if isinstance(column, Tensor) and column.dim() else 0 for column in columns}
    if len(lengths) != 1 or not 1 <= max(lengths) <= most:
        raise ValueError("the stored training tasks are of several numbers, or none")
    if not all(column.dtype == torch.float64 and bool(column.isfinite().all()) for column in columns):
        raise ValueError("the stored training tasks are not of finite numbers")
    tasks = Tasks(spec.family, dict(values))
    try:
        spec.features(tasks)
    except UserError as error:
        raise ValueError(f"the stored training tasks do not fit: {error}") from error
    return tasks
