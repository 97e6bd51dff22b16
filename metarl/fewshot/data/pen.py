"""A pen that writes printed letters by hand: outlines are thinned to lines, the lines bent, and drawn with a round tip.

Letters are held as points along their lines: flat rows for all letters, with the letter that each row belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8, UInt64
from torch import Tensor

from metarl.fewshot.episodes import uniform

# No line comes nearer to the image's edge than this, in halves of its side.
_EDGE = 0.93
SIDE = 64
"""Side of the square that a printed letter fills, in pixels: the bits of a machine word."""

_AROUND = tuple((row, column) for row in range(-2, 3) for column in range(-2, 3))


@dataclass(frozen=True, kw_only=True)
class Strokes:
    """Lines of n letters.

    Attributes:
        points: x to the right and y down, the longer side of every letter from -1 to 1, its centre at 0.
        starts: first point of every letter, and the number of all at the end.
    """

    points: Float[Tensor, "P 2"]
    starts: Int[Tensor, " ends"]

    def __len__(self) -> int:
        """Return n."""
        return len(self.starts) - 1

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """Points of every letter."""
        return self.starts.diff()

    def take(self, letters: Int[Tensor, " m"]) -> Strokes:
        """Return some letters; one may come several times."""
        counts = self.counts[letters]
        starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        rows = torch.arange(int(starts[-1])) + (self.starts[letters] - starts[:-1]).repeat_interleave(counts)
        return Strokes(points=self.points[rows], starts=starts)


@dataclass(frozen=True, kw_only=True)
class Hand:
    """How much the same letter differs from one time to the next.

    Lengths are in halves of the letter's longer side, angles in radians; normal deviations where nothing else is said.
    """

    turn: float = 0.0
    """Rotation."""
    slant: float = 0.0
    """Shear of the letter to the right, as italics have."""
    stretch: float = 0.0
    """Of width against height, in the logarithm."""
    size: float = 0.0
    """Of both, in the logarithm."""
    shift: float = 0.0
    """Of the whole, along each axis."""
    bend: float = 0.0
    """Smooth displacement of its parts, of wave lengths from half to the whole letter and more."""
    tremble: float = 0.0
    """The same with short waves."""
    pen: float = 0.075
    """Median radius of the tip."""
    pen_spread: float = 0.0
    """Of the radius from one letter to the next, in the logarithm."""
    pressure: float = 0.0
    """Of the radius along the lines, in the logarithm."""
    fill: float = 0.72
    """Part of the image's side that the median letter's longer side takes; not random."""


def joined(parts: Sequence[Strokes]) -> Strokes:
    """Return the letters of all parts, one after the other."""
    counts = torch.cat([part.counts for part in parts]) if parts else torch.zeros(0, dtype=torch.int64)
    return Strokes(
        points=torch.cat([part.points for part in parts]) if parts else torch.zeros(0, 2),
        starts=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
    )


def strokes(ink: Bool[np.ndarray, "n 64 64"]) -> Strokes:
    """Return the lines of letters whose longer side fills the square, each with ink somewhere."""
    thin = thinned(ink)
    points, owners = _smoothed(thin)
    counts = torch.bincount(owners, minlength=len(ink))
    half = (ink.shape[1] - 1) / 2
    return Strokes(
        points=(points - half) / half,
        starts=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
    )


def thinned(ink: Bool[np.ndarray, "n height 64"]) -> Bool[np.ndarray, "n height 64"]:
    """Thin shapes to lines one pixel wide, without taking them apart and without losing one (Guo & Hall 1989).

    A row of 64 pixels is one machine word, so that the rule is worked out for all of them at once.
    """
    words = np.packbits(ink, axis=-1, bitorder="little").view("<u8")[..., 0]
    # A few hundred letters fit into the processor's cache.
    parts = [_thinned_words(words[i : i + 256]) for i in range(0, len(words), 256)]
    return np.unpackbits(np.concatenate(parts)[..., None].view(np.uint8), axis=-1, bitorder="little").astype(bool)


def _thinned_words(ink: UInt64[np.ndarray, "n height"]) -> UInt64[np.ndarray, "n height"]:
    while True:
        before = ink
        for second in (False, True):
            ink = ink & ~_removable(ink, second)
        if (ink == before).all():
            return ink


def _removable(ink: UInt64[np.ndarray, "n height"], second: bool) -> UInt64[np.ndarray, "n height"]:
    """Return which pixels are taken away in the first or the second half of a turn; the names are the paper's."""
    one = np.uint64(1)
    # p9 p2 p3
    # p8 .  p4
    # p7 p6 p5
    p2 = np.pad(ink, ((0, 0), (1, 0)))[:, :-1]
    p6 = np.pad(ink, ((0, 0), (0, 1)))[:, 1:]
    p3, p4, p5 = p2 >> one, ink >> one, p6 >> one
    p7, p8, p9 = p6 << one, ink << one, p2 << one
    # One line ends or passes here, and more than its end would be left.
    single, _, _ = _counted(~p2 & (p3 | p4), ~p4 & (p5 | p6), ~p6 & (p7 | p8), ~p8 & (p9 | p2))
    _, two, four = _counted(p9 | p2, p3 | p4, p5 | p6, p7 | p8)
    _, other_two, other_four = _counted(p2 | p3, p4 | p5, p6 | p7, p8 | p9)
    side = (p6 | p7 | ~p9) & p8 if second else (p2 | p3 | ~p5) & p4
    return single & two & other_two & ~(four & other_four) & ~side


def _counted(*bits: UInt64[np.ndarray, "n height"]) -> tuple[UInt64[np.ndarray, "n height"], ...]:
    """Return where exactly one of four bits is set, where two or more are, and where all are."""
    a, b, c, d = bits
    two = (a & b) | (c & d) | ((a | b) & (c | d))
    return (a | b | c | d) & ~two, two, a & b & c & d


def _smoothed(thin: Bool[np.ndarray, "n height width"]) -> tuple[Float[Tensor, "P 2"], Int[Tensor, " P"]]:
    """Return the line pixels as points (x, y), each at the mean of those around it, and the letter of each."""
    framed = np.pad(thin, ((0, 0), (2, 2), (2, 2)))
    flat, width = framed.reshape(-1), framed.shape[2]
    here = np.flatnonzero(flat)
    owners, rows, columns = np.unravel_index(here, framed.shape)
    total = np.zeros((len(here), 3), np.float32)
    for row, column in _AROUND:
        total += flat[here + row * width + column, None] * np.array([1, column, row], np.float32)
    points = np.stack((columns - 2, rows - 2), 1) + total[:, 1:] / total[:, :1]
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(owners.astype(np.int64))


def written(letters: Strokes, numbers: list[int], size: int, hand: Hand) -> UInt8[Tensor, "n 1 size size"]:
    """Write letters once each.

    Args:
        letters: n of them.
        numbers: n counters; how a letter comes out is a function of its number.
        size: side of the images in pixels.
        hand: how much they vary.

    Returns:
        Ink 255 on 0.
    """
    chunk = 2000
    parts = [
        _drawn(
            *_varied(letters.take(torch.arange(i, min(i + chunk, len(letters)))), numbers[i : i + chunk], hand), size
        )
        for i in range(0, len(letters), chunk)
    ]
    return torch.cat(parts) if parts else torch.zeros((0, 1, size, size), dtype=torch.uint8)


def _varied(
    letters: Strokes, numbers: list[int], hand: Hand
) -> tuple[Float[Tensor, "P 2"], Float[Tensor, " P"], Int[Tensor, " P"], int]:
    """Return points and the pen's radius at each, both in halves of the image's side, their letters, and n."""
    owners = torch.arange(len(letters)).repeat_interleave(letters.counts)
    normal = _normals(numbers)
    turn, slant, stretch, size = (
        normal(1, name)[:, 0] * amount
        for name, amount in (
            ("turn", hand.turn),
            ("slant", hand.slant),
            ("stretch", hand.stretch),
            ("size", hand.size),
        )
    )
    points = letters.points
    bent = points + hand.bend * _waves(points, owners, normal, "bend", 2, 0.3)
    bent = bent + hand.tremble * _waves(points, owners, normal, "tremble", 2, 1.5)
    cos, sin = turn.cos(), turn.sin()
    wide, high = (size + stretch / 2).exp() * hand.fill, (size - stretch / 2).exp() * hand.fill
    # Slanted (y points down), stretched, then turned.
    matrix = torch.stack(
        (cos * wide, -cos * wide * slant - sin * high, sin * wide, -sin * wide * slant + cos * high), 1
    )
    points = (matrix.view(-1, 2, 2)[owners] @ bent[..., None]).squeeze(-1)
    points = points + (normal(2, "shift") * hand.shift)[owners]
    # Nothing is cut off: what would leave the image is made smaller.
    widest = torch.zeros(len(letters)).scatter_reduce_(0, owners, points.abs().amax(1), "amax")
    points = points * (_EDGE / widest.clamp(min=_EDGE))[owners, None]
    radii = (normal(1, "pen")[:, 0] * hand.pen_spread).exp()[owners] * hand.pen
    radii = radii * (hand.pressure * _waves(letters.points, owners, normal, "pressure", 1, 0.8)[:, 0]).exp()
    return points, radii, owners, len(letters)


def _normals(numbers: list[int]) -> Callable[[int, str], Float[Tensor, "n count"]]:
    """Return a function that gives `count` normal numbers for each of n counters and a purpose."""

    def normal(count: int, purpose: str) -> Float[Tensor, "n count"]:
        # Cut at 2.5 deviations: no letter is turned or bent beyond recognition.
        return torch.special.ndtri(uniform(numbers, count, "pen", purpose)).clamp(-2.5, 2.5).float()

    return normal


def _waves(
    points: Float[Tensor, "P 2"],
    owners: Int[Tensor, " P"],
    normal: Callable[[int, str], Float[Tensor, "n count"]],
    purpose: str,
    values: int,
    frequency: float,
) -> Float[Tensor, "P values"]:
    """Return smooth random functions of place, deviation 1 over letters: sums of a few waves of random direction.

    Args:
        points: where.
        owners: whose.
        normal: randomness of the letters.
        purpose: of the numbers drawn.
        values: functions for every letter.
        frequency: normal deviation of the waves' frequency along each axis, in turns per half letter.
    """
    waves = 4
    drawn = normal(values * waves * 4, purpose).unflatten(1, (values, waves, 4))
    frequencies, (sines, cosines) = drawn[..., :2] * (2 * math.pi * frequency), drawn[..., 2:].unbind(-1)
    total = torch.zeros(len(points), values)
    for value in range(values):
        for wave in range(waves):
            angle = (frequencies[:, value, wave][owners] * points).sum(-1)
            total[:, value] += (
                sines[:, value, wave][owners] * angle.sin() + cosines[:, value, wave][owners] * angle.cos()
            )
    return total / math.sqrt(waves)


def _drawn(
    points: Float[Tensor, "P 2"], radii: Float[Tensor, " P"], owners: Int[Tensor, " P"], letters: int, size: int
) -> UInt8[Tensor, "n 1 size size"]:
    """Draw a round spot at every point, its edge one pixel soft."""
    # Centres of the pixels lie at whole numbers.
    places = (points + 1) * (size / 2) - 0.5
    radii = radii * (size / 2)
    reach = math.ceil(float(radii.max()) + 0.5) if len(radii) else 0
    # A frame takes what falls beyond the image.
    frame = reach + 1
    places = places.clamp(-frame + reach, size - 1 + frame - reach)
    nearest = places.round()
    inside = places - nearest
    side = size + 2 * frame
    first = owners * side * side + (nearest[:, 1].long() + frame) * side + nearest[:, 0].long() + frame
    image = torch.zeros(letters * side * side)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            value = radii + 0.5 - torch.hypot(inside[:, 0] - column, inside[:, 1] - row)
            # Most spots are far smaller than the largest.
            here = (value > 0).nonzero().squeeze(1)
            image.scatter_reduce_(0, first[here] + (row * side + column), value[here].clamp_(max=1), "amax")
    image = image.view(letters, 1, side, side)[..., frame : frame + size, frame : frame + size]
    return (image * 255).round().to(torch.uint8)
