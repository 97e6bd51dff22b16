"""half-cheetah-dir and half-cheetah-vel: rewards worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.envs import get
from tests.helpers.by_hand import robot, state, terms
from tests.helpers.toys import seeded as generator


def at(x: float) -> dict[str, Tensor]:
    """A cheetah somewhere on its way."""
    return state(robot("half-cheetah-vel"), qpos={0: x})


@pytest.mark.parametrize(("variant", "control"), [("v5", -0.15), ("maml17", -0.075)])
def test_half_cheetah_dir_reward(variant: str, control: float) -> None:
    # 0.1 m in 0.05 s; six actions of 0.5.
    got = terms(f"half-cheetah-dir@{variant}", at(0.2), at(0.3), 0.5, direction=-1.0)
    assert got == {"forward": -2.0, "control": control}


@pytest.mark.parametrize(
    ("variant", "control"),
    [("v5", -0.15), ("maml17", -0.075), ("promp18", -0.075), ("pearl19", -0.075), ("varibad20", -0.075)],
)
def test_half_cheetah_vel_reward(variant: str, control: float) -> None:
    got = terms(f"half-cheetah-vel@{variant}", at(0.2), at(0.3), -0.5, velocity=0.5)
    assert got == {"velocity": -1.5, "control": control}


def test_half_cheetah_never_ends_early() -> None:
    family = get("half-cheetah-vel")
    assert family.terminated(at(0.0), family.space.from_records([{"velocity": 1.0}])) is None


def test_pearl_tasks_are_fixed() -> None:
    space = get("half-cheetah-vel@pearl19").space
    speeds = {
        split: space.sample(count, split, generator(7))["velocity"] for split, count in (("train", 100), ("test", 30))
    }
    again = get("half-cheetah-vel@pearl19").space.sample(100, "train", generator(8))["velocity"]
    assert torch.equal(speeds["train"], again)
    assert len(speeds["train"].unique()) == 100
    assert not torch.isin(speeds["test"], speeds["train"]).any()
