"""Finite sets of train and test tasks: drawn once, or given one by one; and how tasks are drawn from such a set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.errors import UserError
from metarl.types import Record, Tasks

SETS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class FixedTasks:
    """Finite sets of train and test tasks, drawn once, as some published protocols have them."""

    train: int
    """Tasks in the training set."""
    test: int
    """Tasks in the test set."""
    seed: int = 0
    """Seed of the generator that the two sets are drawn from."""

    def plain(self) -> dict[str, Any]:
        """Return what the sets are as plain data."""
        return {"train": self.train, "test": self.test, "seed": self.seed}

    def describe(self) -> str:
        """Return what the sets are in a line."""
        return f"{self.train} train and {self.test} test tasks, fixed by seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class ListedTasks:
    """Finite sets of train and test tasks, given one by one: `ListedTasks(records={"train": [...], "test": [...]})`.

    They are drawn evenly over what they have of choices: of ten classes with fifty tasks each, twenty tasks are two of
    each class. No other task is one of the family.
    """

    records: Mapping[str, Sequence[Record]] | Callable[[], Mapping[str, Sequence[Record]]]
    """The tasks as records, under `train` and `test`, of which none may be in both; or what gives them when they are
    first needed."""
    train: int = 0
    """Tasks in the training set; counted where not given."""
    test: int = 0
    """Tasks in the test set; counted where not given."""
    source: str = ""
    """Where they are from, in a few words."""

    def __post_init__(self) -> None:
        if not callable(self.records):
            for name, records in self.sets().items():
                object.__setattr__(self, name, len(records))

    @property
    def at_hand(self) -> bool:
        """Whether the records are there, and not still to be asked for."""
        return not callable(self.records)

    def sets(self) -> dict[str, Sequence[Record]]:
        """Return the records of both sets.

        Raises:
            UserError: others were given.
        """
        found = self.records() if callable(self.records) else self.records
        if sorted(found) != sorted(SETS) or not all(map(len, found.values())):
            raise UserError(f"Got the listed tasks {sorted(found)}. Give some under 'train' and under 'test'.")
        return {name: found[name] for name in SETS}

    def plain(self) -> dict[str, Any]:
        """Return what the sets are as plain data."""
        return {"train": self.train, "test": self.test, "source": self.source}

    def describe(self) -> str:
        """Return what the sets are in a line."""
        return f"{self.train} train and {self.test} test tasks, {self.source or 'listed one by one'}"


def evenly(size: int, count: int, generator: torch.Generator) -> Int[Tensor, " M"]:
    """Draw `count` of `size` indices in random order, each as often as any other up to a remainder."""
    rounds = [torch.randperm(size, generator=generator) for _ in range(math.ceil(count / size))]
    drawn = torch.cat(rounds)[:count]
    return drawn[torch.randperm(count, generator=generator)]


def by_group(groups: Sequence[Tensor], count: int, generator: torch.Generator) -> Int[Tensor, " M"]:
    """Draw `count` numbers evenly over groups of them, and in each group no number twice before all were drawn once."""
    even, left = divmod(count, len(groups))
    more = set(torch.randperm(len(groups), generator=generator)[:left].tolist())
    sizes = [even + (number in more) for number in range(len(groups))]
    drawn = [group[evenly(len(group), size, generator)] for group, size in zip(groups, sizes, strict=True) if size]
    return torch.cat(drawn)


def rows_of(tasks: Tasks) -> dict[tuple[float, ...], int]:
    """Return the numbers of every task -> which of them it is."""
    columns = torch.cat([value.reshape(len(tasks), -1) for value in tasks.values.values()], dim=1)
    return {tuple(row): number for number, row in enumerate(columns.tolist())}
