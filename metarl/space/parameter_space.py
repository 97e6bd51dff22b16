"""Parameter spaces: what varies between the tasks of a family, over which range, and in which split.

The three splits never overlap, by construction:

    ood     at least one parameter is outside of the training range, inside its own out-of-distribution range
    train   every parameter is in the training range, and the split coordinate in the first 80% of its cell
    test    the same, with the split coordinate in the last 20% of its cell

The split coordinate u in [0, 1) belongs to the first continuous parameter: its position in the range (of
the first component), or for a disc or a sphere the angle in the first two dimensions over 2 pi. It is cut
into 40 cells, so train and test tasks both cover the whole range. A space of choices only has too few
tasks to divide: there train and test coincide, and `ParameterSpace.coincide` says so. Where train and test tasks are
given one by one (fixed.py), they are what was given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.arguments import check_fields
from metarl.errors import UserError, nearest
from metarl.space.fixed import FixedTasks, ListedTasks, by_group, evenly, rows_of
from metarl.space.parameter import Parameter
from metarl.space.quantiles import MARGIN, fractions
from metarl.types import Record, Tasks

SPLITS = ("train", "test", "ood")

CELLS = 40
"""Cells of the split coordinate, each with a train strip and a test strip."""

TRAIN_FRACTION = 0.8
"""Part of each cell that is its train strip."""


@dataclass(frozen=True)
class ParameterSpace:
    """Everything that varies between the tasks of one family.

    Attributes:
        family: full family name with its variant.
        parameters: at least one, with different names.
        fixed: finite train and test sets, by their sizes or one by one; None for fresh tasks in every draw.
    """

    family: str
    parameters: tuple[Parameter, ...]
    fixed: FixedTasks | ListedTasks | None = None

    def __post_init__(self) -> None:
        check_fields(self, f"ParameterSpace {self.family}")
        names = [parameter.name for parameter in self.parameters]
        if not names or len(set(names)) != len(names):
            raise UserError(f"{self.family}: got the parameters {names}; give at least one, each name once.")
        if isinstance(self.fixed, ListedTasks):
            if self.fixed.at_hand:
                # What is wrong with a task is better said now.
                assert self._fixed_sets
        elif self.fixed is not None and (self.coincide or min(self.fixed.train, self.fixed.test) < 1):
            raise UserError(
                f"{self.family}: got {self.fixed}; fixed sets need a continuous parameter (else train and "
                "test overlap) and at least one task each."
            )

    @cached_property
    def coincide(self) -> bool:
        """Whether train and test are the same tasks, because the space consists of choices only."""
        return not isinstance(self.fixed, ListedTasks) and all(parameter.is_choice for parameter in self.parameters)

    @cached_property
    def has_ood(self) -> bool:
        """Whether there is an out-of-distribution part."""
        return any(parameter.ood for parameter in self.parameters)

    @property
    def train_tasks(self) -> int | None:
        """How many different tasks there are to train on; None where there is no end of them."""
        if self.coincide:
            return math.prod(len(parameter.choices) for parameter in self.parameters)
        return None if self.fixed is None else self.fixed.train

    @property
    def unfixed(self) -> ParameterSpace:
        """The same space without finite sets: its training tasks are none of a set that an agent was trained on.

        Raises:
            UserError: its tasks are listed, and there are no others.
        """
        if isinstance(self.fixed, ListedTasks):
            raise UserError(
                f"{self.family} has the tasks that are listed and no others: none is left to validate with. Leave "
                "--validation out."
            )
        return self if self.fixed is None else replace(self, fixed=None)

    @property
    def feature_size(self) -> int:
        """P, the width of `features`."""
        return sum(parameter.feature_size for parameter in self.parameters)

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tasks:
        """Draw tasks of one split.

        Spaces of choices only are sampled evenly: every combination equally often, up to a remainder, in
        random order. Fixed sets give no task twice before all were given once; asked for as many tasks as
        a set has, they give the set in its own order. Listed tasks with choices are sampled evenly over these, those of
        one choice side by side.

        Args:
            count: M, at least 1.
            split: `train`, `test` or `ood`.
            generator: where the randomness comes from.

        Raises:
            UserError: if the split is unknown, or `ood` where the family has no such part.
        """
        self._check_split(split)
        if count < 1:
            raise UserError(f"{self.family}: got {count} tasks to sample. Ask for at least 1.")
        if self.fixed is not None and split != "ood":
            known = self._fixed_sets[split]
            if count == len(known):
                return known.select(range(count))
            if isinstance(self.fixed, ListedTasks):
                return known.select(by_group(self._groups[split], count, generator))
            return known.select(evenly(len(known), count, generator))
        return self._draw(count, split, generator)

    def _draw(self, count: int, split: str, generator: torch.Generator) -> Tasks:
        """Draw fresh tasks of one split."""
        if self.coincide:
            return self._draw_choices(count, split, generator)
        values: dict[str, Tensor] = {}
        for parameter in self.parameters:
            if split == "ood":
                draw = parameter.sample_ood if parameter.ood else parameter.sample
                values[parameter.name] = draw(count, generator)
            elif parameter is self._divided:
                values[parameter.name] = parameter.sample(count, generator, _strip(count, split, generator))
            else:
                values[parameter.name] = parameter.sample(count, generator)
        return Tasks(self.family, values)

    def _draw_choices(self, count: int, split: str, generator: torch.Generator) -> Tasks:
        """Draw every combination of choices equally often."""
        options = [p.ood_choices if split == "ood" and p.ood else p.choices for p in self.parameters]
        combinations = torch.tensor(list(itertools.product(*options)), dtype=torch.float64)
        chosen = combinations[evenly(len(combinations), count, generator)]
        return Tasks(self.family, {p.name: chosen[:, i].clone() for i, p in enumerate(self.parameters)})

    @cached_property
    def _divided(self) -> Parameter:
        """The parameter whose coordinate divides train from test."""
        return next(parameter for parameter in self.parameters if not parameter.is_choice)

    @cached_property
    def _fixed_sets(self) -> dict[str, Tasks]:
        """The finite train and test sets."""
        assert self.fixed is not None
        if isinstance(self.fixed, ListedTasks):
            sets = {split: self._parse_all(records) for split, records in self.fixed.sets().items()}
            both = rows_of(sets["train"]).keys() & rows_of(sets["test"]).keys()
            if both:
                number = min(rows_of(sets["test"])[row] for row in both)
                task = sets["test"].records()[number]
                raise UserError(f"{self.family}: got {task} among the train and the test tasks. Leave it out of one.")
            return sets
        generator = torch.Generator().manual_seed(self.fixed.seed)
        sizes = {"train": self.fixed.train, "test": self.fixed.test}
        return {split: self._draw(size, split, generator) for split, size in sizes.items()}

    def classes(self, split: str) -> int:
        """Return how many kinds of tasks a split of listed tasks has, by their choices; 1 where none are listed."""
        return len(self._groups[split]) if isinstance(self.fixed, ListedTasks) and split != "ood" else 1

    @cached_property
    def _groups(self) -> dict[str, list[Tensor]]:
        """Which of the listed tasks have the same choices, [N] numbers each, in the order in which they first stand."""
        groups: dict[str, list[Tensor]] = {}
        for split, tasks in self._fixed_sets.items():
            columns = [tasks[p.name].tolist() for p in self.parameters if p.is_choice]
            members: dict[tuple[float, ...], list[int]] = {}
            for number in range(len(tasks)):
                members.setdefault(tuple(column[number] for column in columns), []).append(number)
            groups[split] = [torch.tensor(numbers) for numbers in members.values()]
        return groups

    def contains(self, tasks: Tasks, split: str) -> Bool[Tensor, " M"]:
        """Tell for every task if it lies in the split; with fixed sets: if it is a member of the set."""
        self._check_split(split)
        self._check_tasks(tasks)
        inside = torch.stack([p.in_range(tasks[p.name]).all(1) for p in self.parameters]).all(0)
        if split == "ood":
            known = [(p.in_range(tasks[p.name]) | p.in_ood(tasks[p.name])).all(1) for p in self.parameters]
            return torch.stack(known).all(0) & ~inside
        if self.coincide:
            return inside
        if self.fixed is not None:
            members = self._fixed_sets[split]
            near = [_pairwise_close(tasks[p.name], members[p.name]) for p in self.parameters]
            return torch.stack(near).all(0).any(1)
        in_train_strip = self._divided.coordinate(tasks[self._divided.name]) * CELLS % 1.0 < TRAIN_FRACTION
        return inside & (in_train_strip if split == "train" else ~in_train_strip)

    def features(self, tasks: Tasks) -> Float[Tensor, "M P"]:
        """Return all parameters scaled so that the training range is [-1, 1], float64."""
        self._check_tasks(tasks)
        return torch.cat([parameter.features(tasks[parameter.name]) for parameter in self.parameters], dim=1)

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> Tasks:
        """Return tasks from plain records, of the training range or out of distribution; listed ones if there are such.

        The name of a choice may stand for its number.

        Raises:
            UserError: if a field is missing or unknown, or a value of the wrong size, not a finite number or
                outside of the range; or a task is none of those that are listed.
        """
        tasks = self._parse_all(records)
        if isinstance(self.fixed, ListedTasks) and not self.has_ood:
            known = {row for members in self._fixed_sets.values() for row in rows_of(members)}
            for row, number in rows_of(tasks).items():
                if row not in known:
                    raise UserError(
                        f"{self.family}: got the task {tasks.records()[number]}, which is none of its "
                        f"{self.fixed.describe()}. Give one of these, such as {self._example()}."
                    )
        return tasks

    def _parse_all(self, records: Sequence[Any]) -> Tasks:
        """Return tasks from plain records, whether they are listed or not."""
        if not records:
            raise UserError(f"{self.family}: got no task record. Give at least one, such as {self._example()}.")
        names = [parameter.name for parameter in self.parameters]
        for record in records:
            if not isinstance(record, dict):
                raise UserError(f"{self.family}: got the task {record!r}. Give a record such as {self._example()}.")
            for name in record:
                if name not in names:
                    raise UserError(f"{self.family}: unknown task field '{name}'.{nearest(str(name), names)}")
            for parameter in self.parameters:
                if parameter.name not in record:
                    raise UserError(
                        f"{self.family}: the task {record} lacks the field '{parameter.name}'. "
                        f"Give {parameter.allowed()}."
                    )
        return Tasks(
            self.family, {p.name: self._parse(p, [record[p.name] for record in records]) for p in self.parameters}
        )

    def _parse(self, parameter: Parameter, values: Sequence[Any]) -> Tensor:
        """Return one field of all records as a tensor, or say what is wrong with the first value that is wrong."""
        rows = torch.stack([parameter.tidy(self._numbers(parameter, value)) for value in values])
        wrong = ~(parameter.in_range(rows) | parameter.in_ood(rows)).all(1)
        if bool(wrong.any()):
            raise self._unfit(parameter, f"got {values[int(wrong.nonzero()[0, 0])]!r}, out of range")
        return rows

    def _numbers(self, parameter: Parameter, value: Any) -> Tensor:
        """Return one field of a record, which must have as many numbers as the parameter."""
        if isinstance(value, str) and parameter.choice_names:
            if value not in parameter.choice_names:
                raise UserError(
                    f"{self.family}: unknown {parameter.name} '{value}'.{nearest(value, parameter.choice_names)}"
                )
            value = (parameter.choices + parameter.ood_choices)[parameter.choice_names.index(value)]
        try:
            array = np.asarray(value)
        except ValueError as ragged:
            raise self._unfit(parameter, f"got {value!r}, no plain list") from ragged
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise self._unfit(parameter, f"got {value!r}, not finite numbers")
        if array.shape != (() if parameter.width == 1 else (parameter.width,)):
            form = "one number" if parameter.width == 1 else f"a list of {parameter.width} numbers"
            raise self._unfit(parameter, f"got {value!r} where it needs {form}")
        return torch.tensor(array, dtype=torch.float64)

    def _unfit(self, parameter: Parameter, problem: str) -> UserError:
        """Return the error of a value that is none of the parameter's."""
        return UserError(f"{self.family}: {parameter.name} {problem}. Allowed: {parameter.allowed()}.")

    def describe(self) -> list[str]:
        """Return one line per parameter: name, range, scale, meaning; and one more for fixed sets."""
        lines = []
        for p in self.parameters:
            vector = f", {p.size} components" if p.size > 1 and p.scale not in ("sphere", "simplex") else ""
            lines.append(f"{p.name}: {p.allowed()}, {p.scale}{vector}; {p.description}")
        if self.fixed is not None:
            lines.append(self.fixed.describe())
        if self.coincide:
            lines.append("train and test tasks coincide (the space is a few choices)")
        return lines

    def in_words(self, tasks: Tasks) -> list[str]:
        """Return every task to be read: names, values and units, choices by their names."""
        self._check_tasks(tasks)
        return [", ".join(p.in_words(tasks[p.name][m]) for p in self.parameters) for m in range(len(tasks))]

    def _example(self) -> Record:
        """Return a valid record, for error texts."""
        return self.sample(1, "train", torch.Generator().manual_seed(0)).records()[0]

    def _check_split(self, split: str) -> None:
        """Refuse a split that does not exist here."""
        if split not in SPLITS:
            raise UserError(f"{self.family}: unknown split '{split}'.{nearest(split, SPLITS)}")
        if split == "ood" and not self.has_ood:
            raise UserError(
                f"{self.family} has no out-of-distribution part. Use the split 'train' or 'test', or another variant."
            )

    def _check_tasks(self, tasks: Tasks) -> None:
        """Refuse tasks of another family."""
        names = {parameter.name for parameter in self.parameters}
        if set(tasks.values) != names:
            raise UserError(
                f"Got tasks of {tasks.family} with {sorted(tasks.values)}, for {self.family} with "
                f"{sorted(names)}. Sample the tasks from the same family."
            )


def _strip(count: int, split: str, generator: torch.Generator) -> Float[Tensor, " M"]:
    """Draw split coordinates inside the strips of `train` or `test`."""
    cell = torch.randint(CELLS, (count,), generator=generator)
    start, end = (0.0, TRAIN_FRACTION) if split == "train" else (TRAIN_FRACTION, 1.0)
    return (cell + start + (end - start) * fractions((count,), generator)) / CELLS


def _pairwise_close(a: Float[Tensor, "M ..."], b: Float[Tensor, "N ..."]) -> Bool[Tensor, "M N"]:
    """Tell for every pair if the two values are equal up to rounding."""
    left, right = a.reshape(len(a), 1, -1), b.reshape(1, len(b), -1)
    return torch.isclose(left, right, rtol=MARGIN, atol=1e-12).all(-1)
