"""A task in files: items to learn from with their labels, and items that are asked about, for `predict`.

What the files are follows from what the learner was trained on:

    pictures, signals    support: a folder <class>/<file>. Queries: files, or folders of them
    arrays               support: a folder with items.npy and labels.npy. Queries: .npy files, or folders with items.npy
    molecules            support: a CSV file with the columns smiles and label. Queries: CSV files with a column smiles
    functions            support: a CSV file with columns x... and y..., or a folder with x.npy and y.npy. Queries: CSV
                         files with columns x..., .npy files, or folders with x.npy
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UserError, nearest, tell
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.molecules import MoleculeData
from metarl.fewshot.data.scaling import Regression
from metarl.fewshot.episodes import Source
from metarl.fewshot.reading.arrays import check_numbers, read_npy
from metarl.fewshot.reading.folders import check_file_or_folder, files_below, kind_of
from metarl.fewshot.reading.tables import headed, listed, read_rows
from metarl.memory import check_room

ARRAYS = ("items.npy", "labels.npy")
POINTS = ("x.npy", "y.npy")
MOST = 10_000_000
"""Items of a task in arrays, to learn from or to be asked about."""
_FLOATS, _NAME = 16, 150
"""Bytes of a number while it is made ready for a network, and of the name of an item."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What `predict` is asked.

    Attributes:
        items: S items to learn from.
        labels: of each; values in regression.
        queries: Q items.
        names: of the queries, for tables.
    """

    items: Any
    labels: Any
    queries: Any
    names: tuple[str, ...]


def read_task(source: Source, support: Path, queries: Sequence[Path]) -> Task:
    """Read a task from files (see the module).

    Args:
        source: what the learner was trained on.
        support: folder or file of what is learned from.
        queries: folders or files of what is asked about.

    Raises:
        UserError: something is missing, or cannot be read; says what was looked for.
    """
    for path in (support, *queries):
        if not kind_of(path):
            raise UserError(f"There is no {path}. Give the folder or file that holds the items.")
        check_file_or_folder(path)
    if isinstance(source, Regression):
        return _of_points(source, support, queries)
    if isinstance(source, MoleculeData):
        return _of_molecules(source, support, queries)
    if isinstance(source, ClassData) and source.reader is not None:
        return _of_files(source, support, queries)
    return _of_arrays(source, support, queries)


def _of_files(source: ClassData, support: Path, queries: Sequence[Path]) -> Task:
    if check_file_or_folder(support) == "file":
        raise UserError(f"Got the file {support}. Give a folder with <class>/<file>.")
    names = files_below(support)
    found = sorted(
        ((support / name, name.split("/")[0]) for name in names if "/" in name), key=lambda pair: (pair[1], pair[0])
    )
    if not found:
        raise UserError(f"{support} has no files in folders of classes. Give a folder with <class>/<file>.")
    if len(found) < len(names):
        first = next(name for name in names if "/" not in name)
        tell(f"{support}: left out {len(names) - len(found)} files that lie in no folder of a class, as {first}.")
    empty = [path for path in queries if path.is_dir() and not _below(path)]
    if empty:
        raise UserError(f"There are no files in {empty[0]}. Give files, or folders that hold some.")
    asked = [file for path in queries for file in (_below(path) if path.is_dir() else [path])]
    return Task(
        items=source.read([file for file, _ in found]),
        labels=[label for _, label in found],
        queries=source.read(asked) if asked else [],
        names=tuple(map(str, asked)),
    )


def _of_arrays(source: Source, support: Path, queries: Sequence[Path]) -> Task:
    items, labels = _items(source, _inside(support, ARRAYS[0]), "items"), _array(_inside(support, ARRAYS[1]))
    if len(items) != len(labels):
        raise UserError(f"{support} has {len(items)} items and {len(labels)} labels. Give one label for each item.")
    parts = [(path, _items(source, _inside(path, ARRAYS[0]) if path.is_dir() else path, "queries")) for path in queries]
    return Task(items=items, labels=labels, queries=_joined([part for _, part in parts]), names=_numbered(parts))


def _of_molecules(source: MoleculeData, support: Path, queries: Sequence[Path]) -> Task:
    known = _table(support, ("smiles", "label"))
    asked = [smiles for path in queries for smiles in _table(path, ("smiles",))["smiles"]]
    if source.prints is None:
        raise UserError(f"{source.name} does not say how fingerprints are made. Make it by from_csv.")
    return Task(
        items=source.prints(known["smiles"]),
        labels=known["label"],
        queries=source.prints(asked) if asked else [],
        names=tuple(asked),
    )


def _of_points(source: Regression, support: Path, queries: Sequence[Path]) -> Task:
    if support.is_dir():
        x, y = (_array(_inside(support, name)) for name in POINTS)
    else:
        x, y = (_columns(support, letter) for letter in "xy")
    parts = []
    for path in queries:
        if path.is_dir():
            parts.append((path, _array(_inside(path, POINTS[0]))))
        else:
            parts.append((path, _array(path) if path.suffix == ".npy" else _columns(path, "x")))
    return Task(items=x, labels=y, queries=_joined([part for _, part in parts]), names=_numbered(parts))


# -- reading ----------------------------------------------------------------------------------------------------------


def _below(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted, without hidden ones."""
    return sorted(folder / name for name in files_below(folder, empty=True))


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not kind_of(path):
        raise UserError(f"There is no {name} in {folder}. Give a folder that holds it.")
    return path


def _array(path: Path) -> np.ndarray:
    found = read_npy(path)
    if not found.ndim:
        raise UserError(f"{path} holds no array of items. Write it with numpy.save.")
    if len(found) > MOST:
        raise UserError(f"{path} has {len(found):,} items, and at most {MOST:,} are taken. Ask about them in parts.")
    return found


def _items(source: Source, path: Path, what: str) -> np.ndarray:
    """Return the items in a file, which have as many numbers as those of the training, in whatever order."""
    found = _array(path)
    check_numbers(found.dtype, what)
    if math.prod(found.shape[1:]) != math.prod(source.item_shape):
        raise UserError(
            f"{path} has items of the shape {found.shape[1:]}, and {source.name} was trained on {source.item_shape}. "
            "Bring them to that shape."
        )
    return found


def _joined(parts: Sequence[np.ndarray]) -> Any:
    if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
        raise UserError(f"Got queries of the shapes {', '.join(str(part.shape) for part in parts)}. Ask one by one.")
    check_room(sum(part.size * _FLOATS + len(part) * _NAME for part in parts), "--query")
    return np.concatenate(parts) if parts else []


def _numbered(parts: Sequence[tuple[Path, np.ndarray]]) -> tuple[str, ...]:
    return tuple(f"{path}[{row}]" for path, part in parts for row in range(len(part)))


def _table(path: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return the wanted columns of a CSV file, whose capitals do not matter."""
    header, rows = _rows(path)
    lower = [name.lower() for name in header]
    for name in wanted:
        if name not in lower:
            raise UserError(f"{path} has no column '{name}'.{nearest(name, header)}")
    return {name: [row[lower.index(name)].strip() for row in rows] for name in wanted}


def _columns(path: Path, letter: str) -> np.ndarray:
    """Return the columns of a CSV file whose names begin with a letter, as numbers, [rows, columns]."""
    header, rows = _rows(path)
    places = [place for place, name in enumerate(header) if name[:1].lower() == letter]
    if not places:
        raise UserError(f"{path} has no column that begins with {letter}; it has {listed(header)}.")
    try:
        return np.array([[float(row[place]) for place in places] for row in rows]).reshape(len(rows), len(places))
    except ValueError as error:
        raise UserError(f"{path}: {str(error)[:200]}. Give a number in every column {letter}...") from error


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    return headed(read_rows(path), str(path))
