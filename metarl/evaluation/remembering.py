"""Agents whose memory can be looked into: what their policies offer, and how they are taken through many tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UserError
from metarl.types import MemoryPolicy, MetaAgent, Tasks


@runtime_checkable
class Remembering(MemoryPolicy, Protocol):
    """A policy whose memory can be looked into and carried to other worlds."""

    def look(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B H"], object]:
        """Return what the memory gives at an observation (and the memory after it), and stay as before."""
        ...

    def carried(self, order: Int[Tensor, " B"]) -> Remembering:
        """Return the policy with the memory of world `order[i]` in world i; this one keeps its own."""
        ...


def begin(agent: MetaAgent, tasks: Tasks) -> Remembering:
    """Return the agent's policy for new tasks, of which it remembers nothing."""
    policy = agent.start(tasks).policy
    if not isinstance(policy, Remembering):
        raise UserError(
            f"Got --probe for '{agent.name}', which has no memory. Probe a run of rl2, varibad, dpt, pearl or rma."
        )
    return policy


def in_turn(tasks: Tasks, worlds: int) -> Iterator[tuple[Tasks, int]]:
    """Yield the tasks, one for each world at a time, and how many of these count: the rest only fill the worlds."""
    for start in range(0, len(tasks), worlds):
        rows = torch.arange(start, start + worlds) % len(tasks)
        yield tasks.select(rows), min(worlds, len(tasks) - start)


# -- probe ------------------------------------------------------------------------------------------------------------
