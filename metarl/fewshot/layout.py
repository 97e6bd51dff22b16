"""Layouts: which axis of a user's arrays is what, told by letters or recognised where it is certain.

    n items    c channels    h height    w width    l length (of a signal, in time)    f numbers of a vector

`nhwc` is [items, height, width, channels]. Any order of the letters of one kind is a layout: pictures `nchw` or `nhw`
(grey), signals `ncl` or `nl` (one channel), vectors `nf`. `plain` takes items as they stand, the first axis of an item
being its channels.

What is recognised, for items of the sides a, b, c in this order:

    [n, f]           vectors
    [n, a, b]        signals, where one side is 1, or at most 32 and the other at least 8 times as long: the short side
                     is the channels'. Grey pictures, where both are over 4 and neither is over 1.5 times the other
    [n, a, b, c]     pictures, where a or c is at most 4 and the other two are over 4: that one is the channels'. With
                     b = 1 the items are signals, under the rule for [n, a, c]; with a = c = 1 as well. Asked for
                     where a or c is 1 and the other two would be sides of a signal under the rule for two: that may
                     be a signal of several channels with an axis too many, as some networks want it

All else is asked for. Pictures of height 1 or width 1 are signals, whoever says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Shaped
from torch import Tensor

from metarl.errors import UserError

Kind = Literal["vector", "signal", "picture", "array", "fingerprint"]
"""What an item is; an array is one that nothing more is known of."""

AUTO = "auto"
PLAIN = "plain"
FORMS: dict[Kind, tuple[str, ...]] = {
    "picture": ("nchw", "nhwc", "nhw"),
    "signal": ("ncl", "nlc", "nl", "nchw", "nhwc"),
    "vector": ("nf",),
    "fingerprint": ("nf",),
    "array": (PLAIN,),
}
"""Usual layouts of every kind; the first is that in which items are stored."""
KINDS: dict[int, Kind] = {1: "vector", 2: "signal", 3: "picture"}
"""Axes of a stored item -> what it is; with any other number it is an array."""

_LETTERS: dict[frozenset[str], tuple[str, Kind]] = {
    frozenset("nchw"): ("nchw", "picture"),
    frozenset("nhw"): ("nhw", "picture"),
    frozenset("ncl"): ("ncl", "signal"),
    frozenset("nl"): ("nl", "signal"),
    frozenset("nf"): ("nf", "vector"),
}
"""Letters -> the order in which they are stored, and what such items are."""
_FEW = 4
"""Most channels by which a picture is recognised, and one less than its shortest side."""
_MOST_CHANNELS = 32
_LONG = 8
"""How many times longer than its channels a signal is."""
_SQUARE = 1.5
"""Longest side of a grey picture by its shortest one."""


def check_layout(layout: Any) -> None:
    """Refuse a layout that is none.

    Raises:
        UserError: it is not a known set of letters, each once.
    """
    if layout in (AUTO, PLAIN):
        return
    if not isinstance(layout, str) or len(set(layout)) < len(layout) or frozenset(layout) not in _LETTERS:
        raise UserError(
            f"Got the layout '{layout}'. Give a letter for every axis, in their order: nchw or nhwc (pictures), nhw "
            "(grey ones), ncl or nlc (signals), nl (of one channel), nf (vectors); or plain, to take items as they "
            "stand."
        )


def recognised(shape: Sequence[int], what: str = "items") -> str:
    """Return the layout of arrays where it is certain (see the module).

    Args:
        shape: of all items together.
        what: they are called in errors.

    Raises:
        UserError: the axes can be read in several ways; says which.
    """
    sides = tuple(shape[1:])
    found = None
    if len(sides) == 1:
        found = "nf"
    elif len(sides) == 2:
        found = _of_two(*sides)
    elif len(sides) == 3:
        found = _of_three(*sides)
    if found is not None:
        return found
    choices = {
        2: "nhw (grey pictures), ncl or nlc (signals of several channels)",
        3: "nchw or nhwc (pictures, their channels first or last)",
    }.get(len(sides), "plain (items as they stand, the first axis of an item being its channels)")
    if len(sides) == 3 and 1 in sides:
        without = ("x[:, 0]", "x[:, :, 0]", "x[..., 0]")[sides.index(1)]
        choices += f"; for signals leave the axis of length 1 out, as {without}, and say ncl or nlc"
    raise UserError(
        f"Got {what} of the shape {tuple(shape)}, whose axes can be read in several ways. Say what they are by "
        f"`layout` (--layout of the command): {choices}."
    )


def _of_two(a: int, b: int) -> str | None:
    short, long = sorted((a, b))
    if short == 1 or (short <= _MOST_CHANNELS and long >= _LONG * short):
        return "ncl" if a == short else "nlc"
    return "nhw" if short > _FEW and long <= _SQUARE * short else None


def _of_three(a: int, b: int, c: int) -> str | None:
    if b == 1:
        of_two = {"ncl": "nchw", "nlc": "nhwc"}
        return of_two.get(_of_two(a, c) or "")
    if a == c == 1:
        return "nchw"
    # [n, 1, channels, length] or [n, channels, length, 1], or a long grey picture.
    if 1 in (a, c) and _of_two(*((b, c) if a == 1 else (a, b))) in ("ncl", "nlc"):
        return None
    if a <= _FEW < min(b, c):
        return "nchw"
    return "nhwc" if c <= _FEW < min(a, b) else None


def arranged(items: Shaped[Tensor, "..."], layout: str, what: str = "items") -> tuple[Shaped[Tensor, "n ..."], Kind]:
    """Return items in the layout in which they are stored, and what they are.

    Pictures are [n, channels, height, width], signals [n, channels, length], vectors [n, numbers].

    Args:
        items: as they were given.
        layout: theirs; not `auto`.
        what: they are called in errors.

    Raises:
        UserError: the layout has another number of axes.
    """
    if layout == PLAIN:
        # As it stood: an item of two axes is a grey picture, which has one channel.
        items = items[:, None] if items.dim() == 3 else items
        return items, KINDS.get(items.dim() - 1, "array")
    if len(layout) != items.dim():
        raise UserError(
            f"Got the layout {layout}, {len(layout)} axes, and {what} of the shape {tuple(items.shape)}, "
            f"{items.dim()} axes. Give a layout with a letter for every axis."
        )
    order, kind = _LETTERS[frozenset(layout)]
    items = items.permute([layout.index(letter) for letter in order])
    if "c" not in order and kind != "vector":
        items = items[:, None]
    if kind == "picture" and 1 in items.shape[2:]:
        return items.flatten(2), "signal"
    return items, kind
