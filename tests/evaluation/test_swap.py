from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.probe import memories
from metarl.evaluation.remembering import Remembering
from metarl.evaluation.swap import last_episodes, partners
from metarl.learning.recall import Actor
from tests.helpers.memories import DOORS, POINT, MadeUp, mixed, probed, rl2, shown
from tests.helpers.toys import normal, seeded
from tests.helpers.trials import unscaled


def test_behaviour_follows_the_memory_that_is_carried() -> None:
    swap = probed(MadeUp(DOORS, mixed, ignores_memory=False))["swap"]
    assert swap["episodes"] == 1
    for figure in ("return", "success"):
        # Another task has another door; without memory the first is taken, the right one of every third task.
        assert [swap[whose][figure]["estimate"] for whose in ("own", "other")] == [1.0, 0.0]
        assert swap["none"][figure]["estimate"] == pytest.approx(1 / 3)
        assert swap["own_minus_other"][figure] == {"estimate": 1.0, "lower": 1.0, "upper": 1.0}
        gain = swap["own_minus_none"][figure]
        assert gain["estimate"] == pytest.approx(2 / 3)
        assert 0.5 < gain["lower"] < gain["estimate"] < gain["upper"] < 0.8
    assert swap["first_action"]["estimate"] == 1.0


def test_nothing_but_the_memory_differs() -> None:
    # The task changes in the last episode, and every world has steps of its trial behind it in all three.
    family = get("point-nav+switch=120..180")
    tasks = family.space.sample(5, "test", seeded(0))
    played = last_episodes(MadeUp(family, mixed), make_worlds(family, 5), tasks, seeded(1))
    assert list(played) == ["own", "other", "none"]
    for episode in played.values():
        assert torch.equal(episode.rewards, played["own"].rewards)
        assert torch.equal(episode.actions, played["own"].actions)
    assert len(played["own"].rewards.unique()) > 100


def test_a_trial_of_one_episode_has_no_swap() -> None:
    result = probed(MadeUp(POINT, mixed, trial=1))
    assert result["swap"] is None
    assert [point["episodes"] for point in result["probe"][0]["points"]] == [0, 1]
    assert "No swap" in shown(result)


def test_partners_are_other_tasks() -> None:
    tasks = DOORS.space.sample(30, "train", seeded(0))
    order = partners(tasks)
    assert bool((tasks["door"] != tasks["door"][order]).all())
    assert partners(POINT.space.sample(4, "train", seeded(0))).tolist() == [1, 2, 3, 0]
    with pytest.raises(UserError, match="the same"):
        partners(tasks.select([0, 0, 0]))


OPTIONS: list[dict[str, Any]] = [
    *({"core": core} for core in ("gru", "lstm", "transformer", "hyper")),
    {"head_observations": True},
]
"""Of rl2."""


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rl2_carries_everything_it_remembers(options: dict[str, Any]) -> None:
    agent = rl2(**options)
    unscaled(agent.inputs)
    policy = agent.start(POINT.space.sample(4, "test", seeded())).policy
    assert isinstance(policy, Remembering)
    assert isinstance(policy, Actor)
    generator, order = seeded(1), torch.tensor([2, 0, 0, 1])

    def meet(observation: torch.Tensor, reward: float, ended: list[bool]) -> None:
        policy.act(observation, generator)
        policy.see(reward * torch.arange(1.0, 5.0), torch.tensor(ended))

    policy.begin_episode()
    meet(normal(4, 2, seed=2).float(), 1.0, [False] * 4)
    # World 0 waits while the others go on.
    meet(normal(4, 2, seed=3).float(), 2.0, [True, False, False, False])
    meet(normal(4, 2, seed=4).float(), 3.0, [False] * 4)
    moment = normal(4, 2, seed=5).float()
    seen = policy.look(moment)[0]
    carried = policy.carried(order)
    # World 0's features mean nothing while it waits; those of the others, wherever they are, are theirs.
    torch.testing.assert_close(carried.look(moment[order])[0][[0, 3]], seen[[2, 1]])

    # It waits on, and the others take in the moment.
    policy.act(moment, generator)
    carried.act(moment[order], generator)
    assert policy.memory is not None
    assert carried.memory is not None
    for mine, its in zip(policy.memory, carried.memory, strict=True):
        torch.testing.assert_close(its, mine[order])
    for one in (policy, carried):
        one.see(torch.ones(4), torch.tensor([True] * 4))

    policy.begin_episode()
    carried = policy.carried(order)
    carried.begin_episode()
    seen = policy.look(moment)[0]
    torch.testing.assert_close(carried.look(moment[order])[0], seen[order])
    # Going on in the copy leaves the original as it was.
    carried.act(-moment, generator)
    carried.see(torch.ones(4), torch.tensor([False] * 4))
    carried.act(-moment, generator)
    assert torch.equal(policy.look(moment)[0], seen)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rl2_is_probed_with_the_last_reward_in_its_memory(options: dict[str, Any]) -> None:
    agent = rl2(**options)
    unscaled(agent.inputs)
    tasks = POINT.space.sample(4, "test", seeded())
    moment, looks = torch.zeros(4, 2), []
    for reward in (0.0, 1.0):
        policy = agent.start(tasks).policy
        policy.begin_episode()
        policy.act(moment, seeded(1))
        policy.see(torch.full((4,), reward), torch.tensor([True] * 4))
        policy.begin_episode()
        looks.append(policy.look(moment)[0])
    assert bool(((looks[0] - looks[1]).abs() > 1e-3).any(1).all())
    # As many moments as a trial has, and the one behind it, fit into a transformer.
    assert memories(agent, make_worlds(POINT, 4), tasks, seeded()).shape == (3, 4, 8)
