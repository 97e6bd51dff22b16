"""What locomotion families share: unknown dynamics of a model, clipped velocities, arrows in pictures."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs.engines.cpu import MujocoPhysics
from tests.helpers.by_hand import robot, state
from tests.helpers.toys import seeded as generator

RAND_PARAMS = (
    "walker2d-rand-params@v5",
    "walker2d-rand-params@pearl19",
    "walker2d-rand-params@varibad20",
    "hopper-rand-params@v5",
    "hopper-rand-params@pearl19",
)
FACTORS = {"body_mass": 1.5**3, "body_inertia": 1.5**3, "geom_friction": 1.5**3, "dof_damping": 1.3**3}


@pytest.mark.parametrize("name", RAND_PARAMS)
def test_factors_cover_every_entry_that_is_not_zero(name: str) -> None:
    family = robot(name)
    assert [parameter.name for parameter in family.space.parameters] == list(FACTORS)
    for parameter in family.space.parameters:
        largest = FACTORS[parameter.name]
        assert parameter.scale == "log-uniform"
        assert parameter.bounds == pytest.approx((1.0 / largest, largest))
        assert parameter.size == np.count_nonzero(getattr(family.model, parameter.name))
    assert family.space.feature_size == (58 if "walker" in name else 34)
    # All but the world's mass and inertia and the damping of the three joints of the root.
    assert not family.model.body_mass[0]
    assert np.count_nonzero(family.model.body_mass) == family.model.nbody - 1


@pytest.mark.parametrize("name", ["walker2d-rand-params", "hopper-rand-params@pearl19"])
def test_models_are_scaled_and_their_constants_refreshed(name: str) -> None:
    family = robot(name)
    tasks = family.space.sample(10, "test", generator())
    physics = MujocoPhysics(family, 10, 1)
    physics.apply(tasks, None)
    model = family.model_spec().compile()
    for field in FACTORS:
        value = getattr(model, field)
        value[value != 0.0] *= tasks[field][7].numpy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    ours = physics.snapshot(7)[0]
    for field in (*FACTORS, "body_subtreemass", "dof_M0", "dof_invweight0", "body_invweight0"):
        np.testing.assert_allclose(getattr(ours, field), getattr(model, field), rtol=1e-14, atol=0.0, err_msg=field)
    assert physics.snapshot(6)[0].body_mass.sum() != ours.body_mass.sum()


@pytest.mark.parametrize("name", ["walker2d-vel", "hopper-rand-params"])
def test_observed_velocities_are_clipped(name: str) -> None:
    family = robot(name)
    seen = family.observe(
        state(family, qpos={1: 1.5, 2: 30.0}, qvel={0: 12.0, 1: -12.0, 2: 3.0}),
        family.space.sample(1, "train", generator()),
    )
    half = family.model.nq - 1
    assert seen[0, :2].tolist() == [1.5, 30.0]
    assert seen[0, half : half + 3].tolist() == [10.0, -10.0, 3.0]


@pytest.mark.parametrize(
    ("name", "task", "along"),
    [
        ("ant-dir", {"direction": -1.0}, (-1.0, 0.0)),
        ("ant-dir-2d", {"heading": [0.6, 0.8]}, (0.6, 0.8)),
        ("ant-vel", {"velocity": 2.0}, (1.0, 0.0)),
        ("humanoid-dir", {"heading": [0.6, 0.8]}, (0.6, 0.8)),
        ("half-cheetah-dir", {"direction": -1.0}, (-1.0, 0.0)),
        ("half-cheetah-vel", {"velocity": 0.0}, (0.05, 0.0)),
        ("walker2d-vel", {"velocity": 1.5}, (0.5, 0.0)),
        ("swimmer-vel", {"velocity": 0.1}, (0.5, 0.0)),
    ],
)
def test_pictures_show_what_is_wanted(name: str, task: dict[str, Any], along: tuple[float, float]) -> None:
    family = robot(name)
    (marker,) = family.markers(state(family), family.space.from_records([task]))
    assert marker.tip is not None
    torch.testing.assert_close(marker.tip - marker.position, torch.tensor([[*along, 0.0]], dtype=torch.float64))
