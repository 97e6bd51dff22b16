"""Choices among the task parameters are shown to people by name: checked by hand for every family that has one."""

import pytest
import torch

from metarl.envs import families, get
from metarl.space.parameter import Parameter
from metarl.types import Record

OBJECTS = ("bar", "L", "T", "plate", "block", "cylinder", "cross", "ellipsoid")
GROUNDS = ("slopes", "waves", "steps", "rough", "blocks")
NAMED = {
    "half-cheetah-dir": ("direction", {-1.0: "backward", 1.0: "forward"}),
    "ant-dir": ("direction", {-1.0: "backward", 1.0: "forward"}),
    "push-shape": ("kind", dict(enumerate(OBJECTS))),
    "grasp-shape": ("kind", dict(enumerate(OBJECTS))),
    "reach-over": ("kind", dict(enumerate(OBJECTS))),
    "ant-terrain": ("kind", dict(enumerate(GROUNDS))),
    "half-cheetah-terrain": ("kind", dict(enumerate(GROUNDS))),
    # Of an ant, limbs; of a cheetah, which has two legs only, single joints.
    "ant-dir+damage": (
        "damaged",
        dict(enumerate(("nothing", "hip_4+ankle_4", "hip_1+ankle_1", "hip_2+ankle_2", "hip_3+ankle_3"))),
    ),
    "half-cheetah-vel+damage": (
        "damaged",
        dict(enumerate(("nothing", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"))),
    ),
}


def choice(family: str, name: str) -> Parameter:
    (found,) = (parameter for parameter in get(family).space.parameters if parameter.name == name)
    return found


@pytest.mark.parametrize("family", NAMED)
def test_every_choice_has_its_name(family: str) -> None:
    name, names = NAMED[family]
    parameter = choice(family, name)
    shown = {number: parameter.in_words(torch.tensor(number)) for number in parameter.choices + parameter.ood_choices}
    assert shown == {float(number): f"{name} {word}" for number, word in names.items()}


def test_no_family_has_a_choice_without_names() -> None:
    found = set()
    for variants in families().values():
        # Tests register families of their own.
        for family in (family for family in variants if type(family).__module__.startswith("metarl.envs.families.")):
            for parameter in family.space.parameters:
                if parameter.is_choice:
                    assert parameter.choice_names, f"{family.full_name}: {parameter.name}"
                    found.add(family.name)
    assert found == {name for name in NAMED if "+" not in name}


def test_a_task_is_read_with_names_and_recorded_in_numbers() -> None:
    family = get("grasp-shape")
    record: Record = {
        "kind": 2.0,
        "length": 0.1,
        "width": 0.25,
        "branch": 0.15,
        "height": 0.04,
        "mass": 0.2,
        "friction": 0.7,
    }
    tasks = family.space.from_records([record])
    assert family.space.in_words(tasks) == [
        "kind T, length 0.1 m, width 0.25, branch 0.15, height 0.04 m, mass 0.2 kg, friction 0.7"
    ]
    assert tasks.records() == [record]


def test_both_parts_of_a_task_that_switches_are_read_with_names() -> None:
    space = get("ant-dir+damage+switch=50..150").space
    record: Record = {
        "direction": 1.0,
        "damaged": 0.0,
        "later_direction": -1.0,
        "later_damaged": 4.0,
        "switch_step": 70.0,
    }
    assert space.in_words(space.from_records([record])) == [
        "direction forward, damaged nothing, later_direction backward, later_damaged hip_3+ankle_3, "
        "switch_step 70 steps"
    ]
