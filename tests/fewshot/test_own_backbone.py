"""Runs with a backbone of one's own: trained, resumed bit for bit, loaded and tested, for every learner."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from metarl.cli.main import main
from metarl.errors import UserError
from metarl.fewshot import FewShotRun, Trained, config_class, from_arrays, load, load_data, predict, score, train
from metarl.fewshot.learners import LEARNERS
from metarl.fewshot.parts.own import Given
from tests.helpers.own_modules import Recurrent, Unruly, convolutions, filled, perceptron
from tests.helpers.run_folders import saved
from tests.helpers.same import assert_same
from tests.helpers.tiny_fewshot import RUN, store, vectors

OWN = replace(RUN, hidden=FewShotRun.hidden, validation=0, checkpoint_every=1, log_every=1)
SMALL: dict[str, dict[str, Any]] = {
    "maml": {"tasks": 2, "inner_steps": 2},
    "imaml": {"tasks": 2, "inner_steps": 2},
    "reptile": {"tasks": 2, "train_shot": 4, "test_steps": 3},
    "baseline": {"batch_size": 8, "epochs": 2},
    "baseline++": {"batch_size": 8, "epochs": 2},
    "simpleshot": {"batch_size": 8},
}


def start(folder: Path, learner: str = "proto", iterations: int = 2, data: Any = None, **settings: Any) -> Trained:
    options = settings.pop("options", {"console": Console(file=io.StringIO())})
    config = config_class(learner)(**SMALL.get(learner, {"tasks": 2}))
    run = replace(OWN, learner=learner, **settings)
    return train(folder, run, data or vectors(), config, iterations=iterations, **options)


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_trains_is_resumed_bit_for_bit_and_loaded(learner: str, tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", learner, backbone=perceptron())
    start(tmp_path / "parts", learner, 1, backbone=perceptron())
    # Weights come from the checkpoint: those of the module count no more.
    options = {"resume": True, "console": Console(file=io.StringIO())}
    start(tmp_path / "parts", learner, backbone=filled(perceptron(), seed=1), options=options)
    assert_same(saved(tmp_path / "parts", "last"), saved(tmp_path / "whole", "last"))
    loaded = load(tmp_path / "whole", "last", source=vectors(), backbone=filled(perceptron(), seed=2))
    found = [score(of.learner, vectors(), episodes=5).estimate for of in (whole, loaded)]
    assert found[0] == found[1]
    items = vectors().split("test").items[:36:12]
    answers, _ = predict(loaded.learner, vectors(), items, ["a", "b", "c"], items)
    assert set(answers) <= {"a", "b", "c"}


@pytest.mark.parametrize("learner", [name for name in LEARNERS if name != "proto"])
def test_a_frozen_module_stays_and_the_head_is_trained(learner: str, tmp_path: Path) -> None:
    frozen = start(tmp_path / "run", learner, backbone=perceptron(), freeze_backbone=True)
    state = frozen.learner.state_dict()["params"]
    assert state
    assert not any(name.startswith("backbone.") for name in state)
    held = saved(tmp_path / "run", "last")["agent"]["backbone"]["held"]
    for name, value in perceptron().named_parameters():
        assert torch.equal(held[name], value)
    # A module with other weights is brought to those of the run.
    again = load(tmp_path / "run", "last", source=vectors(), backbone=filled(perceptron(), seed=1))
    found = [score(of.learner, vectors(), episodes=5).estimate for of in (frozen, again)]
    assert found[0] == found[1]


@pytest.mark.parametrize("settings", [{"backbone": "identity"}, {"backbone": perceptron(), "freeze_backbone": True}])
def test_prototypes_of_given_features_need_no_training(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to train .* Give --iterations 0.* r2d2"):
        start(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
    ready = start(tmp_path / "run", iterations=0, **settings)
    assert score(ready.learner, vectors(), episodes=50).lower > 0.25


@pytest.mark.parametrize("learner", [name for name in LEARNERS if name != "proto"])
def test_features_are_taken_as_they_are(learner: str, tmp_path: Path) -> None:
    trained = start(tmp_path / "run", learner, backbone="identity")
    assert trained.learner.setting.backbone.features == 12
    assert not any(name.startswith("w0") for name in trained.learner.state_dict()["params"])
    assert load(tmp_path / "run", source=vectors()).iteration == 2


def test_it_learns_with_an_lstm_by_second_derivatives(tmp_path: Path) -> None:
    before, after = (start(tmp_path / f"{n}", "maml", n, backbone=filled(Recurrent())) for n in (0, 2))
    assert after.learner.state_dict()["params"].keys() == before.learner.state_dict()["params"].keys()
    moved = [
        not torch.equal(one, other)
        for one, other in zip(*(of.learner.state_dict()["params"].values() for of in (before, after)), strict=True)
    ]
    assert all(moved)


@pytest.mark.parametrize(
    ("learner", "policy"),
    [("proto", "running"), ("maml", "running"), ("reptile", "running"), ("baseline", "support"), ("proto", "support")],
)
def test_batch_norms_of_a_module_follow_the_run(learner: str, policy: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = from_arrays(generator.integers(0, 255, (200, 1, 16, 16), dtype=np.uint8), np.repeat(np.arange(20), 10))
    settings = {"data": data, "batch_norm": policy}
    start(tmp_path / "whole", learner, backbone=filled(convolutions(2)), **settings)
    start(tmp_path / "parts", learner, 1, backbone=filled(convolutions(2)), **settings)
    options = {"resume": True, "console": Console(file=io.StringIO())}
    start(tmp_path / "parts", learner, backbone=filled(convolutions(2)), options=options, **settings)
    assert_same(saved(tmp_path / "parts", "last"), saved(tmp_path / "whole", "last"))
    moments = saved(tmp_path / "whole", "last")["agent"]["moments"]
    kept = moments[0] if learner == "maml" else moments
    assert (kept is not None) == (policy == "running" or learner == "baseline")
    assert kept is None or len(kept) == 4


def test_a_run_needs_its_module_again_and_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    start(folder, "maml", backbone=perceptron())
    says = r"module Sequential, was given in Python, .* fewshot\.load\(folder, backbone=\.\.\.\)"
    with pytest.raises(UserError, match=says):
        load(folder, source=vectors())
    with pytest.raises(UserError, match=r"does not fit: .*backbone"):
        load(folder, source=vectors(), backbone=perceptron(12, 8))
    with pytest.raises(UserError, match=r"does not fit: .* computes other features than it did"):
        load(folder, source=vectors(), backbone=nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh()))
    start(tmp_path / "plain")
    with pytest.raises(UserError, match=r"Got a backbone for .*plain, which has its own, mlp\. Leave it out"):
        load(tmp_path / "plain", source=vectors(), backbone=perceptron())
    with pytest.raises(UserError, match="Got other settings"):
        start(folder, "maml", backbone=Recurrent(), options={"resume": True, "console": Console(file=io.StringIO())})


def test_commands_say_what_they_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = store(tmp_path / "data")
    data = load_data("arrays", root)
    start(tmp_path / "run", data=data, backbone=perceptron(), data_root=root)
    text = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(text.replace("data: vectors", "data: arrays"))
    for command in (["evaluate", str(tmp_path / "run")], ["train", "--resume", str(tmp_path / "run")]):
        assert main(["fewshot", *command]) == 2
        printed = capsys.readouterr().err
        assert "The backbone of this run, module Sequential, was given in Python" in printed


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backbone": Unruly("map")}, r"gave \[3, 5, 3, 3\]"),
        ({"backbone": perceptron(13)}, r"failed on torch\.float32 items \[3, 12\]"),
        ({"backbone": "conv5"}, "Unknown backbone 'conv5'.*conv4"),
        ({"backbone": 5}, "Got a backbone of the type int"),
        ({"backbone": "mlp", "freeze_backbone": True}, "has no weights before it is trained"),
        ({"backbone": perceptron(), "precision": "bfloat16"}, "Use float32"),
        ({"backbone": "identity", "precision": "bfloat16"}, "Use float32"),
    ],
)
def test_what_cannot_be_a_backbone_leaves_no_folder(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        start(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("json_lines", [False, True])
def test_that_dropout_is_off_is_told(json_lines: bool, tmp_path: Path) -> None:
    file = io.StringIO()
    options = {"console": Console(file=file, width=200), "json": json_lines}
    start(tmp_path / "run", iterations=0, backbone=nn.Sequential(perceptron(), nn.Dropout(0.1)), options=options)
    assert "module Sequential is used in eval mode: its 1 dropout layers are off." in file.getvalue()


def test_settings_with_a_module_are_plain_data_and_can_be_replaced() -> None:
    module = perceptron()
    backbone = replace(FewShotRun(data="mine", learner="proto", backbone=module), seed=3).backbone
    assert isinstance(backbone, Given)
    assert (str(backbone), backbone.thing) == ("module Sequential", module)
