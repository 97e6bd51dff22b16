"""A user's own arrays: items and the class of each.

    >>> from metarl.fewshot.data import from_arrays
    >>> data = from_arrays(items, classes)  # doctest: +SKIP

From files too: a folder with items.npy and classes.npy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.data.cache import channel_moments
from metarl.fewshot.data.files import find_root, wrong_layout
from metarl.fewshot.data.splitting import FRACTIONS, split_at_random, split_by_list

DEFAULT_SIZE = 0
VARIANTS = {"npy": "items.npy [items, ...] and classes.npy [items], classes split at random"}
_FILES = ("items.npy", "classes.npy")


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return the arrays of a folder; arguments and errors as in `metarl.fewshot.data.load`."""
    if size:
        raise UserError(f"Got a size of {size} pixels, and arrays are taken as they are. Leave the size out.")
    folder = find_root("arrays", root, _FILES, _FILES)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise wrong_layout("arrays", folder, missing)
    try:
        items, classes = (np.load(folder / name, mmap_mode="r") for name in _FILES)
    except ValueError as error:
        raise UserError(f"The arrays in {folder} cannot be read ({error}). Write them with numpy.save.") from error
    return from_arrays(items, classes, name=f"arrays-{folder.name}")


def from_arrays(
    items: Any,
    classes: Any,
    *,
    splits: Mapping[str, Collection[int]] | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    name: str = "arrays",
) -> ClassData:
    """Return a data set of a user's own arrays, its classes split into train, validation and test.

    Args:
        items: [n, ...], a numpy array, a torch tensor or a sequence of arrays of one shape. Images are
            [n, channels, height, width], or [n, height, width] if grey. Kept as they are if uint8 (0 to 255), as
            float32 otherwise; either way a network gets every channel with mean 0 and deviation 1 over the training
            items. A channel is an item's first axis.
        classes: [n] integers, the class of every item.
        splits: split -> its classes, as they stand in `classes`; classes in none are left out. None: at random.
        fractions: parts of the classes in train, validation and test, where `splits` is None.
        seed: of the random split.
        name: in reports.

    Raises:
        UserError: shapes that do not fit or are mixed, classes that are no integers, values that are not finite; says
            which item.
    """
    rows = _items(items)
    labels = _labels(classes, len(rows))
    known, numbers = torch.unique(labels, return_inverse=True)
    names = [str(label) for label in known.tolist()]
    if splits is None:
        parts = split_at_random(f"classes of {name}", names, seed, fractions)
    else:
        parts = split_by_list(f"classes of {name}", names, splits, known=known.tolist())
    made = {split: _split(rows, numbers, part, names) for split, part in parts.items()}
    mean, deviation = _moments(made["train"].items) if "train" in made else ([0.0], [1.0])
    settings = {"seed": seed, "fractions": list(fractions)} if splits is None else {"splits": "given"}
    return ClassData(name=name, splits=made, mean=tuple(mean), deviation=tuple(deviation), settings=settings)


def _split(rows: Tensor, numbers: Int[Tensor, " n"], part: Sequence[int], names: Sequence[str]) -> ClassSplit:
    chosen = [torch.nonzero(numbers == number)[:, 0] for number in part]
    order = torch.cat(chosen)
    return ClassSplit(
        items=rows[order],
        sizes=torch.tensor([len(members) for members in chosen]),
        names=tuple(names[number] for number in part),
        origins=tuple(f"item {row}" for row in order.tolist()),
    )


def _items(items: Any) -> Shaped[Tensor, "n ..."]:
    """Return items as a tensor: uint8 or float32, with a channel axis."""
    if not isinstance(items, Tensor):
        # A list, or numpy's array of arrays.
        items = items if isinstance(items, np.ndarray) and items.dtype != object else _stacked(list(items))
        if items.dtype.kind not in "biuf":
            raise UserError(f"Got items of the type {items.dtype}. Give numbers.")
    rows = torch.from_numpy(np.array(items)) if isinstance(items, np.ndarray) else items.detach()
    if rows.dim() < 2:
        raise UserError(f"Got items of the shape {tuple(rows.shape)}. Give [items, ...]: at least one number an item.")
    if rows.dtype != torch.uint8:
        rows = rows.float()
        bad = torch.nonzero(~rows.flatten(1).isfinite().all(1))[:, 0]
        if len(bad):
            raise UserError(
                f"{len(bad)} of {len(rows)} items have values that are NaN, infinite or too large for float32; the "
                f"first is item {int(bad[0])}. Correct or leave out these items."
            )
    return rows[:, None] if rows.dim() == 3 else rows


def _stacked(items: Sequence[Any]) -> np.ndarray:
    arrays = [np.asarray(item) for item in items]
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise UserError(
                f"Got items of mixed size: item 0 has the shape {arrays[0].shape}, item {number} {array.shape}. Bring "
                "all items to one shape."
            )
    if not arrays:
        raise UserError("Got no items. Give some for every class.")
    return np.stack(arrays)


def _labels(classes: Any, count: int) -> Int[Tensor, " n"]:
    """Return the classes of the items as int64."""
    array = classes.detach().cpu().numpy() if isinstance(classes, Tensor) else np.asarray(classes)
    if array.shape != (count,):
        raise UserError(f"Got {count} items and classes of the shape {array.shape}. Give one class for each item.")
    if array.dtype.kind == "f":
        raise UserError(
            f"Got classes of the type {array.dtype}; the first is {array.tolist()[0]!r}. If they are values to be "
            "predicted, give from_functions(x, y) the points of many functions; if they are classes, make them "
            "integers: classes.astype(int)."
        )
    if array.dtype.kind not in "iu":
        raise UserError(
            f"Got classes of the type {array.dtype}; the first is {array.tolist()[0]!r}. Give integers: "
            "numpy.unique(classes, return_inverse=True)[1] makes them of names."
        )
    return torch.from_numpy(array.astype(np.int64))


def _moments(items: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and deviation of every channel, as `ClassData` wants them."""
    if items.dtype == torch.uint8:
        return channel_moments(items.cpu().numpy())
    deviation, mean = torch.std_mean(
        items.double(), dim=[axis for axis in range(items.dim()) if axis != 1], correction=0
    )
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return mean.tolist(), deviation.tolist()
