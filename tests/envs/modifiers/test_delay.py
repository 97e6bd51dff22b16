"""+delay: which action reaches the actuators and which observation the agent, counted by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metarl.envs import chance, get
from metarl.envs.families.half_cheetah import HalfCheetahVel
from metarl.envs.modifiers.delay import ACTIONS, SALT, Delay
from metarl.envs.modifiers.effect import KEY
from metarl.errors import UserError
from tests.helpers.modified import actions_for, begun, by_hand, modified, robot

TASKS = [
    {"velocity": 1.0, "action_delay": 0.0, "observation_delay": 2.0, "delay_jitter": 0.0},
    {"velocity": 1.0, "action_delay": 2.0, "observation_delay": 0.0, "delay_jitter": 0.0},
    {"velocity": 1.0, "action_delay": 1.0, "observation_delay": 3.0, "delay_jitter": 0.5},
    {"velocity": 1.0, "action_delay": 5.0, "observation_delay": 5.0, "delay_jitter": 0.7},
]


def test_messages_arrive_when_they_should() -> None:
    name, steps = "half-cheetah-vel+delay", 12
    worlds = begun(name, TASKS)
    base = modified(name).base
    key = worlds.state[KEY] ^ SALT
    late = [chance.uniform(key, step, 2) for step in range(steps + 1)]
    assert worlds.tasks is not None
    true = [base.observe(worlds.physics.state, worlds.tasks).clone()]
    actions = actions_for(worlds, steps)
    jittered, controls = 0, torch.zeros(steps, len(TASKS), 6, dtype=torch.float64)
    for world, task in enumerate(TASKS):
        for step in range(steps):
            jitter = int(late[step][world, 0] < task["delay_jitter"])
            jittered += jitter
            sent = step - int(task["action_delay"]) - jitter
            if sent >= 0:
                controls[step, world] = actions[sent, world]
    wanted = [by_hand(worlds, world, robot(name).model, controls[:, world]) for world in range(len(TASKS))]
    seen = [worlds._observation.clone()]
    for number, action in enumerate(actions):
        seen.append(worlds.step(action).observation)
        true.append(base.observe(worlds.physics.state, worlds.tasks).clone())
        for world, (positions, velocities) in enumerate(wanted):
            np.testing.assert_array_equal(worlds.physics.state["qpos"][world].numpy(), positions[number])
            np.testing.assert_array_equal(worlds.physics.state["qvel"][world].numpy(), velocities[number])
    for world, task in enumerate(TASKS):
        for step in range(steps + 1):
            jitter = int(late[step][world, 1] < task["delay_jitter"])
            made = max(0, step - int(task["observation_delay"]) - jitter)
            assert torch.equal(seen[step][world], true[made][world]), (world, step)
    assert 3 <= jittered <= 20


def test_effort_is_that_of_the_action_that_is_given() -> None:
    worlds = begun("half-cheetah-vel+delay=2..2,action", [{"velocity": 1.0, "action_delay": 2.0, "delay_jitter": 0.0}])
    step = worlds.step(torch.full((1, 6), 0.5))
    assert step.terms["control"].item() == pytest.approx(-0.1 * 6 * 0.25)


def test_a_new_episode_has_no_messages_of_the_last() -> None:
    task = {"goal": [0.2, 0.2], "action_delay": 2.0, "observation_delay": 0.0, "delay_jitter": 0.0}
    worlds = begun("point-nav+delay", [task])
    moves = torch.tensor([[[0.1, 0.0]], [[0.0, 0.1]], [[0.0, 0.0]]], dtype=torch.float64)
    seen = stepped_points(worlds, moves)
    assert seen == [[0.0, 0.0], [0.0, 0.0], [pytest.approx(0.1), 0.0]]
    worlds.reset(torch.Generator().manual_seed(1))
    assert stepped_points(worlds, moves[:2]) == [[0.0, 0.0], [0.0, 0.0]]


def stepped_points(worlds, moves):
    return [worlds.step(move).observation[0].tolist() for move in moves]


def test_actions_of_rest_lie_within_the_bounds() -> None:
    base = get("half-cheetah-vel")
    assert isinstance(base, HalfCheetahVel)
    shifted = dataclasses.replace(base, action_low=(0.5,) * 6)
    effect = Delay().effect(shifted)
    assert effect.start(1)[ACTIONS].unique().tolist() == [0.5]


def test_choices_come_in_time_and_are_seen_late() -> None:
    with pytest.raises(UserError, match=r"got \+delay for bandit@bernoulli-5, whose actions are choices.*=observation"):
        get("bandit+delay")
    assert {p.name for p in get("tabular-mdp+delay=observation").space.parameters} >= {"observation_delay"}
