"""A user's own functions: a regression data set, from arrays of points or from a callable that draws functions.

    >>> from metarl.fewshot.data import from_functions
    >>> data = from_functions(x, y)  # doctest: +SKIP

From files too: a folder with x.npy and y.npy, or with functions.csv, a row a point:

    function,x_temperature,x_time,y_yield
    batch 1,20.5,0,0.02

Columns whose names begin with x are inputs, those with y are outputs, in their order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from metarl.arguments import checked
from metarl.errors import UserError
from metarl.fewshot.classes import ClassSplit
from metarl.fewshot.data.files import find_root
from metarl.fewshot.data.function_sets import (
    Draw,
    FunctionArrays,
    FunctionDraws,
    FunctionSplit,
    check_function,
    hash_of,
    points_of,
)
from metarl.fewshot.data.scaling import Scaling
from metarl.fewshot.data.splitting import FRACTIONS, split_at_random, split_by_list
from metarl.fewshot.reading.arrays import read_npy
from metarl.fewshot.reading.folders import kind_of
from metarl.fewshot.reading.tables import headed, listed, read_rows

DEFAULT_SIZE = 0
VARIANTS = {"files": "x.npy [functions, points, inputs] and y.npy [functions, points, outputs]; or functions.csv"}
_ARRAYS = ("x.npy", "y.npy")
_TABLE = "functions.csv"


@checked
def from_functions(
    x: Any,
    y: Any = None,
    *,
    splits: Mapping[str, Collection[int]] | None = None,
    fractions: Collection[float] = FRACTIONS,
    names: Collection[str] | None = None,
    seed: int = 0,
    name: str = "functions",
) -> FunctionArrays | FunctionDraws:
    """Return a regression data set of a user's own functions: an episode is one of them, from a few of its points.

    Networks get every input and every output with mean 0 and deviation 1 over the training functions (`scaling`, also
    in `describe()`). `score`, `predict` and all tests answer in the units of `y`; training losses are of scaled values.

    Args:
        x: [functions, points, inputs], or [functions, points] where there is one input: a numpy array, a tensor, or a
            list with an array for each function, whose points may differ in number. Or a callable
            `draw(generator, points)`, which returns x [points, inputs] and y [points, outputs] of a new function, all
            of its randomness from the numpy generator; every episode is a new function then, and no two splits share
            one.
        y: [functions, points, outputs], or [functions, points]: likewise. None with a callable.
        splits: split -> the numbers of its functions, from 0; functions in none are left out. None: at random.
        fractions: parts of the functions in train, validation and test, where `splits` is None.
        names: of the functions, for errors; their numbers if not given.
        seed: of the random split.
        name: in reports.

    Raises:
        UserError: shapes that do not fit, values that are no finite numbers, or a callable that gives something else
            the second time; says which function.
    """
    if callable(x):
        if y is not None or splits is not None or names is not None:
            raise UserError("Got a callable for x, and y, splits or names beside it. A callable draws x and y itself.")
        return FunctionDraws(draw=cast(Draw, x), name=name)
    points, values = points_of("x", x), points_of("y", y)
    if len(points) != len(values):
        raise UserError(f"Got x of {len(points)} functions and y of {len(values)}. Give both of every function.")
    named = [str(number) for number in range(len(points))] if names is None else [str(name) for name in names]
    if len(named) != len(points):
        raise UserError(f"Got {len(named)} names of {len(points)} functions. Give one for each.")
    for place, (inputs, outputs) in enumerate(zip(points, values, strict=True)):
        check_function(f"function {named[place]}", inputs, outputs, points[0].shape[1:], values[0].shape[1:])
    if splits is None:
        parts = split_at_random(f"functions of {name}", named, seed, fractions)
    else:
        parts = split_by_list(f"functions of {name}", named, splits, known=range(len(named)))
    base = parts.get("train") or next(iter(parts.values()))
    scaling = Scaling.of(torch.cat([points[i] for i in base]), torch.cat([values[i] for i in base]))
    return FunctionArrays(
        name=name,
        splits={split: _split(points, values, part, named, scaling) for split, part in parts.items()},
        scaling=scaling,
        settings={"seed": seed, "fractions": list(fractions)} if splits is None else {"splits": "given"},
        fingerprint=hash_of([(split, named[i], points[i], values[i]) for split, part in parts.items() for i in part]),
    )


def _split(
    x: Sequence[Tensor], y: Sequence[Tensor], part: Sequence[int], names: Sequence[str], scaling: Scaling
) -> FunctionSplit:
    return FunctionSplit(
        points=ClassSplit(
            items=scaling.x(torch.cat([x[i] for i in part])),
            sizes=torch.tensor([len(x[i]) for i in part]),
            names=tuple(names[i] for i in part),
        ),
        y=scaling.y(torch.cat([y[i] for i in part])),
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def load(variant: str, root: Path | None, size: int) -> FunctionArrays | FunctionDraws:
    """Return the functions of a folder; arguments and errors as in `metarl.fewshot.data.load`."""
    if size:
        raise UserError(f"Got a size of {size} pixels, and functions are taken as they are. Leave the size out.")
    folder = find_root("functions", root, (*_ARRAYS, _TABLE), (*_ARRAYS, _TABLE))
    if folder.is_file():
        if folder.suffix != ".csv":
            raise UserError(f"Got the file {folder}. Give a folder with x.npy and y.npy, or a table that ends in .csv.")
        return _read_table(folder, f"functions-{folder.stem}")
    name = f"functions-{folder.name}"
    present = [file for file in (*_ARRAYS, _TABLE) if kind_of(folder / file)]
    if present == [_TABLE]:
        return _read_table(folder / _TABLE, name)
    if present != list(_ARRAYS):
        raise UserError(
            f"The folder {folder} has {' and '.join(present) or 'none'} of {', '.join((*_ARRAYS, _TABLE))}. Give "
            f"x.npy and y.npy, or {_TABLE}."
        )
    advice = f"functions with different numbers of points go into {_TABLE}"
    x, y = (read_npy(folder / file, advice) for file in _ARRAYS)
    return from_functions(x, y, name=name)


def _read_table(path: Path, name: str) -> FunctionArrays | FunctionDraws:
    """Return the functions of a table, a row a point."""
    columns, rows = headed(read_rows(path), str(path), each="point")
    kinds = {kind: [place for place, column in enumerate(columns) if column[:1].lower() == kind] for kind in "xy"}
    known = {*kinds["x"], *kinds["y"]}
    others = [place for place in range(len(columns)) if place not in known]
    if [columns[place] for place in others] != ["function"] or not kinds["x"] or not kinds["y"]:
        raise UserError(f"{path} has the columns {listed(columns)}. Name one 'function', inputs x..., outputs y...")
    found: dict[str, list[list[float]]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            numbers = [float(row[place]) for place in (*kinds["x"], *kinds["y"])]
        except ValueError as error:
            raise UserError(f"Row {number} of {path}: {str(error)[:200]}. Give a number in every column.") from error
        found.setdefault(row[others[0]], []).append(numbers)
    inputs = len(kinds["x"])
    arrays = [np.array(rows) for rows in found.values()]
    x, y = [rows[:, :inputs] for rows in arrays], [rows[:, inputs:] for rows in arrays]
    return from_functions(x, y, names=list(found), name=name)
