"""Two tasks of a bandit, and made-up episodes of them, for the tests of the reference players."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.types import Tasks, Trajectories
from tests.helpers.toys import DOUBLE


def two_tasks() -> Tasks:
    return Tasks("bandit@two", {"mean": torch.full((2, 2), 0.5, dtype=DOUBLE)})


def episodes(actions: Tensor, rewards: Tensor, observations: Tensor | None = None, final: Tensor | None = None):
    count, per_task, steps = rewards.shape
    return Trajectories(
        observations=torch.zeros(count, per_task, steps, 1) if observations is None else observations,
        actions=actions,
        rewards=rewards,
        mask=torch.ones_like(rewards),
        terminated=torch.zeros(count, per_task, dtype=torch.bool),
        final_observations=torch.zeros(count, per_task, 1) if final is None else final,
        tasks=two_tasks(),
    )
