"""One world's state, reward and end, written by hand."""

from __future__ import annotations

from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from metarl.envs import get
from metarl.envs.family import MujocoFamily
from metarl.types import Record


def robot(name: str) -> MujocoFamily:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    return family


def unscaled(family: MujocoFamily) -> Record:
    """The task of a rand-params family that leaves the model as it is."""
    return {parameter.name: [1.0] * parameter.size for parameter in family.space.parameters}


def state(family: MujocoFamily, **entries: dict[Any, float]) -> dict[str, Tensor]:
    """One world's fields of the family, zero but for the given entries: qpos={2: 0.5} for qpos[2]."""
    data = mujoco.MjData(family.model)
    fields = {}
    for name in dict.fromkeys(("qpos", "qvel", *family.fields)):
        fields[name] = torch.zeros(1, *getattr(data, name).shape, dtype=torch.float64)
        for index, value in entries.get(name, {}).items():
            fields[name][(0, *index) if isinstance(index, tuple) else (0, index)] = value
    return fields


def terms(name: str, before: dict[str, Tensor], after: dict[str, Tensor], action: float, **task: Any) -> dict[str, Any]:
    """Reward terms of one world whose actions are all `action`."""
    family = robot(name)
    tasks = family.space.from_records([dict(task)])
    actions = torch.full((1, family.action_size), action, dtype=torch.float64)
    before = {field: before[field] for field in family.remember}
    values = family.reward_terms(before, after, actions, tasks)
    return {key: pytest.approx(value.item(), abs=1e-12) for key, value in values.items()}


def ends(name: str, task: dict[str, Any], **entries: dict[Any, float]) -> bool:
    family = robot(name)
    ended = family.terminated(state(family, **entries), family.space.from_records([task]))
    assert ended is not None
    return bool(ended.item())


def succeeds(name: str, task: dict[str, Any], **entries: dict[Any, float]) -> bool:
    family = robot(name)
    success = family.success(state(family, **entries), family.space.from_records([task]))
    assert success is not None
    return bool(success.item())


# Squares of the clipped forces: 0.25 + 1 + 1.
FORCES = {(3, 0): 0.5, (5, 2): 2.0, (13, 5): -7.0}
CONTACT = -5e-4 * 2.25
"""Contact reward of `ant`, whose forces have, clipped, squares of 0.25, 1 and 1."""


def ant(name: str, x: float = 0.0, y: float = 0.0, z: float = 0.5) -> dict[str, Tensor]:
    """An ant whose xpos and qpos agree."""
    family = robot(name)
    extra = {"xpos": {(1, 0): x, (1, 1): y}} if "xpos" in family.fields else {}
    return state(family, qpos={0: x, 1: y, 2: z}, cfrc_ext=FORCES, **extra)
