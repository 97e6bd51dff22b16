"""Training tasks that are drawn once: each is there once, and a meta-batch has different ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.envs import get
from metarl.learning.training_tasks import all_different, once_each, stored_tasks
from tests.helpers.toys import DOUBLE, seeded


def test_a_family_of_two_tasks_gives_two() -> None:
    tasks = get("half-cheetah-dir").space.sample(9, "train", seeded())
    assert sorted(once_each(tasks)["direction"].tolist()) == [-1.0, 1.0]


def test_tasks_of_a_continuous_family_are_all_kept_in_their_order() -> None:
    tasks = get("point-nav").space.sample(7, "train", seeded())
    assert once_each(tasks).records() == tasks.records()


def test_numbers_are_different_where_there_are_as_many() -> None:
    for drawn in all_different(10, 6, 20, seeded()):
        assert len(set(drawn.tolist())) == 6
    drawn = torch.stack(list(all_different(10, 6, 200, seeded())))
    assert all(90 < int((drawn == number).sum()) < 150 for number in range(10))
    for few in all_different(2, 5, 20, seeded()):
        assert sorted(few.tolist().count(number) for number in (0, 1)) == [2, 3]


@pytest.mark.parametrize(
    "values",
    [
        {"goal": torch.zeros(5, dtype=DOUBLE)},
        {"goal": torch.zeros((), dtype=DOUBLE)},
        {"goal": torch.zeros(0, dtype=DOUBLE)},
        {"goal": 1.0},
        {"goal": torch.zeros(2, dtype=DOUBLE), "speed": torch.zeros(3, dtype=DOUBLE)},
        {"goal": torch.zeros(2)},
        {"goal": torch.full((2,), torch.inf, dtype=DOUBLE)},
    ],
)
def test_what_are_no_training_tasks_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="stored training tasks are"):
        stored_tasks(values, get("point-nav").spec(), 4)
