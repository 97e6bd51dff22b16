"""`metarl evaluate --reality`: the same agents on the same tasks at home and in another reality."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metarl
from metarl.api.runs import Run
from metarl.cli.main import main
from metarl.errors import UserError
from tests.helpers.tiny_trainings import FEW, trained

MINE = "summary: late and noisy\nmodifiers: [delay=1..2, noise=2..3]\n"
WORDS = ["--tasks", "3", "--episodes", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    return {name: trained(root / name, name) for name in ("rl2", "oracle", "multitask")}


def test_results_stand_beside_those_of_home(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE)
    run = runs["rl2"].folder
    assert main(["evaluate", str(run), "--reality", str(file), "--oracle", str(runs["oracle"].folder), *WORDS]) == 0
    shown = capsys.readouterr().out
    assert "in mine" in shown
    folder = run / "evaluation" / "test-in-mine"
    rows = list(csv.DictReader((folder / "adaptation.csv").read_text().splitlines()))
    assert {row["reality"] for row in rows} == {"home", "mine"}
    found = json.loads((folder / "adaptation.json").read_text())
    (there,) = found["realities"]
    changes = {"modifiers": ["delay=1..2", "noise=2..3"]}
    assert there["reality"] == {"name": "mine", "summary": "late and noisy", "changes": changes}
    assert there["task_records"] == found["task_records"]
    # Home is what it is without another reality.
    alone = metarl.evaluate(runs["rl2"], oracle=runs["oracle"], **FEW)
    assert alone.summary["agents"] == found["agents"]
    again = metarl.evaluate(runs["rl2"], oracle=runs["oracle"], reality=[file], **FEW)
    np.testing.assert_array_equal(again.arrays()["returns"], alone.arrays()["returns"])
    assert (again.arrays("rl2 in mine")["returns"] != alone.arrays()["returns"]).any()
    assert json.loads(json.dumps(again.summary)) == found
    # What is told nothing meets the other reality too.
    curve = metarl.evaluate(runs["rl2"], oracle=runs["oracle"], floor=runs["multitask"], reality=[file], **FEW)
    from_there = curve.summary
    names = [f"{name}{where}" for where in ("", " in mine") for name in ("rl2", "oracle", "floor")]
    assert [len(curve.arrays(name)["mean"]) for name in names] == [2, 1, 1] * 2
    floors = [part["floor"] for part in (from_there, from_there["realities"][0])]
    assert [floor["agent"] for floor in floors] == ["floor", "floor in mine"]
    assert floors[0]["points"][0]["mean"] != floors[1]["points"][0]["mean"]
    # A result at home does not have the other's name.
    assert not (run / "evaluation" / "test").exists()


def test_a_robot_under_other_physics(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tasks": 4, "minibatches": 1, "width": 4, "iterations": 1, "threads": 1}
    run = metarl.train("rl2", "half-cheetah-vel+horizon=5", out=tmp_path / "run", **settings)
    curve = metarl.evaluate(run, reality=["fine", "soft"], **FEW)
    shapes = [curve.arrays(name)["returns"].shape for name in ("rl2", "rl2 in fine", "rl2 in soft")]
    assert shapes == [(2, 1, 3)] * 3
    assert len({curve.arrays(name)["mean"][0] for name in ("rl2", "rl2 in fine", "rl2 in soft")}) == 3
    assert "in fine" in str(curve)


def test_wrong_ones_are_refused_before_anything_is_written(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs["rl2"].folder)
    assert main(["evaluate", run, "--reality", "elliptic", "--out", str(tmp_path / "out"), *WORDS]) == 2
    assert "the reality elliptic: cone: point-nav@maml17 has no MuJoCo model" in capsys.readouterr().err
    assert main(["evaluate", run, "--reality", "sloww", *WORDS]) == 2
    assert "unknown reality 'sloww'. Did you mean 'slow'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="the reality cpu: engine: got cpu, which steps the worlds at home too"):
        metarl.evaluate(run, reality="cpu", **FEW)


def test_realities_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--realities"]) == 0
    assert "elliptic" in capsys.readouterr().out
    assert main(["list", "--realities", "--json"]) == 0
    assert {there["name"] for there in json.loads(capsys.readouterr().out)} >= {"fine", "slow", "worn", "gpu"}
