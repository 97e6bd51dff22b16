"""Replay: what was played of N tasks, kept to be learned from again, as one tensor on the device.

A step is a row of W = 2 O + A + 2 numbers: observation, action, reward, next observation, and whether that is a
terminal state (a time limit makes none). Every task has a ring of C rows: where it is full, the newest step takes the
place of the oldest. Some of the rows are the task's context, those that were added as such since `forget_context`. So
the context costs no memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.ranks import ALONE, Ranks
from metarl.types import Trajectories

Windows = tuple[Int[Tensor, " N"], Int[Tensor, " N"]]
"""Where the steps of every task begin that can be drawn, and how many there are."""
COUNTS = ("added", "first", "context")


class Steps(NamedTuple):
    """Steps that were played, of any leading shape."""

    observation: Float[Tensor, "*N O"]
    """Before the step."""
    action: Float[Tensor, "*N A"]
    """What was done, in -1..1."""
    reward: Float[Tensor, "*N 1"]
    """As the environment gave it."""
    next_observation: Float[Tensor, "*N O"]
    """After the step."""
    terminal: Float[Tensor, "*N 1"]
    """1 where the task itself ended the episode with the step, so that nothing follows."""


def row_size(observation: int, action: int) -> int:
    """Return W, the numbers of a step.

    Args:
        observation: O.
        action: A.
    """
    return 2 * observation + action + 2


def steps_of(episodes: Trajectories) -> Steps:
    """Return the steps of episodes, [M, K, T, ...]; what stands in the padding means nothing."""
    last = episodes.mask.sum(2).long() - 1
    after = torch.cat((episodes.observations[:, :, 1:], torch.zeros_like(episodes.observations[:, :, :1])), dim=2)
    place = last[..., None, None].expand(-1, -1, 1, after.shape[-1])
    after = after.scatter(2, place, episodes.final_observations[:, :, None])
    terminal = torch.zeros_like(episodes.rewards).scatter(
        2, last[..., None], episodes.terminated[..., None].to(episodes.rewards)
    )
    # The environment clips actions: what was done is remembered, not what was asked for.
    actions = episodes.actions.clamp(-1.0, 1.0)
    return Steps(episodes.observations, actions, episodes.rewards[..., None], after, terminal[..., None])


class Replay:
    """The steps of N tasks.

    Args:
        tasks: N.
        capacity: C, steps of a task that are kept.
        observation: O.
        action: A.
        device: where they are kept.
        dtype: of their numbers.

    Attributes:
        rows: all of them, the rings of the tasks one behind the other.
        added: steps that each task was ever given.
        first, context: where the context of each task begins, counted as `added` is, and how many steps it has.
    """

    def __init__(
        self, tasks: int, capacity: int, observation: int, action: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.tasks, self.capacity = tasks, capacity
        self.parts = (observation, action, 1, observation, 1)
        # On a CPU memory is taken only where something is written.
        self.rows = torch.zeros(tasks * capacity, sum(self.parts), device=device, dtype=dtype)
        self.added = torch.zeros(tasks, dtype=torch.long)
        self.first = torch.zeros(tasks, dtype=torch.long)
        self.context = torch.zeros(tasks, dtype=torch.long)

    @property
    def held(self) -> Int[Tensor, " N"]:
        """Steps of every task that can be drawn."""
        return self.added.clamp_max(self.capacity)

    def forget_context(self, tasks: Sequence[int]) -> None:
        """Let the context of some tasks begin with what is added next."""
        for task in tasks:
            self.first[task] = self.added[task]
            self.context[task] = 0

    def add(self, tasks: Sequence[int], episodes: Trajectories, *, context: bool, ranks: Ranks = ALONE) -> None:
        """Keep the real steps of some episodes.

        Args:
            tasks: number of each of the M tasks; a task may be there more than once.
            episodes: K of each.
            context: whether they are context too: then nothing that is not was added since `forget_context`.
            ranks: which of them played a share of the tasks each, and all keep what all have played.

        Raises:
            ValueError: more steps of a task than are kept of it.
        """
        packed = ranks.gathered(torch.cat(steps_of(episodes), dim=-1).to(self.rows))
        counts = ranks.gathered(episodes.mask.sum(2).long()).tolist()
        place = torch.arange(packed.shape[1] * packed.shape[2]).view(packed.shape[1:3])
        for task, played, lengths in zip(tasks, packed, counts, strict=True):
            source = torch.cat([rows[:count] for rows, count in zip(place, lengths, strict=True)])
            before, total = int(self.added[task]), len(source)
            kept = int(self.context[task])
            if total > self.capacity or (
                kept and not context and before + total - int(self.first[task]) > self.capacity
            ):
                raise ValueError(
                    f"got {total} steps more than a replay of {self.capacity} has room for beside its context"
                )
            target = task * self.capacity + (before + torch.arange(total)) % self.capacity
            self.rows.index_copy_(0, target.to(self.rows.device), played.flatten(0, 1)[source.to(self.rows.device)])
            self.added[task] = before + total
            if context:
                self.context[task] = min(kept + total, self.capacity)
                self.first[task] = self.added[task] - self.context[task]

    def windows(self, *, context: bool) -> Windows:
        """Return where the steps that can be drawn of every task begin, and how many there are, on the device."""
        count = self.context if context else self.held
        begin = self.first if context else self.added - count
        return begin.to(self.rows.device), count.to(self.rows.device)

    def take(self, tasks: Int[Tensor, " m"], chances: Float[Tensor, "m n"], windows: Windows) -> Steps:
        """Return steps of some tasks, [m, n, ...], uniformly where the chances are.

        Args:
            tasks: their numbers, on the device.
            chances: in [0, 1), one for each step.
            windows: what `windows` returned.
        """
        begin, count = (values[tasks][:, None] for values in windows)
        # A chance just below 1 may be rounded up.
        place = torch.minimum((chances * count).long(), count - 1)
        rows = tasks[:, None] * self.capacity + (begin + place) % self.capacity
        taken = self.rows.index_select(0, rows.flatten()).unflatten(0, chances.shape)
        return Steps(*taken.split(self.parts, -1))

    # -- storage ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that were ever written, and where they are, as copies on the CPU."""
        used = int(self.held.max())
        rows = self.rows.view(self.tasks, self.capacity, -1)[:, :used].to("cpu", copy=True)
        return {"rows": rows.contiguous(), **{name: getattr(self, name).clone() for name in COUNTS}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`.

        Raises:
            ValueError: it is of another replay.
        """
        if set(state) != {"rows", *COUNTS}:
            raise ValueError("the stored replay has other entries")
        rows, counts = state["rows"], [state[name] for name in COUNTS]
        for name, count in zip(COUNTS, counts, strict=True):
            if not isinstance(count, Tensor) or count.dtype != torch.long or count.shape != (self.tasks,):
                raise ValueError(f"the stored replay has no {name} of {self.tasks} tasks")
        added, first, context = counts
        used = int(added.clamp_max(self.capacity).max())
        if not isinstance(rows, Tensor) or rows.shape != (self.tasks, used, sum(self.parts)):
            raise ValueError(
                f"the stored replay has no {used} steps of {self.tasks} tasks with {sum(self.parts)} numbers"
            )
        if rows.dtype != self.rows.dtype or not bool(rows.isfinite().all()):
            raise ValueError(f"the stored replay has steps that are not finite, or no {self.rows.dtype}")
        held = added.clamp_max(self.capacity)
        inside = (held >= 0) & (context >= 0) & (context <= held) & (first >= 0) & (first + context <= added)
        if not bool((inside & ((context == 0) | (first >= added - held))).all()):
            raise ValueError("the stored replay has a context outside of what it holds")
        self.rows.view(self.tasks, self.capacity, -1)[:, :used] = rows.to(self.rows)
        self.added, self.first, self.context = added, first, context
