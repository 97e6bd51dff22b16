"""A user's own arrays: items and the class of each.

    >>> from metarl.fewshot.data import from_arrays
    >>> data = from_arrays(items, classes)  # doctest: +SKIP

From files too: a folder with items.npy and classes.npy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from metarl.arguments import checked
from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.data.cache import channel_moments
from metarl.fewshot.data.files import find_root, wrong_layout
from metarl.fewshot.data.splitting import FRACTIONS, split_at_random, split_by_list
from metarl.fewshot.form import as_numbers
from metarl.fewshot.layout import AUTO, arranged, check_layout, recognised
from metarl.fewshot.reading.arrays import MOST_LETTERS, array_of, read_npy, whole_numbers
from metarl.fewshot.reading.folders import kind_of

DEFAULT_SIZE = 0
VARIANTS = {"npy": "items.npy [items, ...] and classes.npy [items], classes split at random"}
_FILES = ("items.npy", "classes.npy")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How arrays are read."""

    layout: str = AUTO
    """Which axis of items.npy is what, such as nchw, nhwc, nhw (pictures), ncl, nlc (signals) or nf (vectors); auto: as
    recognised where it is certain."""


def load(variant: str, root: Path | None, size: int, options: Options) -> ClassData:
    """Return the arrays of a folder; arguments and errors as in `metarl.fewshot.data.load`."""
    if size:
        raise UserError(f"Got a size of {size} pixels, and arrays are taken as they are. Leave the size out.")
    folder = find_root("arrays", root, _FILES, _FILES)
    missing = [name for name in _FILES if not kind_of(folder / name)]
    if missing:
        raise wrong_layout("arrays", folder, missing)
    items, classes = (read_npy(folder / name) for name in _FILES)
    return from_arrays(items, classes, name=f"arrays-{folder.name}", layout=options.layout)


@checked
def from_arrays(
    items: Any,
    classes: Any,
    *,
    splits: Mapping[str, Collection[int | str]] | None = None,
    fractions: Collection[float] = FRACTIONS,
    seed: int = 0,
    name: str = "arrays",
    layout: str = AUTO,
) -> ClassData:
    """Return a data set of a user's own arrays, its classes split into train, validation and test.

    Args:
        items: [n, ...], a numpy array, a torch tensor or a sequence of arrays of one shape: pictures, signals or
            vectors. Kept as they are if uint8 (0 to 255), as float32 otherwise; either way a network gets every channel
            (of a vector: every number) with mean 0 and deviation 1 over the training items.
        classes: [n] integers or words, the class of every item.
        splits: split -> its classes, as they stand in `classes`; classes in none are left out. None: at random.
        fractions: parts of the classes in train, validation and test, where `splits` is None.
        seed: of the random split.
        name: in reports.
        layout: which axis of `items` is what, such as "nchw", "nhwc", "ncl" (see `metarl.fewshot.layout`). "auto": as
            recognised where that is certain, and asked for where it is not.

    Raises:
        UserError: a layout that is neither told nor certain, shapes that do not fit or are mixed, classes that are
            neither integers nor words, values that are not finite; says which item.
    """
    check_layout(layout)
    rows = as_numbers(items)
    if not rows.numel() and not len(rows):
        raise UserError("Got no items. Give some of every class.")
    if rows.dim() < 2 or 0 in rows.shape[1:]:
        raise UserError(f"Got items of the shape {tuple(rows.shape)}. Give [items, ...]: at least one number an item.")
    layout = recognised(rows.shape) if layout == AUTO else layout
    rows, _ = arranged(rows, layout)
    known, numbers = _known(classes, len(rows))
    names = [str(label) for label in known]
    if splits is None:
        parts = split_at_random(f"classes of {name}", names, seed, fractions)
    else:
        parts = split_by_list(f"classes of {name}", names, splits, known=known)
    made = {split: _split(rows, numbers, part, names) for split, part in parts.items()}
    mean, deviation = moments(made["train"].items) if "train" in made else ([0.0], [1.0])
    settings = {"seed": seed, "fractions": list(fractions)} if splits is None else {"splits": "given"}
    return ClassData(
        name=name, splits=made, mean=tuple(mean), deviation=tuple(deviation), settings=settings, layout=layout
    )


def _split(rows: Tensor, numbers: Int[Tensor, " n"], part: Sequence[int], names: Sequence[str]) -> ClassSplit:
    # Rows by class, those of a class in their order.
    sizes = numbers.bincount(minlength=len(names))
    by_class = numbers.argsort(stable=True).split(sizes.tolist())
    order = torch.cat([by_class[number] for number in part])
    return ClassSplit(
        items=rows[order],
        sizes=sizes[list(part)],
        names=tuple(names[number] for number in part),
        origins=tuple(f"item {row}" for row in order.tolist()),
    )


def _known(classes: Any, count: int) -> tuple[list[int] | list[str], Int[Tensor, " n"]]:
    """Return the different classes in their order, and for every item which of them is its."""
    if isinstance(classes, list | tuple):
        long = next((word for word in classes if isinstance(word, str) and len(word) > MOST_LETTERS), None)
        if long is not None:
            raise UserError(f"Got a class whose name has {len(long):,} letters. Give at most {MOST_LETTERS:,}.")
    array = array_of(classes, "classes")
    if array.shape != (count,):
        raise UserError(f"Got {count} items and classes of the shape {array.shape}. Give one class for each item.")
    got = f"Got classes of the type {array.dtype}; the first is {array.tolist()[:1]}."
    if array.dtype.kind == "f":
        raise UserError(
            f"{got} If they are values to be predicted, give from_functions(x, y) the points of many functions; if "
            "they are classes, make them integers: classes.astype(int)."
        )
    # A list of words, some of them numpy's own, may come as objects; numpy makes words of numbers beside words.
    mixed = not isinstance(classes, Tensor | np.ndarray) and len({isinstance(entry, str) for entry in classes}) > 1
    words = array.dtype.kind == "U" or (array.dtype == object and all(isinstance(word, str) for word in array))
    if mixed or not (words or array.dtype.kind in "iu"):
        raise UserError(f"{got} Give all as integers, or all as words.")
    if words:
        array = array.astype(str)
        empty = [place for place, word in enumerate(array.tolist()) if not word.strip()]
        if empty:
            raise UserError(f"Got an empty word as the class of item {empty[0]}.")
    else:
        array = whole_numbers(array, "classes")
    known, numbers = np.unique(array, return_inverse=True)
    return known.tolist(), torch.from_numpy(numbers.astype(np.int64))


def moments(items: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and deviation of every channel, as `ClassData` has them."""
    if items.dtype == torch.uint8:
        return channel_moments(items.cpu().numpy())
    deviation, mean = torch.std_mean(
        items.double(), dim=[axis for axis in range(items.dim()) if axis != 1], correction=0
    )
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return mean.tolist(), deviation.tolist()
