from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.cli.main import main
from metarl.evaluation.probe_report import write
from tests.helpers.memories import DOORS, POINT, MadeUp, mixed, probed, shown


def test_tables_tell_both() -> None:
    text = shown(probed(MadeUp(DOORS, mixed, ignores_memory=False)))
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("door"))
    assert row == ["door", "accuracy", "0.33", "0.33", *["1.00", "[1.00,", "1.00]"] * 2]
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("own - another"))
    assert row[-6:] == ["1.00", "[1.00,", "1.00]"] * 2
    assert "…" not in text

    result = probed(MadeUp(POINT, mixed))
    worst = {"estimate": -0.03, "lower": -0.05, "upper": -0.01}
    result["probe"][0] |= {"parameter": "a_long_name_of_a_parameter[0]", "chance": 0.25, "score": "accuracy"}
    for point in result["probe"][0]["points"]:
        point.update(worst)
    for figure in ("own", "other", "none", "own_minus_other", "own_minus_none"):
        result["swap"][figure]["return"] = {"estimate": -2345.6, "lower": -3345.6, "upper": -1345.6}
    text = shown(result)
    assert "-0.03 [-0.05, -0.01]" in text
    assert "-2346 [-3346, -1346]" in text
    assert "…" not in text


def test_files_hold_what_was_measured(tmp_path: Path) -> None:
    first, second = probed(MadeUp(POINT, mixed)), probed(MadeUp(DOORS, mixed)) | {"agent": "other"}
    for results in ([first], [first, second]):
        write(results, tmp_path)
    assert json.loads((tmp_path / "probe.json").read_text())["results"] == [first, second]
    # The second events file took the place of the first.
    (events,) = (tmp_path / "scout").glob("events.*")
    read = EventAccumulator(str(events)).Reload()
    tags = {"probe_r2/goal_0", "probe_r2/goal_1", "swap/own", "swap/other", "swap/none", "swap/first_action"}
    assert set(read.Tags()["scalars"]) == tags
    assert [scalar.step for scalar in read.Scalars("probe_r2/goal_0")] == [0, 1, 2]
    assert read.Scalars("probe_r2/goal_1")[1].value == pytest.approx(first["probe"][1]["points"][1]["estimate"])
    assert [scalar.step for scalar in read.Scalars("swap/none")] == [1]
    read = EventAccumulator(str(tmp_path / "other")).Reload()
    assert {"probe_accuracy/door", "probe_chance/door"} < set(read.Tags()["scalars"])


def test_the_command_probes_a_trained_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = [
        "--tasks",
        "8",
        "--minibatches",
        "2",
        "--episodes",
        "3",
        "--width",
        "8",
        "--iterations",
        "1",
        "--threads",
        "1",
    ]
    assert main(["train", "rl2", "--family", "bandit", *small, "--out", str(run)]) == 0
    capsys.readouterr()
    evaluate = ["evaluate", str(run), "--tasks", "4", "--threads", "1", "--probe", "--probe-tasks", "10"]
    assert main(evaluate) == 0
    text = capsys.readouterr().out
    assert "10 held-out tasks: what its memory tells" in text
    assert "Episode 3 with other memories" in text
    assert max(len(line) for line in text.splitlines() if str(run) not in line) <= 80
    (stored,) = json.loads((run / "evaluation" / "test" / "probe.json").read_text())["results"]
    assert (stored["agent"], stored["fit_tasks"], stored["episodes"]) == ("rl2", 20, 3)
    assert [len(score["points"]) for score in stored["probe"]] == [4] * 5

    assert main([*evaluate, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["probe"] == [stored]


def test_the_command_refuses_a_run_without_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = ["--tasks", "2", "--episodes", "2", "--iterations", "1", "--hidden", "8", "--threads", "1"]
    assert main(["train", "maml-trpo", "--family", "bandit", *small, "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--tasks", "2", "--probe"]) == 2
    assert "'maml-trpo', which has no memory" in capsys.readouterr().err
