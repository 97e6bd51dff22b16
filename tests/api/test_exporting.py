"""`metarl.export`: what may be exported, and what is told where ONNX is not installed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import metarl
from metarl.api import exporting
from metarl.deployment.manifest import exported
from metarl.errors import UserError
from tests.helpers.exported import runtime, trained
from tests.helpers.stripes import Stripes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "run"
    return metarl.train(
        "rl2",
        "point-nav",
        iterations=1,
        tasks=2,
        minibatches=1,
        width=4,
        episodes=2,
        out=out,
        threads=1,
    )


def test_a_run_and_its_folder_give_the_same(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, name in ((run, "one"), (run.folder, "two")):
        made = metarl.export(given, tmp_path / name, onnx="no")
        assert made.folder == tmp_path / name
        assert {path.name for path in made.folder.iterdir()} == set(made.files)
    first, second = ((tmp_path / name / "manifest.json").read_bytes() for name in ("one", "two"))
    assert first == second
    assert json.loads(first)["agent"]["training"] == {"seed": 0, "iterations": 1, "checkpoint": "last"}
    # Positions in metres, moves of at most 0.1.
    action = runtime(tmp_path / "one").act([0.0, 0.0])
    assert abs(action).max() <= 0.1
    assert capsys.readouterr().err == ""


def test_without_onnx_all_else_is_written_and_a_line_says_so(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting, "available", lambda: False)
    made = metarl.export(run, tmp_path / "policy")
    assert "model.onnx" not in made.files
    said = capsys.readouterr().err
    assert "has no model.onnx" in said
    assert "pip install 'metarl-suite[export]'" in said
    with pytest.raises(UserError, match="Got --onnx yes, and the onnx package is not installed"):
        metarl.export(run, tmp_path / "other", onnx="yes")
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_exported_is_refused(run: Any, tmp_path: Path) -> None:
    ours: Any = metarl
    with pytest.raises(UserError, match=r"got onnx='maybe'\. Choose from: auto, yes, no"):
        ours.export(run, tmp_path / "policy", onnx="maybe")
    with pytest.raises(UserError, match="trained for 0 iterations"):
        metarl.export(replace(run, iteration=0), tmp_path / "policy", onnx="no")
    with pytest.raises(UserError, match="There is no run in"):
        metarl.export(tmp_path / "nowhere", tmp_path / "policy", onnx="no")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "part"), [("rl2", "SeeingCore"), ("multitask", "Seeing")])
def test_pictures_are_refused_with_advice_that_works(name: str, part: str) -> None:
    family = Stripes()
    small = {"tasks": 2, "episodes": 2}
    with pytest.raises(UserError, match=f"a {part}, which an exported policy cannot compute.*--no-encode-pictures"):
        exported(trained(name, family, **small), family, {})
    made = exported(trained(name, family, encode_pictures=False, **small), family, {})
    assert made.manifest["network"]["inputs"][0]["size"] == family.observation_size


def test_an_agent_that_is_not_told_as_plain_data_is_refused(run: Any) -> None:
    class Own:
        name, config, trial, pools = "own", None, 1, True

        def start(self, tasks: Any) -> object:
            return object()

        train_iteration = state_dict = load_state_dict = start

    own: Any = Own()
    with pytest.raises(UserError, match="Got the agent 'own', whose learner has no `describe`"):
        exported(own, run.family, {})
