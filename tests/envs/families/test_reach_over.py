"""reach-over: its reward worked out by hand, and a script that does it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metarl.envs.bodies.arm import LEFT, LIFT, OBJECT, hand_of
from metarl.envs.bodies.shapes import KINDS
from metarl.envs.families.reach_over import CENTRE, PLACE
from metarl.types import Tasks
from tests.helpers.arm_worlds import LEVEL, assert_can_be_done, begin, reward, servo, state, tasks_of_kinds


def test_reach_over_reward() -> None:
    obstacle = [0.39, 0.0, 0.05]
    task = {"length": 0.15, "height": 0.1, "goal": [0.03, 0.0]}
    # 0.06 m before the goal, 0.1 m above it.
    terms, met = reward("reach-over", state([0.57, 0.0, 0.13], obstacle, LEVEL), **task)
    assert terms == {"reach": -0.6, "lower": -0.5 * math.exp(-1.0), "knock": 0.0, "success": 0.0}
    assert not met
    for x, expected in ((0.601, True), (0.599, False)):
        assert reward("reach-over", state([x, 0.0, 0.03], obstacle, LEVEL), **task)[1] == expected
    # At the goal, but the obstacle was moved by 0.04 m, or leans by 30 degrees.
    terms, met = reward("reach-over", state([0.63, 0.0, 0.03], [0.39, 0.04, 0.05], LEVEL), **task)
    assert terms == {"reach": 0.0, "lower": 0.0, "knock": -1.2, "success": 0.0}
    assert not met
    leaning = [math.cos(math.radians(15.0)), math.sin(math.radians(15.0)), 0.0, 0.0]
    terms, met = reward("reach-over", state([0.63, 0.0, 0.03], obstacle, leaning), **task)
    assert terms["knock"] == -(1.0 - math.cos(math.radians(30.0)))
    assert not met


class Crosser:
    """Rises over the obstacle, crosses it and goes down."""

    def __init__(self, tasks: Tasks) -> None:
        self.goal = tasks["goal"] + CENTRE
        self.over = tasks["height"] + 0.03

    def __call__(self, qpos: Tensor) -> Tensor:
        grip, _ = hand_of(qpos)
        off = self.goal - grip[:, :2]
        near = off.norm(dim=1) < 0.03
        up = torch.where(near, 0.015, self.over) - qpos[:, LIFT]
        high = (up < 0.02) | near
        forward = 4.0 * off * high[:, None]
        zero = torch.zeros_like(up)
        return servo(qpos, torch.cat([forward, 6.0 * up[:, None]], dim=1), zero, -10.0 * qpos[:, LEFT])


def test_can_be_done() -> None:
    assert_can_be_done("reach-over", Crosser, rate=0.95)


def test_obstacle_stands_in_its_place() -> None:
    _, physics = begin("reach-over", tasks_of_kinds("reach-over"))
    assert torch.equal(physics.state["qpos"][:, OBJECT : OBJECT + 2], PLACE.expand(len(KINDS), 2))
