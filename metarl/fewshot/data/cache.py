"""The cache of decoded images: read once, at the asked size, then mapped into memory.

An entry is a folder `<name>-<key>` with one uint8 array per split and `index.json` (classes, groups, origins, mean and
deviation). Its key is a hash of the settings and of names, sizes and times of the source files: other files or
settings give another entry. An entry is made beside its place under a lock and renamed when it is whole, so that a
killed or failed process leaves nothing that could be taken for one.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.data.files import Tree
from metarl.run.progress import counting

FORMAT = 1
"""Number of the layout of an entry; part of its key."""
CACHE_VARIABLE = "METARL_CACHE"
"""Environment variable with the folder of the cache."""

_CHUNK = 512


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


@dataclass(frozen=True, kw_only=True)
class ImageForm:
    """What images are brought to.

    Attributes:
        size: height and width, in pixels; the ratio of the sides is not kept. 0: as they are, all of one size.
        channels: 1 (grey) or 3 (red, green, blue).
        invert: dark becomes bright.
        rotations: every class stands there four times, turned by 0, 90, 180 and 270 degrees.
    """

    size: int
    channels: int = 3
    invert: bool = False
    rotations: bool = False


Listing = Mapping[str, Sequence[Listed] | Callable[[], Sequence[Listed]]]
"""Split -> its classes, or what gives them: a split may be too large to be listed before its turn."""


def pictures(tree: Tree, names: Sequence[str]) -> list[Picture]:
    """Return images that lie in files."""
    return [Picture(origin=name, read=partial(_read, tree, name), place=tree.places[name]) for name in names]


def _read(tree: Tree, name: str) -> bytes:
    try:
        with tree.open(name) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"The image {name} in {tree.path} cannot be read ({error}). Download it again.") from error


# -- the cache --------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder of the cache: METARL_CACHE, else ~/.cache/metarl."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/metarl").expanduser()


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
    found = _load(entry, name, settings)
    if found is not None:
        return found
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _locked(entry.with_name(entry.name + ".lock")):
            # Another process may have made it meanwhile.
            found = _load(entry, name, settings)
            if found is None:
                _make(entry, name, form, listing())
                found = _load(entry, name, settings)
    except OSError as error:
        raise UserError(
            f"Could not write the cache of {name} ({error}). Free some space, or set {CACHE_VARIABLE} to a folder."
        ) from error
    assert found is not None, "what was just written can be read"
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that no other process has; the system frees it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _load(entry: Path, name: str, settings: Mapping[str, Any]) -> ClassData | None:
    """Return what an entry holds; None where there is none, or none that can be used."""
    try:
        index = json.loads((entry / "index.json").read_text())
        splits = {}
        for split, part in index["splits"].items():
            # Copy on write: torch warns of memory that it could not write to.
            items = torch.from_numpy(np.load(entry / f"{split}.npy", mmap_mode="c"))
            splits[split] = ClassSplit(
                items=items,
                sizes=torch.tensor(part["sizes"], dtype=torch.int64),
                names=tuple(part["names"]),
                groups=tuple(part["groups"]),
                origins=tuple(part["origins"]),
            )
        mean, deviation = tuple(index["mean"]), tuple(index["deviation"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ClassData(name=name, splits=splits, mean=mean, deviation=deviation, settings=settings)


def _make(entry: Path, name: str, form: ImageForm, listing: Listing) -> None:
    """Decode everything beside the entry's place, then rename. The lock is held."""
    unfinished = entry.with_name(entry.name + ".partial")
    # What a killed process left, or an entry that could not be used.
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(entry, ignore_errors=True)
    unfinished.mkdir()
    try:
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
        (unfinished / "index.json").write_text(json.dumps(index))
        _sync(unfinished / "index.json")
        unfinished.rename(entry)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


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
    """Decode the images of a split into a file, uint8 [rows, C, H, W]."""
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
    shape = decoded(first.read(), form, first.origin).shape
    if form.rotations and shape[1] != shape[2]:
        raise UserError(f"{first.origin} is not square, and is to be turned. Give a size.")
    items = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(start, *shape))
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        counting(f"Decoding {name} ({path.stem})", len(jobs)) as count,
    ):
        for i in range(0, len(jobs), _CHUNK):
            chunk = jobs[i : i + _CHUNK]
            # Read here and decoded there: archives are read by one thread, in their order.
            contents = [picture.read() for picture, _ in chunk]
            images = pool.map(decoded, contents, [form] * len(chunk), [picture.origin for picture, _ in chunk])
            for (picture, rows), image in zip(chunk, images, strict=True):
                if image.shape != shape:
                    raise UserError(
                        f"The images of {name} are of mixed size: {first.origin} has {shape[2]} x {shape[1]} pixels "
                        f"and {picture.origin} {image.shape[2]} x {image.shape[1]}. Give --size N: they are all "
                        "brought to N x N pixels."
                    )
                for turn, row in enumerate(rows):
                    items[row] = np.rot90(image, turn, axes=(1, 2))
            count(len(chunk))
    return items


def decoded(content: bytes | UInt8[np.ndarray, "..."], form: ImageForm, origin: str) -> UInt8[np.ndarray, "C H W"]:
    """Return an image in the asked form.

    Args:
        content: of an image file; or an image, [height, width] or [height, width, 3].
        form: what it is brought to.
        origin: what it is called in errors.

    Raises:
        UserError: it cannot be read.
    """
    try:
        image = Image.fromarray(content) if isinstance(content, np.ndarray) else Image.open(io.BytesIO(content))
        if image.mode == "P":
            # A palette with transparency is converted straight only with a warning.
            image = image.convert("RGBA")
        image = image.convert("L" if form.channels == 1 else "RGB")
        if form.size and image.size != (form.size, form.size):
            image = image.resize((form.size, form.size), Image.Resampling.LANCZOS)
        array = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
        words = "no image that is known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(
            f"The image {origin} cannot be read ({words}). Download it again, or take it out of the data."
        ) from error
    array = array[None] if form.channels == 1 else array.transpose(2, 0, 1)
    return 255 - array if form.invert else array


def channel_moments(items: UInt8[np.ndarray, "rows C *rest"]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of every channel of images in [0, 1]; a deviation of 0 becomes 1."""
    counts = np.zeros((items.shape[1], 256), dtype=np.int64)
    for i in range(0, len(items), _CHUNK):
        for channel in range(items.shape[1]):
            counts[channel] += np.bincount(items[i : i + _CHUNK, channel].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.where(deviation > 0, deviation, 1.0).tolist()


def _sync(path: Path) -> None:
    """Bring a file's content to the disk: after a crash of the machine the renamed entry must not hold zeros."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
