"""push-shape: its reward worked out by hand, and a script that does it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metarl.envs.bodies.arm import LEFT, LIFT, OBJECT, hand_of
from metarl.envs.families.push_shape import goal_of
from metarl.types import Tasks
from tests.helpers.arm_worlds import LEVEL, assert_can_be_done, reward, servo, state


def test_push_reward() -> None:
    # Goal at (0.54, 0.06); object 0.1 m short, to be pushed from (0.39, 0.06, 0.03); grip point 0.05 m from there.
    terms, met = reward("push-shape", state([0.39, 0.03, 0.07], [0.44, 0.06, 0.03], LEVEL), goal=[0.0, 0.06])
    assert terms == {"goal": -1.0, "reach": -0.25, "success": 0.0}
    assert not met
    # Near the goal the place to push from comes nearer too: 0.05 * 0.039 / 0.04 m; farther away it is 0.05 m.
    for x, expected, reach in ((0.501, 1.0, -0.24375), (0.499, 0.0, -0.25)):
        terms, met = reward("push-shape", state([x, 0.06, 0.03], [x, 0.06, 0.03], LEVEL), goal=[0.0, 0.06])
        assert terms == {"goal": -10.0 * (0.54 - x), "reach": reach, "success": expected}
        assert met == (expected == 1.0)


class Pusher:
    """Goes to where object and goal are in line, with a closed hand, and pushes along that line."""

    def __init__(self, tasks: Tasks) -> None:
        self.goal = goal_of(tasks)
        self.gap = 0.5 * tasks["length"][:, None] + 0.03

    def __call__(self, qpos: Tensor) -> Tensor:
        grip, facing = hand_of(qpos)
        heading = torch.atan2(facing[:, 1], facing[:, 0])
        thing = qpos[:, OBJECT : OBJECT + 2]
        distance = (self.goal - thing).norm(dim=1, keepdim=True)
        ahead = (self.goal - thing) / distance
        behind = grip[:, :2] - thing
        along = (behind * ahead).sum(1, keepdim=True)
        aside = behind - along * ahead
        pushing = (aside.norm(dim=1, keepdim=True) < 0.015) & (along < 0.0)
        push = ahead * (3.0 * distance).clamp_max(0.25) - 6.0 * aside
        velocity = torch.where(pushing, push, 6.0 * (thing - ahead * self.gap - grip[:, :2])) * (distance > 0.02)
        velocity = velocity * (0.3 / velocity.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1.0)
        turn = (torch.atan2(ahead[:, 1], ahead[:, 0]) - heading + math.pi) % (2.0 * math.pi) - math.pi
        down = 8.0 * (0.008 - qpos[:, LIFT])
        return servo(qpos, torch.cat([velocity, down[:, None]], dim=1), 4.0 * turn, -10.0 * qpos[:, LEFT])


def test_can_be_done() -> None:
    assert_can_be_done("push-shape", Pusher, rate=0.8, once=True)
