"""humanoid-dir: rewards and ends worked out by hand."""

from __future__ import annotations

import pytest

from tests.helpers.by_hand import ends, robot, state, terms


@pytest.mark.parametrize(("variant", "fallen"), [("v5", 0.0), ("pearl19", 5.0)])
def test_humanoid_dir_reward(variant: str, fallen: float) -> None:
    # The centre of mass moves by (0.03, -0.015) m in 0.015 s: (2, -1) m/s; 17 actions of 0.2.
    name = f"humanoid-dir@{variant}"
    family = robot(name)
    before = state(family, subtree_com={(1, 0): 0.5, (1, 1): 0.1})
    moved = {(1, 0): 0.53, (1, 1): 0.085}
    after = state(family, subtree_com=moved, qpos={2: 1.4}, cfrc_ext={(3, 0): 300.0, (13, 5): -400.0})
    expected = {"forward": 1.25 * 0.4, "survive": 5.0, "control": -0.068, "contact": -0.125}
    assert terms(name, before, after, 0.2, heading=[0.6, 0.8]) == expected
    low = state(family, subtree_com=moved, qpos={2: 0.9}, cfrc_ext={(3, 0): 1e6})
    assert terms(name, before, low, 0.2, heading=[0.6, 0.8]) == {**expected, "survive": fallen, "contact": -10.0}


@pytest.mark.parametrize("variant", ["v5", "pearl19"])
def test_humanoid_ends_outside_its_heights(variant: str) -> None:
    for height, ended in ((0.99, True), (1.01, False), (1.99, False), (2.01, True), (float("nan"), True)):
        assert ends(f"humanoid-dir@{variant}", {"heading": [0.0, 1.0]}, qpos={2: height}) == ended
