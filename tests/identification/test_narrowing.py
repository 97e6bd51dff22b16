"""Narrowed ranges as names and robot files."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarl.envs import get
from metarl.envs.robots.robot_family import robot_family
from metarl.identification.narrowing import Ranges, narrowed_file, narrowed_name, outward
from tests.helpers.robot_files import small

CHEETAH = "half-cheetah-vel@v5"
NAMES: list[tuple[str, Ranges, str]] = [
    ("+mass+friction", {"mass_factor": (0.9, 1.1)}, "+mass=0.9..1.1+friction"),
    ("+mass=each", {"mass_factor": (0.9, 1.1)}, "+mass=0.9..1.1,each"),
    ("+payload=0..2,torso", {"payload_mass": (0.5, 0.75)}, "+payload=0.5..0.75,torso"),
    ("+slope=0..0.2", {"slope_angle": (0.05, 0.1)}, "+slope=0.05..0.1"),
    ("+gains", {"strength_factor": (0.9, 1.0), "saturation_factor": (0.95, 1.1)}, "+gains=0.9..1.1"),
    # What one of them is not told of stays whole.
    ("+gains", {"strength_factor": (0.9, 1.0)}, "+gains"),
    ("+delay=0..3,action", {"action_delay": (1.0, 2.0)}, "+delay=1..2,action"),
    ("+delay=0..3,action", {"action_delay": (0.0,)}, "+delay=0..3,action"),
    ("+damage", {}, "+damage"),
    ("", {"velocity": (0.5, 0.6)}, ""),
]


@pytest.mark.parametrize(("modifiers", "ranges", "narrowed"), NAMES)
def test_a_name_has_the_ranges_of_its_modifiers(modifiers: str, ranges: Ranges, narrowed: str) -> None:
    name = narrowed_name(get(CHEETAH + modifiers), ranges)
    assert name == get(CHEETAH + narrowed).full_name
    assert get(name).full_name == name


def test_ends_with_a_few_digits_hold_what_they_held() -> None:
    assert outward(0.123456, 0.123456) == (0.1234, 0.1235)
    assert outward(-12.3456, 0.0) == (-12.35, 0.0)
    assert outward(1.5, 2.0) == (1.5, 2.0)


def test_a_file_is_the_same_but_for_its_ranges(tmp_path: Path) -> None:
    """It finds model and functions from another folder; choices of which one is left stay as they are."""
    (tmp_path / "mine.py").write_text("def pay(robot, before, state, action, tasks):\n    return tasks['speed']\n")
    changes = (
        ("reward: {alive: 1}", "reward: {bonus: {term: own, function: mine.py:pay, weight: 1}}"),
        (
            "  speed: {",
            "  side: {command: true, choices: [-1, 1, 2]}\n  way: {command: true, choices: [-1, 1]}\n  speed: {",
        ),
    )
    robot = robot_family(small(tmp_path, *changes))
    folder = tmp_path / "out"
    folder.mkdir()
    ranges: Ranges = {"speed": (0.25, 0.5), "side": (-1.0, 2.0), "way": (1.0,)}
    (folder / "narrowed.yaml").write_text(narrowed_file(robot, ranges, folder, "narrowed"))
    narrowed = robot_family(folder / "narrowed.yaml")
    space = {parameter.name: parameter for parameter in narrowed.space.parameters}
    assert space["speed"].bounds == (0.25, 0.5)
    assert (space["side"].choices, space["way"].choices) == ((-1.0, 2.0), (-1.0, 1.0))
    assert (robot.full_name, narrowed.full_name) == ("leg@v1", "leg@v1-narrowed")
    assert narrowed.robot.model.nbody == robot.robot.model.nbody
    assert narrowed.observables == robot.observables
