"""DPT: its loss by hand, what its answers depend on, that it learns, what is stored, and who it can be asked about."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import metarl
from metarl.agents.dpt import Dpt, DptConfig
from metarl.cli.play import PlayOptions
from metarl.cli.play import play as play_players
from metarl.deployment.manifest import exported
from metarl.envs import get, make_worlds
from metarl.envs.families.bandit import Bandit
from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import Family
from metarl.errors import UserError
from metarl.evaluation.curve import adaptation_curve
from metarl.learning import rollout
from metarl.learning.recall import Actor
from metarl.learning.trials import input_size, join
from metarl.nets.policy import Normal
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.types import Metrics
from tests.helpers.same import assert_same
from tests.helpers.toys import normal, seeded

CPU = torch.device("cpu")
BANDIT, POINT = get("bandit"), PointNav(variant="short", horizon=4)
SMALL = DptConfig(tasks=6, episodes=3, width=8, layers=2, minibatches=2)


def make(family: Family = BANDIT, config: DptConfig = SMALL) -> Dpt:
    return Dpt(config, family.spec(), Streams(0), CPU)


def train(agent: Dpt, family: Family = BANDIT, iterations: int = 1, streams: Streams | None = None) -> Metrics:
    env, streams = make_worlds(family, agent.config.worlds, threads=1), streams or Streams(1)
    metrics: Metrics = {}
    for _ in range(iterations):
        metrics = agent.train_iteration(env, family.space.sample, streams)
        assert all(look_up(tag) for tag in metrics)
        assert all(math.isfinite(value) for value in metrics.values())
    return metrics


# -- what is learned --------------------------------------------------------------------------------------------------


def test_the_loss_of_even_chances_over_5_arms_is_ln_5() -> None:
    # Untrained; with one step of the optimiser the loss is that of before.
    agent = make(config=replace(SMALL, minibatches=1))
    assert train(agent)["train/loss"] == pytest.approx(math.log(5.0), abs=1e-6)


def test_an_answer_does_not_depend_on_what_comes_later() -> None:
    for family in (BANDIT, POINT):
        agent = make(family, replace(SMALL, episodes=7))
        nn.init.normal_(agent.network.head.weight, generator=seeded())
        inputs = normal(2, 7, input_size(family.spec()), seed=1).float()
        other = inputs.clone()
        other[:, 4:] = normal(*other[:, 4:].shape, seed=2).float()
        ours, theirs = agent.network(inputs), agent.network(other)
        for mine, its in zip(ours, theirs, strict=True):
            assert torch.equal(mine[:, :4], its[:, :4])
            assert not torch.equal(mine[:, 4], its[:, 4])


def test_what_it_acts_by_is_what_it_was_taught_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(POINT)
    train(agent, POINT, iterations=2)
    acted, act = [], agent.network.act

    def seen(features: torch.Tensor) -> Any:
        acted.append(act(features))
        return acted[-1]

    monkeypatch.setattr(agent.network, "act", seen)
    tasks = POINT.space.from_records([{"goal": [0.5, 0.5]}, {"goal": [-0.5, 0.5]}])
    actor = Actor(agent.network, agent.inputs, CPU)
    episodes = rollout.collect_trials(make_worlds(POINT, 2, threads=1), actor, tasks, 3, seeded(1))
    taught = agent.network(agent.inputs.of(join(episodes))[:, :-1])
    monkeypatch.undo()
    moments = torch.stack([distribution.mean for distribution in acted[:12]], 1)
    torch.testing.assert_close(moments, taught.mean, rtol=1e-4, atol=1e-5)


def test_deviations_of_numbers_begin_at_1_and_have_a_floor() -> None:
    agent = make(POINT)
    first = agent.network.act(torch.zeros(1, 8))
    assert isinstance(first, Normal)
    torch.testing.assert_close(first.log_std, torch.full((1, 2), 0.0), rtol=0.0, atol=0.03)
    with torch.no_grad():
        agent.network.head.bias[2:] = -1000.0
    last = agent.network.act(torch.zeros(1, 8))
    assert isinstance(last, Normal)
    torch.testing.assert_close(last.log_std.exp(), torch.full((1, 2), 0.02))


@pytest.mark.parametrize(("every", "own"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3])])
def test_it_plays_itself_as_often_as_it_was_asked_to_and_its_rate_falls_to_0(every: int, own: list[int]) -> None:
    agent, streams = make(config=replace(SMALL, iterations=4, minibatches=1, own_every=every)), Streams(1)
    rows = [train(agent, streams=streams) for _ in range(5)]
    assert [number for number, row in enumerate(rows) if "return/post" in row] == own
    assert {row["env/steps"] for row in rows} == {18.0}
    assert [row["update/learning_rate"] for row in rows] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4, 0.0])


def test_of_three_arms_it_finds_the_best() -> None:
    family = Bandit(rewards="bernoulli", arms=3, source="this test")
    config = DptConfig(iterations=40, tasks=100, episodes=10, width=16, layers=2, minibatches=8, learning_rate=4e-3)
    agent = make(family, config)
    assert train(agent, family, 40)["train/loss"] < 1.0
    tasks = family.space.sample(400, "test", seeded(1))
    curve = adaptation_curve(
        agent, make_worlds(family, 400, threads=1), tasks, steps=9, episodes=1, generator=seeded(2)
    )
    by_pull = curve.returns.mean(1)
    # By chance 0.5, with a standard error of 0.025; who is told has 0.75.
    assert float(by_pull[0]) == pytest.approx(0.5, abs=0.1)
    assert float(by_pull[7:].mean()) > 0.55


# -- storage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [BANDIT, POINT], ids=lambda family: family.name)
def test_a_resumed_training_is_the_same_bit_for_bit(family: Family) -> None:
    whole, streams = make(family), Streams(1)
    train(whole, family, 1, streams)
    state, drawn = copy.deepcopy(whole.state_dict()), copy.deepcopy(streams.state_dict())
    expected = train(whole, family, 2, streams)
    other, again = make(family), Streams(1)
    other.load_state_dict(state)
    again.load_state_dict(drawn)
    found = train(other, family, 2, again)
    assert_same(other.state_dict(), whole.state_dict())
    assert found["train/loss"] == expected["train/loss"]


def test_a_run_is_played_evaluated_and_probed_from_its_folder(tmp_path: Path) -> None:
    small = {item.name: getattr(SMALL, item.name) for item in fields(SMALL) if item.name != "iterations"}
    quiet: Any = {"iterations": 1, "threads": 1, "console": Console(quiet=True), **small}
    pulls = metarl.train("dpt", "bandit", out=tmp_path / "pulls", **quiet)
    result = play_players(PlayOptions(runs=(pulls.folder,), players=("thompson",), tasks=20))
    assert [row["player"] for row in result["players"]] == ["dpt", "thompson"]
    # It can be exported, where its actions are choices.
    assert exported(pulls.agent, BANDIT, {}) is not None
    run = metarl.train("dpt", "point-nav", horizon=4, out=tmp_path / "run", **quiet)
    found = metarl.evaluate(run.folder, probe=True, probe_tasks=10, tasks=3, episodes=2, threads=1)
    assert found.arrays("dpt")["episodes"].tolist() == [0.0, 1.0, 2.0]
    assert [probe["agent"] for probe in found.probes] == ["dpt"]
    with pytest.raises(
        UserError, match=r"actions that are numbers, which cannot be exported yet\. Export a run of rl2"
    ):
        metarl.export(run, tmp_path / "policy", onnx="no")
    assert not (tmp_path / "policy").exists()


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_family_that_does_not_say_its_best_action_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"half-cheetah-vel@v5 for dpt.*another family \(point-nav, bandit\)\.$"):
        metarl.train("dpt", "half-cheetah-vel", out=tmp_path / "run")
    with pytest.raises(UserError, match=r"tabular-mdp@rl2 for dpt.*train rl2\.$"):
        make(get("tabular-mdp"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minibatches": 7}, r"--minibatches 7 for --tasks 6\. There have to be as many trials"),
        ({"width": 1}, "--width 1"),
        ({"layers": 0}, "--layers 0"),
        ({"layers": 1001}, "--layers 1001"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0"),
        ({"own_every": -1}, "--own-every -1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SMALL, **wrong)
