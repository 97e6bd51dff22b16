"""From a family to its worlds: which engine steps them, and where.

The engines are those of engines/, and worker processes for environments of one's own (external/adapter.py).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Literal

import torch

from metarl import memory
from metarl.arguments import checked
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.engines.in_torch import TorchPhysics
from metarl.envs.external.adapter import GymnasiumFamily, WorkerPhysics
from metarl.envs.family import Family, MujocoFamily, TorchFamily
from metarl.envs.physics import CPU, Physics
from metarl.envs.registry import resolve
from metarl.envs.worlds import Worlds
from metarl.errors import UserError, nearest
from metarl.memory import require
from metarl.ranks import ALONE, Ranks

MOST_THREADS = 1024
"""More than this is a typing error, and the system would refuse to start them in the middle of it."""

ENGINES = ("auto", "cpu", "gpu")


def choose_engine(engine: str, family: Family | str, device: torch.device) -> Literal["cpu", "gpu"]:
    """Return the engine that runs a family for an agent on a device.

    Args:
        engine: `cpu`; `gpu` (mujoco_warp, or torch on the device for families in torch; on the device `cpu` it is slow,
            for checks); or `auto`: gpu where the device is a GPU and the engine runs there, else cpu.
        family: a family, or its name.
        device: where the agent computes.

    Raises:
        UserError: there is no such engine, or it cannot run such a family.
    """
    family = resolve(family)
    if engine not in ENGINES:
        raise UserError(f"unknown engine '{engine}'.{nearest(engine, ENGINES)}")
    in_torch = isinstance(family, TorchFamily)
    if engine == "auto":
        ready = in_torch or (isinstance(family, MujocoFamily) and importlib.util.find_spec("mujoco_warp") is not None)
        return "gpu" if device.type == "cuda" and ready else "cpu"
    if engine == "gpu" and not (in_torch or isinstance(family, MujocoFamily)):
        raise UserError(
            f"{family.full_name} steps Python environments in processes of the CPU: take engine cpu or auto"
        )
    return "gpu" if engine == "gpu" else "cpu"


def describe_engine(worlds: Worlds) -> str:
    """Return in a few words what steps the worlds, and where."""
    where = torch.cuda.get_device_name(worlds.device) if worlds.device.type == "cuda" else "CPU"
    kind = {MujocoPhysics: "MuJoCo", TorchPhysics: "torch", WorkerPhysics: "worker processes"}
    return f"{kind.get(type(worlds.physics), 'mujoco_warp')} on {where}"


def _warp_physics(
    family: MujocoFamily, num_worlds: int, device: torch.device, room: Mapping[str, int] | None
) -> Physics:
    # Imported only where it is asked for: warp takes a while, and may not be installed.
    from metarl.envs.engines.gpu import WarpPhysics

    return WarpPhysics(family, num_worlds, device, kept=room)


@checked
def make_worlds(
    family: Family | str,
    num_worlds: int,
    *,
    horizon: int | None = None,
    threads: int = 0,
    unit_actions: bool = True,
    dtype: torch.dtype = torch.float32,
    engine: str = "cpu",
    device: torch.device = CPU,
    ranks: Ranks = ALONE,
    room: Mapping[str, int] | None = None,
    pictures: bool = False,
) -> Worlds:
    """Return B parallel worlds of a family.

    Args:
        family: a family, or its name.
        num_worlds: B.
        horizon: steps of an episode; the family's if not given.
        threads: threads of the CPU engine; 0 takes every core.
        unit_actions: actions come scaled to -1..1 (what agents use), else in physical units.
        dtype: of observations and rewards.
        engine: `cpu`, `gpu` or `auto`, see `choose_engine`.
        device: where the agent computes: the GPU engine's worlds are there too. The CPU engine's are on the CPU.
        ranks: which of them have a share of the worlds each, as these B.
        pictures: whether the worlds will be drawn: environments in worker processes have to know when they are made.
        room: what the GPU engine's buffers have room for at least: `Worlds.room` of earlier worlds of the family.

    Raises:
        UserError: no worlds, more than fit into memory, too many threads, or the engine does not run the family.
    """
    family = resolve(family, horizon=horizon)
    if num_worlds < 1:
        raise UserError(f"got {num_worlds} worlds: at least 1 is needed")
    if not 0 <= threads <= MOST_THREADS:
        raise UserError(f"got threads={threads}: give 0 for every core, or 1 to {MOST_THREADS}")
    if not dtype.is_floating_point:
        raise UserError(f"got dtype={dtype}: give torch.float32 or torch.float64")
    gpu = choose_engine(engine, family, device) == "gpu"
    asked = f"the number of worlds, {num_worlds}" + (f", or the horizon, {family.horizon}" if family.chances else "")
    needed = memory.worlds(
        num_worlds,
        task_numbers=family.space.feature_size,
        state_numbers=family.chances * family.horizon,
        in_torch=isinstance(family, TorchFamily),
        gpu=gpu,
    )
    require({asked: needed}, device if gpu else CPU)
    if isinstance(family, MujocoFamily):
        physics = _warp_physics(family, num_worlds, device, room) if gpu else MujocoPhysics(family, num_worlds, threads)
    elif isinstance(family, TorchFamily):
        physics = TorchPhysics(family, num_worlds, device if gpu else CPU)
    elif isinstance(family, GymnasiumFamily):
        physics = WorkerPhysics(family, num_worlds, threads, pictures=pictures)
    else:
        kinds = "a MujocoFamily, a TorchFamily or a GymnasiumFamily"
        raise UserError(f"{family.full_name} is not {kinds}: no engine runs it")
    return Worlds(family, num_worlds, physics, unit_actions=unit_actions, dtype=dtype, ranks=ranks)
