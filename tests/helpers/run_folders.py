"""Small runs of the tiny agent: what their folders hold, whether two are the same, runs in other processes."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.run.checkpoint import load
from metarl.run.tracking import read_progress
from tests.helpers.processes import Started
from tests.helpers.same import assert_same
from tests.helpers.tiny_run import FollowerConfig

CONFIG = FollowerConfig()


def quiet() -> Console:
    return Console(file=io.StringIO())


def saved(folder: Path, name: str) -> dict[str, Any]:
    return load(folder / "checkpoints" / f"{name}.pt", {})


def logged(folder: Path) -> list[dict[str, float]]:
    """Return progress.csv without the times, which no two runs share."""
    rows = read_progress(folder)
    return [{tag: value for tag, value in row.items() if not tag.startswith(("time/", "speed/"))} for row in rows]


def assert_same_run(first: Path, second: Path) -> None:
    for name in ("last", "best"):
        assert_same(saved(first, name), saved(second, name))
    assert logged(first) == logged(second)


def launch(folder: Path, *options: str) -> Started:
    return Started("tests.helpers.tiny_run", str(folder), *options)


def wait_for_row(folder: Path, step: int, process: Started) -> None:
    deadline = time.monotonic() + 60.0
    while not any(row["step"] >= step for row in read_progress(folder)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def output_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
