"""walker2d-vel and walker2d-rand-params: rewards and ends worked out by hand."""

from __future__ import annotations

import pytest

from tests.helpers.by_hand import ends, robot, state, terms, unscaled
from tests.helpers.toys import seeded as generator

WALKERS = (
    "walker2d-vel@v5",
    "walker2d-vel@promp18",
    "walker2d-rand-params@v5",
    "walker2d-rand-params@pearl19",
    "walker2d-rand-params@varibad20",
)
FEET = ("foot_geom", "foot_left_geom")


@pytest.mark.parametrize(
    ("variant", "seconds", "reward", "survive", "fallen"),
    [("v5", 0.008, 0.7, 1.0, 0.0), ("promp18", 0.016, -0.3, 15.0, 15.0)],
)
def test_walker2d_vel_reward(variant: str, seconds: float, reward: float, survive: float, fallen: float) -> None:
    # 1.5 m/s where 1.8 is wanted; six actions of 0.5.
    name = f"walker2d-vel@{variant}"
    family = robot(name)
    before = state(family, qpos={0: 0.2})
    expected = {"velocity": reward, "survive": survive, "control": -0.0015}
    up, down = ({0: 0.2 + 1.5 * seconds, 1: height} for height in (1.2, 0.7))
    assert terms(name, before, state(family, qpos=up), 0.5, velocity=1.8) == expected
    assert terms(name, before, state(family, qpos=down), 0.5, velocity=1.8) == {**expected, "survive": fallen}


@pytest.mark.parametrize(
    ("variant", "seconds", "fallen"), [("v5", 0.008, 0.0), ("pearl19", 0.01, 1.0), ("varibad20", 0.008, 1.0)]
)
def test_walker2d_rand_params_reward(variant: str, seconds: float, fallen: float) -> None:
    name = f"walker2d-rand-params@{variant}"
    family = robot(name)
    task, before = unscaled(family), state(family, qpos={0: 0.2})
    expected = {"forward": -1.5, "survive": 1.0, "control": -0.0015}
    up, down = ({0: 0.2 - 1.5 * seconds, 1: height} for height in (1.2, 0.7))
    assert terms(name, before, state(family, qpos=up), 0.5, **task) == expected
    assert terms(name, before, state(family, qpos=down), 0.5, **task) == {**expected, "survive": fallen}


@pytest.mark.parametrize("name", WALKERS)
def test_walkers_end_when_they_fall(name: str) -> None:
    family = robot(name)
    task = family.space.sample(10, "test", generator()).records()[0]
    for height, pitch, ended in (
        (1.25, 0.0, False),
        (0.81, 0.99, False),
        (1.99, -0.99, False),
        (0.79, 0.0, True),
        (2.01, 0.0, True),
        (1.25, 1.01, True),
        (1.25, -1.01, True),
        (float("nan"), 0.0, True),
    ):
        assert ends(name, task, qpos={1: height, 2: pitch}) == ended


def test_only_the_v5_walker_has_two_feet_of_one_friction() -> None:
    friction = {
        variant: [robot(f"walker2d-rand-params@{variant}").model.geom(foot).friction[0] for foot in FEET]
        for variant in ("v5", "pearl19", "varibad20")
    }
    assert friction == {"v5": [1.9, 1.9], "pearl19": [0.9, 1.9], "varibad20": [0.9, 1.9]}
