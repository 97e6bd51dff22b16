"""ant-terrain: reward, end, success and what it sees worked out by hand."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.envs import get
from metarl.envs.families import ant_terrain
from metarl.envs.family import MujocoFamily
from metarl.types import Tasks
from tests.helpers.toys import seeded as generator


def one_task(name: str, **task: float | list[float]) -> Tasks:
    return get(name).space.from_records([{"difficulty": 0.5, "kind": 1.0, **task}])


def ant_state(x: float, y: float, z: float) -> dict[str, Tensor]:
    qpos = torch.zeros(1, 15, dtype=torch.float64)
    qpos[0, :4] = torch.tensor([x, y, z, 1.0], dtype=torch.float64)
    forces = torch.zeros(1, 14, 6, dtype=torch.float64)
    # The squares of the clipped forces sum to 0.25 + 1 + 1.
    forces[0, 3, 0], forces[0, 5, 2], forces[0, 13, 5] = 0.5, 2.0, -7.0
    return {"qpos": qpos, "qvel": torch.zeros(1, 14, dtype=torch.float64), "cfrc_ext": forces}


@pytest.mark.parametrize("variant", ["v1", "scan"])
def test_ant_reward(variant: str) -> None:
    family = get(f"ant-terrain@{variant}")
    tasks = one_task(family.full_name, goal=[0.0, 3.0])
    # From a distance of 3 to one of 2.9 m in 0.05 s; eight actions of 0.5.
    action = torch.full((1, 8), 0.5, dtype=torch.float64)
    terms = family.reward_terms(ant_state(0.0, 0.0, 0.6), ant_state(0.0, 0.1, 0.6), action, tasks)
    got = {key: value.item() for key, value in terms.items()}
    assert got == pytest.approx({"progress": 2.0, "survive": 1.0, "control": -1.0, "contact": -5e-4 * 2.25})
    # 3-4-5: away from the goal costs as much.
    terms = family.reward_terms(ant_state(0.0, 0.0, 0.6), ant_state(4.0, 0.0, 0.6), action, tasks)
    assert terms["progress"].item() == pytest.approx(-40.0)


def test_ant_observation() -> None:
    family = get("ant-terrain")
    tasks = one_task("ant-terrain", goal=[0.0, 3.0])
    state = ant_state(0.5, 1.0, 0.6)
    state["qpos"][0, 7:] = torch.arange(8.0)
    state["qvel"][0] = torch.arange(14.0)
    expected = [0.6, 1.0, 0.0, 0.0, 0.0, *range(8), *range(14), -0.5, 2.0]
    assert family.observe(state, tasks)[0].tolist() == expected
    assert [row.unit for row in family.observables[-2:]] == ["m", "m"]


def test_scan_turns_with_the_heading() -> None:
    """The points of an ant that has turned about z are those of one that has not, turned."""
    angle = torch.tensor([0.0, 0.5, 2.0, -2.5], dtype=torch.float64)
    zero = torch.zeros_like(angle)
    quaternion = torch.stack([(angle / 2.0).cos(), zero, zero, (angle / 2.0).sin()], dim=1)
    x, y = (ant_terrain.heading(quaternion) @ scan for scan in (ant_terrain.SCAN_X, ant_terrain.SCAN_Y))
    assert x.shape == y.shape == (4, len(ant_terrain.SCAN))
    for point, (ahead, left) in enumerate(ant_terrain.SCAN):
        torch.testing.assert_close(x[:, point], ahead * angle.cos() - left * angle.sin())
        torch.testing.assert_close(y[:, point], ahead * angle.sin() + left * angle.cos())


def test_heading_is_the_direction_of_the_x_axis() -> None:
    random = torch.nn.functional.normalize(torch.randn(20, 4, generator=generator(), dtype=torch.float64))
    for quaternion, got in zip(random, ant_terrain.heading(random), strict=True):
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, quaternion.numpy())
        axis = matrix.reshape(3, 3)[:2, 0]
        np.testing.assert_allclose(got.numpy(), axis / np.linalg.norm(axis), atol=1e-12)


def test_ant_ends_by_its_height_above_the_ground_and_at_the_edge() -> None:
    family, ground = get("ant-terrain"), ant_terrain.GROUND
    tasks = family.space.from_records([{"difficulty": 1.0, "kind": 0.0, "goal": [0.0, 3.0]}])
    grid = torch.linspace(-3.0, 3.0, 61, dtype=torch.float64)
    x, y = (axis.flatten() for axis in torch.meshgrid(grid, grid, indexing="xy"))
    heights = ground.height(ground.tile(tasks), x[None], y[None])[0]
    lowest, highest = heights.argmin(), heights.argmax()
    assert heights[highest] - heights[lowest] > 0.5
    for place in (lowest, highest):
        here = x[place].item(), y[place].item()
        for above, ended in ((0.19, True), (0.21, False), (0.99, False), (1.01, True), (float("nan"), True)):
            assert family.terminated(ant_state(*here, heights[place].item() + above), tasks) == torch.tensor([ended])
    for position, ended in ((4.29, False), (4.31, True), (-4.31, True)):
        assert family.terminated(ant_state(position, 0.0, 0.6), tasks) == torch.tensor([ended])
        assert family.terminated(ant_state(0.0, position, 0.6), tasks) == torch.tensor([ended])


def test_feet_stay_off_the_next_tiles_ground() -> None:
    """The ant's reach, limbs straight, from the farthest that its torso gets."""
    family = get("ant-terrain")
    assert isinstance(family, MujocoFamily)
    model = family.model
    reach = 2.0 * 0.2 * 2.0**0.5 + 0.4 * 2.0**0.5 * np.cos(np.radians(30.0)) + 0.08
    assert model.geom_size[model.geom("left_ankle_geom").id][0] == 0.08
    assert ant_terrain.EDGE + reach < ant_terrain.GROUND.length / 2.0 + ant_terrain.GROUND.border


@pytest.mark.parametrize(("away", "reached"), [(0.49, True), (0.51, False)])
def test_success_is_half_a_metre_from_the_goal(away: float, reached: bool) -> None:
    # 3-4-5 again: the distance counts, not the axes.
    after = ant_state(3.0 - 0.6 * away, 0.8 * away, 0.6)
    assert get("ant-terrain").success(after, one_task("ant-terrain", goal=[3.0, 0.0])) == torch.tensor([reached])
