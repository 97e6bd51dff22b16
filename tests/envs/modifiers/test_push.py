"""+push: when, whereto and how hard a body is pushed, against forces written into plain MuJoCo by hand."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs import chance
from metarl.envs.family import MujocoFamily
from metarl.envs.modifiers.effect import KEY, STEP
from metarl.envs.modifiers.push import SALT
from metarl.errors import UserError
from tests.helpers.modified import actions_for, begun, by_hand, modified, stepped
from tests.helpers.toys import seeded


def test_forces_are_those_of_the_drawn_pushes() -> None:
    name = "ant-dir+push=1..20"
    tasks = [
        {"direction": 1.0, "push_impulse": impulse, "push_rate": 1.4} for impulse in (3.0, 6.0, 9.0, 3.0, 6.0, 9.0)
    ]
    # Steps of .05 s: so many that some are pushed.
    seed, steps = 3, 16
    worlds = begun(name, tasks, seed)
    family = modified(name)
    assert isinstance(family, MujocoFamily)
    key, torso = worlds.state[KEY] ^ SALT, family.model.body("torso").id
    actions, pushes, wanted = actions_for(worlds, steps), 0, []
    for world, task in enumerate(tasks):

        def force(step: int, data: mujoco.MjData, world: int = world, impulse: float = task["push_impulse"]) -> None:
            nonlocal pushes
            when, whereto = chance.uniform(key[world : world + 1], step, 2)[0].tolist()
            pushed = when < 1.4 * 0.05
            pushes += pushed
            angle = 2.0 * math.pi * whereto
            data.xfrc_applied[torso, :2] = np.array([math.cos(angle), math.sin(angle)]) * (impulse / 0.05 * pushed)

        wanted.append(by_hand(worlds, world, family.model, actions[:, world], force))
    assert pushes >= 2
    positions, _, _ = stepped(worlds, actions)
    for world in range(len(tasks)):
        ended = int(worlds._elapsed[world])
        np.testing.assert_allclose(positions[:ended, world], wanted[world][0][:ended], rtol=0, atol=1e-6)


def test_an_impulse_changes_the_momentum_by_as_much() -> None:
    name = "swimmer-vel+push=1..20,mid"
    family = modified(name)
    assert isinstance(family, MujocoFamily)
    tasks = family.space.from_records([{"velocity": 0.1, "push_impulse": 8.0, "push_rate": 1.5}])
    push = family.effects[0]
    steps = torch.arange(400)
    state = {KEY: chance.keys(seeded(), 1).expand(400), STEP: steps}
    forces = push.disturb(state, tasks.select([0] * 400))
    assert forces is not None
    hit = forces[:, family.model.body("mid").id]
    strength = hit.norm(dim=1) * family.step_seconds
    assert set(strength.round(decimals=9).tolist()) == {0.0, 8.0}
    assert not forces.sum(1).sub(hit).any()
    share = (strength > 0).double().mean().item()
    chance_of_one = 1.5 * family.step_seconds
    assert abs(share - chance_of_one) < 4.0 * math.sqrt(chance_of_one / 400)


def test_defaults_are_of_the_robots_mass() -> None:
    found = {p.name: (p.low, p.high) for p in modified("half-cheetah-vel+push").space.parameters}
    assert found["push_impulse"] == (pytest.approx(3.5), pytest.approx(14.0))
    with pytest.raises(UserError, match=r"got impulses of \+push from 3.0 to 1.0: give 0 <= LOW < HIGH"):
        modified("half-cheetah-vel+push=3..1")
    with pytest.raises(UserError, match=r"got \+push for the body 'tors' of half-cheetah-vel@v5. Did you mean 'torso'"):
        modified("half-cheetah-vel+push=tors")
