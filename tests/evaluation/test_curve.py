from __future__ import annotations

import pytest
import torch

from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.curve import adaptation_curve
from metarl.learning.rollout import collect
from metarl.types import MemoryPolicy
from tests.helpers.curves import FAMILY, TASKS, entry, made_up, remembering, untrained
from tests.helpers.toys import seeded


def test_curve_is_the_learner_stepped_by_hand() -> None:
    agent, worlds = untrained(), make_worlds(FAMILY, 12, threads=1)
    curve = adaptation_curve(agent, worlds, TASKS, steps=2, episodes=3, generator=seeded(1))

    generator, learner, expected = seeded(1), agent.start(TASKS), []
    for _ in range(3):
        episodes = collect(worlds, learner.policy, TASKS, 3, generator)
        expected.append(episodes.rewards.sum(2).double().mean(1))
        learner = learner.learn(episodes)
    assert curve.episodes == (0, 3, 6)
    assert torch.equal(curve.returns, torch.stack(expected))
    assert not torch.equal(curve.returns[0], curve.returns[1])


def test_episodes_of_a_memory_are_those_of_trials() -> None:
    agent, worlds = remembering(), make_worlds(FAMILY, 12, threads=1)
    curve = adaptation_curve(agent, worlds, TASKS, steps=2, episodes=3, generator=seeded(1))
    assert curve.episodes == (0, 1, 2)
    assert (curve.parallel, curve.pools) == (3, False)

    # Three trials of every task: one policy, which remembers, in worlds that keep their tasks.
    generator, policy, expected = seeded(1), agent.start(TASKS).policy, []
    assert isinstance(policy, MemoryPolicy)
    worlds.set_tasks(TASKS.repeat(3))
    for _ in range(3):
        observation, total = worlds.reset(generator), torch.zeros(12, dtype=torch.float64)
        policy.begin_episode()
        for _ in range(FAMILY.horizon):
            step = worlds.step(policy.act(observation, generator))
            policy.see(step.reward, step.terminated | step.truncated)
            observation, total = step.observation, total + step.reward
        expected.append(total.reshape(4, 3).mean(1))
    torch.testing.assert_close(curve.returns, torch.stack(expected), rtol=0.0, atol=1e-4)


def test_a_switch_counts_the_steps_of_all_episodes_of_a_memory() -> None:
    # An episode is 100 steps.
    family = get("point-nav+switch=120..150")
    tasks, worlds = family.space.sample(4, "test", seeded(0)), make_worlds(family, 8, threads=1)
    for agent, part in ((remembering(2), "later_goal"), (untrained(), "goal")):
        adaptation_curve(agent, worlds, tasks, steps=1, episodes=2, generator=seeded(1))
        assert worlds.present is not None
        assert torch.equal(worlds.present["goal"], tasks.repeat(2)[part]), agent.name


@pytest.mark.parametrize(("steps", "episodes"), [(-1, 2), (1, 0)])
def test_impossible_lengths_are_refused(steps: int, episodes: int) -> None:
    with pytest.raises(UserError, match="0 or more steps"):
        adaptation_curve(
            untrained(), make_worlds(FAMILY, 4), TASKS, steps=steps, episodes=episodes, generator=seeded(0)
        )


def test_other_tasks_are_refused() -> None:
    others = FAMILY.space.sample(4, "test", seeded(9))
    with pytest.raises(ValueError, match="same tasks"):
        made_up(oracle=entry("oracle", [[0.0, 0.0, 0.0, 0.0]], tasks=others))
