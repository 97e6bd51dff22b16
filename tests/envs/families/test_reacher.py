"""reacher-goal: its reward and success worked out by hand; the goal is not seen."""

from __future__ import annotations

import torch

from metarl.envs import make_worlds
from metarl.types import Record
from tests.helpers.by_hand import robot, state, succeeds, terms
from tests.helpers.toys import seeded as generator


def test_reacher_goal_reward_and_success() -> None:
    family = robot("reacher-goal")
    task: Record = {"goal": [0.0, 0.1]}
    far = {"xpos": {(3, 0): 0.03, (3, 1): 0.06, (3, 2): 0.01}}
    assert terms("reacher-goal", {}, state(family, **far), 0.5, **task) == {"distance": -0.05, "control": -0.5}
    assert not succeeds("reacher-goal", task, **far)
    assert not succeeds("reacher-goal", task, xpos={(3, 1): 0.0805})
    assert succeeds("reacher-goal", task, xpos={(3, 1): 0.0815})
    assert family.terminated(state(family), family.space.from_records([task])) is None


def test_reachers_with_other_goals_look_the_same() -> None:
    family = robot("reacher-goal")
    worlds, other = (make_worlds(family, 3, threads=1, dtype=torch.float64) for _ in range(2))
    for each, seed in ((worlds, 1), (other, 2)):
        each.set_tasks(family.space.sample(3, "train", generator(seed)))
        each.reset(generator())
    for _ in range(5):
        step, blind = worlds.step(torch.ones(3, 2)), other.step(torch.ones(3, 2))
        assert torch.equal(step.observation, blind.observation)
        assert (step.reward != blind.reward).all()
