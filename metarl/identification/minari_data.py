"""Logs as Minari data sets: folders that `minari` loads, and that are read here with care.

A folder NAME with a folder `data` in it: metadata.json, and main_data.hdf5 with a group an episode. What a log has by
name (README.md) stands where Minari has its own place for it, else

    in metadata.json                under its name; the version of the layout as `log_format`
    as attribute of an episode      what is a row an episode: `task.mass`, `start.qpos`, `success`, `experience`, ...
    among an episode's infos        what is a row a step: `state.qpos`

Source of the format: https://minari.farama.org/content/dataset_standards, of which version 0.5 is written.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.files import Folder, open_regular, read_regular
from metarl.identification.recorder import FORMAT
from metarl.memory import require
from metarl.plain import parse_json, shown

Arrays = dict[str, np.ndarray]

INSTALL = "pip install 'metarl-suite[minari]'"
METADATA, DATA = "metadata.json", "main_data.hdf5"
_LARGEST_METADATA, _LARGEST_DATA = 1 << 24, 1 << 44
"""Bytes of these files."""
ATTRIBUTE = 60_000
"""Bytes that an attribute in HDF5 may have."""
DATASETS = ("observations", "actions", "rewards", "terminations", "truncations")
"""Of an episode."""
ATTRIBUTES = ("success", "task", "experience")
"""Of what is a row an episode, that is kept as attributes; what begins with PREFIXES too."""
PREFIXES = ("task.", "start.")
STATE = "state."
"""Begin of names that are a row a step, and infos there."""
OWN = ("terminated", "truncated", "lengths", "observations", "final_observations", "actions", "rewards", "format")
"""What Minari has another place for."""


def check_available() -> None:
    """Refuse where Minari data sets can be neither written nor read."""
    if missing := [name for name in ("minari", "h5py") if find_spec(name) is None]:
        raise UserError(
            f"A Minari data set needs the package {' and '.join(missing)}, which is not installed. Install it with "
            f"`{INSTALL}`, or take NPZ files."
        )


def plain_name(text: str) -> str:
    """Return a text as a name that Minari takes."""
    return re.sub(r"[^-\w]", "_", text, flags=re.ASCII)


def is_minari(path: Path) -> bool:
    """Tell whether a path is a Minari data set: its folder, or the folder `data` in it."""
    return any((path / inner / METADATA).is_file() for inner in ("", "data"))


# -- writing ----------------------------------------------------------------------------------------------------------


def write_minari(folder: Folder, name: str, arrays: Mapping[str, Any]) -> Path:
    """Write a log as a data set NAME-v0 that is whole or not there; return its path.

    Where the environment variable MINARI_DATASETS_PATH names the folder, `minari.load_dataset("NAME-v0")` loads it.

    Args:
        folder: made where it is missing.
        name: letters, digits, `-` and `_`.
        arrays: by name, as README.md has them, with rewards.

    Raises:
        UserError: Minari is not installed, there are no rewards, or a first state is too large.
    """
    check_available()
    from gymnasium.spaces import Box
    from minari import __version__
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    if "rewards" not in arrays:
        raise UserError("A Minari data set has a reward for every step, and the log has none. Keep it as NPZ.")
    columns = {key: arrays[key] for key in arrays if key in ATTRIBUTES or key.startswith(PREFIXES)}
    for key, column in columns.items():
        if column[0].nbytes > ATTRIBUTE:
            raise UserError(
                f"A Minari data set holds {ATTRIBUTE} bytes of each task and first state, and {key} has "
                f"{column[0].nbytes}. Write NPZ files."
            )
    steps = {key: arrays[key] for key in arrays if key.startswith(STATE)}
    seen, actions = arrays["observations"], arrays["actions"]
    low, high = _bounds(arrays, actions)
    facts = {key: _plain(value) for key, value in arrays.items() if key not in (*OWN, *columns, *steps)}
    identity = f"{name}-v0"
    if identity in folder.entries():
        raise UserError(f"{folder.path / identity} is there already. Remove it, or give another folder.")
    with _new(folder, identity) as place:
        # Minari joins a path that is not absolute to itself.
        data = (place / "data").absolute()
        data.mkdir()
        storage = MinariStorage.new(
            data,
            observation_space=Box(-np.inf, np.inf, seen.shape[1:], seen.dtype.type),
            action_space=Box(low, high, dtype=actions.dtype.type),
            data_format="hdf5",
        )
        storage.update_metadata(
            {"dataset_id": identity, "minari_version": __version__, "log_format": int(arrays["format"])}
            | ({"algorithm_name": str(arrays["agent"])} if "agent" in arrays else {})
            | facts
        )
        storage.update_episodes(_episodes(EpisodeBuffer, arrays, steps))
        count = len(arrays["lengths"])
        storage.update_episode_metadata({key: column[e] for key, column in columns.items()} for e in range(count))
    return folder.path / identity


def _episodes(buffer: Any, arrays: Mapping[str, Any], steps: Arrays) -> Iterator[Any]:
    """Yield the episodes as Minari takes them."""
    first = 0
    for episode, length in enumerate(int(length) for length in arrays["lengths"]):
        rows = slice(first, first + length)
        ends = np.arange(length) == length - 1
        terminated = bool(arrays["terminated"][episode]) if "terminated" in arrays else False
        yield buffer(
            observations=np.concatenate((arrays["observations"][rows], arrays["final_observations"][episode][None])),
            actions=arrays["actions"][rows],
            rewards=arrays["rewards"][rows],
            terminations=ends & terminated,
            truncations=ends & (not terminated),
            infos={name: value[rows] for name, value in steps.items()},
        )
        first += length


def _bounds(arrays: Mapping[str, Any], actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of the actions, [A]; what was taken at least, where numbers of choices have none."""
    low = np.broadcast_to(np.asarray(arrays.get("action_low", -np.inf), float), actions.shape[1:])
    high = np.broadcast_to(np.asarray(arrays.get("action_high", np.inf), float), actions.shape[1:])
    return np.minimum(low, actions.min(0)), np.maximum(high, actions.max(0))


def _plain(value: Any) -> Any:
    """Return a text, a number or rows of these as JSON has them."""
    return np.asarray(value).tolist()


@contextmanager
def _new(folder: Folder, name: str) -> Iterator[Path]:
    """Give a folder to be filled, which is in its place when it is whole, and not before."""
    # Minari passes over names with a dot in front.
    part = folder.below(f".{name}-{secrets.token_hex(4)}.unfinished").make().path
    try:
        yield part
        part.rename(folder.path / name)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


# -- reading ----------------------------------------------------------------------------------------------------------


def read_minari(path: Path) -> Arrays:
    """Return what a data set holds as the arrays of a log, by name.

    Args:
        path: its folder, or the folder `data` in it.

    Raises:
        UserError: it cannot be read, is not in HDF5, or lacks what a log needs.
    """
    check_available()
    import h5py

    folder = path if (path / METADATA).is_file() else path / "data"
    facts = parse_json(read_regular(folder / METADATA, _LARGEST_METADATA), folder / METADATA)
    if facts.get("data_format", "hdf5") != "hdf5":
        raise UserError(
            f"{path} is kept as {shown(facts['data_format'])}, and HDF5 is read here. Convert it by minari."
        )
    version = facts.get("log_format", FORMAT)
    arrays: Arrays = {"format": np.array(version if isinstance(version, int) else repr(version))}
    for name in ("family", "step_seconds"):
        if not isinstance(found := facts.get(name), str if name == "family" else int | float):
            raise UserError(
                f"{folder / METADATA} has no {name} that a log needs (got {shown(found)}). Add it: minari.MinariDataset"
                f"({str(folder)!r}).storage.update_metadata({{'family': 'NAME@VARIANT', 'step_seconds': 0.02}})."
            )
        arrays[name] = np.array(found)
    where = str(folder / DATA)
    try:
        with open_regular(where, _LARGEST_DATA) as file, h5py.File(file, "r") as opened:
            return arrays | _episodes_in(opened, where)
    except FileNotFoundError as error:
        raise UserError(f"There is no {where}. Copy the whole data set.") from error
    except UserError:
        raise
    # What HDF5 finds in a damaged file.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{where} cannot be read ({error}). It is damaged or no HDF5: copy it again.") from error


def _episodes_in(file: Any, where: str) -> Arrays:
    """Return the arrays of all episodes of a file of HDF5."""
    groups = [_inside(file, f"episode_{number}", where, "Group") for number in range(len(file))]
    if not groups:
        raise UserError(f"{where} has no episode. Record one.")
    infos = [_inside(group, "infos", where, "Group") for group in groups if "infos" in group]
    states = [name for name in (infos[0] if len(infos) == len(groups) else ()) if name.startswith(STATE)]
    found = {name: [_inside(group, name, where, "Dataset") for group in groups] for name in DATASETS}
    found |= {name: [_inside(group, name, where, "Dataset") for group in infos] for name in states}
    names = [name for name in groups[0].attrs if name.startswith(PREFIXES)]
    told = {name: [_attribute(group, name, where) for group in groups] for name in names}
    # As it is in the file, and as the numbers of a log.
    require({f"the size of {where}": 3 * sum(8 * part.size for parts in (found | told).values() for part in parts)})
    read = {name: [part[()] for part in parts] for name, parts in found.items()}
    lengths = [len(part) for part in read["rewards"]]
    for number, length in enumerate(lengths):
        sizes = {name: len(read[name][number]) for name in DATASETS}
        if set(sizes.values()) != {length, length + 1} or sizes["observations"] != length + 1:
            raise UserError(
                f"{where}: got {', '.join(f'{size} {name}' for name, size in sizes.items())} in episode_{number}. Give "
                "one observation more than of the others."
            )
    arrays = {
        name: _joined([part[:length] for part, length in zip(read[name], lengths, strict=True)], name, where)
        for name in ("observations", "actions", "rewards", *states)
    }
    finals = _joined([part[-1:] for part in read["observations"]], "observations", where)
    columns = {name: _joined([group.attrs[name][None] for group in groups], name, where) for name in names}
    return {"lengths": np.array(lengths), "final_observations": finals} | arrays | columns


def _joined(parts: list[np.ndarray], name: str, where: str) -> np.ndarray:
    """Return the rows of all episodes."""
    if len(shapes := {part.shape[1:] for part in parts}) > 1:
        raise UserError(f"{where}: {name} has rows of the shapes {shown(sorted(shapes))}. Give all the same.")
    return np.concatenate(parts)


def _inside(group: Any, name: str, where: str, kind: str) -> Any:
    """Return a group or a data set of numbers in a group; nothing outside of the file is opened."""
    import h5py

    what = f"{where}: {name} of {group.name}"
    if not isinstance(link := group.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{what} is {'not there' if link is None else 'a link'}, and a log has it. Write it by minari.")
    if not isinstance(found := group[name], getattr(h5py, kind)):
        raise UserError(f"{what} has parts, or none, and a log has arrays of numbers there. Record arrays alone.")
    if kind == "Dataset":
        if found.is_virtual or found.external:
            raise UserError(f"{what} is kept in another file, which is not opened. Write all into one.")
        _check_numbers(found.dtype, what)
        if not found.shape:
            raise UserError(f"{what} is a single number. Give a row for every step.")
    return found


def _attribute(group: Any, name: str, where: str) -> Any:
    """Return something of the size of an attribute, before that is read; what is no number is refused."""
    if name not in group.attrs:
        raise UserError(
            f"{where}: {group.name} has no {name}, which /episode_0 has. Give it to all episodes, or to none."
        )
    found = group.attrs.get_id(name)
    _check_numbers(found.dtype, f"{where}: {name} of {group.name}")
    return np.empty(0, found.dtype) if found.shape is None else np.broadcast_to(np.empty((), found.dtype), found.shape)


def _check_numbers(dtype: np.dtype, what: str) -> None:
    if dtype.kind not in "biuf":
        raise UserError(f"{what} holds {dtype}, and a log has numbers there. Give real numbers.")
