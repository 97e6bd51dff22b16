"""From training to the protocol's score on Meta-World's families, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metarl.cli.main import main

pytestmark = pytest.mark.usefixtures("small")


@pytest.mark.parametrize("agent", [pytest.param("rl2", marks=pytest.mark.slow), "maml-trpo"])
def test_a_run_is_scored_by_class_beside_what_the_package_would_say(
    agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    few = ["--tasks", "10", "--episodes", "2", "--iterations", "1", "--threads", "1"]
    assert main(["train", agent, "--family", "ml10", "--horizon", "4", *few, "--out", str(run), "--json"]) == 0
    capsys.readouterr()
    short = ["--tasks", "5", "--episodes", "1", "--steps", "1", "--no-film", "--threads", "1"]
    assert main(["evaluate", str(run), *short, "--protocol", "--protocol-goals", "2"]) == 0
    shown = capsys.readouterr().out
    for name in ("drawer-open", "door-close", "shelf-place", "sweep-into", "lever-pull"):
        assert name in shown
    (result,) = json.loads((run / "evaluation" / "test" / "protocol.json").read_text())["results"]
    assert (result["adapting"], result["scored"]) == (10, 3)
    assert [row["tasks"] for row in result["classes"]] == [2] * 5
    # The hand begins where some goals are near: they are met at once.
    assert 0.0 <= result["success"] <= 1.0
    assert result["success"] == pytest.approx(sum(row["success"] for row in result["classes"]) / 5)
    assert main(["evaluate", str(run), *short, "--protocol-goals", "2"]) == 2
    assert "--protocol" in capsys.readouterr().err
    assert main(["evaluate", str(run), *short, "--protocol", "--protocol-goals", "0"]) == 2
    assert "Allowed: from 1 to 1000" in capsys.readouterr().err
