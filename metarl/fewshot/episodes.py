"""Episodes: small tasks of supervised learning, each with a support set to learn from and a query set to be tested on.

An episode is a function of (seed, split, number) and of nothing else: not of how many are drawn together, by how many
workers or ranks, or of what was drawn before. Its randomness is a keyed hash, computed for a whole meta-batch at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.config import check
from metarl.errors import UserError, nearest

SPLITS = ("train", "validation", "test")
"""Splits of every source. Their classes, or ranges of tasks, are disjoint."""


@dataclass(frozen=True, kw_only=True)
class EpisodeShape:
    """Size of an episode."""

    way: int = 5
    """Classes of an episode, N. Regression has none."""
    shot: int = 1
    """Support items of each class, K; of the whole episode in regression."""
    query: int = 15
    """Query items of each class; of the whole episode in regression."""

    def __post_init__(self) -> None:
        check(self, at_least={"way": 1, "shot": 1, "query": 1})


@dataclass(frozen=True, kw_only=True)
class MetaDatasetShape:
    """Episodes whose ways, shots and queries vary, as Meta-Dataset draws them (Triantafillou et al. 2020, section 3).

    Ways are uniform; queries are the same for all classes of an episode; the support set has a random size and
    roughly the class frequencies of the data. Every episode has a size of its own, so that they are drawn one by one.
    """

    min_way: int = 5
    """Fewest classes of an episode."""
    max_way: int = 50
    """Most classes of an episode, where the split has that many."""
    max_query: int = 10
    """Most query items of a class; never more than half of the smallest class."""
    max_support: int = 500
    """Most support items of an episode."""
    max_contribution: int = 100
    """Most items that one class adds to the size of the support set."""
    min_log_weight: float = math.log(0.5)
    """Least logarithm of the random weight of a class."""
    max_log_weight: float = math.log(2.0)
    """Greatest logarithm of it."""
    within_group: bool = False
    """Take all classes of an episode from one group (an alphabet), as Meta-Dataset does with Omniglot."""

    def __post_init__(self) -> None:
        check(self, at_least={"min_way": 1, "max_query": 1, "max_contribution": 1})
        check(self, at_least={"max_way": self.min_way, "max_support": self.max_way})
        check(self, at_least={"max_log_weight": self.min_log_weight})


@dataclass(frozen=True, kw_only=True)
class Support:
    """What M tasks are learned from.

    Attributes:
        x: items, scaled as networks want them.
        y: labels from 0 to N - 1; or the values to be predicted, [M, S, J], in regression.
        way: N; 0 in regression.
    """

    x: Float[Tensor, "M S *item"]
    y: Shaped[Tensor, "M S *values"]
    way: int

    def to(self, device: torch.device) -> Support:
        """Return it with all tensors on `device`."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """M episodes of one size.

    Attributes:
        support: what is learned from.
        query_x: items to be predicted.
        query_y: the truth about them, in the form of `support.y`.
    """

    support: Support
    query_x: Float[Tensor, "M Q *item"]
    query_y: Shaped[Tensor, "M Q *values"]

    def __len__(self) -> int:
        """Return M."""
        return len(self.query_x)

    def to(self, device: torch.device) -> Episodes:
        """Return them with all tensors on `device`."""
        return Episodes(
            support=self.support.to(device), query_x=self.query_x.to(device), query_y=self.query_y.to(device)
        )


@runtime_checkable
class Source(Protocol):
    """Where episodes come from: a data set with classes, a family of functions, a collection of data sets.

    Attributes:
        name: what it is called in reports.
        item_shape: of one item, e.g. (1, 28, 28).
        outputs: numbers that are predicted for an item, J; 0 where classes are.
    """

    @property
    def name(self) -> str:
        """Return the name."""
        ...

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Return the shape of an item."""
        ...

    @property
    def outputs(self) -> int:
        """Return J."""
        ...

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        """Return the episodes of a split with the given numbers, in their order.

        Args:
            split: one of SPLITS.
            numbers: 0 or more each; training counts them up and never comes back.
            shape: of all of them.
            seed: the run's.

        Raises:
            UserError: if the split cannot give such an episode.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return plain data that say what this is, with a fingerprint of the content."""
        ...


def check_split(split: str, splits: Sequence[str] = SPLITS) -> None:
    """Refuse a split that is not there.

    Raises:
        UserError: it is not one of them.
    """
    if split not in splits:
        raise UserError(f"Unknown split '{split}'.{nearest(str(split), splits)}")


# -- keyed randomness -------------------------------------------------------------------------------------------------
# splitmix64 (Steele, Lea & Flood 2014) of a key and a counter, in torch's 64-bit integers, whose products wrap around.

_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_LARGEST = (1 << 63) - 1


def _shifted(x: Int[Tensor, "*N"], bits: int) -> Int[Tensor, "*N"]:
    # Right shift that brings in zeros; torch's brings in the sign.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Int[Tensor, "*N"]) -> Int[Tensor, "*N"]:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def keyed(numbers: Sequence[int], count: int, *key: object, device: torch.device | None = None) -> Int[Tensor, "M n"]:
    """Return `count` uniform random integers from 0 to 2**63 - 1 for each of M numbers.

    Args:
        numbers: M counters, such as the numbers of episodes.
        count: integers for each.
        key: what they are for, such as seed, split and purpose; another key gives independent integers.
        device: where they are computed; the result is the same everywhere.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    base = int.from_bytes(digest[:8], "little", signed=True)
    rows = _mix(torch.tensor(list(numbers), dtype=torch.int64, device=device) * _STEP ^ base)
    columns = torch.arange(1, count + 1, dtype=torch.int64, device=device) * _STEP
    return _mix(rows[:, None] + columns) & _LARGEST


def uniform(numbers: Sequence[int], count: int, *key: object) -> Float[Tensor, "M n"]:
    """Return `count` random float64 numbers in [0, 1) for each of M numbers; arguments as in `keyed`."""
    return (keyed(numbers, count, *key) >> 10).double() / float(1 << 53)


def generator_of(number: int, *key: object) -> torch.Generator:
    """Return a generator of its own for one counter, for what is drawn step by step; arguments as in `keyed`."""
    return torch.Generator().manual_seed(int(keyed([number], 1, *key)))
