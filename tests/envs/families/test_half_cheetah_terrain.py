"""half-cheetah-terrain: reward, end, success and observation worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.envs import get
from metarl.types import Tasks


def one_task(name: str, **task: float | list[float]) -> Tasks:
    return get(name).space.from_records([{"difficulty": 0.5, "kind": 1.0, **task}])


def cheetah_state(x: float, z: float = 0.0) -> dict[str, Tensor]:
    qpos = torch.zeros(1, 9, dtype=torch.float64)
    qpos[0, 0], qpos[0, 1] = x, z
    return {"qpos": qpos, "qvel": torch.zeros(1, 9, dtype=torch.float64)}


@pytest.mark.parametrize("variant", ["v1", "scan"])
def test_half_cheetah_reward(variant: str) -> None:
    family = get(f"half-cheetah-terrain@{variant}")
    tasks = one_task(family.full_name, distance=6.0)
    action = torch.full((1, 6), 0.5, dtype=torch.float64)
    terms = family.reward_terms(cheetah_state(1.0), cheetah_state(1.1), action, tasks)
    assert {key: value.item() for key, value in terms.items()} == pytest.approx({"progress": 2.0, "control": -0.15})
    # Beyond the goal, on is away.
    terms = family.reward_terms(cheetah_state(6.5), cheetah_state(6.6), action, tasks)
    assert terms["progress"].item() == pytest.approx(-2.0)


def test_half_cheetah_observation_and_end() -> None:
    family = get("half-cheetah-terrain")
    tasks = one_task("half-cheetah-terrain", distance=6.0)
    state = cheetah_state(1.5, 0.2)
    state["qvel"][0] = torch.arange(9.0)
    assert family.observe(state, tasks)[0].tolist() == [0.2, *[0.0] * 7, *range(9), 4.5]
    for position, ended in ((10.99, False), (11.01, True), (-11.01, True), (float("nan"), True)):
        assert family.terminated(cheetah_state(position, 5.0), tasks) == torch.tensor([ended])


@pytest.mark.parametrize(("away", "reached"), [(0.49, True), (0.51, False)])
def test_success_is_half_a_metre_from_the_goal(away: float, reached: bool) -> None:
    family, tasks = get("half-cheetah-terrain"), one_task("half-cheetah-terrain", distance=6.0)
    assert family.success(cheetah_state(6.0 + away), tasks) == torch.tensor([reached])
    assert family.success(cheetah_state(6.0 - away), tasks) == torch.tensor([reached])
