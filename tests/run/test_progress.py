from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from metarl.run.progress import figures, rounded
from tests.helpers.run_folders import CONFIG, logged, output_of, quiet
from tests.helpers.tiny_run import start


def test_json_lines(tmp_path: Path) -> None:
    console = quiet()
    start(tmp_path / "run", CONFIG, iterations=3, json=True, console=console)
    lines = [json.loads(line) for line in output_of(console).splitlines()]
    assert [line.get("iteration") for line in lines] == [1, 2, 3, None]
    assert lines[2]["return/post"] == logged(tmp_path / "run")[2]["return/post"]
    assert lines[3]["message"].startswith("Trained 3 iterations")


def test_log_lines_are_few_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    start(tmp_path / "run", CONFIG, iterations=30, console=console)
    lines = output_of(console).splitlines()
    assert [line.split("  ")[:2] for line in lines[:2]] == [
        ["follower tiny", "1/30"],
        ["follower tiny", "30/30"],
    ]
    last = logged(tmp_path / "run")[-1]
    assert f"return {last['return/pre']:.2f} -> {last['return/post']:.2f}" in lines[1]
    assert len(lines) == 3


def test_the_live_line_shows_iterations_and_returns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    start(tmp_path / "run", CONFIG, iterations=5, console=console)
    output = output_of(console)
    last = logged(tmp_path / "run")[-1]
    assert "5/5" in output
    assert f"return {last['return/pre']:.2f} -> {last['return/post']:.2f}" in output


def test_slow_iterations_are_shown_before_their_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.run.driver.SLOW", 0.0)
    console = quiet()
    start(tmp_path / "run", CONFIG, iterations=4, stride=4, json=True, console=console)
    lines = [json.loads(line) for line in output_of(console).splitlines()]
    assert [line.get("iteration") for line in lines] == [1, 2, 3, 4, None]
    assert len(logged(tmp_path / "run")) == 1


def test_returns_are_told_with_three_digits() -> None:
    assert rounded(0.5, 0.81249) == ["0.500", "0.812"]
    assert rounded(-4.0, -5.126, 1.0) == ["-4.00", "-5.13", "1.00"]
    assert rounded(78.66, 9.999) == ["78.7", "10.0"]
    assert rounded(-234.56) == ["-234.6"]
    assert rounded(1234.5, 0.1) == ["1234", "0"]
    assert rounded(math.nan, 2.0) == ["nan", "2.00"]
    assert figures({"return/pre": 0.4961, "return/post": 0.8123}) == "return 0.496 -> 0.812"
    assert figures({"return/post": -8.0, "validation/return": -12.34}) == "return -8.00  validation -12.3"
