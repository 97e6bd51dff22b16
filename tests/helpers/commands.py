"""Running the command in this process: small trainings, what a folder holds, what a refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarl.cli.main import main

SMALL = ["--tasks", "2", "--episodes", "2", "--threads", "1"]


TINY = [*SMALL, "--family", "point-nav", "--iterations", "2", "--hidden", "8"]


def train(folder: Path, agent: str = "maml-trpo", *more: str) -> Path:
    assert main(["train", agent, *TINY, "--out", str(folder), *more]) == 0
    return folder


def remember(folder: Path, *more: str) -> Path:
    """Train an agent with a memory; the family is the last one named."""
    small = ["--tasks", "4", "--minibatches", "1", "--width", "4", "--iterations", "1", "--threads", "1"]
    assert main(["train", "rl2", "--family", "point-nav", *small, "--out", str(folder), *more]) == 0
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on standard error that `arguments` end with."""
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("metarl: error: ")
    return captured.err
