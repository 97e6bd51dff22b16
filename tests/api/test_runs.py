"""Runs that are loaded, and put together."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import metarl
from metarl.api.runs import Run, grouped, most_room, untrained
from metarl.envs import get
from metarl.errors import UserError
from metarl.fewshot import FewShotRun
from metarl.fewshot import train as train_learner
from metarl.run.checkpoint import load as read_checkpoint
from tests.helpers.same import assert_same
from tests.helpers.tiny_fewshot import RUN, vectors
from tests.helpers.tiny_trainings import FEW, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with three checkpoints."""
    return trained(tmp_path_factory.mktemp("runs") / "maml", iterations=3, checkpoint_every=1)


@pytest.mark.parametrize("which", ["last", "best", "previous"])
def test_the_agent_is_that_of_the_checkpoint(run: Run, which: Any) -> None:
    loaded = metarl.load(str(run.folder), which)
    stored = read_checkpoint(run.folder / "checkpoints" / f"{which}.pt", {})
    assert_same(loaded.agent.state_dict(), stored["agent"])
    assert (loaded.checkpoint, loaded.iteration) == (which, stored["iteration"])
    assert {"last": 3, "previous": 2}.get(which, loaded.iteration) == loaded.iteration
    assert loaded.settings == run.settings
    assert loaded.agent.config == run.agent.config
    assert loaded.family is run.family


def test_the_last_checkpoint_is_the_trained_agent(run: Run) -> None:
    loaded = metarl.load(run.folder)
    assert_same(loaded.agent.state_dict(), run.agent.state_dict())
    assert (loaded.seed, loaded.interrupted, loaded.physics) == (0, False, "")


def test_progress_is_what_the_file_says(run: Run) -> None:
    progress = metarl.load(run.folder).progress()
    with (run.folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert progress["step"].tolist() == [1.0, 2.0, 3.0]
    assert list(progress) == list(rows[0])
    for name, values in progress.items():
        assert values.dtype == np.float64
        assert values.tolist() == [float(row[name]) for row in rows]


def test_rows_that_lack_a_column_have_nan(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / "progress.csv").write_text("step,return/post,policy/std\n1,-3.5,\n2,-2,0.5\n")
    progress = metarl.load(tmp_path / "run").progress()
    assert progress["return/post"].tolist() == [-3.5, -2.0]
    assert np.isnan(progress["policy/std"]).tolist() == [True, False]
    (tmp_path / "run" / "progress.csv").write_text("step,return/post\n1,high\n")
    with pytest.raises(UserError, match=r"progress\.csv is damaged"):
        metarl.load(tmp_path / "run").progress()


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no run in .*nowhere"):
        metarl.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"load: got checkpoint='lst'\. Did you mean 'last'\?"):
        metarl.load(run.folder, cast(Any, "lst"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("agent: maml-trpo", "agent: maml-trp", r"Unknown agent 'maml-trp'\. Did you mean 'maml-trpo'\?"),
        ("point-nav@maml17", "point-nva@maml17", r"unknown family 'point-nva'\. Did you mean 'point-nav'\?"),
        ("inner_rate:", "inner_rat:", r"unknown field 'inner_rat'\. Did you mean 'inner_rate'\?"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(run: Run, tmp_path: Path, old: str, new: str, says: str) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    assert config.read_text().count(old) == 1
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(UserError, match=says):
        metarl.load(tmp_path / "run")


def test_a_few_shot_run_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert isinstance(RUN, FewShotRun)
    train_learner(tmp_path / "run", RUN, vectors(), iterations=1)
    for call in (metarl.load, metarl.resume, metarl.evaluate):
        with pytest.raises(UserError, match=r"of another kind, few-shot: use metarl fewshot"):
            call(tmp_path / "run")


# -- several of them --------------------------------------------------------------------------------------------------


def test_seeds_of_one_agent_are_put_together(run: Run, tmp_path: Path) -> None:
    seed = trained(tmp_path / "seed", seed=1)
    wide = trained(tmp_path / "wide", hidden=(9,))
    multitask = trained(tmp_path / "multitask", "multitask")
    groups = grouped([run, wide.folder, multitask, str(seed.folder)])
    assert [group.label for group in groups] == ["maml-trpo hidden=[8]", "maml-trpo hidden=[9]", "multitask"]
    assert [[one.seed for one in group.runs] for group in groups] == [[0, 1], [0], [0]]
    # What is given as a run stays what it is.
    assert groups[0].runs[0] is run
    assert groups[0].agent is run.agent


def test_runs_that_do_not_go_together_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Give each run once"):
        grouped([run, run.folder / ".." / run.folder.name])
    other = metarl.train("multitask", "bandit", out=tmp_path / "bandit", iterations=0, threads=1)
    with pytest.raises(UserError, match=r"bandit@bernoulli-5, and .*point-nav@maml17\. Compare runs of one family"):
        grouped([run, other])


def test_runs_of_several_horizons_are_compared_at_one(run: Run, tmp_path: Path) -> None:
    short = trained(tmp_path / "short", horizon=5)
    assert (run.family.horizon, short.family.full_name) == (100, "point-nav@maml17+horizon=5")
    with pytest.raises(UserError, match=r"Compare runs of one family, or give the --horizon that all are to have\.$"):
        grouped([run, short])
    for horizon, name in ((100, "point-nav@maml17"), (7, "point-nav@maml17+horizon=7")):
        groups = grouped([run, short.folder], horizon=horizon)
        assert [group.label for group in groups] == ["maml-trpo horizon=100", "maml-trpo horizon=5"]
        assert all(group.runs[0].family is get(name) for group in groups)
    curve = metarl.evaluate(short, horizon=2, random=True, **FEW)
    by_hand = metarl.evaluate(replace(short, family=get("point-nav+horizon=2")), random=True, **FEW)
    assert curve.summary == by_hand.summary
    assert curve.summary["family"] == "point-nav@maml17+horizon=2"
    whole = metarl.evaluate(short, **FEW)
    assert bool((curve.evaluation.entries[0].returns > whole.evaluation.entries[0].returns).all())


def test_an_untrained_policy_is_drawn_anew_for_every_seed(run: Run) -> None:
    cpu = torch.device("cpu")
    first, again, other = (untrained(run.family, seed, cpu).state_dict()["params"]["w0"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_room_is_the_most_of_any_run(run: Run) -> None:
    rooms: list[dict[str, int]] = [{}, {"contacts": 3, "constraints": 40}, {"contacts": 8}]
    runs = [replace(run, room=room) for room in rooms]
    assert most_room(runs) == {"contacts": 8, "constraints": 40}
    assert most_room(runs[:1]) == {}
