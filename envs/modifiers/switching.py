"""Non-stationary tasks: trials whose task changes once, at a drawn step, for agents that must notice.

A task of such a family is a plain record of three parts: the first task, the later task (every parameter again, called
`later_...`) and `switch_step` k. Steps are counted over a trial: from the reset at which a world got its task, across
the resets of the episodes that follow, until it gets another one. The steps 0 to k - 1 are the first task's; from step
k on reward, end, success and physics are the later task's, and the state stays as it was.

Both parts are drawn from the same split, so that what was held out from one is held out from the other, and they are
never the same task. An oracle is told both parts and k, but not the time.

For an agent that adapts by gradient steps a trial is one episode, for one with a memory it is several: k must lie below
the end of the trial (`check_trials`). In the Gymnasium environments a trial goes on, on its later task, until the
reset option `task` gives another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.envs.family import Family
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks

LATER = "later_"
STEP = "switch_step"

MOST_DRAWS = 100
"""Draws of a later task that differs from the first: with only two tasks to draw, 1 trial in 2^100 needs more."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """The task changes once in a trial, at a step drawn evenly from `earliest` to `latest`, both included.

    Raises:
        UserError: only one of the two is given, or they are no range of steps.
    """

    earliest: int | None = None
    """First step that may be the later task's; a quarter of the horizon if not given."""
    latest: int | None = None
    """Last one; three quarters of the horizon if not given."""

    def __post_init__(self) -> None:
        if self.earliest is None and self.latest is None:
            return
        if self.earliest is None or self.latest is None or not 1 <= self.earliest <= self.latest:
            raise UserError(f"got a switch from step {self.earliest} to {self.latest}: give 1 <= EARLIEST <= LATEST")

    def steps(self, horizon: int) -> tuple[int, int]:
        """Return the earliest and the latest step."""
        if self.earliest is None or self.latest is None:
            return max(1, horizon // 4), max(1, 3 * horizon // 4)
        return self.earliest, self.latest

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "the task changes once in a trial"

    def space(self, base: ParameterSpace, name: str, horizon: int) -> SwitchSpace:
        """Return the space of tasks that switch.

        Args:
            base: where both parts come from.
            name: the family's full name.
            horizon: steps of an episode.
        """
        earliest, latest = self.steps(horizon)
        step = Parameter(
            name=STEP,
            unit="steps",
            description="step of the trial from which on the later task holds",
            scale="uniform" if latest > earliest else "choice",
            low=float(earliest) if latest > earliest else None,
            high=float(latest) if latest > earliest else None,
            choices=() if latest > earliest else (float(earliest),),
        )
        later = tuple(replace(parameter, name=LATER + parameter.name) for parameter in base.parameters)
        return SwitchSpace(name, (*base.parameters, *later, step), base=base, earliest=earliest, latest=latest)


@dataclass(frozen=True, kw_only=True)
class SwitchSpace(ParameterSpace):
    """Trials whose task changes: two tasks of another space, and the step at which the second takes over."""

    base: ParameterSpace
    """Where both parts come from."""
    earliest: int
    latest: int

    @cached_property
    def coincide(self) -> bool:
        """Whether train and test tasks are the same, because those of the base are."""
        return self.base.coincide

    @cached_property
    def has_ood(self) -> bool:
        """Whether the base has an out-of-distribution part."""
        return self.base.has_ood

    @property
    def train_tasks(self) -> int | None:
        """How many different trials there are to train on; None where there is no end of them."""
        tasks = self.base.train_tasks
        # With one task there is none to switch to, as `sample` says.
        return None if tasks is None else max(1, tasks * (tasks - 1) * (self.latest - self.earliest + 1))

    @property
    def unfixed(self) -> ParameterSpace:
        """The same trials with parts that are of no finite set."""
        return self if self.base.fixed is None else replace(self, base=self.base.unfixed)

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tasks:
        """Draw trials: both parts from the split, and different.

        Args:
            count: M, at least 1.
            split: `train`, `test` or `ood`.
            generator: where the randomness comes from.

        Raises:
            UserError: if the split is unknown or empty, or has only one task.
        """
        first = self.base.sample(count, split, generator)
        later = dict(self.base.sample(count, split, generator).values)
        for _ in range(MOST_DRAWS):
            same = torch.stack([(first[n] == later[n]).reshape(count, -1).all(1) for n in later]).all(0)
            rows = same.nonzero().squeeze(1)
            if len(rows) == 0:
                break
            # In random order: a fixed set gives as many tasks as it has in its own.
            order = torch.randperm(len(rows), generator=generator)
            again = self.base.sample(len(rows), split, generator).select(order)
            later = {name: value.index_copy(0, rows, again[name]) for name, value in later.items()}
        else:
            raise UserError(f"{self.family}: the split '{split}' has no second task to switch to. Use another split.")
        steps = torch.randint(self.earliest, self.latest + 1, (count,), generator=generator).double()
        renamed = {LATER + name: value for name, value in later.items()}
        return Tasks(self.family, {**first.values, **renamed, STEP: steps})

    def contains(self, tasks: Tasks, split: str) -> Bool[Tensor, " M"]:
        """Tell for every trial if both of its parts lie in the split."""
        self._check_tasks(tasks)
        both = [self.base.contains(self.part(tasks, later=later), split) for later in (False, True)]
        steps = tasks[STEP]
        return both[0] & both[1] & (steps >= self.earliest) & (steps <= self.latest) & (steps == steps.round())

    def part(self, tasks: Tasks, *, later: bool) -> Tasks:
        """Return the first or the later task of every trial, as tasks of the base."""
        prefix = LATER if later else ""
        return Tasks(self.base.family, {p.name: tasks[prefix + p.name] for p in self.base.parameters})

    def present(self, tasks: Tasks, later: Bool[Tensor, " B"]) -> Tasks:
        """Return the tasks in force, as tasks of the base.

        Args:
            tasks: trials.
            later: which of them have come to their later task.
        """
        first, second = self.part(tasks, later=False), self.part(tasks, later=True)
        values = {
            name: torch.where(later.reshape(-1, *[1] * (value.dim() - 1)), second[name], value)
            for name, value in first.values.items()
        }
        return Tasks(self.base.family, values)

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> Tasks:
        """Return trials from plain records.

        Raises:
            UserError: as for any space, and if the step is no whole number.
        """
        tasks = super().from_records(records)
        for step in tasks[STEP].tolist():
            if not step.is_integer():
                raise UserError(f"{self.family}: {STEP} got {step}. Give a whole number of steps.")
        return tasks

    def describe(self) -> list[str]:
        """Return the lines of the base, one on the later task and one on the step."""
        later = ", ".join(LATER + parameter.name for parameter in self.base.parameters)
        step = self.parameters[-1]
        return [
            *self.base.describe(),
            f"{later}: the same again, another task of the same split",
            f"{step.name}: {step.allowed()}, whole numbers, {step.scale}; {step.description}",
        ]


def too_late(family: Family, steps: int) -> int | None:
    """Return the latest step at which a task may switch, if a trial of so many steps may end before it."""
    space = family.space
    return space.latest if isinstance(space, SwitchSpace) and space.latest >= steps else None


def check_trials(family: Family, episodes: int = 1) -> None:
    """Refuse a family whose task may switch after the end of the trials.

    Args:
        family: any family.
        episodes: episodes of a trial; an early end makes them shorter, and its trial may then never switch.

    Raises:
        UserError: some tasks would never switch.
    """
    steps = episodes * family.horizon
    latest = too_late(family, steps)
    if latest is not None:
        trial = f"{steps} steps" if episodes == 1 else f"{episodes} episodes of {family.horizon} steps"
        raise UserError(
            f"got {family.full_name}, whose task may switch as late as step {latest}, but a trial of this agent "
            f"is {trial} long: "
            + ("leave +switch out" if steps == 1 else f"give +switch=EARLIEST..LATEST below {steps}")
        )
