"""States from observations, and how states are changed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.identification.states import Looking, states_seen


def looking_at(name: str, worlds: int) -> Looking:
    family = get(name)
    tasks = family.space.sample(1, "train", torch.Generator().manual_seed(0))
    made = make_worlds(family, worlds, threads=1, unit_actions=False, dtype=torch.float64)
    return Looking(family, made, tasks)


def test_an_observation_tells_its_state_but_for_where_the_robot_is() -> None:
    looking = looking_at("half-cheetah-vel+bias", 64)
    generator = torch.Generator().manual_seed(1)
    states = looking.starts(3, generator)
    states = looking.moved(states, 0.2 * torch.randn(3, 18, generator=generator, dtype=torch.float64))
    observations = looking.observe(states)
    found = states_seen(looking, observations.numpy(), generator)
    assert bool(found.right.all())
    assert float((looking.observe(found.states) - observations).abs().max()) < 1e-6
    assert float((found.states["qpos"] - states["qpos"])[:, 1:].abs().max()) < 1e-6
    assert float((found.states["qvel"] - states["qvel"]).abs().max()) < 1e-6
    # Of a single one all is told as well.
    alone = states_seen(looking, observations[:1].numpy(), generator)
    assert float((looking.observe(alone.states) - observations[:1]).abs().max()) < 1e-6
    observations[1, 8] = 1e30
    with pytest.raises(UserError, match=r"observations of 1e\+30 for number 8, .* \(m/s\), .* Check its unit\."):
        states_seen(looking, observations.numpy(), generator)
    # One direction is not seen: along the ground.
    assert found.hidden.shape == (1, 18)
    assert abs(float(found.hidden[0, 0])) > 0.999
    # The second number of a state is the first that is observed, one for one.
    assert torch.allclose(found.slopes[:, 0, 1], torch.ones(3, dtype=torch.float64), atol=1e-4)


def test_a_change_of_a_free_body_turns_it() -> None:
    looking = looking_at("ant-dir", 2)
    states = looking.starts(2, torch.Generator().manual_seed(0))
    states["qpos"][:, 3:7] = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    change = torch.zeros(2, looking.size(states), dtype=torch.float64)
    change[1, 5] = math.pi / 2
    change[1, -1] = 0.5
    moved = looking.moved(states, change)
    half: Tensor = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)], dtype=torch.float64)
    assert torch.equal(moved["qpos"][0], states["qpos"][0])
    assert torch.allclose(moved["qpos"][1, 3:7], half)
    assert torch.allclose((moved["qvel"] - states["qvel"])[:, -1], torch.tensor([0.0, 0.5], dtype=torch.float64))
