"""Worlds of modified families, and the same steps taken in plain MuJoCo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl.envs import get, make_worlds
from metarl.envs.family import MujocoFamily
from metarl.envs.modifiers.apply import Modified, ModifiedMujoco
from metarl.envs.worlds import Worlds
from tests.helpers.toys import seeded

STEPS = 6


def modified(name: str) -> Modified:
    family = get(name)
    assert isinstance(family, Modified)
    return family


def robot(name: str) -> ModifiedMujoco:
    family = get(name)
    assert isinstance(family, ModifiedMujoco)
    return family


def begun(name: str, records: Sequence[Mapping[str, Any]], seed: int = 0) -> Worlds:
    """Return a world of each task, right after a reset."""
    family = modified(name)
    worlds = make_worlds(family, len(records), threads=1, dtype=torch.float64, unit_actions=False)
    worlds.set_tasks(family.space.from_records([dict(record) for record in records]))
    worlds.reset(seeded(seed))
    return worlds


def actions_for(worlds: Worlds, steps: int = STEPS) -> Tensor:
    low, high = (
        torch.tensor(bound, dtype=torch.float64) for bound in (worlds.family.action_low, worlds.family.action_high)
    )
    shape = steps, worlds.num_worlds, worlds.action_size
    return low + torch.rand(shape, generator=seeded(7), dtype=torch.float64) * (high - low)


def by_hand(
    worlds: Worlds,
    world: int,
    model: mujoco.MjModel,
    controls: Tensor,
    force: Callable[[int, mujoco.MjData], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities after every control step of plain MuJoCo, from where the worlds stand now.

    Args:
        worlds: not stepped yet.
        world: which of them.
        model: its model.
        controls: [T, C].
        force: writes what pushes the bodies in a step into the data.
    """
    family = worlds.family
    assert isinstance(family, MujocoFamily)
    data = mujoco.MjData(model)
    mujoco.mj_setConst(model, data)
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.qvel[:] = (worlds.physics.state[name][world].numpy() for name in ("qpos", "qvel"))
    mujoco.mj_forward(model, data)
    positions, velocities = [], []
    for number, control in enumerate(controls):
        data.ctrl[:] = control.numpy()
        if force is not None:
            force(number, data)
        mujoco.mj_step(model, data, nstep=family.frame_skip)
        positions.append(data.qpos.copy())
        velocities.append(data.qvel.copy())
    return np.array(positions), np.array(velocities)


def stepped(worlds: Worlds, actions: Tensor) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Return positions and velocities [T, B, ...] of the worlds, and observations."""
    positions, velocities, seen = [], [], []
    for action in actions:
        seen.append(worlds.step(action).observation)
        positions.append(worlds.physics.state["qpos"].numpy().copy())
        velocities.append(worlds.physics.state["qvel"].numpy().copy())
    return np.array(positions), np.array(velocities), torch.stack(seen)
