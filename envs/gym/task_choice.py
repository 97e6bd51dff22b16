"""Which tasks a Gymnasium environment has: given, or drawn from a split, and changed only when the caller asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from metarl.envs.family import Family
from metarl.errors import UserError, nearest
from metarl.types import Record, Tasks

Task = Mapping[str, float | list[float] | str]
"""A task record, as callers may give it: the name of a choice may stand for its number."""

SAMPLE = "sample"
"""Value of the reset option `task` that asks for a fresh draw."""


class TaskChoice:
    """Decides, at every reset, if the worlds get other tasks.

    Args:
        family: the family.
        count: worlds.
        task: one task for all worlds, from the start.
        split: what tasks are drawn from (`train` where neither is given): at the first reset, and when asked.

    Raises:
        UserError: both given, or either not valid for the family.
    """

    def __init__(self, family: Family, count: int, task: Task | None, split: str | None) -> None:
        if task is not None and split is not None:
            raise UserError(f"got task={task} and split='{split}': give one of them")
        self.family = family
        self.count = count
        self.split = split or "train"
        # A split that does not exist is refused here, not at the first reset.
        family.space.sample(1, self.split, torch.Generator())
        self._due = None if task is None else self._given([task] * count)
        self._begun = False

    def at_reset(self, options: Mapping[str, Any], generator: torch.Generator) -> Tasks | None:
        """Return the tasks to change to, or None to keep the present ones.

        Args:
            options: the reset's options: `task` (a record for all worlds, or `sample`) or `tasks` (one record each).
            generator: draws the tasks, if any are drawn.
        """
        if "task" in options and "tasks" in options:
            raise UserError("got the reset options 'task' and 'tasks': give one task for all, or one per world")
        if "tasks" in options:
            tasks = self._given(options["tasks"])
        elif options.get("task") == SAMPLE or not (self._begun or self._due or "task" in options):
            tasks = self.family.space.sample(self.count, self.split, generator)
        elif "task" in options:
            tasks = self._given([options["task"]] * self.count)
        else:
            tasks = self._due
        self._begun, self._due = True, None
        return tasks

    def get_state(self) -> tuple[Tasks | None, bool]:
        """Return the tasks that are due at the next reset, and whether there was one already."""
        return self._due, self._begun

    def set_state(self, state: tuple[Tasks | None, bool]) -> None:
        """Go back to a state of `get_state`."""
        self._due, self._begun = state

    def _given(self, records: Any) -> Tasks:
        if isinstance(records, str) or not isinstance(records, list | tuple) or len(records) != self.count:
            raise UserError(f"got tasks={records!r}: give a list of {self.count} task records, one per world")
        for record in records:
            if not isinstance(record, Mapping):
                raise UserError(f"got the task {record!r}: give a record such as {self._example()}, or '{SAMPLE}'")
        return self.family.space.from_records([dict(record) for record in records])

    def _example(self) -> Record:
        return self.family.space.sample(1, "train", torch.Generator().manual_seed(0)).records()[0]


def check_options(options: Mapping[str, Any] | None, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the reset's options, none of them unknown."""
    for name in options or {}:
        if name not in allowed:
            raise UserError(f"unknown reset option '{name}'.{nearest(str(name), allowed)}")
    return options or {}


def generators(random: np.random.Generator) -> tuple[torch.Generator, torch.Generator]:
    """Return a reset's generators: for tasks and for starts.

    Both are always drawn, so that an episode's start does not depend on whether its task was given.
    """
    seeds = random.integers(2**63, size=2)
    tasks, starts = (torch.Generator().manual_seed(int(seed)) for seed in seeds)
    return tasks, starts
