"""swimmer-vel: its reward worked out by hand."""

from __future__ import annotations

from tests.helpers.by_hand import robot, state, terms


def test_swimmer_vel_reward_punishes_the_error() -> None:
    # 0.01 m in 0.04 s is 0.25 m/s; two actions of 0.5.
    family = robot("swimmer-vel")
    before, after = state(family, qpos={0: 0.3}), state(family, qpos={0: 0.31})
    assert terms("swimmer-vel", before, after, 0.5, velocity=0.15) == {"velocity": -0.1, "control": -0.00005}
    assert family.terminated(after, family.space.from_records([{"velocity": 0.15}])) is None
