"""Data sets with classes: items in rows, grouped by class, split by class; and the episodes drawn from them.

A meta-batch is drawn and gathered in one go, on the device where the items lie. Classes get their labels in random
order, anew in every episode; support and query share no item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support, check_split, keyed


@dataclass(frozen=True, kw_only=True)
class ClassSplit:
    """Items of one split, the items of a class in adjacent rows.

    Attributes:
        items: uint8 (images: 0 to 255) or float.
        sizes: items of each of the C classes, in the order of the rows.
        names: of the classes, each its own.
        groups: of each class, such as its alphabet; all "" where there are none.
        origins: where each item came from (a file, a row); the leakage audit compares them. Empty: unknown.
    """

    items: Shaped[Tensor, "rows *item"]
    sizes: Int[Tensor, " C"]
    names: tuple[str, ...]
    groups: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.sizes) or int(self.sizes.sum()) != len(self.items):
            raise ValueError(
                f"{len(self.names)} names, {len(self.sizes)} classes, {int(self.sizes.sum())} items in them, "
                f"{len(self.items)} rows: they do not fit together"
            )
        if len(self.groups) not in (0, len(self.names)) or len(self.origins) not in (0, len(self.items)):
            raise ValueError("groups are given for all classes or for none, origins for all items or for none")

    @cached_property
    def starts(self) -> Int[Tensor, " C"]:
        """First row of every class."""
        return self.sizes.cumsum(0) - self.sizes

    @cached_property
    def labels(self) -> Int[Tensor, " rows"]:
        """Class of every row."""
        return torch.arange(len(self.sizes)).repeat_interleave(self.sizes)

    def to(self, device: torch.device) -> ClassSplit:
        """Return it with all tensors on `device`."""
        return replace(self, items=self.items.to(device), sizes=self.sizes.to(device))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Which rows make up M episodes, and their labels."""

    support_rows: Int[Tensor, "M S"]
    support_y: Int[Tensor, "M S"]
    query_rows: Int[Tensor, "M Q"]
    query_y: Int[Tensor, "M Q"]
    way: int

    def __len__(self) -> int:
        """Return M."""
        return len(self.support_rows)


@dataclass(frozen=True, kw_only=True)
class ClassData:
    """A data set with classes: a `Source` of classification episodes.

    Attributes:
        name: in reports.
        splits: those that it has; at least one of `train`, `validation` and `test`.
        mean: of every channel of the training items (first axis of an item), after uint8 is brought to [0, 1].
        deviation: likewise.
        settings: what it was made with (size, split list, ...), plain data.
    """

    name: str
    splits: Mapping[str, ClassSplit]
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 0

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        return tuple(next(iter(self.splits.values())).items.shape[1:])

    def split(self, name: str) -> ClassSplit:
        """Return a split.

        Raises:
            UserError: there is none of that name.
        """
        check_split(name, tuple(self.splits))
        return self.splits[name]

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        """Return episodes (see `Source`)."""
        return self.gather(split, self.draw(split, numbers, shape, seed))

    def draw(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Drawn:
        """Draw the rows of episodes; arguments and errors as in `episodes`."""
        part = self.split(split)
        way, each = shape.way, shape.shot + shape.query
        if way > len(part.names):
            raise UserError(
                f"Got {way} ways, and the split '{split}' of {self.name} has {len(part.names)} classes. "
                "Ask for fewer ways."
            )
        smallest = int(part.sizes.min())
        if smallest < each:
            name = part.names[int(part.sizes.argmin())]
            raise UserError(
                f"Got {shape.shot} shots and {shape.query} queries, {each} items of a class, and the class '{name}' "
                f"of {self.name} ({split}) has {smallest}. Ask for fewer, or leave the class out."
            )
        device = part.items.device
        classes = _some_of(keyed(numbers, len(part.names), seed, split, "classes", device=device), way)
        longest = int(part.sizes.max())
        keys = keyed(numbers, way * longest, seed, split, "items", device=device).unflatten(1, (way, longest))
        absent = torch.arange(longest, device=device) >= part.sizes[classes][..., None]
        rows = part.starts[classes][..., None] + _some_of(keys.masked_fill(absent, torch.iinfo(torch.int64).max), each)
        labels = torch.arange(way, device=device)[None, :, None].expand(len(rows), way, each)
        return Drawn(
            support_rows=rows[..., : shape.shot].flatten(1),
            support_y=labels[..., : shape.shot].flatten(1),
            query_rows=rows[..., shape.shot :].flatten(1),
            query_y=labels[..., shape.shot :].flatten(1),
            way=way,
        )

    def gather(self, split: str, drawn: Drawn) -> Episodes:
        """Return the episodes of drawn rows."""
        return Episodes(
            support=Support(x=self.items(split, drawn.support_rows), y=drawn.support_y, way=drawn.way),
            query_x=self.items(split, drawn.query_rows),
            query_y=drawn.query_y,
        )

    def items(self, split: str, rows: Int[Tensor, "*N"]) -> Float[Tensor, "*N *item"]:
        """Return the items of some rows, scaled for a network."""
        found = self.split(split).items.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return self.scaled(found)

    def scaled(self, items: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Bring items as they are stored to what a network gets: uint8 to [0, 1], then mean 0 and deviation 1."""
        unit = 255.0 if items.dtype == torch.uint8 else 1.0
        shape = (-1, *(1 for _ in self.item_shape[1:]))
        mean = torch.tensor(self.mean, device=items.device).view(shape) * unit
        deviation = torch.tensor(self.deviation, device=items.device).view(shape) * unit
        return items.float().sub_(mean).div_(deviation)

    def batch(
        self, split: str, number: int, size: int, seed: int
    ) -> tuple[Float[Tensor, "n *item"], Int[Tensor, " n"]]:
        """Return items of all classes with their classes, for an ordinary classifier.

        Args:
            split: one of the splits.
            number: of the batch; like an episode's.
            size: n; drawn with replacement.
            seed: the run's.
        """
        part = self.split(split)
        rows = keyed([number], size, seed, split, "batch", device=part.items.device)[0] % len(part.items)
        return self.items(split, rows), part.labels.to(rows.device)[rows]

    def to(self, device: torch.device) -> ClassData:
        """Return it with all items on `device`."""
        return replace(self, splits={name: part.to(device) for name, part in self.splits.items()})

    def describe(self) -> Mapping[str, Any]:
        """Return name, settings, sizes and fingerprint."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "item_shape": list(self.item_shape),
            "splits": {
                name: {"classes": len(part.names), "items": len(part.items), "groups": len(set(part.groups))}
                for name, part in self.splits.items()
            },
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all items with their classes and splits."""
        digest = hashlib.sha256()
        for name, part in self.splits.items():
            digest.update(repr((name, part.names, part.sizes.tolist(), tuple(part.items.shape))).encode())
            digest.update(np.ascontiguousarray(part.items.cpu().numpy()).view(np.uint8).data)
        return digest.hexdigest()


def _some_of(keys: Int[Tensor, "*N all"], some: int) -> Int[Tensor, "*N some"]:
    """Return the places of the smallest keys, in random order: of the smallest first."""
    return keys.topk(some, dim=-1, largest=False, sorted=True).indices
