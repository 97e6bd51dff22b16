"""hopper-rand-params: rewards and ends worked out by hand."""

from __future__ import annotations

import pytest

from tests.helpers.by_hand import ends, robot, state, terms, unscaled
from tests.helpers.toys import seeded as generator


@pytest.mark.parametrize(("variant", "fallen"), [("v5", 0.0), ("pearl19", 1.0)])
def test_hopper_rand_params_reward(variant: str, fallen: float) -> None:
    # 0.012 m in 0.008 s; three actions of 0.5.
    name = f"hopper-rand-params@{variant}"
    family = robot(name)
    task, before = unscaled(family), state(family, qpos={0: 0.2})
    expected = {"forward": 1.5, "survive": 1.0, "control": -0.00075}
    up, down = ({0: 0.212, 1: height} for height in (1.2, 0.6))
    assert terms(name, before, state(family, qpos=up), 0.5, **task) == expected
    assert terms(name, before, state(family, qpos=down), 0.5, **task) == {**expected, "survive": fallen}


@pytest.mark.parametrize("variant", ["v5", "pearl19"])
def test_hoppers_end_when_they_fall(variant: str) -> None:
    name = f"hopper-rand-params@{variant}"
    task = robot(name).space.sample(10, "test", generator()).records()[0]
    for qpos, qvel, ended in (
        ({1: 1.25}, {}, False),
        ({1: 0.71, 2: 0.19}, {}, False),
        ({1: 0.69}, {}, True),
        ({1: 1.25, 2: -0.21}, {}, True),
        ({1: 1.25, 5: -100.5}, {}, True),
        ({1: 1.25}, {0: 99.0, 5: -99.0}, False),
        ({1: 1.25}, {0: 101.0}, True),
        ({1: 1.25}, {5: float("nan")}, True),
        # Height and place are not among the angles and velocities that must stay small.
        ({0: 150.0, 1: 150.0}, {}, False),
    ):
        assert ends(name, task, qpos=qpos, qvel=qvel) == ended
