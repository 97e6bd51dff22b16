"""MuJoCo models of families: compiled as engines run them, those that ship with gymnasium, and where robots start."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

MOST_SUBSTEPS = 10_000
"""Physics steps of a control step."""


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Return a family's model, as engines run it: a simulation that fails goes on failing, it is not restarted."""
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    # MuJoCo 4 warns of `settotalmass`, which half_cheetah.xml has; scaling afterwards gives the same bits.
    total_mass, spec.compiler.settotalmass = spec.compiler.settotalmass, -1.0
    model = spec.compile()
    if total_mass > 0.0:
        mujoco.mj_setTotalmass(model, total_mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def gymnasium_model(file: str) -> mujoco.MjSpec:
    """Load one of the robots that ship inside the gymnasium package (MIT licence).

    Args:
        file: e.g. `half_cheetah.xml`.
    """
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / file
    return mujoco.MjSpec.from_file(str(path))


def noisy_start(
    model: mujoco.MjModel, noise: float, generator: torch.Generator, worlds: int
) -> dict[str, Float[Tensor, "B D"]]:
    """Return the model's own pose at rest with the noise of Gymnasium's v5 robots.

    Args:
        model: the robot.
        noise: half-width of the uniform noise on qpos and standard deviation of the normal noise on qvel.
        generator: where the randomness comes from.
        worlds: B.
    """
    pose = torch.from_numpy(model.qpos0.copy())
    uniform = torch.rand(worlds, model.nq, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    normal = torch.randn(worlds, model.nv, generator=generator, dtype=torch.float64)
    return {"qpos": pose + noise * uniform, "qvel": noise * normal}
