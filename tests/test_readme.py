"""The main README's commands and its Python example run as they are written, with fewer iterations."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import pytest
from PIL import Image

from metarl.cli.main import main
from tests.helpers.readme import block, commands

SMALL = {
    "maml-trpo": ("2", ["--tasks", "2", "--episodes", "2"]),
    "oracle": ("2", ["--tasks", "2", "--episodes", "2"]),
    "rl2": ("1", ["--tasks", "4", "--minibatches", "2", "--epochs", "1"]),
}
"""Agent -> iterations and other options that make a training small."""


def shortened(line: str) -> list[str]:
    """Return the words of a command, small where it trains or evaluates."""
    words = shlex.split(line)[1:]
    if words[0] == "train":
        count, more = ("3", []) if "--resume" in words else SMALL[words[1]]
        if "--iterations" in words:
            words[words.index("--iterations") + 1] = count
        else:
            words += ["--iterations", count]
        words += more
    if words[0] == "evaluate":
        words += ["--tasks", "2", "--no-film", *(["--probe-tasks", "10"] if "--probe" in words else [])]
        words += [] if "--steps" in words else ["--steps", "1"]
    return words


def test_the_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the main page, then those of the pages on evaluation and on runs, which name the same folders."""
    monkeypatch.chdir(tmp_path)
    for page in ("README.md", "metarl/evaluation/README.md", "metarl/run/README.md"):
        lines = commands(page)
        assert len(lines) >= 2
        for line in lines:
            assert main(shortened(line)) == 0, line
    capsys.readouterr()
    assert (tmp_path / "compare" / "adaptation.png").is_file()
    assert (tmp_path / "runs" / "point-maml" / "render.gif").is_file()


def test_every_command_of_the_cli_page_answers(capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands("metarl/cli/README.md"):
        with contextlib.suppress(SystemExit):
            assert main(shlex.split(line)[1:]) == 0
        shown = capsys.readouterr()
        assert len(shown.out) > 200
        assert shown.err == ""


def test_the_python_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = block("README.md", "metarl.train(").replace("iterations=50", "iterations=2, tasks=2, episodes=2")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "held-out tasks: return after adaptation" in printed
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 600
