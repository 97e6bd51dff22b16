"""Every player as an agent; and the two ends, random play and the ceiling, exactly."""

from __future__ import annotations

import math

import pytest
import torch

from metarl.agents.players.bandit import MOST_PULLS, BanditModel
from metarl.agents.players.mdp import MdpModel, true_mdps
from metarl.agents.players.roster import Player, ceiling, expected_ceiling, make_player, players
from metarl.cli.play import fresh_tasks, model_of
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.curve import Curve, adaptation_curve
from metarl.seeding import Streams
from metarl.types import Learner, MetaAgent, Tasks
from tests.helpers.toys import DOUBLE
from tests.helpers.toys import seeded as generator

BERNOULLI = BanditModel(arms=2, rewards="bernoulli")


def playing(name: str, family: str, trial: int, tasks: Tasks) -> Curve:
    probe = get(family)
    player = make_player(name, model_of(probe), trial)
    return adaptation_curve(
        player, make_worlds(probe, len(tasks)), tasks, steps=trial - 1, episodes=1, generator=generator(1)
    )


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
    assert expected_ceiling(model_of(get("bandit@dpt23")), 10) == pytest.approx(10.0 * 5 / 6)
    assert expected_ceiling(BanditModel(arms=5, rewards="gaussian"), 10) is None


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


def test_long_trials_are_played_without_gittins() -> None:
    assert "gittins" not in players(BERNOULLI, MOST_PULLS + 1)
    assert "thompson" in players(BERNOULLI, MOST_PULLS + 1)
    assert isinstance(make_player("thompson", BERNOULLI, MOST_PULLS + 1), Player)
