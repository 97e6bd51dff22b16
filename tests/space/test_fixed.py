"""Tasks that are given one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.errors import UserError
from metarl.space import ListedTasks, Parameter, ParameterSpace
from tests.helpers.toys import seeded as generator

KIND = Parameter(
    name="kind", unit="", description="what", scale="choice", choices=(3.0, 5.0, 9.0), choice_names=("bar", "T", "L")
)
PLACE = Parameter(name="place", unit="m", description="where", scale="uniform", low=0.0, high=1.0, size=2)


def task(kind: float, x: float) -> dict[str, Any]:
    return {"kind": kind, "place": [x, 0.1]}


TRAIN = [task(kind, 0.1 * number) for kind in (5.0, 3.0) for number in range(5)]
TEST = [task(9.0, 0.1 * number) for number in range(4)]


def space(train: list[Any] = TRAIN, test: list[Any] = TEST) -> ParameterSpace:
    return ParameterSpace("mine@v1", (KIND, PLACE), ListedTasks(records={"train": train, "test": test}))


def test_the_sets_are_what_was_listed_and_nothing_else_is_in_them() -> None:
    found = space()
    assert found.sample(10, "train", generator()).records() == TRAIN
    assert found.sample(4, "test", generator()).records() == TEST
    assert found.train_tasks == 10
    assert found.describe()[-1] == "10 train and 4 test tasks, listed one by one"
    tasks = ParameterSpace("mine@v1", (KIND, PLACE)).from_records([TRAIN[3], TEST[1], task(3.0, 0.95)])
    assert found.contains(tasks, "train").tolist() == [True, False, False]
    assert found.contains(tasks, "test").tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(3))
def test_tasks_are_drawn_evenly_over_their_choices_side_by_side(seed: int) -> None:
    found = space()
    drawn = found.sample(6, "train", generator(seed))
    assert drawn["kind"].tolist() == [5.0] * 3 + [3.0] * 3
    assert len({str(record) for record in drawn.records()}) == 6
    seven = found.sample(7, "train", generator(seed))["kind"]
    assert sorted([int((seven == kind).sum()) for kind in (3.0, 5.0)]) == [3, 4]
    # Each twice, before any thrice.
    many = [str(record) for record in found.sample(20, "train", generator(seed)).records()]
    assert {many.count(record) for record in set(many)} == {2}
    assert len(found.sample(1, "train", generator(seed))) == 1


def test_choices_alone_may_be_held_out() -> None:
    sets = ListedTasks(records={"train": [{"kind": 3.0}, {"kind": 5.0}], "test": [{"kind": 9.0}]})
    found = ParameterSpace("mine@v1", (KIND,), sets)
    assert not found.coincide
    assert found.sample(1, "test", generator())["kind"].tolist() == [9.0]


def test_a_choice_may_be_called_by_its_name() -> None:
    tasks = space().from_records([{"kind": "T", "place": [0.2, 0.1]}])
    assert tasks["kind"].tolist() == [5.0]
    with pytest.raises(UserError, match=r"unknown kind 'Tee'. Did you mean|unknown kind 'Tee'. Choose from: bar, T, L"):
        space().from_records([{"kind": "Tee", "place": [0.2, 0.1]}])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (lambda: space(test=[TRAIN[2]]), "among the train and the test tasks. Leave it out of one"),
        (lambda: space(test=[]), "Give some under 'train' and under 'test'"),
        (lambda: ListedTasks(records={"train": TRAIN}), "Give some under 'train' and under 'test'"),
        (lambda: space(train=[task(4.0, 0.1)]), "kind got 4.0, out of range"),
        (lambda: space(train=[{"kind": 3.0}]), "lacks the field 'place'"),
        (lambda: space().unfixed, "none is left to validate with. Leave --validation out"),
        (lambda: space().from_records([task(3.0, 0.95)]), "none of its 10 train and 4 test tasks, listed one by one"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        given()


def test_a_sample_is_the_callers_own() -> None:
    found = space()
    found.sample(10, "train", generator())["kind"].zero_()
    assert torch.equal(
        found.sample(10, "train", generator())["kind"], torch.tensor([5.0, 3.0]).repeat_interleave(5).double()
    )
