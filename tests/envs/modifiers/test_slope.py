"""+slope: gravity that is turned, against a plain model whose gravity is written by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from metarl.envs.family import MujocoFamily
from metarl.envs.modifiers.slope import Slope
from metarl.errors import UserError
from tests.helpers.modified import actions_for, begun, by_hand, modified, stepped
from tests.helpers.plain_mujoco import mujoco_family


def test_worlds_move_as_under_gravity_that_is_turned() -> None:
    name = "ant-dir+gravity+slope"
    tasks = [
        {"direction": 1.0, "gravity_factor": 0.8, "slope_angle": 0.15, "slope_heading": [0.6, 0.8]},
        {"direction": 1.0, "gravity_factor": 1.0, "slope_angle": 0.25, "slope_heading": [-1.0, 0.0]},
    ]
    worlds = begun(name, tasks)
    actions, wanted = actions_for(worlds), []
    for world, (factor, angle, x, y) in enumerate(((0.8, 0.15, 0.6, 0.8), (1.0, 0.25, -1.0, 0.0))):
        model = copy.copy(mujoco_family("ant-dir").model)
        pull = 9.81 * factor
        model.opt.gravity[:] = pull * math.sin(angle) * x, pull * math.sin(angle) * y, -pull * math.cos(angle)
        wanted.append(by_hand(worlds, world, model, actions[:, world]))
    positions, velocities, _ = stepped(worlds, actions)
    for world in range(2):
        np.testing.assert_allclose(positions[:, world], wanted[world][0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(velocities[:, world], wanted[world][1], rtol=0, atol=1e-8)


def test_says_what_is_wrong() -> None:
    with pytest.raises(UserError, match=r"got angles of \+slope from -0.1 to 0.2: give 0 <= LOW < HIGH"):
        Slope(low=-0.1, high=0.2)
    with pytest.raises(UserError, match=r"got angles of \+slope up to 20: give radians, at most 1.57"):
        modified("ant-dir+slope=10..20")
    with pytest.raises(UserError, match=r"got '\+slope=each': give \+slope or \+slope=0..0.3"):
        modified("ant-dir+slope=each")
    sideways = copy.copy(mujoco_family("half-cheetah-vel"))
    vars(sideways)["model"] = copy.copy(sideways.model)
    sideways.model.opt.gravity[:] = 0.0, 1.0, 0.0
    assert isinstance(sideways, MujocoFamily)
    with pytest.raises(UserError, match=r"whose gravity is 0, 1, 0 m/s²: only one along -z is turned. Leave"):
        Slope().effect(sideways)
