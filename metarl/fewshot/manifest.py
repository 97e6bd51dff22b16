"""Manifests: files with the exact episodes of a test, so that results are of the same episodes and can be told to be.

A file holds, one after the other:

    magic     `metarl episodes <format>` and a line end
    hash      sha256 of everything after it, hexadecimal, and a line end
    header    one line of JSON: the data with their fingerprint, split, shape, seed, count; and what arrays there are
    arrays    as bytes, little-endian, one after the other in the order of their names

The arrays are `sizes` (ways, support items and query items of every episode) and, of all episodes one after the other,
the rows of their items with their labels; for families of functions, which have no rows, x and y themselves. Results
carry the hash.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from metarl.config import from_plain
from metarl.errors import UserError
from metarl.fewshot.classes import Drawn
from metarl.fewshot.episodes import Episodes, EpisodeShape, MetaDatasetShape, Source, Support, check_split
from metarl.files import Folder
from metarl.plain import parse_json, shown
from metarl.seals import Seal

FORMAT = 1
"""Number of the file layout; files of another layout are refused."""
SMALL = EpisodeShape(way=2, shot=1, query=1)
"""Of an episode that shows what arrays the episodes of a source have."""
AT_ONCE = 100
"""Episodes that are drawn together."""

Shape = EpisodeShape | MetaDatasetShape
Arrays = dict[str, np.ndarray]


def _length(header: bytes, tail: bytes) -> int | None:
    """Return the bytes of the arrays that a header tells of; None where it is no header."""
    try:
        arrays = parse_json(header, "").get("arrays", {})
        return sum(math.prod(of["shape"]) * np.dtype(of["dtype"]).itemsize for of in arrays.values())
    # What is wrong with it is told where it is taken apart.
    except (UserError, TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return None


_SEAL = Seal(
    magic=b"metarl episodes ",
    format=FORMAT,
    kind="manifest",
    digest="hash",
    missing="Give a file that `metarl fewshot evaluate` wrote.",
    foreign="a manifest of episodes. Give a file that `metarl fewshot evaluate` wrote.",
    length=_length,
)
_ROWS = ("support_rows", "support_y", "query_rows", "query_y")
_VALUES = ("support_x", "support_y", "query_x", "query_y")


@runtime_checkable
class Rows(Protocol):
    """A source whose items stand in rows."""

    def draw(self, split: str, numbers: Sequence[int], shape: Shape, seed: int) -> Drawn:
        """Draw the rows of episodes."""
        ...

    def gather(self, split: str, drawn: Drawn) -> Episodes:
        """Return the episodes of drawn rows."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A source that tells which rows there are."""

    def bounds(self, split: str) -> Sequence[int]:
        """Return where the parts of its rows begin, and where the last one ends; an episode's rows are in one part."""
        ...


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The episodes of a test.

    Attributes:
        header: what they are, plain data.
        arrays: `sizes`, and the items and labels of all episodes.
    """

    header: Mapping[str, Any]
    arrays: Arrays

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.arrays["sizes"])

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where the support items and the query items of every episode end, [count, 2]."""
        return np.cumsum(self.arrays["sizes"][:, 1:], axis=0, dtype=np.int64)

    @cached_property
    def body(self) -> bytes:
        """Header and arrays as the file has them."""
        arrays = dict(sorted(self.arrays.items()))
        described = {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in arrays.items()}
        header = json.dumps({**self.header, "arrays": described}, sort_keys=True)
        return b"\n".join([header.encode(), b"".join(array.tobytes() for array in arrays.values())])

    @cached_property
    def hash(self) -> str:
        """Sha256 of all of it."""
        return hashlib.sha256(self.body).hexdigest()

    def episodes(self, source: Source, first: int, last: int) -> Episodes:
        """Return the episodes from `first` up to, but without, `last`, which have one size.

        Args:
            source: the data of the manifest.
            first: counted from 0.
            last: likewise.
        """
        way, *sizes = self.arrays["sizes"][first].tolist()
        found = {}
        for side, size, end in zip(("support", "query"), sizes, self._ends[last - 1].tolist(), strict=True):
            for name in (name for name in self.arrays if name.startswith(side)):
                flat = self.arrays[name][end - (last - first) * size : end]
                found[name] = torch.from_numpy(flat).unflatten(0, (last - first, size))
        if isinstance(source, Rows) and "query_rows" in found:
            drawn = Drawn(**{name: found[name].long() for name in _ROWS}, way=way)
            return source.gather(self.header["split"], drawn)
        support = Support(x=found["support_x"], y=found["support_y"], way=way)
        return Episodes(support=support, query_x=found["query_x"], query_y=found["query_y"])

    def chunks(self, source: Source, items: int, most: int | None = None) -> Iterator[Episodes]:
        """Yield all episodes in their order, as many of one size at a time as have `items` items, at least one.

        Args:
            source: the data of the manifest.
            items: of a chunk.
            most: episodes of a chunk, where that is not enough.
        """
        sizes = self.arrays["sizes"]
        first = 0
        while first < len(self):
            together = max(1, items // int(sizes[first, 1:].sum()))
            together = together if most is None else min(together, most)
            alike = (sizes[first : first + together] == sizes[first]).all(1)
            last = first + (len(alike) if alike.all() else int(alike.argmin()))
            yield self.episodes(source, first, last)
            first = last


def make(source: Source, split: str, count: int, shape: Shape, seed: int) -> Manifest:
    """Draw the episodes 0 to `count` - 1 of a split.

    Raises:
        UserError: there are none, or the split cannot give such an episode.
    """
    if count < 1:
        raise UserError(f"Got {count} episodes. Ask for at least 1.")
    # Episodes whose sizes vary are drawn one by one.
    step = AT_ONCE if isinstance(shape, EpisodeShape) else 1
    parts = [range(first, min(first + step, count)) for first in range(0, count, step)]
    return join(source, split, [draw(source, split, part, shape, seed) for part in parts], shape, seed)


def draw(source: Source, split: str, numbers: Sequence[int], shape: Shape, seed: int) -> Arrays:
    """Return the arrays of some episodes of one size, which do not depend on who draws the others."""
    if isinstance(source, Rows):
        drawn = source.draw(split, numbers, shape, seed)
        values = [getattr(drawn, name).int() for name in _ROWS]
        names, way = _ROWS, drawn.way
    elif isinstance(shape, EpisodeShape):
        episodes = source.episodes(split, numbers, shape, seed)
        values = [episodes.support.x, episodes.support.y, episodes.query_x, episodes.query_y]
        names, way = _VALUES, episodes.support.way
    else:
        raise UserError(f"{source.name} has no classes whose number could vary. Give --way and --shot.")
    flat = {name: value.flatten(0, 1).cpu().numpy() for name, value in zip(names, values, strict=True)}
    size = np.array([way, values[1].shape[1], values[3].shape[1]], dtype=np.int32)
    arrays = {"sizes": np.tile(size, (len(numbers), 1)), **flat}
    return {name: array.astype(array.dtype.newbyteorder("<")) for name, array in arrays.items()}


def join(source: Source, split: str, parts: Sequence[Arrays], shape: Shape, seed: int) -> Manifest:
    """Return the manifest of episodes that were drawn in parts, in their order."""
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    header = {
        "data": source.name,
        "fingerprint": source.describe()["fingerprint"],
        "split": split,
        "shape": asdict(shape),
        "seed": seed,
        "count": len(arrays["sizes"]),
    }
    return Manifest(header=header, arrays=arrays)


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest that the user names; at every moment the old or the whole new file is there."""
    write_in(manifest, Folder(path.parent), path.name)


def write_in(manifest: Manifest, folder: Folder, name: str) -> Path:
    """Write a manifest into a folder, and return its path."""
    return folder.write(name, _SEAL.close(manifest.body))


def read(path: Path, source: Source) -> Manifest:
    """Read a manifest.

    Args:
        path: the file.
        source: the data that it must be of.

    Raises:
        UserError: the file is missing, foreign, truncated, damaged or of another format; its data are others; or
            it holds what no episodes of theirs could have.
    """
    header, data = _SEAL.open(path)
    try:
        form = from_plain(_Header, header, "header")
        shape: Shape = from_plain(EpisodeShape if "shot" in form.shape else MetaDatasetShape, form.shape, "shape")
    except UserError as error:
        raise UserError(f"{path} is no manifest that can be used: {error}") from error
    found = source.describe()["fingerprint"]
    if form.fingerprint != found:
        raise UserError(
            f"{path} is of the data {form.data[:100]} with fingerprint {form.fingerprint[:12]}, and "
            f"{source.name} has {found[:12]}. Use the data that it was made of, or make a new manifest."
        )
    check_split(form.split)
    if not all(array.shape for array in form.arrays.values()):
        raise UserError(f"{path} is no manifest that can be used: an array has no length.")
    del header["arrays"]
    if isinstance(shape, EpisodeShape) and max(shape.shot, shape.query, shape.way) > len(data):
        raise UserError(f"{path} is no manifest that can be used: its header tells of more than it can hold.")
    like = draw(source, form.split, [0], shape if isinstance(shape, EpisodeShape) else SMALL, 0)
    manifest = Manifest(header=header, arrays=_arrays(form, like, data, path))
    problem = _problem(manifest, form, shape, source)
    if problem:
        raise UserError(f"{path} is no manifest of {source.name}: {problem}. Make a new one.")
    return manifest


@dataclass(frozen=True, kw_only=True)
class _Array:
    """What the header says of an array."""

    dtype: str
    shape: list[int]


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What the header holds."""

    data: str
    fingerprint: str
    split: str
    shape: dict[str, int | float | bool]
    seed: int
    count: int
    arrays: dict[str, _Array]


def _arrays(form: _Header, like: Arrays, data: bytes, path: Path) -> Arrays:
    """Return the arrays of a file: those that episodes of the source have, as long as all that there is."""
    for name in {**like, **form.arrays}:
        found, needed = form.arrays.get(name), like.get(name)
        if found is None or needed is None or (found.dtype, found.shape[1:]) != (needed.dtype.str, [*needed.shape[1:]]):
            raise UserError(f"{path} is no manifest of these data: of another kind is the array {shown(name)}.")
    sizes = {name: math.prod(array.shape) * np.dtype(array.dtype).itemsize for name, array in form.arrays.items()}
    if sum(sizes.values()) != len(data) or any(array.shape[0] < 1 for array in form.arrays.values()):
        raise UserError(f"{path} is no manifest that can be used: its arrays are not as long as its header says.")
    arrays: Arrays = {}
    at = 0
    for name, array in form.arrays.items():
        flat = np.frombuffer(data, array.dtype, math.prod(array.shape), at)
        arrays[name] = flat.reshape(array.shape).copy()
        at += sizes[name]
    return arrays


def _problem(manifest: Manifest, form: _Header, shape: Shape, source: Source) -> str:
    """Return what arrays hold that no episodes of a source could have; nothing where they are good."""
    arrays, sizes = manifest.arrays, manifest.arrays["sizes"]
    if len(sizes) != form.count:
        return f"it has the sizes of {len(sizes)} episodes and should have {form.count}"
    ways, supports, queries = sizes.T
    least = 0 if source.outputs else 1
    if ways.min() < least or (source.outputs and ways.max() > 0) or min(supports.min(), queries.min()) < 1:
        return "an episode has fewer ways, support items or queries than it can have"
    if isinstance(shape, EpisodeShape):
        each = 1 if source.outputs else shape.way
        if (sizes != (0 if source.outputs else shape.way, each * shape.shot, each * shape.query)).any():
            return f"its episodes are not of the size {asdict(shape)}"
    for side, items in (("support", supports), ("query", queries)):
        for name in (name for name in arrays if name.startswith(side)):
            if len(arrays[name]) != items.sum(dtype=np.int64):
                return f"{name} has not as many entries as its episodes have items"
        labels = arrays[f"{side}_y"]
        if not source.outputs and not ((labels >= 0) & (labels < np.repeat(ways, items))).all():
            return f"{side}_y has labels beyond those of its episode"
        if side == "support" and not source.outputs:
            pairs = np.repeat(np.arange(form.count), items) * (int(ways.max()) + 1) + labels
            if len(np.unique(pairs)) != ways.sum(dtype=np.int64):
                return "an episode has a way without support items"
        rows = arrays.get(f"{side}_rows")
        if (
            rows is not None
            and isinstance(source, Bounded)
            and not _within(rows, source.bounds(form.split), supports, items, arrays["support_rows"])
        ):
            return f"{side}_rows has rows beyond those of the data"
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} has values that are not finite"
    return ""


def _within(
    rows: np.ndarray, bounds: Sequence[int], supports: np.ndarray, items: np.ndarray, first: np.ndarray
) -> bool:
    """Tell whether all rows exist, and those of an episode in one part of the data, that of its first support row."""
    if rows.min() < 0 or rows.max() >= bounds[-1] or first.min() < 0:
        return False
    parts = np.searchsorted(bounds, rows, side="right")
    begin = first[np.cumsum(supports, dtype=np.int64) - supports]
    return bool((parts == np.repeat(np.searchsorted(bounds, begin, side="right"), items)).all())
