"""Worlds of the arm, states written by hand, and what moves its hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.envs import get, make_worlds
from metarl.envs.bodies.arm import (
    FORE,
    OBJECT,
    UPPER,
    Arm,
    hand_of,
    joints_of,
)
from metarl.envs.bodies.shapes import KINDS
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.worlds import Worlds
from metarl.types import Tasks
from tests.helpers.toys import seeded as generator

NAMES = ("push-shape", "grasp-shape", "reach-over")
GRIP = np.array([0.0, 0.0, 0.015])
"""The grip point above the finger tips, m."""
LEVEL = [1.0, 0.0, 0.0, 0.0]
"""Quaternion of no turn."""
TOP = torch.tensor([0.8, 1.2, 0.3, 2.0, 0.2], dtype=torch.float64)
"""Top speeds of the servos, rad/s and m/s (both fingers)."""


def arm(name: str) -> Arm:
    family = get(name)
    assert isinstance(family, Arm)
    return family


def tasks_of_kinds(name: str, each: int = 1, seed: int = 0) -> Tasks:
    """Return training tasks, `each` of every kind, those kept for the ood split among them."""
    family = get(name)
    values = family.space.sample(each * len(KINDS), "train", generator(seed)).values
    kind = torch.arange(len(KINDS), dtype=torch.float64).repeat_interleave(each)
    return Tasks(family.full_name, {**values, "kind": kind})


def begin(family: Arm | str, tasks: Tasks, seed: int = 0) -> tuple[Worlds, MujocoPhysics]:
    worlds = make_worlds(family, len(tasks), threads=1, dtype=torch.float64)
    worlds.set_tasks(tasks)
    worlds.reset(generator(seed))
    assert isinstance(worlds.physics, MujocoPhysics)
    return worlds, worlds.physics


def matrix(quaternion: np.ndarray) -> np.ndarray:
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, np.asarray(quaternion, dtype=np.float64))
    return flat.reshape(3, 3)


def state(grip: list[float], place: list[float], quaternion: list[float], finger: float = 0.03) -> dict[str, Tensor]:
    """Return one world's state with the hand and the object in given places, m."""
    shoulder, elbow = joints_of(*(torch.tensor([value], dtype=torch.float64) for value in grip[:2]))
    robot = [shoulder.item(), elbow.item(), grip[2] - 0.015, 0.2, finger, finger]
    qpos = torch.tensor([[*robot, *place, *quaternion]], dtype=torch.float64)
    return {"qpos": qpos, "qvel": torch.zeros(1, 12, dtype=torch.float64)}


def reward(name: str, after: dict[str, Tensor], **task: float | list[float]) -> tuple[dict[str, Any], bool]:
    """Return the terms of one world and whether the task is met."""
    family = get(name)
    record = {"kind": 0.0, "length": 0.14, "width": 0.3, "branch": 0.2, "height": 0.06, "mass": 0.3, "friction": 0.6}
    tasks = family.space.from_records([record | task])
    terms = family.reward_terms({}, after, torch.zeros(1, 5, dtype=torch.float64), tasks)
    met = family.success(after, tasks)
    assert met is not None
    return {key: pytest.approx(value.item(), abs=1e-12) for key, value in terms.items()}, bool(met)


def servo(qpos: Tensor, velocity: Tensor, turn: Tensor, fingers: Tensor) -> Tensor:
    """Return the action that moves the hand at a velocity, m/s, and a turning speed, rad/s."""
    first, second = qpos[:, 0], qpos[:, 0] + qpos[:, 1]
    a, b = -UPPER * first.sin() - FORE * second.sin(), -FORE * second.sin()
    c, d = UPPER * first.cos() + FORE * second.cos(), FORE * second.cos()
    x, y, z = velocity.unbind(1)
    shoulder, elbow = (d * x - b * y) / (a * d - b * c), (a * y - c * x) / (a * d - b * c)
    return (torch.stack([shoulder, elbow, z, turn - shoulder - elbow, fingers], dim=1) / TOP).clamp(-1.0, 1.0)


def hand_towards(qpos: Tensor, place: Tensor) -> Tensor:
    """Return the action that brings the finger tips to a place, with its heading and fingers kept."""
    grip, _ = hand_of(qpos)
    tips = grip - torch.tensor([0.0, 0.0, 0.015], dtype=torch.float64)
    zero = torch.zeros(len(qpos), dtype=torch.float64)
    return servo(qpos, 6.0 * (place - tips), zero, zero)


def heading_of(qpos: Tensor) -> Tensor:
    w, x, y, z = qpos[:, OBJECT + 3 :].unbind(1)
    return torch.atan2(2.0 * (x * y + w * z), 1.0 - 2.0 * (y * y + z * z))


def assert_can_be_done(
    name: str, player: Callable[[Tasks], Callable[[Tensor], Tensor]], rate: float, *, once: bool = False
) -> None:
    """A few lines of script solve tasks of every kind, whatever the mass and the friction: the family is feasible.

    Args:
        name: of the family.
        player: makes of the tasks what gives the actions for qpos.
        rate: least part of the tasks that it solves.
        once: whether a task counts as solved where it ever was, not only at the end.
    """
    tasks = tasks_of_kinds(name, each=5)
    worlds, physics = begin(name, tasks)
    act = player(tasks)
    met = torch.zeros(len(tasks), dtype=torch.bool)
    for _ in range(get(name).horizon):
        step = worlds.step(act(physics.state["qpos"].clone()))
        assert step.success is not None
        met = (met | step.success) if once else step.success
    assert met.double().mean() >= rate
    # Doing nothing does not.
    worlds.reset(generator(1))
    for _ in range(10):
        step = worlds.step(torch.zeros(len(tasks), 5))
        assert step.success is not None
        assert step.success.double().mean() < 0.2
