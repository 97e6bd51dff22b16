"""What cases start from: small runs that are whole, what evaluating them gives, small data."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from tests.helpers.processes import Started
from tests.helpers.tiny_fewshot import store

AGENT = ("--iterations", "1", "--threads", "1")
SMALL = ("--family", "point-nav", "--horizon", "5", "--tasks", "2", "--episodes", "2", "--hidden", "4")
MAML = ("train", "maml-trpo", *SMALL, *AGENT)
RL2 = ("train", "rl2", "--family", "bandit", "--tasks", "4", "--minibatches", "1", "--width", "4", *AGENT)
DRAWN = ("--query", "2", "--tasks", "1", *AGENT, "--validation", "2", "--test-episodes", "2")
FEW = ("fewshot", "train", "proto", "--data", "arrays", "--data-root", "data", "--hidden", "4", *DRAWN)
VECTORS = (*DRAWN, "--out", "made", "--hidden", "4")
"""A small training on vectors."""
IMAGES = (*DRAWN, "--out", "made", "--way", "2")
RUNS = ("maml", "rl2", "few")
EVALUATE = ("--tasks", "2", "--episodes", "2", "--no-film", "--threads", "1", "--json")
TEST = ("--episodes", "4", "--threads", "1", "--json")


@dataclass
class Stock:
    """Runs `maml`, `rl2` and `few`, the data `data` and `manifest` of the last one, all in one folder."""

    folder: Path

    def lay(self, place: Path, *names: str) -> None:
        """Copy some of it into the folder of a case."""
        for name in names:
            source = self.folder / name
            if source.is_dir():
                shutil.copytree(source, place / name)
            else:
                shutil.copy(source, place / name)

    def evaluate(self, run: str) -> tuple[str, ...]:
        """Return the command that evaluates a run quickly."""
        if run == "few":
            return ("fewshot", "evaluate", "few", "--data-root", "data", "--out", "made", *TEST)
        return ("evaluate", run, *EVALUATE, "--out", "made")

    def resume(self, run: str) -> tuple[str, ...]:
        """Return the command that goes on with a run by one iteration."""
        if run == "few":
            return ("fewshot", "train", "--resume", "few", "--data-root", "data", "--iterations", "2")
        return ("train", "--resume", run, "--iterations", "2")

    def config(self, run: str) -> dict[str, Any]:
        """Return the config.yaml of a run."""
        return yaml.safe_load((self.folder / run / "config.yaml").read_text())

    @cached_property
    def evaluated(self) -> dict[str, Any]:
        """What the evaluation of every run gives."""
        found = {}
        for run in RUNS:
            with self._laid() as place:
                found[run] = figures(commanded(place, *self.evaluate(run)))
        return found

    @cached_property
    def resumed(self) -> dict[str, list[dict[str, str]]]:
        """What every run has logged when it has been resumed."""
        found = {}
        for run in RUNS:
            with self._laid() as place:
                commanded(place, *self.resume(run))
                found[run] = logged(place / run)
        return found

    @contextmanager
    def _laid(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            self.lay(Path(folder), *RUNS, "data")
            yield Path(folder)


def make_stock(folder: Path) -> Stock:
    """Train all of it."""
    store(folder / "data")
    for name, command in zip(RUNS, (MAML, RL2, FEW), strict=True):
        commanded(folder, *command, "--out", name)
    commanded(folder, "fewshot", "evaluate", "few", "--data-root", "data", *TEST)
    (made,) = (folder / "few").rglob("*.manifest")
    shutil.move(made, folder / "manifest")
    shutil.rmtree(folder / "few" / "evaluation")
    return Stock(folder)


def commanded(place: Path, *command: str) -> str:
    """Return what `metarl COMMAND` prints, which must work."""
    process = Started("metarl", *command, folder=place)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def figures(output: str) -> Any:
    """Return what an evaluation tells, without versions, paths and times."""
    return _without(json.loads(output), {"version", "versions", "folder", "runs", "manifest", "seconds", "file"})


def _without(tree: Any, names: set[str]) -> Any:
    if isinstance(tree, dict):
        return {key: _without(value, names) for key, value in tree.items() if key not in names}
    return [_without(value, names) for value in tree] if isinstance(tree, list) else tree


def logged(run: Path) -> list[dict[str, str]]:
    """Return the rows of progress.csv without times."""
    rows = csv.DictReader(io.StringIO((run / "progress.csv").read_text()))
    return [{key: value for key, value in row.items() if not key.startswith(("time/", "speed/"))} for row in rows]


@dataclass(frozen=True)
class Sealed:
    """A sealed file, in its parts."""

    magic: bytes
    header: dict[str, Any]
    payload: bytes

    def closed(self) -> bytes:
        """Return a file with a checksum that is right."""
        body = json.dumps(self.header).encode() + b"\n" + self.payload
        return b"\n".join([self.magic, hashlib.sha256(body).hexdigest().encode(), body])


def opened(content: bytes) -> Sealed:
    """Return the parts of a sealed file."""
    magic, _, rest = content.partition(b"\n")
    _, _, body = rest.partition(b"\n")
    header, _, payload = body.partition(b"\n")
    return Sealed(magic, json.loads(header), payload)


def loaded(payload: bytes) -> Any:
    """Return what the payload of a checkpoint holds."""
    return torch.load(io.BytesIO(payload), weights_only=True)


def saved(payload: Any) -> bytes:
    """Return the payload of a checkpoint."""
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    """Return the content of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()
