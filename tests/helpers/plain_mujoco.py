"""Families played on the CPU engine, and beside it in a plain MuJoCo loop."""

from __future__ import annotations

import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl.envs import get
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.family import Family, MujocoFamily
from metarl.types import Tasks
from tests.helpers.toys import seeded as generator

WORLDS, STEPS = 4, 15

SERVOS = """
<mujoco><worldbody>
  <body><joint name="a" type="hinge" axis="0 1 0"/><geom size=".1" pos=".3 0 0"/></body>
  <body pos="0 2 0"><joint name="b" type="slide" axis="1 0 0"/><geom size=".1"/></body>
</worldbody><actuator>
  <motor joint="a" gear="30"/>
  <position joint="a" kp="50" kv="2" forcerange="-3 3"/>
  <position joint="b" kp="50" kv="2"/>
  <velocity joint="b" kv="4"/>
  <damper joint="b" kv="3" ctrlrange="0 1"/>
  <general joint="a" gainprm="2 1 1" gaintype="affine" biastype="affine" biasprm=".5 -1 -2"/>
</actuator></mujoco>"""


def mujoco_family(name: str) -> MujocoFamily:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    return family


def start(family: Family, tasks: Tasks) -> tuple[dict[str, Tensor], Tensor]:
    """Starts, and actions that reach the ends of their range: the joints must meet their limits."""
    state = family.reset_state(generator(1), tasks)
    noise = torch.randn(STEPS, len(tasks), family.action_size, generator=generator(2), dtype=torch.float64)
    return state, (2.0 * noise).clamp(-1.0, 1.0)


def play(family: MujocoFamily, tasks: Tasks, state: dict[str, Tensor], actions: Tensor) -> list[dict[str, Tensor]]:
    """States of all worlds after every control step of the engine."""
    physics = MujocoPhysics(family, len(tasks), threads=2)
    physics.apply(tasks, None)
    physics.write(state, None)
    seen = []
    for action in actions:
        assert physics.advance(action, None) is None
        seen.append({name: value.clone() for name, value in physics.state.items()})
    return seen


def play_by_hand(
    family: MujocoFamily, model: mujoco.MjModel, state: dict[str, Tensor], actions: Tensor, world: int
) -> list[dict[str, np.ndarray]]:
    """States of one world after every control step of a plain MuJoCo loop."""
    data = mujoco.MjData(model)
    mujoco.mj_setConst(model, data)
    mujoco.mj_resetData(model, data)
    for name, value in state.items():
        getattr(data, name)[:] = value[world].numpy()
    mujoco.mj_forward(model, data)
    seen = []
    for action in actions[:, world]:
        data.ctrl[:] = action.numpy()
        mujoco.mj_step(model, data, nstep=family.frame_skip)
        seen.append({name: getattr(data, name).copy() for name in ("qpos", "qvel", *family.fields)})
    return seen
