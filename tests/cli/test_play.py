"""`metarl play`: published figures, trained agents beside the players, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.players.bandit import MOST_PULLS
from metarl.api.runs import load
from metarl.cli import play as cli_play
from metarl.cli.main import main
from metarl.cli.play import PUBLISHED, PlayOptions, fresh_tasks, play
from metarl.envs import get, make_worlds
from metarl.learning.rollout import collect
from metarl.seeding import Streams

# --- published figures -------------------------------------------------------------------------------------------


def without_luck(result: dict[str, Any], mean: float) -> float:
    """Return a mean less what the drawn tasks are better than all tasks, where that is known."""
    expected = result["expected_ceiling"]
    return mean if expected is None else mean - (result["ceiling"] - expected)


@pytest.mark.parametrize(
    ("family", "trial"),
    [pytest.param(*of, marks=[pytest.mark.slow] if of[1] == 100 else []) for of in PUBLISHED],
)
def test_play_agrees_with_the_published_table(family: str, trial: int) -> None:
    tasks = 1000 if family == "tabular-mdp@rl2" else 2000
    known, more = dict(PUBLISHED[family, trial]), ("certainty",) if "mdp" in family else ()
    # That of a trained agent, not of a player.
    known.pop("rl2")
    result = play(PlayOptions(family=family, episodes=trial, tasks=tasks, players=(*known, *more, "clairvoyant")))
    rows = {row["player"]: row for row in result["players"]}
    for player, published in known.items():
        row = rows[player]
        assert row["published"] == published
        # Do the 95% intervals overlap? The published figure is a mean over 1,000 tasks, rounded to 0.1.
        margin = row["upper"] - row["mean"]
        margin += margin * math.sqrt(tasks / 1000.0) + 0.05
        assert abs(without_luck(result, row["mean"]) - published) < margin, player
    order = ["random", "psrl", "certainty"] if "mdp" in family else ["random", "thompson", "gittins"]
    means = [rows[name]["mean"] for name in [*order, "clairvoyant"]]
    assert means == sorted(means)


@pytest.mark.slow
@pytest.mark.parametrize("arms", [5, 10])
def test_long_trials_agree_within_one(arms: int) -> None:
    family = f"bandit@bernoulli-{arms}"
    result = play(PlayOptions(family=family, episodes=100, tasks=20_000, players=("thompson", "ucb1", "greedy")))
    for row in result["players"]:
        assert abs(without_luck(result, row["mean"]) - PUBLISHED[family, 100][row["player"]]) < 1.0


# --- trained agents ----------------------------------------------------------------------------------------------


def trained(folder: Path, *more: str) -> Path:
    small = ["--tasks", "4", "--minibatches", "1", "--width", "4", "--iterations", "1", "--threads", "1"]
    family = ["--family", "bandit@bernoulli-10", "--episodes", "10"]
    assert main(["train", "rl2", *family, *small, "--out", str(folder), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one agent with a memory."""
    root = tmp_path_factory.mktemp("runs")
    return [trained(root / str(seed), "--seed", str(seed)) for seed in (0, 1)]


def test_trained_agents_stand_beside_the_players(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(run) for run in runs]
    capsys.readouterr()
    assert main(["play", "--runs", *names, "--players", "random", "clairvoyant", "--tasks", "50"]) == 0
    shown = capsys.readouterr().out
    assert "bandit@bernoulli-10: total reward of 10 episodes, 50 tasks" in shown
    result = play(PlayOptions(runs=tuple(runs), players=("random", "clairvoyant"), tasks=50))
    rl2, random, clairvoyant = result["players"]
    assert [row["player"] for row in result["players"]] == ["rl2", "random", "clairvoyant"]
    assert (rl2["published"], rl2["runs"], rl2["training_seeds"]) == (6.7, names, [0, 1])
    assert f"rl2: training seeds 0, 1: {rl2['by_run'][0]:.2f}, {rl2['by_run'][1]:.2f}" in shown
    assert rl2["mean"] == pytest.approx(sum(rl2["by_run"]) / 2)
    assert rl2["by_run"][0] != rl2["by_run"][1]
    assert clairvoyant["mean"] > max(rl2["mean"], random["mean"])

    # By hand: the trials of one seed, on the same tasks and with the same chance.
    run = load(runs[0])
    family, agent = run.family, run.agent
    tasks, generator, worlds = fresh_tasks(family, 50, 0), Streams(0)["play"], make_worlds(family, 50)
    policy, total = agent.start(tasks).policy, torch.zeros(50)
    for episode in range(10):
        total += collect(worlds, policy, tasks, 1, generator, new_trial=episode == 0).returns.squeeze(1)
    assert total.mean().item() == pytest.approx(rl2["by_run"][0])
    alone = play(PlayOptions(runs=(runs[0],), players=("random",), tasks=50))["players"]
    assert alone[0]["mean"] == pytest.approx(rl2["by_run"][0])
    margin = 1.96 * float(total.std()) / math.sqrt(50)
    assert alone[0]["upper"] - alone[0]["mean"] == pytest.approx(margin, rel=1e-5)
    # The players do not notice that there are agents.
    assert alone[1] == random


def test_runs_that_cannot_play_are_refused(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["play", "--tasks", "5", "--players", "random", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    run = str(runs[0])
    assert main(["play", "--runs", run, "--family", "bandit@bernoulli-10", "--episodes", "10", "--tasks", "5"]) == 0
    message = refused("--runs", run, "--family", "bandit")
    assert "--family bandit " in message
    assert "bandit@bernoulli-10" in message
    assert "trained for trials of 10" in refused("--runs", run, "--episodes", "9")
    assert "Give each run once" in refused("--runs", run, run)
    short = trained(tmp_path / "short", "--episodes", "9")
    assert "trials of 9. Let those of one length play together" in refused("--runs", run, str(short))
    arguments = ["--family", "bandit", "--tasks", "2", "--episodes", "2", "--hidden", "4", "--iterations", "1"]
    assert main(["train", "multitask", *arguments, "--out", str(tmp_path / "multitask")]) == 0
    assert "'multitask', which has no memory" in refused("--runs", str(tmp_path / "multitask"))
    point = trained(tmp_path / "point", "--family", "point-nav", "--episodes", "1")
    assert "neither a bandit nor a tabular MDP" in refused("--runs", str(point))


def test_fresh_tasks_are_none_that_were_trained_on() -> None:
    # The seed of a run, as many tasks: other draws.
    family = get("bandit")
    trained_on = family.space.sample(80, "train", Streams(3)["tasks"])["mean"]
    assert not torch.isin(fresh_tasks(family, 100, 3)["mean"], trained_on).any()


# --- the command -------------------------------------------------------------------------------------------------


def test_tasks_are_of_the_whole_distribution() -> None:
    space = get("bandit").space
    tasks = fresh_tasks(get("bandit"), 100, 3)
    assert space.contains(tasks, "train").sum() == 80
    assert space.contains(tasks, "test").sum() == 20
    assert len(fresh_tasks(get("bandit"), 2, 3)) == 2


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--tasks", "20", "--players", "thompson", "random"]) == 0
    shown = capsys.readouterr().out
    assert "bandit@bernoulli-5: total reward of 10 episodes, 20 tasks" in shown
    assert [line.split()[0] for line in shown.splitlines() if "[" in line][1:] == ["thompson", "random"]
    assert "of all tasks 8.33" in shown
    assert main(["play", "--family", "tabular-mdp", "--tasks", "3", "--episodes", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["family"] == "tabular-mdp@rl2"
    assert [row["player"] for row in result["players"]] == [
        "random",
        "psrl",
        "psrl-true-prior",
        "certainty",
        "clairvoyant",
    ]
    for row in result["players"]:
        assert sum(row["by_episode"]) == pytest.approx(row["mean"])
        assert row["published"] is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--family ant-dir", ["ant-dir@v5", "neither a bandit nor a tabular MDP", "bandit@gaussian-10"]),
        ("--family bandit@bernouli-5", ["Did you mean 'bernoulli-5'?"]),
        ("--players thomson", ["'thomson'", "Did you mean 'thompson'?", "clairvoyant"]),
        ("--family bandit@gaussian-5 --players gittins", ["'gittins'", "trials of 10 episodes", "thompson"]),
        (f"--episodes {MOST_PULLS + 1} --players gittins", ["'gittins'", f"trials of {MOST_PULLS + 1}"]),
        ("--tasks 1", ["--tasks 1", "from 2"]),
        ("--episodes 0", ["--episodes 0", "from 1"]),
        ("--tasks 20000000000", ["TB of memory", "lower --tasks."]),
        ("--tasks 5 --episodes 9000000000 --players random", ["--episodes 9000000000", "from 1 to 1000000"]),
        ("--players random thompson random", ["'random' 2 times"]),
        ("--pulls 10", ["'--pulls'", "--episodes"]),
    ],
)
def test_bad_input_is_one_line(line: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", *line.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    for text in says:
        assert text in captured.err


def test_the_players_are_explained_once() -> None:
    assert cli_play.PLAY.count("gittins") == 1
