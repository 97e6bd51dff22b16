"""Sets of functions: of some points each, or drawn by a callable; and the episodes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.classes import ClassSplit, draw_items
from metarl.fewshot.data.scaling import Scaling
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support, check_split, keyed
from metarl.fewshot.reading.arrays import array_of
from metarl.problems import in_words

TRIED = 64
"""Functions that a callable draws once, for the scale and the fingerprint."""
TRIED_POINTS = 16
"""Points of each."""

Draw = Callable[[np.random.Generator, int], tuple[Any, Any]]
"""(generator, points) -> x [points, inputs] and y [points, outputs] of a new function."""


@dataclass(frozen=True, kw_only=True)
class FunctionSplit:
    """The functions of one split.

    Attributes:
        points: their points in rows, scaled, those of a function in adjacent rows.
        y: values at every row, scaled.
    """

    points: ClassSplit
    y: Float[Tensor, "rows J"]

    def to(self, device: torch.device) -> FunctionSplit:
        """Return it with all tensors on `device`."""
        return FunctionSplit(points=self.points.to(device), y=self.y.to(device))


@dataclass(frozen=True, kw_only=True)
class FunctionArrays:
    """Functions of which a number of points is known: a `Source` of regression episodes.

    Attributes:
        name: in reports.
        splits: those that it has.
        scaling: of x and y, by the training functions.
        settings: what it was made with, plain data.
        fingerprint: hash of all points as they were given, with their splits.
    """

    name: str
    splits: Mapping[str, FunctionSplit]
    scaling: Scaling
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of a point."""
        return tuple(next(iter(self.splits.values())).points.items.shape[1:])

    @property
    def outputs(self) -> int:
        """Numbers that are predicted, J."""
        return next(iter(self.splits.values())).y.shape[1]

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        """Return episodes, whose shots and queries are different points of one function (see `Source`).

        Raises:
            UserError: a function of the split has too few points.
        """
        check_split(split, tuple(self.splits))
        part = self.splits[split]
        points, each = part.points, shape.shot + shape.query
        fewest = int(points.sizes.min())
        if fewest < each:
            raise UserError(
                f"Got {shape.shot} shots and {shape.query} queries, {each} points of a function, and function "
                f"{points.names[int(points.sizes.argmin())]} of {self.name} ({split}) has {fewest}. Ask for fewer "
                "(--shot, --query; --train-shot of reptile), or leave the function out."
            )
        chosen = keyed(numbers, 1, seed, split, "function", device=points.items.device) % len(points.names)
        drawn = draw_items(points, self.name, chosen, numbers, shape, (seed, split))
        return Episodes(
            support=Support(x=points.items[drawn.support_rows], y=part.y[drawn.support_rows], way=0),
            query_x=points.items[drawn.query_rows],
            query_y=part.y[drawn.query_rows],
        )

    def to(self, device: torch.device) -> FunctionArrays:
        """Return them with all points on `device`."""
        return replace(self, splits={name: part.to(device) for name, part in self.splits.items()})

    def describe(self) -> Mapping[str, Any]:
        """Return name, settings, sizes, scale and fingerprint."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "item_shape": list(self.item_shape),
            "outputs": self.outputs,
            "splits": {
                name: {"functions": len(part.points.names), "points": len(part.y)} for name, part in self.splits.items()
            },
            "scaling": self.scaling.describe(),
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, kw_only=True)
class FunctionDraws:
    """Functions that a callable draws: a `Source` of regression episodes, each of a function of its own.

    Attributes:
        draw: (generator, points) -> x and y of a new function.
        name: in reports.
    """

    draw: Draw
    name: str = "functions"

    def __post_init__(self) -> None:
        first, again = (self._drawn("train", 0, 0, TRIED_POINTS) for _ in range(2))
        if not all(torch.equal(*pair) for pair in zip(first, again, strict=True)):
            raise UserError(
                f"{self.name}: the callable drew two functions with generators of one state. Take all randomness from "
                "the generator that it is given, and keep nothing from one call to the next."
            )

    @cached_property
    def _tried(self) -> list[tuple[Tensor, Tensor]]:
        return [self._drawn("train", number, 0, TRIED_POINTS) for number in range(TRIED)]

    @cached_property
    def _scaling(self) -> Scaling:
        x, y = zip(*self._tried, strict=True)
        return Scaling.of(torch.cat(x), torch.cat(y))

    @property
    def scaling(self) -> Scaling:
        """Of x and y, by the first functions of the training split."""
        return self._scaling

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of a point."""
        return tuple(self._tried[0][0].shape[1:])

    @property
    def outputs(self) -> int:
        """Numbers that are predicted, J."""
        return self._tried[0][1].shape[1]

    def _drawn(self, split: str, number: int, seed: int, points: int) -> tuple[Tensor, Tensor]:
        """Return x and y of one function, float64."""
        what = f"{self.name}: function {number} ({split})"
        generator = np.random.default_rng(int(keyed([number], 1, seed, split, self.name, "function")))
        # Somebody's code may raise anything.
        try:
            found = self.draw(generator, points)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise UserError(
                f"{what}: the callable raised {in_words(error)}. It is called as draw(generator, points)."
            ) from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise UserError(
                f"{what}: the callable returned {type(found).__name__}. Return x [points, inputs] and y "
                "[points, outputs]."
            )
        (x,), (y,) = (points_of(name, [part]) for name, part in zip("xy", found, strict=True))
        known = vars(self).get("_tried")
        shapes = (x.shape[1:], y.shape[1:]) if known is None else (known[0][0].shape[1:], known[0][1].shape[1:])
        check_function(what, x, y, *shapes)
        if len(x) != points:
            raise UserError(f"{what}: the callable gave {len(x)} points. Give as many as it is asked for, {points}.")
        return x, y

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        """Return episodes, each of a new function (see `Source`)."""
        check_split(split)
        drawn = [self._drawn(split, number, seed, shape.shot + shape.query) for number in numbers]
        x = torch.stack([self.scaling.x(x) for x, _ in drawn])
        y = torch.stack([self.scaling.y(y) for _, y in drawn])
        return Episodes(
            support=Support(x=x[:, : shape.shot], y=y[:, : shape.shot], way=0),
            query_x=x[:, shape.shot :],
            query_y=y[:, shape.shot :],
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the first functions that it draws, which stands for all of them."""
        return hash_of([("train", str(number), x, y) for number, (x, y) in enumerate(self._tried)])

    def describe(self) -> Mapping[str, Any]:
        """Return name, scale and fingerprint, and of what that is."""
        return {
            "name": self.name,
            "item_shape": list(self.item_shape),
            "outputs": self.outputs,
            "scaling": self.scaling.describe(),
            "fingerprint": self.fingerprint,
            "fingerprint_of": f"{TRIED_POINTS} points of each of the first {TRIED} functions that seed 0 draws",
        }


# -- checks ------------------------------------------------------------------------------------------------------------


def points_of(what: str, given: Any) -> list[Tensor]:
    """Return what is known of every function, [points, ...] in float64, one number an axis of its own."""
    if given is None:
        raise UserError("Got x without y. Give y [functions, points, outputs], the values at x.")
    if not isinstance(given, Tensor | np.ndarray | list | tuple):
        raise UserError(f"Got {what} of the type {type(given).__name__}. Give an array [functions, points, ...].")
    if isinstance(given, Tensor | np.ndarray) and given.ndim == 0:
        raise UserError(f"Got {what} without an axis of functions. Give an array [functions, points, ...].")
    rows = []
    for place, row in enumerate(given):
        array = array_of(row, f"{what} of function {place}")
        if array.dtype.kind not in "biuf" or array.ndim < 1:
            kind = f"the type {array.dtype}" if array.dtype.kind not in "biuf" else "no axis of points"
            raise UserError(f"Got {what} of function {place} with {kind}. Give numbers, [functions, points, ...].")
        rows.append(torch.from_numpy(array.astype(np.float64).reshape(array.shape if array.ndim > 1 else (-1, 1))))
    if not rows:
        raise UserError(f"Got {what} of no function. Give [functions, points, ...].")
    return rows


def check_function(what: str, x: Tensor, y: Tensor, item_shape: Sequence[int], outputs: Sequence[int]) -> None:
    """Refuse points that do not fit together, or do not fit those of the other functions."""
    if len(x) != len(y):
        raise UserError(f"{what} has {len(x)} points in x and {len(y)} in y. Give the values at every point.")
    if y.dim() != 2 or not y.shape[1] or not x[:1].numel():
        raise UserError(
            f"{what} has x of the shape {tuple(x.shape)} and y {tuple(y.shape)}. Give x [points, inputs] and y "
            "[points, outputs], at least one of each."
        )
    if x.shape[1:] != tuple(item_shape) or y.shape[1:] != tuple(outputs):
        raise UserError(
            f"{what} has points of the shape {tuple(x.shape[1:])} with values {tuple(y.shape[1:])}, the first function "
            f"{tuple(item_shape)} with {tuple(outputs)}. Give all functions the same inputs and outputs."
        )
    bad = torch.nonzero(~(x.flatten(1).isfinite().all(1) & y.isfinite().all(1)))[:, 0]
    if len(bad):
        raise UserError(
            f"{what} has values that are NaN or infinite; the first is point {int(bad[0])}. Leave such points out: "
            "functions in a list may have different numbers of points."
        )


def function_points(what: str, given: Any, shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
    """Return points of one function, float64.

    Raises:
        UserError: there are none, they are no finite numbers, or not of this shape.
    """
    (found,) = points_of(what, [given])
    if found.shape[1:] != shape or not len(found):
        raise UserError(f"Got {what} of the shape {tuple(np.shape(given))}. Give [points, {str(list(shape))[1:]}.")
    if not bool(found.isfinite().all()):
        raise UserError(f"Got {what} with values that are NaN or infinite. Leave such points out.")
    return found


def hash_of(functions: Sequence[tuple[str, str, Tensor, Tensor]]) -> str:
    """Return a hash of functions, each with its split and name."""
    digest = hashlib.sha256()
    for split, name, x, y in functions:
        digest.update(repr((split, name, tuple(x.shape), tuple(y.shape))).encode())
        for part in (x, y):
            digest.update(np.ascontiguousarray(part.numpy()).tobytes())
    return digest.hexdigest()
