"""The form of a data set's items: what they are, and how what a user gives becomes what a network gets.

Training and `predict` both go by it; it follows from the training data. What is given later is taken as it was in
training, or refused with what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.layout import AUTO, FORMS, Kind, arranged, check_layout
from metarl.fewshot.reading.arrays import array_of, check_numbers, refuse_sparse, tensor_of

_BYTE = 255


@dataclass(frozen=True, kw_only=True)
class ItemForm:
    """What items are, how they are stored, and how they are scaled."""

    name: str
    """Of the data, for errors."""
    kind: Kind
    """What an item is."""
    layout: str
    """Of the arrays that training took."""
    shape: tuple[int, ...]
    """Of an item as it is stored: (channels, height, width), (channels, length), (numbers,)."""
    bytes: bool
    """Whether items are stored as bytes, 0 to 255; else as float32."""
    low: float
    """Least number of the training items."""
    high: float
    """Greatest number of them."""
    mean: tuple[float, ...] = (0.0,)
    """Of every channel (first axis of an item), after bytes are brought to [0, 1]."""
    deviation: tuple[float, ...] = (1.0,)
    """Likewise."""
    labels: tuple[str, ...] = ()
    """Names of the classes where they are the same in all tasks, in their order; none otherwise."""

    def words(self) -> str:
        """Return what items are, in a few words: `signals, 2 channels x 128 values`."""
        sizes = " x ".join(map(str, self.shape))
        if self.kind == "picture":
            sizes = f"{self.shape[0]} channels x {self.shape[1]} x {self.shape[2]} pixels"
        elif self.kind == "signal":
            sizes = f"{self.shape[0]} channels x {self.shape[1]} values"
        elif self.kind in ("vector", "fingerprint"):
            sizes = f"{sizes} numbers"
        return f"{self.kind}s, {sizes}".replace(" 1 channels", " 1 channel")

    def take(self, given: Any, what: str = "items", layout: str = AUTO) -> Shaped[Tensor, "n ..."]:
        """Return a user's items as they are stored, [n, *shape].

        Args:
            given: arrays in the layout of the training's; or in another one of the usual, where only that one fits.
            what: they are called in errors.
            layout: of what is given, where it is another.

        Raises:
            UserError: they do not have this form; says what differs.
        """
        check_layout(layout)
        rows = as_numbers(given, what)
        if rows.dim() == 1 and not len(rows):
            # An empty list has no shape.
            return rows.new_zeros((0, *self.shape))
        rows = self._shaped(rows, what, layout)
        return self._as_stored(rows, what)

    def scaled(self, items: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Bring items as they are stored to what a network gets: bytes to [0, 1], then mean 0 and deviation 1."""
        return scaled(items, self.mean, self.deviation, len(self.shape))

    def _shaped(self, rows: Tensor, what: str, layout: str) -> Tensor:
        if layout != AUTO:
            found, kind = arranged(rows, layout, what)
            if tuple(found.shape[1:]) == self.shape:
                return found
            raise UserError(
                f"Got {what} that are {kind}s of the shape {tuple(found.shape[1:])} by the layout {layout}; "
                f"{self._expected()}"
            )
        if rows.dim() == len(self.layout) or self.layout == "plain":
            found, _ = arranged(rows, self.layout, what)
            if tuple(found.shape[1:]) == self.shape:
                return found
        fitting: dict[tuple[int, ...], Tensor] = {}
        for usual in FORMS[self.kind]:
            if usual == "plain" or len(usual) == rows.dim():
                found, _ = arranged(rows, usual, what)
                if tuple(found.shape[1:]) == self.shape:
                    # Axes of one place lie nowhere: with them two layouts can be the same thing.
                    steps = zip(found.stride(), found.shape, strict=True)
                    fitting[tuple(step for step, size in steps if size > 1)] = found
        if len(fitting) != 1:
            single = " For one item put an axis before it: x[None]." if sorted(rows.shape) == sorted(self.shape) else ""
            raise UserError(f"Got {what} of the shape {tuple(rows.shape)}; {self._expected()}{single}")
        return next(iter(fitting.values()))

    def _expected(self) -> str:
        sizes = dict(zip(FORMS[self.kind][0][1:], self.shape, strict=False))
        if self.layout == "plain":
            axes = ", ".join(["n", *map(str, self.shape)])
        else:
            # A layout of pictures for what are signals: one side of theirs is 1.
            known = {"h": 1, "w": 1, **sizes}
            if self.kind == "signal" and "l" not in self.layout:
                known = {"c": self.shape[0], "h": 1, "w": self.shape[1]}
            axes = ", ".join(letter if letter == "n" else str(known[letter]) for letter in self.layout)
        return (
            f"{self.name} was trained on {self.words()}, given as [{axes}] ({self.layout}). Bring them to that shape, "
            "or say by `layout` how they lie."
        )

    def _as_stored(self, rows: Tensor, what: str) -> Tensor:
        """Return items in the stored type, where their numbers are certain to mean the same."""
        least, most = (float(rows.min()), float(rows.max())) if rows.numel() else (self.low, self.high)
        got = f"Got {what} from {least:g} to {most:g} ({str(rows.dtype).removeprefix('torch.')})"
        if self.kind == "fingerprint":
            if (self.low, self.high) == (0.0, 1.0) and not bool(((rows == 0) | (rows == 1)).all()):
                raise UserError(f"{got}, and {self.name} was trained on fingerprints of 0 and 1. Give such.")
            return rows.float()
        if self.bytes:
            whole = rows.dtype == torch.uint8 or bool((rows == rows.round()).all())
            # Floats of nothing but 0 and 1 can be the ends of either range.
            sure = rows.dtype == torch.uint8 or not rows.numel() or most > 1.0
            if not (whole and sure and least >= 0.0 and most <= _BYTE):
                raise UserError(
                    f"{got}, and {self.name} was trained on bytes from 0 to 255 (uint8). Give them as such."
                )
            return rows.to(torch.uint8)
        if rows.dtype == torch.uint8:
            raise UserError(
                f"{got}, and {self.name} was trained on float32 from {self.low:g} to {self.high:g}. Give them on that "
                "scale, as floats."
            )
        span = self.high - self.low
        if self.kind == "picture" and (least < self.low - span or most > self.high + span):
            raise UserError(
                f"{got}, and {self.name} was trained on pictures from {self.low:g} to {self.high:g}. Give them on that "
                "scale."
            )
        return rows.float()


def scaled(
    items: Shaped[Tensor, "..."], mean: Sequence[float], deviation: Sequence[float], axes: int
) -> Float[Tensor, "..."]:
    """Bring stored items to what a network gets.

    Args:
        items: [..., *item], bytes or float32.
        mean: of every channel (first axis of an item), of bytes in [0, 1].
        deviation: likewise.
        axes: of an item.
    """
    unit = 255.0 if items.dtype == torch.uint8 else 1.0
    shape = (-1, *(1 for _ in range(axes - 1)))
    centre = torch.tensor(mean, device=items.device).view(shape) * unit
    spread = torch.tensor(deviation, device=items.device).view(shape) * unit
    # A copy even of floats: the caller's items stay as they are.
    return items.to(torch.float32, copy=True).sub_(centre).div_(spread)


def as_numbers(given: Any, what: str = "items") -> Shaped[Tensor, "..."]:
    """Return arrays as one tensor: bytes as they are, all else as float32.

    Args:
        given: a numpy array, a torch tensor or a sequence of arrays of one shape.
        what: they are called in errors.

    Raises:
        UserError: they are no numbers, of mixed size, not finite, or lose what tells them apart as float32; says which
            item.
    """
    if isinstance(given, Tensor):
        rows = tensor_of(given, what)
    else:
        # A list, or numpy's array of arrays.
        plain = isinstance(given, np.ndarray) and given.dtype != object
        array = array_of(given, what) if plain else _stacked(given, what)
        check_numbers(array.dtype, what)
        rows = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    if rows.dtype == torch.uint8 or rows.dim() < 1:
        return rows
    short = rows.float()
    if len(rows):
        bad = torch.nonzero(~short.reshape(len(rows), -1).isfinite().all(1))[:, 0]
        if len(bad):
            raise UserError(
                f"{len(bad)} of {len(rows)} {what} have values that are NaN, infinite or too large for float32; the "
                f"first is item {int(bad[0])}. Correct or leave out these items."
            )
    return short


def _stacked(given: Any, what: str) -> np.ndarray:
    refuse_sparse(given, what)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise UserError(f"Got {what} of the type {type(given).__name__}. Give a numpy array.")
    arrays = []
    for item in given:
        refuse_sparse(item, what)
        try:
            arrays.append(array_of(item, what))
        except UserError as error:
            raise UserError(f"Got {what} that are no arrays of numbers ({error}) Give a numpy array.") from error
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise UserError(
                f"Got {what} of mixed size: item 0 has the shape {arrays[0].shape}, item {number} {array.shape}. Bring "
                "all items to one shape."
            )
    return np.stack(arrays) if arrays else np.zeros(0, np.float32)
