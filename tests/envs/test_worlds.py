"""Worlds: scaled actions, where an episode ends, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from metarl.envs import get, make_worlds
from metarl.errors import UserError
from tests.helpers.toys import seeded as generator


def test_agents_actions_are_scaled_to_the_bounds() -> None:
    family = get("point-nav")
    worlds = make_worlds(family, 1, dtype=torch.float64)
    worlds.set_tasks(family.space.from_records([{"goal": [0.5, 0.5]}]))
    worlds.reset(generator())
    observation = worlds.step(torch.tensor([[-0.5, 3.0]])).observation
    assert observation.tolist() == [pytest.approx([-0.05, 0.1])]


def test_reaching_the_goal_in_the_last_step_is_no_truncation() -> None:
    family = get("point-nav")
    worlds = make_worlds(family, 1, unit_actions=False)
    worlds.set_tasks(family.space.from_records([{"goal": [0.1, 0.0]}]))
    worlds.reset(generator())
    for _ in range(family.horizon - 1):
        assert not worlds.step(torch.zeros(1, 2)).terminated
    step = worlds.step(torch.tensor([[0.1, 0.0]]))
    assert step.terminated.item()
    assert not step.truncated.item()


@pytest.mark.parametrize("name", ["half-cheetah-vel", "point-nav"])
def test_worlds_refuse_what_does_not_fit(name: str) -> None:
    family = get(name)
    with pytest.raises(UserError, match="got 0 worlds"):
        make_worlds(family, 0)
    worlds = make_worlds(family, 2, threads=1)
    action = torch.zeros(2, family.action_size)
    with pytest.raises(UserError, match="call set_tasks before reset"):
        worlds.reset(generator())
    with pytest.raises(UserError, match="call reset before step"):
        worlds.step(action)
    with pytest.raises(UserError, match=r"got 3 tasks for 2 worlds"):
        worlds.set_tasks(family.space.sample(3, "train", generator()))
    with pytest.raises(UserError, match="got tasks of ant-dir@v5, these worlds are"):
        worlds.set_tasks(get("ant-dir").space.sample(2, "train", generator()))
    worlds.set_tasks(family.space.sample(2, "train", generator()))
    worlds.reset(generator())
    with pytest.raises(UserError, match=r"got an action of shape \(2, 9\)"):
        worlds.step(torch.zeros(2, 9))
    for value in (float("nan"), float("inf")):
        action[1, 0] = value
        with pytest.raises(UserError, match="not finite in world 1"):
            worlds.step(action)
