"""ant-dir, ant-dir-2d and ant-vel: rewards and ends worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.by_hand import CONTACT, ant, ends, terms


@pytest.mark.parametrize(
    ("variant", "control", "survive", "fallen"), [("v5", -1.0, 1.0, 0.0), ("maml17", -0.01, 0.05, 0.05)]
)
def test_ant_dir_reward(variant: str, control: float, survive: float, fallen: float) -> None:
    # 0.1 m in 0.05 s; eight actions of 0.5.
    name = f"ant-dir@{variant}"
    expected = {"forward": -2.0, "survive": survive, "control": control, "contact": CONTACT}
    assert terms(name, ant(name, 0.2), ant(name, 0.3), 0.5, direction=-1.0) == expected
    assert terms(name, ant(name, 0.2), ant(name, 0.3, z=0.1), 0.5, direction=-1.0) == {**expected, "survive": fallen}


@pytest.mark.parametrize(
    ("variant", "control", "survive", "fallen"), [("v5", -1.0, 1.0, 0.0), ("maml17", -0.01, 0.05, 0.05)]
)
def test_ant_vel_reward(variant: str, control: float, survive: float, fallen: float) -> None:
    # 0.1 m in 0.05 s is 2 m/s; eight actions of 0.5.
    name = f"ant-vel@{variant}"
    expected = {"velocity": 0.5, "survive": survive, "control": control, "contact": CONTACT}
    assert terms(name, ant(name, 0.2), ant(name, 0.3), 0.5, velocity=1.5) == expected
    assert terms(name, ant(name, 0.2), ant(name, 0.3), 0.5, velocity=2.5) == expected
    down = ant(name, 0.3, z=0.1)
    assert terms(name, ant(name, 0.2), down, 0.5, velocity=1.5) == {**expected, "survive": fallen}


@pytest.mark.parametrize(("variant", "fallen"), [("v5", 0.0), ("promp18", 1.0)])
def test_ant_dir_2d_reward(variant: str, fallen: float) -> None:
    # (2, -1) m/s along (0.6, 0.8).
    name = f"ant-dir-2d@{variant}"
    before, after = ant(name, 0.2, 0.3), ant(name, 0.3, 0.25)
    expected = {"forward": 0.4, "survive": 1.0, "control": -1.0, "contact": CONTACT}
    assert terms(name, before, after, 0.5, heading=[0.6, 0.8]) == expected
    above = ant(name, 0.3, 0.25, z=1.1)
    assert terms(name, before, above, 0.5, heading=[0.6, 0.8]) == {**expected, "survive": fallen}


@pytest.mark.parametrize(
    ("height", "ended"), [(0.19, True), (0.2, False), (1.0, False), (1.01, True), (float("nan"), True)]
)
def test_ant_dir_ends_outside_its_heights(height: float, ended: bool) -> None:
    for variant in ("v5", "maml17"):
        assert ends(f"ant-dir@{variant}", {"direction": 1.0}, qpos={2: height}) == ended


@pytest.mark.parametrize(
    ("name", "task", "lowest"),
    [
        ("ant-vel@v5", {"velocity": 1.0}, 0.2),
        ("ant-vel@maml17", {"velocity": 1.0}, 0.2),
        ("ant-dir-2d@v5", {"heading": [1.0, 0.0]}, 0.2),
        ("ant-dir-2d@promp18", {"heading": [1.0, 0.0]}, 0.0),
    ],
)
def test_ants_end_outside_their_heights(name: str, task: dict[str, Any], lowest: float) -> None:
    for height, ended in (
        (lowest - 0.01, True),
        (lowest, False),
        (1.0, False),
        (1.01, True),
        (float("nan"), True),
    ):
        assert ends(name, task, qpos={2: height}) == ended
