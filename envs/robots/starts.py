"""Where episodes of a robot begin: its pose, with noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.robots.naming import TURNING
from metarl.envs.robots.robot import Robot


def starts(robot: Robot, generator: torch.Generator, worlds: int) -> dict[str, Float[Tensor, "B ..."]]:
    """Return starts: uniform noise on hinges and slides, normal noise on velocities, a turn about the vertical.

    Args:
        robot: the robot.
        generator: where the randomness comes from.
        worlds: B.
    """
    model, noise, home = robot.model, robot.file.content["start"]["noise"], robot.build.home
    if noise is None:
        return {"qpos": home.repeat(worlds, 1), "qvel": torch.zeros(worlds, model.nv, dtype=torch.float64)}
    position, velocity = torch.zeros(model.nq, dtype=torch.float64), torch.zeros(model.nv, dtype=torch.float64)
    for joint in range(model.njnt):
        first, dof = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
        if model.jnt_type[joint] in TURNING:
            position[first], velocity[dof] = noise["position"], noise["velocity"]
        elif joint == robot.build.base:
            velocity[dof : dof + 6] = noise["base_velocity"]
    uniform = torch.rand(worlds, model.nq, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    normal = torch.randn(worlds, model.nv, generator=generator, dtype=torch.float64)
    qpos = home + position * uniform
    if noise["heading"] and robot.build.base is not None:
        first = int(model.jnt_qposadr[robot.build.base]) + 3
        half = noise["heading"] * (torch.rand(worlds, generator=generator, dtype=torch.float64) - 0.5)
        qpos[:, first : first + 4] = _turned(qpos[:, first : first + 4], half)
    return {"qpos": qpos, "qvel": velocity * normal}


def _turned(quaternion: Float[Tensor, "B 4"], half: Float[Tensor, " B"]) -> Float[Tensor, "B 4"]:
    """Return orientations turned about the world's vertical by twice an angle, rad."""
    w, x, y, z = quaternion.unbind(1)
    cos, sin = half.cos(), half.sin()
    return torch.stack((cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w), dim=1)
