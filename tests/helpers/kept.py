"""Episodes by hand for the tests of what is kept and believed: every number says where it comes from."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.types import Tasks, Trajectories
from tests.helpers.toys import DOUBLE


def episodes(lengths: list[list[int]], first: float = 0.0, terminated: bool = False) -> Trajectories:
    """Return episodes of some lengths, [M][K]: step t of them has observation o + t, action -o - t / 8, reward o + t.

    Args:
        lengths: steps of each.
        first: o of the first one; the next ones have 100 more each.
        terminated: whether all of them end in a terminal state.
    """
    counts = torch.tensor(lengths)
    tasks, width = counts.shape
    longest = int(counts.max())
    begin = first + 100.0 * torch.arange(tasks * width, dtype=DOUBLE).view(tasks, width, 1)
    time = torch.arange(longest, dtype=DOUBLE).expand(tasks, width, longest)
    mask = (time < counts[..., None]).to(DOUBLE)

    def shown(values: Tensor) -> Tensor:
        return (values * mask)[..., None]

    return Trajectories(
        observations=shown(begin + time),
        actions=shown(-begin / 1000.0 - time / 8.0),
        rewards=(begin + time) * mask,
        mask=mask,
        terminated=torch.full((tasks, width), terminated),
        final_observations=begin + counts[..., None].to(DOUBLE),
        tasks=Tasks("by hand", {"goal": torch.arange(tasks, dtype=DOUBLE)}),
    )
