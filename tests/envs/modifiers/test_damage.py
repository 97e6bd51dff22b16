"""Damage: limbs, and that they make no force."""

from __future__ import annotations

import pytest
import torch

from metarl.envs import get
from metarl.envs.models import gymnasium_model
from metarl.envs.modifiers.damage import limbs
from metarl.types import Tasks
from tests.helpers.plain_mujoco import mujoco_family, play, start
from tests.helpers.toys import seeded as generator


@pytest.mark.parametrize(
    ("robot", "expected"),
    [
        ("ant", [("hip_4", "ankle_4"), ("hip_1", "ankle_1"), ("hip_2", "ankle_2"), ("hip_3", "ankle_3")]),
        ("half_cheetah", [("bthigh", "bshin", "bfoot"), ("fthigh", "fshin", "ffoot")]),
        ("hopper", [("thigh_joint", "leg_joint", "foot_joint")]),
        (
            "humanoid",
            [
                ("right_hip_x", "right_hip_z", "right_hip_y", "right_knee"),
                ("left_hip_x", "left_hip_z", "left_hip_y", "left_knee"),
                ("right_shoulder1", "right_shoulder2", "right_elbow"),
                ("left_shoulder1", "left_shoulder2", "left_elbow"),
            ],
        ),
    ],
)
def test_limbs_are_unbranched_chains(robot: str, expected: list[tuple[str, ...]]) -> None:
    spec = gymnasium_model(f"{robot}.xml")
    spec.compiler.settotalmass = -1.0
    model = spec.compile()
    found = [tuple(model.joint(model.actuator_trnid[i, 0]).name for i in limb) for limb in limbs(model)]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "damaged", "actuators"),
    [
        ("ant-dir+damage", 2, [2, 3]),
        ("ant-dir+damage=joint", 8, [7]),
        ("half-cheetah-vel+damage", 3, [2]),
        ("half-cheetah-vel+damage=limb", 2, [3, 4, 5]),
    ],
)
def test_a_damaged_limb_makes_no_force(name: str, damaged: int, actuators: list[int]) -> None:
    family = mujoco_family(name)
    plain = mujoco_family(name.partition("+")[0])
    tasks = plain.space.sample(2, "train", generator())
    damage = torch.tensor([0.0, float(damaged)], dtype=torch.float64)
    both = Tasks(family.full_name, {**tasks.values, "damaged": damage})
    state, actions = start(family, tasks)
    state = {field: value[:1].repeat(2, 1) for field, value in state.items()}
    actions = actions[:, :1].repeat(1, 2, 1)
    silenced = actions.clone()
    silenced[:, 1, actuators] = 0.0
    expected = play(plain, tasks, state, silenced)
    for ours, theirs in zip(play(family, both, state, actions), expected, strict=True):
        assert all(torch.equal(ours[field], theirs[field]) for field in theirs)
    assert not torch.equal(expected[-1]["qpos"][0], expected[-1]["qpos"][1])


def test_the_last_limb_is_held_out() -> None:
    space = get("half-cheetah-vel+damage").space
    drawn = {
        split: set(space.sample(200, split, generator())["damaged"].tolist()) for split in ("train", "test", "ood")
    }
    assert drawn == {"train": {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}, "test": {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}, "ood": {6.0}}
    assert any("0 nothing, 1 bthigh, 2 bshin, 3 bfoot" in line for line in space.describe())
