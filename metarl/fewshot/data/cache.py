"""The cache of decoded images: read once, at the asked size, then mapped into memory.

An entry is a folder `<name>-<key>` with one array per split, uint8 or float32 (see pictures.py), and `index.json`
(classes, groups, origins, mean, deviation, ranges of deep pictures). Its key is a hash of the settings and of names,
sizes and times of the source files: other files or settings give another entry. An entry is made beside its place under
a lock and renamed when it is whole, so that a killed or failed process leaves nothing that could be taken for one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from metarl.errors import UserError, tell
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.data.deep import WORDS, Kind
from metarl.fewshot.data.files import Tree
from metarl.fewshot.data.pictures import (
    MOST_BYTES,
    DeeperThanKnown,
    ImageForm,
    Range,
    Survey,
    bombs_refused,
    decoded,
    extremes,
)
from metarl.fewshot.episodes import check_split
from metarl.files import CACHE_VARIABLE, cache_folder, open_regular, read_regular, write_atomically
from metarl.plain import parse_json
from metarl.run.progress import counting
from metarl.system import locked

FORMAT = 2
"""Number of the layout of an entry; part of its key."""
LARGEST_INDEX, MANY = 1 << 30, 1 << 50
"""Bytes that an index, and an array, may have."""

_CHUNK = 512
_CHUNK_BYTES = 256 << 20
"""Of the files of pictures that are in memory at once, beside the last one."""
_SPARE = 64 << 20
"""Bytes of the disk that the cache leaves free."""


# -- what is to be decoded --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image that is yet to be decoded.

    Attributes:
        origin: where it comes from, in words that are its own.
        read: gives the content of its file; or the image itself, [height, width] or [height, width, 3].
        place: images are read in this order.
    """

    origin: str
    read: Callable[[], bytes | UInt8[np.ndarray, "..."]]
    place: int = 0


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A class whose images are yet to be decoded."""

    name: str
    pictures: Sequence[Picture]
    group: str = ""


Listing = Mapping[str, Sequence[Listed] | Callable[[], Sequence[Listed]]]
"""Split -> its classes, or what gives them: a split may be too large to be listed before its turn."""


def pictures(tree: Tree, names: Sequence[str]) -> list[Picture]:
    """Return images that lie in files."""
    return [Picture(origin=name, read=partial(tree.read, name, MOST_BYTES), place=tree.places[name]) for name in names]


# -- the cache --------------------------------------------------------------------------------------------------------


def cached(
    name: str,
    settings: Mapping[str, Any],
    stamps: Sequence[tuple[str, int, int]],
    form: ImageForm,
    listing: Callable[[], Listing],
) -> ClassData:
    """Return a data set of images from the cache, or decode it into the cache.

    Args:
        name: of the data set.
        settings: plain data by which it is known; they become those of the result.
        stamps: (name, size, time of the last change) of the files that it is made of.
        form: what images are brought to.
        listing: gives the classes by split; called only where there is no entry.

    Raises:
        UserError: an image cannot be read, images are of mixed size, a class is empty, classes of two splits have one
            name, or the cache cannot be written. Nothing is kept then.
    """
    settings = {**settings, "size": form.size, "channels": form.channels}
    key = hashlib.sha256(json.dumps([FORMAT, settings, vars(form), sorted(stamps)]).encode()).hexdigest()[:16]
    entry = cache_folder() / f"{name}-{key}"
    found = _load(entry, name, settings, form)
    if found is not None:
        return found
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with locked(entry.with_name(entry.name + ".lock")):
            # Another process may have made it meanwhile.
            found = _load(entry, name, settings, form)
            if found is None:
                _make(entry, name, form, listing())
                found = _load(entry, name, settings, form)
    except OSError as error:
        raise UserError(
            f"Could not write the cache of {name} ({error}). Free some space, or set {CACHE_VARIABLE} to a folder."
        ) from error
    assert found is not None, "what was just written can be read"
    return found


def _load(entry: Path, name: str, settings: Mapping[str, Any], form: ImageForm) -> ClassData | None:
    """Return what an entry holds; None where there is none, or none that can be used."""
    try:
        index = parse_json(read_regular(entry / "index.json", LARGEST_INDEX), entry)
        splits = {split: _load_split(entry, split, part) for split, part in index.pop("splits").items()}
        mean, deviation, ranges = (index.pop(key) for key in ("mean", "deviation", "ranges"))
        channels = next(iter(splits.values())).items.shape[1]
        _need(not index and all(_are(float, found) and len(found) in (1, channels) for found in (mean, deviation)))
        _need(all(map(math.isfinite, (*mean, *deviation))) and min(deviation) > 0)
        ranges = {kind: (float(low), float(high)) for kind, (low, high) in ranges.items()}
        _need(set(ranges) <= set(WORDS) and all(low < high for low, high in ranges.values()))
    # ValueError: also where a file is none, or holds something else.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    return ClassData(
        name=name,
        splits=splits,
        mean=tuple(mean),
        deviation=tuple(deviation),
        settings={**settings, "ranges": {kind: list(ends) for kind, ends in ranges.items()}} if ranges else settings,
        reader=replace(form, ranges=ranges),
    )


def _load_split(entry: Path, split: str, part: dict[str, Any]) -> ClassSplit:
    """Return a split of an entry; ValueError and others where it cannot be used."""
    check_split(split)
    _need(_are(int, part["sizes"]) and all(0 < size < MANY for size in part["sizes"]))
    _need(all(_are(str, part[key]) for key in ("names", "groups", "origins")))
    path = entry / f"{split}.npy"
    # It is mapped by its path, but never where it is a pipe.
    open_regular(path, MANY).close()
    # Copy on write: torch warns of memory that it could not write to.
    items = np.load(path, mmap_mode="c", allow_pickle=False)
    _need(items.ndim > 1 and items.dtype.str in (np.dtype(np.uint8).str, np.dtype(np.float32).str))
    return ClassSplit(
        items=torch.from_numpy(items),
        sizes=torch.tensor(part["sizes"], dtype=torch.int64),
        names=tuple(part["names"]),
        groups=tuple(part["groups"]),
        origins=tuple(part["origins"]),
    )


def _need(holds: bool) -> None:
    if not holds:
        raise ValueError("this is no entry of the cache")


def _are(kind: type, values: Any) -> bool:
    """Tell whether something is a list with values of one type alone."""
    return isinstance(values, list) and set(map(type, values)) <= {kind}


def _make(entry: Path, name: str, form: ImageForm, listing: Listing) -> None:
    """Decode everything beside the entry's place, then rename. The lock is held."""
    unfinished = entry.with_name(entry.name + ".partial")
    # What a killed process left, or an entry that could not be used.
    _remove(unfinished)
    _remove(entry)
    unfinished.mkdir()
    try:
        try:
            index = _write_splits(unfinished, name, form, listing)
        except DeeperThanKnown:
            # Rare, and found out while decoding: the others are read once.
            form = replace(form, ranges=_surveyed(name, form, listing))
            index = _write_splits(unfinished, name, form, listing)
        if form.range is not None and not form.ranges:
            raise UserError(
                f"Got --range {form.range[0]:g} {form.range[1]:g}, and all pictures of {name} have 8 bits a channel, "
                "whose range is 0 to 255. Leave it out."
            )
        index["ranges"] = dict(form.ranges)
        write_atomically(unfinished / "index.json", json.dumps(index).encode())
        unfinished.rename(entry)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _remove(path: Path) -> None:
    """Remove a folder with all that is in it; of a link, the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _write_splits(unfinished: Path, name: str, form: ImageForm, listing: Listing) -> dict[str, Any]:
    """Decode all splits, and return what the index says of them."""
    index: dict[str, Any] = {"splits": {}, "mean": [0.0], "deviation": [1.0]}
    seen: dict[str, str] = {}
    for split, part in listing.items():
        classes = part() if callable(part) else part
        _check(name, split, classes, seen)
        items = _decode(unfinished / f"{split}.npy", name, form, classes)
        index["splits"][split] = _described(classes, form)
        if split == "train":
            index["mean"], index["deviation"] = channel_moments(items)
        items.flush()
        _sync(unfinished / f"{split}.npy")
    return index


def _surveyed(name: str, form: ImageForm, listing: Listing) -> dict[Kind, Range]:
    """Return the ranges of the deep pictures of all splits, and tell them."""
    survey = Survey()
    for part in listing.values():
        found = (picture for listed in (part() if callable(part) else part) for picture in listed.pictures)
        images = sorted(found, key=lambda picture: picture.place)
        with _workers(f"Looking at {name}", len(images)) as (pool, count):
            for contents, chunk in _read_in_parts(images):
                survey.add(pool.map(extremes, contents, [picture.origin for picture in chunk]))
                count(len(chunk))
    ranges = survey.ranges(name, form.range)
    for kind, (low, high) in ranges.items():
        tell(
            f"{name}: pictures with {WORDS[kind]} have values from {survey.least[kind][0]:g} to "
            f"{survey.greatest[kind][0]:g}; {low:g} is taken for black and {high:g} for white"
            f"{'' if form.range else ' (--range LEAST GREATEST says otherwise)'}."
        )
    return ranges


@contextmanager
def _workers(title: str, total: int) -> Iterator[tuple[ThreadPoolExecutor, Callable[[int], None]]]:
    """Give the threads that decode, and what counts that they have done."""
    with (
        bombs_refused(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        counting(title, total) as count,
    ):
        yield pool, count


def _chunks(entries: Any) -> Iterator[Any]:
    """Yield parts of a list or an array whose contents fit in memory together."""
    for i in range(0, len(entries), _CHUNK):
        yield entries[i : i + _CHUNK]


def _read_in_parts(pictures: Sequence[Picture]) -> Iterator[tuple[list[Any], list[Picture]]]:
    """Yield the contents of pictures, and whose they are, as many as fit in memory together.

    They are read here and decoded elsewhere: archives are read by one thread, in their order.
    """
    contents: list[Any] = []
    size = start = 0
    for number, picture in enumerate(pictures, start=1):
        contents.append(picture.read())
        size += len(contents[-1]) if isinstance(contents[-1], bytes) else contents[-1].nbytes
        if number - start == _CHUNK or size > _CHUNK_BYTES or number == len(pictures):
            yield contents, list(pictures[start:number])
            contents, size, start = [], 0, number


def _check(name: str, split: str, classes: Sequence[Listed], seen: dict[str, str]) -> None:
    """Refuse an empty split, an empty class and a class that stands there already; note down the others in `seen`."""
    if not classes:
        raise UserError(f"The split '{split}' of {name} has no classes. Complete the download, or the split list.")
    for listed in classes:
        if not listed.pictures:
            raise UserError(f"The class '{listed.name}' of {name} ({split}) has no images. Complete the download.")
        if listed.name in seen:
            raise UserError(
                f"The class '{listed.name}' of {name} stands in {seen[listed.name]} and again in {split}. "
                "Give every class to one split, once."
            )
        seen[listed.name] = split


def _described(classes: Sequence[Listed], form: ImageForm) -> dict[str, list[Any]]:
    """Return what the index says of a split."""
    turns = [f"/rot{90 * turn:03d}" for turn in range(4)] if form.rotations else [""]
    every = [(listed, turn) for listed in classes for turn in turns]
    return {
        "names": [listed.name + turn for listed, turn in every],
        "sizes": [len(listed.pictures) for listed, _ in every],
        "groups": [listed.group for listed, _ in every],
        # A turned drawing is the same drawing: the audit has to see it.
        "origins": [picture.origin for listed, _ in every for picture in listed.pictures],
    }


def _decode(path: Path, name: str, form: ImageForm, classes: Sequence[Listed]) -> np.memmap:
    """Decode the images of a split into a file, [rows, C, H, W].

    Raises:
        DeeperThanKnown: an image is deep, and the form has no ranges for it.
        UserError: an image cannot be read, or they are of mixed size.
    """
    turns = 4 if form.rotations else 1
    jobs: list[tuple[Picture, list[int]]] = []
    start = 0
    for listed in classes:
        size = len(listed.pictures)
        rows = ([start + turn * size + i for turn in range(turns)] for i in range(size))
        jobs += zip(listed.pictures, rows, strict=True)
        start += turns * size
    jobs.sort(key=lambda job: job[0].place)
    first = jobs[0][0]
    with bombs_refused():
        shape = decoded(first.read(), form, first.origin).shape
    if form.rotations and shape[1] != shape[2]:
        raise UserError(f"{first.origin} is not square, and is to be turned. Give a size.")
    kind = np.float32 if form.ranges else np.uint8
    needed, free = math.prod((start, *shape)) * np.dtype(kind).itemsize, shutil.disk_usage(path.parent).free
    if needed + _SPARE > free:
        raise UserError(
            f"The images of {name} ({path.stem}) need {needed:,} bytes in the cache, and {free:,} are free there. Give "
            f"a smaller --size, or set {CACHE_VARIABLE} to a folder with more space."
        )
    items = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(start, *shape))
    with _workers(f"Decoding {name} ({path.stem})", len(jobs)) as (pool, count):
        rows_of = iter(rows for _, rows in jobs)
        for contents, chunk in _read_in_parts([picture for picture, _ in jobs]):
            images = pool.map(decoded, contents, [form] * len(chunk), [picture.origin for picture in chunk])
            for picture, image in zip(chunk, images, strict=True):
                if image.shape != shape:
                    raise UserError(
                        f"The images of {name} are of mixed size: {first.origin} has {shape[2]} x {shape[1]} pixels "
                        f"and {picture.origin} {image.shape[2]} x {image.shape[1]}. Give --size N: they are all "
                        "brought to N x N pixels."
                    )
                for turn, row in enumerate(next(rows_of)):
                    items[row] = np.rot90(image, turn, axes=(1, 2))
            count(len(chunk))
    return items


def channel_moments(items: Shaped[np.ndarray, "rows C *rest"]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of every channel, of uint8 as in [0, 1]; a deviation of 0 becomes 1."""
    if items.dtype == np.uint8:
        counts = np.zeros((items.shape[1], 256), dtype=np.int64)
        for part in _chunks(items):
            for channel in range(items.shape[1]):
                counts[channel] += np.bincount(part[:, channel].ravel(), minlength=256)
        values = np.arange(256) / 255.0
        shares = counts / counts.sum(1, keepdims=True)
        mean = shares @ values
        deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    else:
        axes = (0, *range(2, items.ndim))
        number = items[:, 0].size
        mean = np.sum([part.sum(axes, dtype=np.float64) for part in _chunks(items)], axis=0) / number
        centred = mean.reshape(-1, *(1 for _ in axes[1:]))
        square = np.sum([((part - centred) ** 2).sum(axes, dtype=np.float64) for part in _chunks(items)], axis=0)
        deviation = np.sqrt(square / number)
    return mean.tolist(), np.where(deviation > 0, deviation, 1.0).tolist()


def _sync(path: Path) -> None:
    """Bring a file's content to the disk: after a crash of the machine the renamed entry must not hold zeros."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
