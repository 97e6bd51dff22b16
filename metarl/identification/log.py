"""Logs of episodes as NPZ files or Minari data sets: reading them with care, and writing them.

An array a name; README.md has the table. What is read may be anybody's: nothing is unpickled, every array is looked at
for its type, size and values, and what does not fit is refused in a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metarl.errors import UserError, nearest
from metarl.fewshot.reading.archives import damage_told, open_archive
from metarl.fewshot.reading.arrays import npy_in
from metarl.files import Folder
from metarl.identification.minari_data import is_minari, plain_name, read_minari, write_minari
from metarl.identification.recorder import FORMAT
from metarl.memory import require
from metarl.plain import shown

Arrays = dict[str, np.ndarray]

STEPS = ("observations", "actions", "rewards")
"""Arrays with a row a step."""
EPISODES = ("lengths", "final_observations", "terminated", "truncated", "success", "task", "experience")
"""Arrays with a row an episode."""
TEXTS = ("family", "agent", "split", "engine", "versions", "action_unit")
NAMES = ("observation_names", "observation_units", "task_names", "task_units")
NUMBERS = ("format", "step_seconds", "seed", "training_seed", "action_low", "action_high")
PREFIXES = ("task.", "start.", "state.")
"""Of arrays by name: parameters and first states of the episodes, and states before the steps."""
NEEDED = ("format", "family", "step_seconds", "lengths", "observations", "actions", "final_observations")
ALL = (*STEPS, *EPISODES, *TEXTS, *NAMES, *NUMBERS)
LONGEST = 1000
"""Letters of a text."""
SHOWN = 20
"""Names of arrays in an error text."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """E episodes with S steps in all."""

    family: str
    """Full name of the family that the system belongs to."""
    step_seconds: float
    """From one action to the next, s."""
    lengths: np.ndarray
    """Steps of every episode, [E]."""
    observations: np.ndarray
    """Before every step, [S, O] float64."""
    actions: np.ndarray
    """As the system was given them, in the family's units, [S, A] float64."""
    final_observations: np.ndarray
    """After every episode's last step, [E, O] float64."""
    rewards: np.ndarray | None = None
    """Of every step, [S] float64; None where the log has none."""
    starts: Arrays = field(default_factory=dict)
    """First states of the episodes by the name of their field, [E, ...], whole numbers as they are."""
    states: Arrays = field(default_factory=dict)
    """States before every step by the name of their field, [S, ...]."""
    tasks: Arrays = field(default_factory=dict)
    """Task parameters of the episodes by name, where they are known, [E] or [E, D]."""
    where: str = "the log"
    """What it is called in errors."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def firsts(self) -> np.ndarray:
        """Row of every episode's first step, [E]."""
        return np.concatenate(([0], np.cumsum(self.lengths)[:-1])).astype(np.int64)

    def seen(self, episode: int) -> np.ndarray:
        """Return all that was observed in an episode, [T + 1, O]."""
        first = self.firsts[episode]
        return np.concatenate(
            (self.observations[first : first + self.lengths[episode]], self.final_observations[episode][None])
        )

    def of(self, episodes: np.ndarray) -> Log:
        """Return the log of some of its episodes, by their numbers."""
        rows = np.concatenate([self.firsts[e] + np.arange(int(self.lengths[e])) for e in episodes])
        return Log(
            family=self.family,
            step_seconds=self.step_seconds,
            lengths=self.lengths[episodes],
            observations=self.observations[rows],
            actions=self.actions[rows],
            final_observations=self.final_observations[episodes],
            rewards=None if self.rewards is None else self.rewards[rows],
            starts={name: value[episodes] for name, value in self.starts.items()},
            states={name: value[rows] for name, value in self.states.items()},
            tasks={name: value[episodes] for name, value in self.tasks.items()},
            where=self.where,
        )


Form = Literal["npz", "minari"]
"""How a log is kept."""


def write_arrays(folder: Folder, name: str, arrays: Mapping[str, Any], form: Form = "npz") -> Path:
    """Write a log as a file or a data set that is whole or not there; return its path.

    Args:
        folder: made where it is missing.
        name: of the file, without its ending.
        arrays: by name, as README.md has them.
        form: of what is written.

    Raises:
        UserError: Minari is not installed, or cannot hold the log.
    """
    if form == "minari":
        return write_minari(folder, name, arrays)
    name = f"{name}.npz"
    with folder.writing(name) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return folder.path / name


# -- reading ----------------------------------------------------------------------------------------------------------


def read_log(path: Path | str) -> Log:
    """Read a log.

    Args:
        path: an NPZ file, or the folder of a Minari data set.

    Raises:
        UserError: it is none, is damaged, lacks what is needed, or holds what does not fit.
    """
    path = Path(path)
    return log_of(read_minari(path) if is_minari(path) else _read_arrays(path), str(path))


def to_minari(path: Path | str, folder: Path | str) -> Path:
    """Write a log of an NPZ file as a Minari data set too; return its path, FOLDER/NAME-v0.

    Args:
        path: the NPZ file.
        folder: where the data set is to be.

    Raises:
        UserError: Minari is not installed, the log cannot be read, has no rewards, or the data set is there already.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    log_of(arrays, str(path))
    return write_minari(Folder.of(folder), plain_name(path.stem), arrays)


def log_of(arrays: Arrays, where: str) -> Log:
    """Return the log that arrays are, by name as in the file.

    Raises:
        UserError: something is missing or does not fit.
    """
    for name in NEEDED:
        if name not in arrays:
            found = ", ".join(list(arrays)[:SHOWN]) or "nothing"
            raise UserError(
                f"{where} has no array '{name}', which a log needs ({', '.join(NEEDED)}); it has {found}. Write it "
                "with metarl.identification.recorder, or --record."
            )
    for name in arrays:
        if name not in ALL and not name.startswith(PREFIXES):
            raise UserError(
                f"{where} has an array {shown(name)}, which no log has.{nearest(name, ALL)} Or begin its name with "
                f"{', '.join(PREFIXES)}."
            )
    version = _number(arrays, "format", where)
    if version != FORMAT:
        raise UserError(f"{where} has the layout {version:g}, and {FORMAT} is read here. Use a newer metarl.")
    seconds = _number(arrays, "step_seconds", where)
    if not 0.0 < seconds < math.inf:
        raise UserError(f"{where}: got step_seconds {seconds:g}. Give the time between two actions, s, above 0.")
    lengths = _array(arrays, "lengths", where, axes=1)
    if len(lengths) == 0 or lengths.min() < 1 or (lengths != np.floor(lengths)).any():
        raise UserError(f"{where}: got lengths {shown(lengths.tolist())}. Give whole steps of each episode, from 1.")
    lengths = lengths.astype(np.int64)
    steps, episodes = int(lengths.sum()), len(lengths)
    seen = _array(arrays, "observations", where, axes=2, rows=steps)
    final = _array(arrays, "final_observations", where, axes=2, rows=episodes)
    if final.shape[1] != seen.shape[1]:
        raise UserError(
            f"{where}: final_observations have {final.shape[1]} numbers, and observations {seen.shape[1]}. Give both "
            "the same numbers."
        )
    groups: dict[str, Arrays] = {prefix: {} for prefix in PREFIXES}
    for prefix, group in groups.items():
        rows = steps if prefix == "state." else episodes
        for name in (name for name in arrays if name.startswith(prefix)):
            group[name.removeprefix(prefix)] = _array(arrays, name, where, rows=rows)
    return Log(
        family=_text(arrays, "family", where),
        step_seconds=seconds,
        lengths=lengths,
        observations=seen,
        actions=_array(arrays, "actions", where, axes=2, rows=steps),
        final_observations=final,
        rewards=_array(arrays, "rewards", where, axes=1, rows=steps) if "rewards" in arrays else None,
        starts=groups["start."],
        states=groups["state."],
        tasks=groups["task."],
        where=where,
    )


def _read_arrays(path: Path) -> Arrays:
    """Return what an NPZ file holds."""
    arrays: Arrays = {}
    with open_archive(path) as archive:
        # As it is in the file, and as numbers.
        require({f"the size of {path}": 3 * sum(archive.sizes.values())})
        for entry in archive.sizes:
            if not entry.endswith(".npy"):
                raise UserError(f"{path} holds {shown(entry)}, which is no array. Write it with numpy.savez.")
            with damage_told(path, entry), archive.open(entry) as file:
                arrays[entry.removesuffix(".npy")] = npy_in(file.read(), f"{path}, array {entry!r},")
    return arrays


def _array(arrays: Arrays, name: str, where: str, *, axes: int | None = None, rows: int | None = None) -> np.ndarray:
    """Return an array of finite numbers as float64, with so many axes and rows."""
    found = arrays[name]
    if found.dtype.kind not in "biuf" or found.dtype.itemsize > 8:
        raise UserError(f"{where}: {name} holds {found.dtype}. Give real numbers, as array.astype('float64').")
    if found.ndim != (axes or max(found.ndim, 1)):
        form = {1: "a row of numbers", 2: "rows of numbers"}[axes or 1]
        raise UserError(f"{where}: {name} has the shape {found.shape}. Give {form}.")
    if rows is not None and len(found) != rows:
        raise UserError(f"{where}: {name} has {len(found)} rows, and lengths say {rows}. Give a row for each.")
    # The whole numbers of a state may be keys of 64 bits.
    numbers = found if name.startswith("st") and found.dtype.kind in "bi" else found.astype(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0, 0])
        raise UserError(f"{where}: {name} is not finite in row {row}. Leave that episode out, or mend the sensor.")
    return numbers


def _number(arrays: Arrays, name: str, where: str) -> float:
    found = arrays[name]
    if found.dtype.kind not in "iuf" or found.ndim != 0:
        raise UserError(f"{where}: got {name} {shown(found.tolist())}. Give one number.")
    return float(found)


def _text(arrays: Arrays, name: str, where: str) -> str:
    found = arrays[name]
    if found.dtype.kind != "U" or found.ndim != 0:
        raise UserError(f"{where}: got {name} {shown(found.tolist())}. Give one text.")
    if len(str(found)) > LONGEST:
        raise UserError(f"{where}: {name} has {len(str(found)):,} letters. Give a text of at most {LONGEST:,}.")
    return str(found)
