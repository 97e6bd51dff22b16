"""Training from Python: the same runs as by the command."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl.cli.main import main
from metarl.envs.families.point_nav import PointNav
from metarl.envs.horizon import with_horizon
from metarl.errors import UserError
from metarl.run.checkpoint import load
from metarl.run.tracking import read_progress
from tests.helpers.same import assert_same
from tests.helpers.tiny_trainings import FAMILY, SMALL, TRIALS, options, trained


def assert_same_run(first: Path, second: Path) -> None:
    """Compare checkpoints, and everything logged but the times."""
    names = sorted(path.name for path in (first / "checkpoints").iterdir())
    assert names == sorted(path.name for path in (second / "checkpoints").iterdir())
    for name in names:
        if name.endswith(".pt"):
            assert_same(*(untimed(load(folder / "checkpoints" / name, {})) for folder in (first, second)))
    assert_same(*([untimed(row) for row in read_progress(folder)] for folder in (first, second)))


def untimed(content: Any) -> Any:
    if isinstance(content, dict):
        return {
            name: untimed(value) for name, value in content.items() if not str(name).startswith(("time/", "speed/"))
        }
    return content


@pytest.mark.parametrize(("agent", "settings"), [("maml-trpo", {**SMALL, "inner_rate": 0.5}), ("rl2", TRIALS)])
def test_the_run_is_that_of_the_command(agent: str, settings: dict[str, Any], tmp_path: Path) -> None:
    words = ["train", agent, "--family", FAMILY, "--seed", "3", "--checkpoint-every", "1", *options(settings)]
    assert main([*words, "--out", str(tmp_path / "command")]) == 0
    run = metarl.train(agent, FAMILY, seed=3, checkpoint_every=1, out=tmp_path / "python", **settings)
    assert_same_run(tmp_path / "python", tmp_path / "command")
    assert (tmp_path / "python" / "config.yaml").read_bytes() == (tmp_path / "command" / "config.yaml").read_bytes()
    assert (run.folder, run.seed, run.iteration) == (tmp_path / "python", 3, settings["iterations"])
    assert run.settings.agent == run.agent.name == agent
    assert run.physics == "torch on CPU"
    assert not run.interrupted
    # The agent is the trained one.
    assert_same(run.agent.state_dict(), load(tmp_path / "python" / "checkpoints" / "last.pt", {})["agent"])


def test_a_family_itself_is_as_good_as_its_name(tmp_path: Path) -> None:
    by_name = trained(tmp_path / "name")
    metarl.train("maml-trpo", metarl.envs.get(FAMILY), out=tmp_path / "itself", **SMALL)
    assert by_name.family is metarl.envs.get(FAMILY)
    assert_same_run(tmp_path / "name", tmp_path / "itself")


def test_the_folder_has_a_name_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = metarl.train("multitask", FAMILY, seed=4, **{**SMALL, "iterations": 0})
    assert run.folder == Path("runs/point-nav@maml17-multitask-seed4")
    assert (tmp_path / run.folder / "config.yaml").is_file()


def test_progress_goes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = io.StringIO()
    metarl.train("maml-trpo", FAMILY, out=tmp_path / "run", console=Console(file=text), **SMALL)
    assert "maml-trpo point-nav@maml17  2/2" in text.getvalue()
    assert capsys.readouterr().out == ""


def test_the_settings_of_a_run_stand_in_tensorboard(tmp_path: Path) -> None:
    trained(tmp_path / "run", inner_rate=0.25)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    content = {
        name: events.summary_metadata[name].plugin_data.content
        for name in events.summary_metadata
        if name.startswith("_hparams_")
    }
    assert set(content) == {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
    for setting in (b"run.family", b"point-nav@maml17", b"config.inner_rate", b"config.hidden"):
        assert setting in content["_hparams_/session_start_info"]
    assert b"return/post" in content["_hparams_/experiment"]


# -- going on ---------------------------------------------------------------------------------------------------------


def test_resumed_runs_end_as_whole_ones(tmp_path: Path) -> None:
    trained(tmp_path / "whole", iterations=2, checkpoint_every=1)
    trained(tmp_path / "parts", iterations=1, checkpoint_every=1)
    run = metarl.resume(tmp_path / "parts", 2)
    assert run.iteration == 2
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    # From an earlier checkpoint it comes to the same, with as many iterations as it was last asked for.
    again = metarl.resume(str(tmp_path / "parts"), checkpoint="previous")
    assert again.iteration == 2
    assert_same(again.agent.state_dict(), run.agent.state_dict())


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no run in .*nowhere"):
        metarl.resume(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "settings", "says"),
    [
        ("maml", {}, r"Unknown agent 'maml'\. Did you mean 'maml-trpo'\?"),
        ("random", {}, r"'random' is never trained.*evaluate\(\.\.\., random=True\)"),
        ("maml-trpo", {"family": "point-nva"}, r"unknown family 'point-nva'\. Did you mean 'point-nav'\?"),
        ("maml-trpo", {"inner_rat": 1.0}, r"maml-trpo has no setting 'inner_rat'\. Did you mean 'inner_rate'\?"),
        ("rl2", {"inner_rate": 1.0}, "rl2 has no setting 'inner_rate'"),
        ("maml-trpo", {"inner_rate": "fast"}, r"inner_rate: got 'fast' \(str\) where float is needed"),
        ("maml-trpo", {"inner_rate": float("inf")}, r"inner-rate inf\. It must be finite"),
        ("maml-trpo", {"iterations": 2.5}, r"iterations: got 2\.5 \(float\) where int is needed"),
        ("maml-trpo", {"iterations": True}, r"iterations: got True \(bool\) where int is needed"),
        ("maml-trpo", {"hidden": 8}, "hidden: got 8 where a list is needed"),
        ("maml-trpo", {"hidden": (8, "x")}, r"hidden\[1\]: got 'x'"),
        ("maml-trpo", {"estimator": "dicee"}, r"estimator: got 'dicee'\. Did you mean 'dice'\?"),
        ("maml-trpo", {"tasks": 0}, r"tasks 0\. It must be at least 1"),
        ("maml-trpo", {"seed": 1.5}, r"train: got seed=1\.5 \(float\) where int is needed"),
        ("maml-trpo", {"seed": -1}, "seed -1"),
        ("maml-trpo", {"device": "tpu"}, r"Unknown device 'tpu'.*cpu"),
        ("maml-trpo", {"engine": "warp"}, r"train: got engine='warp'.*cpu"),
        ("maml-trpo", {"threads": "all"}, r"train: got threads='all' \(str\) where int is needed"),
        ("maml-trpo", {"checkpoint_every": 0}, "checkpoint_every 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(agent: str, settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        metarl.train(agent, **{"family": FAMILY, "out": tmp_path / "run", **settings})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_folder_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run", iterations=0)
    with pytest.raises(UserError, match="exists already"):
        trained(tmp_path / "run")


def test_a_family_that_its_name_does_not_find_is_refused(tmp_path: Path) -> None:
    # The run would be of another family than the one that was given, and could not be loaded.
    for family, says in (
        (PointNav(variant="mine"), r"point-nav@mine, which is not registered.*metarl\.envs\.register\(family\) first"),
        (with_horizon(metarl.envs.get(FAMILY), 5), r"not the registered family of this name.*a variant of its own"),
    ):
        with pytest.raises(UserError, match=says):
            metarl.train("maml-trpo", family, out=tmp_path / "run", **SMALL)
    assert list(tmp_path.iterdir()) == []
    # One with modifiers is found.
    metarl.train("maml-trpo", metarl.envs.get("hopper-rand-params+gravity"), out=tmp_path / "run", **SMALL)
