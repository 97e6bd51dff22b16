"""Data sets with classes: items in rows, grouped by class, split by class; and the episodes drawn from them.

A meta-batch is drawn and gathered in one go, on the device where the items lie. Classes get their labels in random
order, anew in every episode; support and query share no item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes, EpisodeShape, MetaDatasetShape, Support, check_split, keyed, uniform
from metarl.fewshot.form import ItemForm, scaled
from metarl.fewshot.layout import FORMS, KINDS


@runtime_checkable
class ItemReader(Protocol):
    """What gives files as items in the form in which a data set stores its own."""

    def read(self, path: Path) -> Shaped[np.ndarray, "*item"]:
        """Return the item in a file.

        Raises:
            UserError: it cannot be read, or cannot be brought to that form.
        """
        ...


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
        reader: gives other files in the form of these items; None where items do not come from files.
        layout: of the user's arrays that it was made of, if it was.
    """

    name: str
    splits: Mapping[str, ClassSplit]
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    reader: ItemReader | None = None
    outputs: int = 0
    layout: str = ""

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        return tuple(next(iter(self.splits.values())).items.shape[1:])

    @property
    def form(self) -> ItemForm:
        """What its items are, for `predict`."""
        return self._form

    @cached_property
    def _form(self) -> ItemForm:
        part = self.splits["train"] if "train" in self.splits else next(iter(self.splits.values()))
        least, most = (0.0, 255.0) if part.items.dtype == torch.uint8 else map(float, torch.aminmax(part.items))
        kind = KINDS.get(len(self.item_shape), "array")
        return ItemForm(
            name=self.name,
            kind=kind,
            layout=self.layout or FORMS[kind][0],
            shape=self.item_shape,
            bytes=part.items.dtype == torch.uint8,
            low=least,
            high=most,
            mean=self.mean,
            deviation=self.deviation,
        )

    def split(self, name: str) -> ClassSplit:
        """Return a split.

        Raises:
            UserError: there is none of that name.
        """
        check_split(name, tuple(self.splits))
        return self.splits[name]

    def episodes(
        self, split: str, numbers: Sequence[int], shape: EpisodeShape | MetaDatasetShape, seed: int
    ) -> Episodes:
        """Return episodes (see `Source`); with a `MetaDatasetShape` for one number at a time."""
        return self.gather(split, self.draw(split, numbers, shape, seed))

    def most_way(self, split: str) -> int:
        """Return how many ways an episode of a split can have."""
        return len(self.split(split).names)

    def draw(self, split: str, numbers: Sequence[int], shape: EpisodeShape | MetaDatasetShape, seed: int) -> Drawn:
        """Draw the rows of episodes; arguments and errors as in `episodes`."""
        part = self.split(split)
        if isinstance(shape, MetaDatasetShape):
            return _draw_meta_dataset(part, f"the split '{split}' of {self.name}", numbers, shape, (seed, split))
        if shape.way > len(part.names):
            raise UserError(
                f"Got {shape.way} ways, and the split '{split}' of {self.name} has {len(part.names)} classes. "
                "Ask for fewer ways."
            )
        sizes = torch.tensor(len(part.names), device=part.items.device).expand(len(numbers), 1)
        classes = _distinct(numbers, shape.way, sizes, seed, split, "classes").squeeze(1)
        return draw_items(part, f"{self.name} ({split})", classes, numbers, shape, (seed, split))

    def gather(self, split: str, drawn: Drawn) -> Episodes:
        """Return the episodes of drawn rows."""
        return Episodes(
            support=Support(x=self.items(split, drawn.support_rows), y=drawn.support_y, way=drawn.way),
            query_x=self.items(split, drawn.query_rows),
            query_y=drawn.query_y,
        )

    def bounds(self, split: str) -> Sequence[int]:
        """Return where its rows begin and end (see `metarl.fewshot.manifest.Rows`)."""
        return 0, len(self.split(split).items)

    def items(self, split: str, rows: Int[Tensor, "*N"]) -> Float[Tensor, "*N *item"]:
        """Return the items of some rows, scaled for a network."""
        stored = self.split(split).items
        found = stored.index_select(0, rows.flatten().to(stored.device)).unflatten(0, rows.shape)
        return self.scaled(found)

    def read(self, paths: Sequence[Path | str]) -> Shaped[Tensor, "n *item"]:
        """Return items from files, in the form in which the data set's own are stored: the same scale, size, channels.

        Raises:
            UserError: a file cannot be read or brought to that form (says which), or the data are not read from files.
        """
        if self.reader is None:
            raise UserError(f"The items of {self.name} are not read from files. Give them as an array.")
        items = [np.ascontiguousarray(self.reader.read(Path(path))) for path in paths]
        for path, item in zip(paths, items, strict=True):
            if item.shape != self.item_shape:
                raise UserError(
                    f"{path} has the shape {item.shape}, and {self.name} has {self.item_shape}. Give items of that "
                    "shape, or train with a --size, which all pictures are brought to."
                )
        if not items:
            raise UserError("Got no files. Give at least one.")
        return torch.from_numpy(np.stack(items))

    def scaled(self, items: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Bring items as they are stored to what a network gets: uint8 to [0, 1], then mean 0 and deviation 1."""
        return scaled(items, self.mean, self.deviation, len(self.item_shape))

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


def draw_items(
    part: ClassSplit,
    where: str,
    classes: Int[Tensor, "M N"],
    numbers: Sequence[int],
    shape: EpisodeShape,
    key: tuple[object, ...],
    among: Int[Tensor, " n"] | None = None,
) -> Drawn:
    """Draw the items of episodes whose classes are known; a class gets the label of its place.

    Args:
        part: whose rows are drawn.
        where: what the part is called in errors.
        classes: of every episode.
        numbers: of the episodes.
        shape: of all of them.
        key: of the randomness: seed and split.
        among: classes that these were drawn from; None: all of the part.

    Raises:
        UserError: one of the classes that may be drawn has too few items.
    """
    each = shape.shot + shape.query
    sizes = part.sizes if among is None else part.sizes[among]
    smallest = int(sizes.min())
    if smallest < each:
        place = int(sizes.argmin())
        name = part.names[place if among is None else int(among[place])]
        raise UserError(
            f"Got {shape.shot} shots and {shape.query} queries, {each} items of a class, and the class '{name}' "
            f"of {where} has {smallest}. Ask for fewer, or leave the class out."
        )
    rows = _shuffled(part, classes, numbers, key, each)
    way = classes.shape[1]
    labels = torch.arange(way, device=rows.device)[None, :, None].expand(len(rows), way, each)
    return Drawn(
        support_rows=rows[..., : shape.shot].flatten(1),
        support_y=labels[..., : shape.shot].flatten(1),
        query_rows=rows[..., shape.shot :].flatten(1),
        query_y=labels[..., shape.shot :].flatten(1),
        way=way,
    )


def _draw_meta_dataset(
    part: ClassSplit, where: str, numbers: Sequence[int], shape: MetaDatasetShape, key: tuple[object, ...]
) -> Drawn:
    """Draw one episode as Meta-Dataset does (Triantafillou et al. 2020, appendix; its `sampling.py`)."""
    if len(numbers) != 1:
        raise UserError(f"Got {len(numbers)} episodes of varying size at once. Draw them one by one.")
    pool = _pool(part, where, numbers, shape, key)
    of_way, of_size = uniform(numbers, 2, *key, "meta-dataset")[0].tolist()
    way = shape.min_way + int(of_way * (min(shape.max_way, len(pool)) - shape.min_way + 1))
    classes = pool[_distinct(numbers, way, torch.tensor([[len(pool)]], device=pool.device), *key, "classes").squeeze(1)]
    sizes = part.sizes[classes[0]].cpu()
    smallest = int(sizes.min())
    if smallest < 2:
        name = part.names[int(classes[0, int(sizes.argmin())])]
        raise UserError(
            f"The class '{name}' of {where} has {smallest} item, and an episode needs 2: one to learn from, one to be "
            "tested on. Leave the class out."
        )
    query = min(shape.max_query, smallest // 2)
    left = sizes - query
    # 1 - u is in (0, 1]: every class adds at least one item.
    contributions = ((1.0 - of_size) * left.clamp(max=shape.max_contribution).double()).ceil()
    support = min(shape.max_support, int(contributions.sum()))
    span = shape.max_log_weight - shape.min_log_weight
    weights = sizes * (shape.min_log_weight + span * uniform(numbers, way, *key, "weights")[0]).exp()
    wanted = (weights / weights.sum() * (support - way)).floor().long() + 1
    shots = wanted.minimum(left).to(pool.device)
    rows = _shuffled(part, classes, numbers, key, query + int(shots.max()))[0]
    labels = torch.arange(way, device=rows.device)[:, None].expand_as(rows)
    taken = torch.arange(rows.shape[1], device=rows.device) < query + shots[:, None]
    return Drawn(
        support_rows=rows[:, query:][taken[:, query:]][None],
        support_y=labels[:, query:][taken[:, query:]][None],
        query_rows=rows[:, :query].reshape(1, -1),
        query_y=labels[:, :query].reshape(1, -1),
        way=way,
    )


def _pool(
    part: ClassSplit, where: str, numbers: Sequence[int], shape: MetaDatasetShape, key: tuple[object, ...]
) -> Int[Tensor, " n"]:
    """Return the classes that an episode may have: all of them, or those of one group."""
    device = part.items.device
    if not shape.within_group:
        if len(part.names) < shape.min_way:
            raise UserError(f"Got {shape.min_way} ways or more, and {where} has {len(part.names)} classes.")
        return torch.arange(len(part.names), device=device)
    members: dict[str, list[int]] = {}
    for place, group in enumerate(part.groups):
        members.setdefault(group, []).append(place)
    large = [places for places in members.values() if len(places) >= shape.min_way]
    if not large:
        raise UserError(
            f"Got {shape.min_way} ways or more of one group, and no group of {where} has that many classes."
        )
    chosen = int(keyed(numbers, 1, *key, "group")) % len(large)
    return torch.tensor(large[chosen], device=device)


def _shuffled(
    part: ClassSplit, classes: Int[Tensor, "M N"], numbers: Sequence[int], key: tuple[object, ...], most: int
) -> Int[Tensor, "M N n"]:
    """Return up to `most` rows of every class in random order; past the size of a class they mean nothing."""
    sizes = part.sizes[classes]
    return part.starts[classes][..., None] + _distinct(numbers, min(most, int(part.sizes.max())), sizes, *key, "items")


SPARSE = 4
"""Where there are so many times more to choose from than are chosen, repeats are rare: draw, and leave them out."""


def _distinct(numbers: Sequence[int], some: int, sizes: Int[Tensor, "M N"], *key: object) -> Int[Tensor, "M N n"]:
    """Return the first places of N random orders for each of M numbers.

    Args:
        numbers: of the episodes.
        some: places, n.
        sizes: of what is put in order: places are from 0 to size - 1. Past a smaller size they mean nothing.
        key: what they are for.
    """
    groups, device = sizes.shape[1], sizes.device
    longest = int(sizes.max())
    if SPARSE * some > int(sizes.min()):
        keys = keyed(numbers, groups * longest, *key, device=device).unflatten(1, (groups, longest))
        absent = torch.arange(longest, device=device) >= sizes[..., None]
        return keys.masked_fill(absent, torch.iinfo(torch.int64).max).topk(some, largest=False, sorted=True).indices
    # The first so many different ones of an endless row of draws: how far it is looked at makes no difference.
    length = 2 * some
    while True:
        # The orders take turns, so that a longer look continues a shorter one.
        drawn = (
            keyed(numbers, length * groups, *key, device=device).unflatten(1, (length, groups)).mT % sizes[..., None]
        )
        again = (drawn[..., :, None] == drawn[..., None, :]).tril(-1).any(-1)
        place = (~again).cumsum(-1)
        if bool((place[..., -1] >= some).all()):
            return drawn[~again & (place <= some)].view(*sizes.shape, some)
        length *= 2
