"""Families of the environments in own_envs.py, and their worker processes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import own_envs
import torch
from torch import Tensor

from metarl.envs import GymnasiumFamily, make_worlds
from metarl.envs.external.adapter import WorkerPhysics
from metarl.envs.worlds import Worlds
from metarl.space.parameter_space import Parameter
from metarl.types import Step
from tests.helpers.toys import seeded as generator

FILE = str(Path(own_envs.__file__).resolve())
GOAL = Parameter(name="goal", unit="m", description="where to go", scale="uniform", low=-1.0, high=1.0, size=2)
ENDS = Parameter(name="ends", unit="step", description="last step", scale="choice", choices=(-3.0, 2.0, 4.0, 9.0))


def reach(**fields: Any) -> GymnasiumFamily:
    return GymnasiumFamily(**{"name": "reach", "make": own_envs.Reach, "parameters": (GOAL,), "horizon": 20, **fields})


def clock(**fields: Any) -> GymnasiumFamily:
    return GymnasiumFamily(**{"name": "clock", "make": own_envs.Clock, "parameters": (ENDS,), "horizon": 5, **fields})


def trouble(what: str, **fields: Any) -> GymnasiumFamily:
    return reach(make=own_envs.Trouble, kwargs={"what": what}, **fields)


def begin(family: GymnasiumFamily, count: int = 5, threads: int = 1, **options: Any) -> tuple[Worlds, Tensor]:
    worlds = make_worlds(family, count, threads=threads, dtype=torch.float64, **options)
    worlds.set_tasks(family.space.sample(count, "train", generator(1)))
    return worlds, worlds.reset(generator(2))


def actions(steps: int, count: int = 5, size: int = 2) -> Tensor:
    return torch.rand(steps, count, size, generator=generator(3), dtype=torch.float64) * 3.0 - 1.5


def processes(worlds: Worlds) -> list[int]:
    assert isinstance(worlds.physics, WorkerPhysics)
    return [member.process.pid for member in worlds.physics.pool._members]


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for has not, to the system."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def same(left: Step, right: Step) -> None:
    for name in ("observation", "reward", "terminated", "truncated"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name


def named(value: Any) -> str:
    """Return a test's name for a value: a function's without its address, which differs between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
