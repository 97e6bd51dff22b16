"""point-nav: its reward and end worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.envs import get, make_worlds
from metarl.learning.rollout import collect
from tests.helpers.toys import seeded as generator


def test_point_nav_reward() -> None:
    family = get("point-nav@maml17")
    state = {"position": torch.tensor([[0.3, 0.1]], dtype=torch.float64)}
    tasks = family.space.from_records([{"goal": [0.0, 0.5]}])
    reward = family.reward_terms({}, state, torch.zeros(1, 2, dtype=torch.float64), tasks)
    assert {name: value.item() for name, value in reward.items()} == {"distance": pytest.approx(-0.5)}


def test_point_nav_ends_at_its_goal_and_clips_its_moves() -> None:
    family = get("point-nav")
    worlds = make_worlds(family, 3, unit_actions=False, dtype=torch.float64)
    worlds.set_tasks(family.space.from_records([{"goal": goal} for goal in ([0.1, 0.0], [0.1, 0.2], [0.2, 0.0])]))
    worlds.reset(generator())
    step = worlds.step(torch.tensor([[0.7, 0.0]] * 3))
    assert step.observation.tolist() == [[0.1, 0.0]] * 3
    assert step.terminated.tolist() == [True, False, False]
    assert not step.truncated.any()
    assert step.reward.tolist() == pytest.approx([0.0, -0.2, -0.1])
    # Within 0.01 on both axes, not only on one.
    step = worlds.step(torch.tensor([[0.0, 0.0], [0.0, 0.1], [0.0, 0.0]]))
    step = worlds.step(torch.tensor([[0.0, 0.0], [0.0, 0.091], [0.091, 0.009]]))
    assert step.terminated.tolist() == [False, True, True]


def test_what_it_says_is_best_comes_to_the_goal_in_the_fewest_steps() -> None:
    family = get("point-nav")
    assert family.spec().optimal_action is not None
    goals = ([0.45, -0.12], [-0.3, 0.3], [0.05, 0.02])
    tasks = family.space.from_records([{"goal": goal} for goal in goals])

    class Knowing:
        def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
            return family.optimal_action(observation, tasks)

    played = collect(make_worlds(family, 3, dtype=torch.float64), Knowing(), tasks, 1, generator())
    # At .1 a step on each axis, within .01 of it.
    assert played.mask.sum(2).flatten().tolist() == [5.0, 3.0, 1.0]
