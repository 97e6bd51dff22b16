"""Evaluating from Python: the same results as by the command, as an object."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import metarl
from metarl.api.evaluating import Adaptation
from metarl.api.runs import Run
from metarl.cli.evaluate import EvaluateOptions
from metarl.cli.main import main
from metarl.errors import UserError
from tests.helpers.tiny_trainings import FEW, SMALL, TRIALS, options, trained


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    settings = {
        "maml": ("maml-trpo", 0),
        "maml-1": ("maml-trpo", 1),
        "oracle": ("oracle", 0),
        "rl2": ("rl2", 0),
    }
    return {name: trained(root / name, agent, seed=seed) for name, (agent, seed) in settings.items()}


@pytest.fixture(scope="module")
def curve(runs: dict[str, Run]) -> Adaptation:
    """Two agents, one of them with two seeds, beside both references."""
    return metarl.evaluate([runs["maml"], runs["maml-1"], runs["rl2"]], oracle=runs["oracle"], steps=2, **FEW)


def as_json(summary: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(summary))


# -- the command and the function -------------------------------------------------------------------------------------


def test_options_have_the_same_names_and_defaults() -> None:
    command = {field.name: field.default for field in dataclasses.fields(EvaluateOptions)}
    function = {name: parameter.default for name, parameter in inspect.signature(metarl.evaluate).parameters.items()}
    # The command always writes, films where it can, and may print JSON.
    assert command.pop("json") is False
    assert (command.pop("film"), function.pop("film")) == (True, False)
    assert command.pop("out") is function.pop("out") is None
    assert command.pop("runs") is dataclasses.MISSING
    assert function.pop("runs") is inspect.Parameter.empty
    assert command == function
    for name in (*function, "film"):
        assert f"        {name}: " in (metarl.evaluate.__doc__ or "")


@pytest.mark.parametrize(
    ("names", "given"),
    [
        pytest.param(["maml"], {"random": True, "split": "ood", "seed": 5, "steps": 0}, marks=pytest.mark.slow),
        (["rl2", "maml"], {"steps": 1, "checkpoint": "best"}),
    ],
)
def test_the_summary_is_that_of_the_command(
    names: list[str], given: dict[str, Any], runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [runs[name].folder for name in names]
    words = options({name: value for name, value in given.items() if value is not True})
    flags = [f"--{name}" for name, value in given.items() if value is True]
    capsys.readouterr()
    small = [*options(FEW), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *map(str, folders), *words, *flags, *small, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = metarl.evaluate(folders, **given, **FEW)
    assert as_json(found.summary) == printed
    assert json.loads((tmp_path / "out" / "adaptation.json").read_text()) == printed
    assert found.probes == []
    assert found.films == {}


def test_a_run_is_as_good_as_its_folder(runs: dict[str, Run]) -> None:
    by_run = metarl.evaluate(runs["maml"], steps=0, **FEW)
    assert metarl.evaluate(str(runs["maml"].folder), steps=0, **FEW).summary == by_run.summary
    # The seed is that of the tasks.
    other = metarl.evaluate((runs["maml"].folder,), seed=1, steps=0, **FEW)
    assert other.summary["task_records"] != by_run.summary["task_records"]


# -- what is returned -------------------------------------------------------------------------------------------------


def test_arrays_are_the_curve(curve: Adaptation) -> None:
    assert curve.agents == ["maml-trpo", "rl2"]
    arrays = curve.arrays()
    assert arrays["episodes"].tolist() == [0.0, 2.0, 4.0]
    assert arrays["returns"].shape == (3, 2, 3)
    np.testing.assert_allclose(arrays["mean"], arrays["returns"].mean((1, 2)), rtol=1e-12)
    points = curve.summary["agents"][0]["points"]
    for name in ("mean", "lower", "upper", "iqm"):
        assert arrays[name].tolist() == [point[name] for point in points]
    assert (arrays["lower"] <= arrays["mean"]).all()
    assert (arrays["mean"] <= arrays["upper"]).all()
    assert {values.dtype for values in arrays.values()} == {np.dtype(np.float64)}
    for name, values in curve.arrays("maml-trpo").items():
        assert np.array_equal(values, arrays[name])
    # A point of an agent that adapts in its memory is one episode; point-nav has no goal that is met or not.
    assert curve.arrays("rl2")["episodes"].tolist() == [0.0, 1.0, 2.0]
    assert set(arrays) == {"episodes", "mean", "lower", "upper", "iqm", "returns"}


def test_references_have_arrays_too(curve: Adaptation, runs: dict[str, Run]) -> None:
    for name, seeds in (("oracle", 1), ("random", 5)):
        arrays = curve.arrays(name)
        assert arrays["returns"].shape == (1, seeds, 3)
        assert arrays["mean"].tolist() == [curve.summary[name]["points"][0]["mean"]]
    with pytest.raises(UserError, match=r"Unknown agent 'maml'\. Choose from: maml-trpo, rl2, oracle, random\."):
        curve.arrays("maml")
    with pytest.raises(UserError, match=r"Unknown agent 'random'\. Choose from: maml-trpo\."):
        metarl.evaluate(runs["maml"], steps=0, **FEW).arrays("random")


def test_an_oracle_among_the_agents_stands_there_once_as_itself(runs: dict[str, Run]) -> None:
    curve = metarl.evaluate([runs["oracle"], runs["maml"]], oracle=runs["oracle"], floor=runs["maml"], steps=1, **FEW)
    assert len(curve.arrays()["mean"]) == len(curve.arrays("oracle")["mean"]) == 2
    assert len(curve.arrays("the oracle")["mean"]) == len(curve.arrays("floor")["mean"]) == 1
    assert curve.arrays("the oracle")["mean"][0] == curve.arrays("oracle")["mean"][0]
    assert "Floor: maml-trpo, before it adapts." in str(curve)
    assert all(len(line) <= 80 for line in str(curve).splitlines())


def test_success_is_there_where_a_family_has_a_goal(tmp_path: Path) -> None:
    run = metarl.train("multitask", "push-shape", out=tmp_path / "run", **{**SMALL, "iterations": 0})
    arrays = metarl.evaluate(run, steps=0, **FEW).arrays()
    assert arrays["success"].shape == (1,)
    assert 0.0 <= arrays["success"][0] <= 1.0


def test_it_shows_itself_as_table_figure_and_picture(curve: Adaptation) -> None:
    text = str(curve)
    assert text == repr(curve)
    assert "point-nav@maml17, 3 held-out tasks" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    for name in ("maml-trpo", "rl2", "oracle", "random"):
        assert name in text
    assert curve.table().row_count >= 3 + 3 + 2
    figure = curve.figure()
    assert isinstance(figure, Figure)
    assert {"maml-trpo", "rl2"} <= {text.get_text() for text in figure.axes[0].texts}
    with Image.open(io.BytesIO(curve._repr_png_())) as picture:
        assert picture.format == "PNG"


def test_nothing_is_written_unless_it_is_asked_for(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(runs["maml"].folder.rglob("*"))
    found = metarl.evaluate(runs["maml"], steps=1, **FEW)
    assert list(tmp_path.iterdir()) == []
    assert sorted(runs["maml"].folder.rglob("*")) == before
    found.write("later")
    again = metarl.evaluate(runs["maml"], steps=1, out=tmp_path / "at" / "once", **FEW)
    assert again.summary == found.summary
    for name in ("adaptation.csv", "adaptation.json", "adaptation.png"):
        assert (tmp_path / "later" / name).read_bytes() == (tmp_path / "at" / "once" / name).read_bytes()
    assert list((tmp_path / "later" / "maml-trpo").iterdir()) != []
    assert not (tmp_path / "later" / "probe.json").exists()


def test_probes_come_with_agents_that_have_a_memory(runs: dict[str, Run], tmp_path: Path) -> None:
    found = metarl.evaluate([runs["maml"], runs["rl2"]], steps=1, probe=True, probe_tasks=10, out=tmp_path, **FEW)
    assert [probe["agent"] for probe in found.probes] == ["rl2"]
    assert json.loads((tmp_path / "probe.json").read_text())["results"] == as_json({"probes": found.probes})["probes"]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "given", "says"),
    [
        ([], {}, "Got no run to evaluate"),
        (["maml", "maml"], {}, "Give each run once"),
        (["maml"], {"tasks": 0}, "tasks 0.*from 1"),
        (["maml"], {"steps": -1}, "steps -1"),
        (["maml"], {"oracle": "rl2"}, "which is a run of 'rl2'"),
        (["maml"], {"probe": True}, "'maml-trpo', which has no memory"),
        (["rl2"], {"probe": True, "probe_tasks": 1}, r"probe-tasks 1\. Allowed: from 10"),
        (["maml"], {"tasks": 2_000_000_000}, "Needs about .* of memory, .* lower --tasks"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    names: list[str], given: dict[str, Any], says: str, runs: dict[str, Run], tmp_path: Path
) -> None:
    if "oracle" in given:
        given = {**given, "oracle": runs[given["oracle"]].folder}
    with pytest.raises(UserError, match=says) as caught:
        metarl.evaluate([runs[name].folder for name in names], out=tmp_path / "out", **{**FEW, **given})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_trials_that_are_too_long_for_a_memory_are_refused_before_anything_is_played(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "rl2", core="transformer", horizon=5)
    longer: dict[str, Any] = {"horizon": 12, "record": tmp_path / "log"}
    with pytest.raises(UserError, match=r"rl2 remembers 11 steps, .*, and 2 x 12 are more: lower --steps or --horizon"):
        metarl.evaluate(run, **longer, **FEW)
    with pytest.raises(UserError, match=r"1 x 12 are more"):
        metarl.evaluate(run, steps=0, **longer, **FEW)
    with pytest.raises(UserError, match=r"2 x 8 are more: leave --probe out, or lower --horizon"):
        metarl.evaluate(run, steps=0, horizon=8, probe=True, **FEW)
    assert not (tmp_path / "log").exists()
    assert len(metarl.evaluate(run, steps=0, horizon=11, **FEW).arrays("rl2")["mean"]) == 1


def test_trials_in_which_tasks_would_not_switch_are_refused(tmp_path: Path) -> None:
    run = metarl.train("maml-trpo", "half-cheetah-vel+switch=5..8+horizon=10", out=tmp_path / "run", **SMALL)
    with pytest.raises(
        UserError, match=r"as late as step 8, and a trial of maml-trpo has 8\. Give a --horizon of 9 or"
    ):
        metarl.evaluate(run, horizon=8, steps=0, **FEW)
    assert metarl.evaluate(run, horizon=9, steps=0, **FEW).summary["family"].endswith("+horizon=9+switch=5..8")


def test_protocols_that_are_too_long_for_a_memory_are_refused(tmp_path: Path) -> None:
    run = metarl.train("rl2", "reacher-goal", out=tmp_path / "run", core="transformer", horizon=2, **TRIALS)
    with pytest.raises(UserError, match=r"13 x 2 are more: leave --protocol out, or lower --horizon"):
        metarl.evaluate(run, protocol=True, protocol_goals=1, **FEW)


def test_a_choice_that_there_is_not_is_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    wrong = {
        "split": ("tset", "got split='tset'. Did you mean 'test'?"),
        "checkpoint": ("lst", "got checkpoint='lst'. Did you mean 'last'?"),
        "engine": ("warp", "got engine='warp'"),
        "device": ("tpu", "Unknown device 'tpu'"),
    }
    for name, (value, says) in wrong.items():
        given: dict[str, Any] = {name: value}
        with pytest.raises(UserError) as caught:
            metarl.evaluate(runs["maml"].folder, out=tmp_path / "out", **given)
        assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []
