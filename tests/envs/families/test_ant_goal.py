"""ant-goal: rewards, ends and success worked out by hand."""

from __future__ import annotations

import pytest

from tests.helpers.by_hand import CONTACT, ant, robot, state, succeeds, terms
from tests.helpers.toys import seeded as generator


def test_ant_goal_reward() -> None:
    # From (0.5, 2) to (-1, 1) are 1.5 + 1 m; eight actions of 0.5.
    for variant in ("promp18", "pearl19"):
        name = f"ant-goal@{variant}"
        expected = {"distance": -2.5, "control": -0.2, "contact": CONTACT}
        goal = robot(name).space.sample(30, "test", generator())["goal"][0]
        task = {"goal": goal.tolist()}
        after = ant(name, goal[0].item() + 1.5, goal[1].item() + 1.0)
        assert terms(name, ant(name), after, 0.5, **task) == expected
    name = "ant-goal@v5"
    expected = {"distance": -2.5, "survive": 1.0, "control": -1.0, "contact": CONTACT}
    assert terms(name, ant(name), ant(name, 0.5, 2.0), 0.5, goal=[-1.0, 1.0]) == expected
    fallen = ant(name, 0.5, 2.0, z=0.1)
    assert terms(name, ant(name), fallen, 0.5, goal=[-1.0, 1.0]) == {**expected, "survive": 0.0}


@pytest.mark.parametrize("variant", ["v5", "promp18", "pearl19"])
def test_ant_goal_never_ends_and_succeeds_at_its_goal(variant: str) -> None:
    family = robot(f"ant-goal@{variant}")
    tasks = family.space.from_records([{"goal": [1.0, -2.0]}])
    assert family.terminated(state(family, qpos={2: 0.0}), tasks) is None
    for x, y, reached in ((1.3, -2.3, True), (1.4, -2.4, False), (1.49, -2.0, True), (0.0, 0.0, False)):
        assert succeeds(family.full_name, {"goal": [1.0, -2.0]}, qpos={0: x, 1: y}) == reached
