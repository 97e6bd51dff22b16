"""The reference players: indices, posteriors and plans against exact values, their play against published figures."""

from __future__ import annotations

import itertools
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from metarl.agents.players.bandit import (
    EPSILON,
    MOST_PULLS,
    UCB_SCALE,
    ArmLearner,
    Arms,
    BanditModel,
    epsilon_greedy,
    gittins,
    gittins_indices,
    thompson,
    ucb1,
    ucb1_auer,
)
from metarl.agents.players.gamma import draw_gamma
from metarl.agents.players.mdp import MdpBelief, MdpLearner, MdpModel, Mdps, true_mdps
from metarl.agents.players.roster import Player, ceiling, expected_ceiling, make_player, players
from metarl.cli import play as cli_play
from metarl.cli.evaluate import load_agent
from metarl.cli.main import main
from metarl.cli.play import PUBLISHED, PlayOptions, fresh_tasks, model_of, play
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.curve import Curve, adaptation_curve
from metarl.learning.rollout import collect
from metarl.seeding import Streams
from metarl.types import Learner, MetaAgent, Tasks, Trajectories
from tests.helpers.toys import seeded as generator

DOUBLE = torch.float64
BERNOULLI = BanditModel(arms=2, rewards="bernoulli")
TINY = MdpModel(states=2, actions=2, horizon=3, reward_mean=1.0)


def arms(total: list[float], pulls: list[float], *, gaussian: bool = False) -> Arms:
    """Return one task's arms, as a score sees them."""
    seen = [torch.tensor([[row]], dtype=DOUBLE) for row in (total, pulls)]
    return Arms("gaussian" if gaussian else "bernoulli", *seen)


def playing(name: str, family: str, trial: int, tasks: Tasks) -> Curve:
    probe = get(family)
    player = make_player(name, model_of(probe), trial)
    return adaptation_curve(
        player, make_worlds(probe, len(tasks)), tasks, steps=trial - 1, episodes=1, generator=generator(1)
    )


# --- Gittins indices ---------------------------------------------------------------------------------------------


def test_discounted_indices_are_those_of_gittins_table() -> None:
    # Discount 0.9: successes a and failures b, prior included, from 1 to 4 (Gittins 1989, table 8.1).
    known = torch.tensor(
        [
            [0.7029, 0.5001, 0.3796, 0.3021],
            [0.8001, 0.6346, 0.5163, 0.4342],
            [0.8452, 0.7072, 0.6010, 0.5184],
            [0.8723, 0.7539, 0.6579, 0.5809],
        ],
        dtype=DOUBLE,
    )
    table = gittins_indices(86, 0.9)[80]
    torch.testing.assert_close(table[:4, :4], known, rtol=0.0, atol=2e-4)


def test_indices_of_the_last_pulls_by_hand() -> None:
    tables = gittins_indices(20)
    for successes, failures in itertools.product(range(4), range(4)):
        mean = (successes + 1.0) / (successes + failures + 2.0)
        assert tables[1][successes, failures].item() == pytest.approx(mean, abs=1e-9)
    # Two pulls of a fresh arm: 2 λ = 1/2 (1 + 2/3) + 1/2 λ, since after a failure its mean 1/3 is below λ.
    assert tables[2][0, 0].item() == pytest.approx(5.0 / 9.0, abs=1e-4)
    # After a failure, mean 1/3: 2 λ = 1/3 (1 + 1/2) + 2/3 λ.
    assert tables[2][0, 1].item() == pytest.approx(3.0 / 8.0, abs=1e-4)


@pytest.mark.parametrize(("successes", "failures", "left"), [(0, 0, 5), (1, 0, 6), (0, 2, 7), (3, 2, 6), (2, 5, 4)])
def test_indices_are_where_giving_up_is_as_good(successes: int, failures: int, left: int) -> None:
    known = gittins_indices(15)[left][successes, failures].item()

    @cache
    def value(a: int, b: int, pulls: int) -> float:
        return 0.0 if pulls == 0 else max(pulls * known, go_on(a, b, pulls))

    def go_on(a: int, b: int, pulls: int) -> float:
        p = (a + 1.0) / (a + b + 2.0)
        return p * (1.0 + value(a + 1, b, pulls - 1)) + (1.0 - p) * value(a, b + 1, pulls - 1)

    assert go_on(successes, failures, left) == pytest.approx(left * known, abs=2e-3)


def test_a_longer_rest_is_worth_more_exploration() -> None:
    tables = gittins_indices(30)
    fresh = [tables[left][0, 0].item() for left in range(1, 31)]
    assert fresh == sorted(fresh)
    assert fresh[0] == pytest.approx(0.5)
    assert fresh[-1] > 0.7


def test_gittins_play_is_nearly_the_best_possible() -> None:
    # Exactly, by recursion over all beliefs about two arms.
    tables = gittins_indices(8)

    @cache
    def value(a: int, b: int, c: int, d: int, left: int, rule: str) -> float:
        if left == 0:
            return 0.0
        first, second = (a + 1.0) / (a + b + 2.0), (c + 1.0) / (c + d + 2.0)
        gains = (
            first * (1.0 + value(a + 1, b, c, d, left - 1, rule))
            + (1.0 - first) * value(a, b + 1, c, d, left - 1, rule),
            second * (1.0 + value(a, b, c + 1, d, left - 1, rule))
            + (1.0 - second) * value(a, b, c, d + 1, left - 1, rule),
        )
        if rule == "optimal":
            return max(gains)
        horizon = left if rule == "gittins" else 1
        return gains[int(tables[horizon][c, d] > tables[horizon][a, b] + 1e-9)]

    optimal, index, greedy = (value(0, 0, 0, 0, 8, rule) for rule in ("optimal", "gittins", "greedy"))
    assert optimal >= index > 0.999 * optimal
    assert greedy < index


def test_gittins_knows_when_its_trial_is_over() -> None:
    score = gittins(3)
    assert score(arms([1.0, 0.0], [1.0, 1.0]), 1, generator()).shape == (1, 1, 2)
    with pytest.raises(UserError, match="got pull 4 of a trial of 3"):
        score(arms([1.0, 0.0], [2.0, 1.0]), 1, generator())


# --- other rules -------------------------------------------------------------------------------------------------


def test_ucb1_by_hand() -> None:
    seen = arms([2.0, 0.0, 0.0], [3.0, 1.0, 0.0])
    bonus = UCB_SCALE["bernoulli"] * math.sqrt(2.0 * math.log(4.0))
    expected = [3 / 5 + bonus / math.sqrt(5), 1 / 3 + bonus / math.sqrt(3), 1 / 2 + bonus / math.sqrt(2)]
    assert ucb1(seen, 1, generator())[0, 0].tolist() == pytest.approx(expected)
    normal = arms([2.0, -1.0], [3.0, 1.0], gaussian=True)
    bonus = UCB_SCALE["gaussian"] * math.sqrt(2.0 * math.log(4.0))
    assert ucb1(normal, 1, generator())[0, 0].tolist() == pytest.approx([0.5 + bonus / 2, -0.5 + bonus / math.sqrt(2)])
    auer = ucb1_auer(seen, 1, generator())[0, 0].tolist()
    assert auer == [
        pytest.approx(2 / 3 + math.sqrt(2 * math.log(4) / 3)),
        pytest.approx(math.sqrt(2 * math.log(4))),
        math.inf,
    ]


@pytest.mark.parametrize("family", ["bandit@bernoulli-10", "bandit@gaussian-10"])
def test_ucb1_of_auer_pulls_every_arm_once_first(family: str) -> None:
    probe = get(family)
    tasks = probe.space.sample(50, "test", generator())
    worlds, learner = make_worlds(probe, 50), make_player("ucb1-auer", model_of(probe), 20).start(tasks)
    for _ in range(10):
        learner = learner.learn(collect(worlds, learner.policy, tasks, 1, generator()))
    assert isinstance(learner, ArmLearner)
    assert (learner.arms.pulls == 1.0).all()


@pytest.mark.parametrize("gaussian", [False, True])
def test_thompson_draws_from_the_posterior(gaussian: bool) -> None:
    seen = arms([7.0, 0.0, 1.5 if gaussian else 1.0], [9.0, 0.0, 4.0], gaussian=gaussian)
    drawn = thompson(seen, 20_000, generator())
    assert drawn.shape == (1, 20_000, 3)
    for arm, (total, pulls) in enumerate(zip(seen.total[0, 0].tolist(), seen.pulls[0, 0].tolist(), strict=True)):
        posterior = (
            stats.norm(total / (pulls + 1.0), (pulls + 1.0) ** -0.5)
            if gaussian
            else stats.beta(1.0 + total, 1.0 + pulls - total)
        )
        assert stats.kstest(drawn[0, :, arm].numpy(), posterior.cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [1.0, 1.5, 4.0, 120.0])
def test_gamma_draws(shape: float) -> None:
    drawn = draw_gamma(torch.full((100, 200), shape, dtype=DOUBLE), generator())
    assert drawn.shape == (100, 200)
    assert stats.kstest(drawn.flatten().numpy(), stats.gamma(shape).cdf).pvalue > 1e-3


def test_epsilon_greedy_explores_now_and_then() -> None:
    scores = epsilon_greedy(arms([0.0, 5.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0]), 20_000, generator())
    others = (scores.argmax(-1) != 1).double().mean().item()
    assert others == pytest.approx(0.75 * EPSILON, abs=4.0 * math.sqrt(0.075 / 20_000))


def test_beliefs_grow_with_experience() -> None:
    actions = torch.nn.functional.one_hot(torch.tensor([[0, 1, 1], [1, 1, 1]]), 2).float()[:, :, None]
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])[:, :, None]
    learner = make_player("thompson", BERNOULLI, 10).start(two_tasks())
    assert isinstance(learner, ArmLearner)
    later = learner.learn(episodes(actions, rewards)).learn(episodes(actions, rewards))
    assert isinstance(later, ArmLearner)
    assert later.arms.pulls.tolist() == [[2.0, 4.0], [0.0, 6.0]]
    assert later.arms.total.tolist() == [[2.0, 2.0], [0.0, 2.0]]
    # The learner itself is as it was.
    assert not learner.arms.pulls.any()


def two_tasks() -> Tasks:
    return Tasks("bandit@two", {"mean": torch.full((2, 2), 0.5, dtype=DOUBLE)})


def episodes(actions: Tensor, rewards: Tensor, observations: Tensor | None = None, final: Tensor | None = None):
    count, per_task, steps = rewards.shape
    return Trajectories(
        observations=torch.zeros(count, per_task, steps, 1) if observations is None else observations,
        actions=actions,
        rewards=rewards,
        mask=torch.ones_like(rewards),
        terminated=torch.zeros(count, per_task, dtype=torch.bool),
        final_observations=torch.zeros(count, per_task, 1) if final is None else final,
        tasks=two_tasks(),
    )


# --- MDPs --------------------------------------------------------------------------------------------------------


def random_mdps(count: int, model: MdpModel = TINY) -> Mdps:
    size = (count, model.states, model.actions)
    rows = torch.rand(*size, model.states, generator=generator(), dtype=DOUBLE)
    return Mdps(rows / rows.sum(3, keepdim=True), torch.randn(size, generator=generator(1), dtype=DOUBLE))


def test_plans_are_the_best_of_all_policies() -> None:
    mdps = random_mdps(5)
    best, value = mdps.plan(3)
    # Every choice of an action in 3 steps x 2 states, evaluated from each of the two states.
    choices = [torch.tensor(choice).reshape(3, 2) for choice in itertools.product((0, 1), repeat=6)]
    for mdp in range(5):
        found = torch.stack([evaluate(mdps, mdp, choice) for choice in choices])
        torch.testing.assert_close(value[mdp], found.max(0).values)
        torch.testing.assert_close(value[mdp], evaluate(mdps, mdp, best[:, mdp]))


def evaluate(mdps: Mdps, mdp: int, choice: Tensor) -> Tensor:
    """Return the exact value of a deterministic policy [T, S], forward in time from either state."""
    values = []
    for start in (0, 1):
        chance, value = torch.zeros(2, dtype=DOUBLE), 0.0
        chance[start] = 1.0
        for actions in choice:
            value += sum(chance[s] * mdps.reward[mdp, s, actions[s]] for s in (0, 1))
            chance = torch.stack([chance[s] * mdps.transition[mdp, s, actions[s]] for s in (0, 1)]).sum(0)
        values.append(torch.as_tensor(value))
    return torch.stack(values)


def test_transitions_and_rewards_are_counted() -> None:
    # Task 0, one episode: 0 -a1-> 1 -a0-> 1 -a0-> 0.
    observations = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]], [[[1.0, 0.0]] * 3]])
    final = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    actions = torch.tensor([[[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]], [[[1.0, 0.0]] * 3]])
    rewards = torch.tensor([[[2.0, 3.0, 5.0]], [[1.0, 1.0, 1.0]]])
    belief = MdpBelief(torch.zeros(2, 2, 2, 2, dtype=DOUBLE), torch.zeros(2, 2, 2, dtype=DOUBLE), 0.5)
    seen = belief.learn(episodes(actions, rewards, observations, final))
    assert seen.counts[0].tolist() == [[[0, 0], [0, 1]], [[1, 1], [0, 0]]]
    assert seen.counts[1].tolist() == [[[2, 1], [0, 0]], [[0, 0], [0, 0]]]
    assert seen.total[0].tolist() == [[0, 2], [8, 0]]
    mean = seen.mean
    assert mean.transition[1, 0, 0].tolist() == pytest.approx([3 / 5, 2 / 5])
    # Prior mean 0.5 counts as one reward.
    assert mean.reward[0].tolist() == [[0.5, 1.25], [pytest.approx(8.5 / 3), 0.5]]
    assert not belief.counts.any()


def test_psrl_samples_the_posterior() -> None:
    counts = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [6.0, 2.0]]]], dtype=DOUBLE)
    belief = MdpBelief(counts, 2.0 * counts.sum(3), 0.0)
    drawn = belief.sample(20_000, generator())
    for s, a in itertools.product((0, 1), (0, 1)):
        alpha, beta = (counts[0, s, a] + 1.0).tolist()
        visits = counts[0, s, a].sum().item()
        first = stats.kstest(drawn.transition[:, s, a, 0].numpy(), stats.beta(alpha, beta).cdf)
        normal = stats.norm(2.0 * visits / (visits + 1.0), (visits + 1.0) ** -0.5)
        assert min(first.pvalue, stats.kstest(drawn.reward[:, s, a].numpy(), normal.cdf).pvalue) > 1e-3
    torch.testing.assert_close(drawn.transition.sum(3), torch.ones(20_000, 2, 2, dtype=DOUBLE))


def test_a_plan_is_made_once_an_episode() -> None:
    probe = get("tabular-mdp")
    tasks = probe.space.sample(4, "test", generator())
    learner = make_player("psrl", model_of(probe), 10).start(tasks)
    assert isinstance(learner, MdpLearner)
    policy, random, state = learner.policy, generator(), torch.eye(10)[[2, 2, 7, 7]]
    start = random.get_state()
    actions = [policy.act(state, random) for _ in range(10)]
    spent = random.get_state()
    assert not torch.equal(spent, start)
    again = [policy.act(state, random) for _ in range(2)]
    assert not torch.equal(random.get_state(), spent)
    assert all((action.sum(1) == 1.0).all() for action in actions + again)
    # After one act of the second episode, the second one draws nothing.
    before = random.get_state()
    policy.act(state, random)
    assert torch.equal(random.get_state(), before)


# --- the two ends, exactly ---------------------------------------------------------------------------------------


def test_random_play_has_its_expectation() -> None:
    tasks = get("bandit").space.sample(2_000, "test", generator())
    total = playing("random", "bandit", 10, tasks).returns.sum(0)
    expected = 10.0 * tasks["mean"].mean(1)
    assert (total - expected).mean().abs() < 4.0 * (total - expected).std() / math.sqrt(2_000)

    tasks = get("tabular-mdp").space.sample(500, "test", generator())
    model = model_of(get("tabular-mdp"))
    assert isinstance(model, MdpModel)
    mdps = true_mdps(model, tasks)
    # Under random actions an MDP is a chain with mean transitions and rewards.
    chain, reward = mdps.transition.mean(2), mdps.reward.mean(2)
    chance = torch.zeros(500, 10, dtype=DOUBLE)
    chance[:, 0] = 1.0
    value = torch.zeros(500, dtype=DOUBLE)
    for _ in range(10):
        value += (chance * reward).sum(1)
        chance = torch.einsum("bs,bsz->bz", chance, chain)
    total = playing("random", "tabular-mdp", 4, tasks).returns.sum(0)
    assert (total - 4.0 * value).mean().abs() < 4.0 * (total - 4.0 * value).std() / math.sqrt(500)


@pytest.mark.parametrize("family", ["bandit@bernoulli-5", "bandit@gaussian-5", "tabular-mdp"])
def test_the_clairvoyant_reaches_the_ceiling(family: str) -> None:
    tasks = get(family).space.sample(800, "test", generator())
    excess = playing("clairvoyant", family, 3, tasks).returns.sum(0) - 3.0 * ceiling(model_of(get(family)), tasks)
    assert excess.mean().abs() < 4.0 * excess.std() / math.sqrt(800)


def test_the_expected_ceiling_is_the_mean_of_the_largest() -> None:
    model = BanditModel(arms=5, rewards="bernoulli")
    tasks = fresh_tasks(get("bandit"), 50_000, 0)
    assert expected_ceiling(model, 10) == pytest.approx(10.0 * 5 / 6)
    assert 10.0 * ceiling(model, tasks).mean().item() == pytest.approx(10.0 * 5 / 6, abs=0.03)
    assert expected_ceiling(BanditModel(arms=5, rewards="gaussian"), 10) is None


# --- published figures -------------------------------------------------------------------------------------------


def without_luck(result: dict[str, Any], mean: float) -> float:
    """Return a mean less what the drawn tasks are better than all tasks, where that is known."""
    expected = result["expected_ceiling"]
    return mean if expected is None else mean - (result["ceiling"] - expected)


@pytest.mark.parametrize(("family", "trial"), list(PUBLISHED))
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
    family, agent, _ = load_agent(runs[0], "last", torch.device("cpu"))
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


# --- the rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bandit@bernoulli-5", "bandit@gaussian-10", "tabular-mdp"])
def test_every_player_is_an_agent(family: str) -> None:
    probe = get(family)
    tasks = probe.space.sample(3, "test", generator())
    for name in players(model_of(probe), 6):
        player = make_player(name, model_of(probe), 6)
        assert isinstance(player, MetaAgent)
        learner = player.start(tasks)
        assert isinstance(learner, Learner)
        # K = 2 episodes of each task at a time.
        worlds = make_worlds(probe, 6)
        curve = adaptation_curve(player, worlds, tasks, steps=2, episodes=2, generator=generator())
        again = adaptation_curve(player, worlds, tasks, steps=2, episodes=2, generator=generator())
        assert curve.returns.shape == (3, 3)
        assert torch.equal(curve.returns, again.returns)
        assert player.state_dict() == {}
        player.load_state_dict({})
        with pytest.raises(ValueError, match="has no state"):
            player.load_state_dict({"w": 1})
        with pytest.raises(UserError, match=f"'{name}' is never trained"):
            player.train_iteration(worlds, probe.space.sample, Streams(0))


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
        ("--tasks 20000000000", ["--tasks 20000000000", "GiB of memory"]),
        ("--tasks 5 --episodes 9000000000 --players random", ["9000000000 episodes", "GiB of memory"]),
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


def test_long_trials_are_played_without_gittins() -> None:
    assert "gittins" not in players(BERNOULLI, MOST_PULLS + 1)
    assert "thompson" in players(BERNOULLI, MOST_PULLS + 1)
    assert isinstance(make_player("thompson", BERNOULLI, MOST_PULLS + 1), Player)
    assert cli_play.PLAY.count("gittins") == 1
