"""grasp-shape: its reward worked out by hand, and a script that does it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metarl.envs.bodies.arm import LIFT, OBJECT, hand_of
from metarl.types import Tasks
from tests.helpers.arm_worlds import LEVEL, assert_can_be_done, heading_of, reward, servo, state


def test_grasp_reward() -> None:
    # A level bar 0.06 m high whose middle is at 0.079 or 0.081 m: clearance 0.049 or 0.051 m.
    for height, expected in ((0.079, 0.0), (0.081, 1.0)):
        terms, met = reward("grasp-shape", state([0.45, 0.0, height - 0.02], [0.45, 0.0, height], LEVEL, finger=0.015))
        clear = height - 0.03
        assert terms == {"reach": -0.2, "close": 0.75 * 0.5, "lift": 40.0 * clear, "success": expected}
        assert met == (expected == 1.0)
    # Lying on the table, far off.
    terms, met = reward("grasp-shape", state([0.45, 0.0, 0.03], [0.45, 0.1, 0.029], LEVEL))
    assert terms == {"reach": -10.0 * math.hypot(0.1, 0.001), "close": 0.0, "lift": 0.0, "success": 0.0}
    # A bar on its end is no lifted one, nor is one thrown out of the hand.
    on_end = [math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]
    assert not reward("grasp-shape", state([0.45, 0.0, 0.08], [0.45, 0.0, 0.08], on_end))[1]
    assert reward("grasp-shape", state([0.45, 0.0, 0.13], [0.45, 0.0, 0.13], on_end))[1]
    assert not reward("grasp-shape", state([0.45, 0.0, 0.03], [0.45, 0.0, 0.13], LEVEL))[1]


class Grasper:
    """Turns the hand across the object, goes down, closes for 15 steps, lifts."""

    def __init__(self, tasks: Tasks) -> None:
        self.closed = torch.zeros(len(tasks))

    def __call__(self, qpos: Tensor) -> Tensor:
        grip, facing = hand_of(qpos)
        heading = torch.atan2(facing[:, 1], facing[:, 0])
        off = qpos[:, OBJECT : OBJECT + 2] - grip[:, :2]
        turn = (heading_of(qpos) - heading + math.pi / 2.0) % math.pi - math.pi / 2.0
        lined_up = (off.norm(dim=1) < 0.012) & (turn.abs() < 0.12)
        closing = (self.closed > 0) | (lined_up & (qpos[:, LIFT] < 0.009))
        self.closed += closing
        height = torch.where(lined_up | closing, 0.006, 0.08)
        up = torch.where(self.closed > 15, 0.15, height) - qpos[:, LIFT]
        velocity = torch.cat([6.0 * off * ~closing[:, None], 8.0 * up[:, None]], dim=1)
        return servo(qpos, velocity, 5.0 * turn * ~closing, torch.where(closing, -1.0, 1.0).double())


def test_can_be_done() -> None:
    assert_can_be_done("grasp-shape", Grasper, rate=0.95)
