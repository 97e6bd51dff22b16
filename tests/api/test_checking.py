"""What `metarl check` stands on; the command's own tests (tests/cli/test_check.py) look at its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.api import checking
from metarl.envs import get
from tests.helpers.robot_files import example, forget


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the worlds whose pictures are made, in this order."""
    drawn: list[int] = []

    class Counting:
        def __call__(self, world: int) -> np.ndarray:
            drawn.append(world)
            return np.zeros((16, 16, 3), dtype=np.uint8)

        def close(self) -> None: ...

    def make_painter(*given: Any) -> Counting:
        return Counting()

    monkeypatch.setattr(checking, "make_painter", make_painter)
    return drawn


def test_no_more_is_drawn_than_is_shown(drawn: list[int]) -> None:
    clips = checking.pictures(get("point-nav"), tasks=2, times=3, size=(16, 16))
    assert drawn == [0, 1] * 3
    assert len(clips) == 6


def test_captions_say_when_an_episode_was_over(drawn: list[int], tmp_path: Path) -> None:
    whole = checking.pictures(get("half-cheetah-vel+horizon=4"), tasks=1, times=3, size=(16, 16))
    assert [clip.caption.partition(":")[0] for clip in whole] == ["0.00 s", "0.10 s", "0.20 s"]
    assert whole[0].caption.startswith("0.00 s: velocity ")
    # Too low from the first step on.
    file = example(tmp_path, ("below: 0.16", "below: 0.9"), ("horizon: 200", "horizon: 4"))
    over = checking.pictures(get(str(file)), tasks=1, times=3, size=(16, 16))
    forget()
    assert [clip.caption.partition(":")[0] for clip in over] == [
        "0.00 s",
        "0.04 s (over at 0.02 s)",
        "0.08 s (over at 0.02 s)",
    ]
    assert drawn == [0] * 6


def test_what_nobody_can_train_with_is_a_problem(tmp_path: Path) -> None:
    for number, (old, new, text) in enumerate(
        (
            ("below: 0.16", "below: 0.9", "Each of 4 episodes ended in its first step. Mend its ends, or where it"),
            ("alive: 0.4", "alive: 1.0e+308", "The reward alive is not finite, or too large to be added up. Mend it,"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = example(folder, (old, new), ("horizon: 200", "horizon: 4"), ("name: quadruped", f"name: q{number}"))
        (problem,) = checking.check(get(str(file)), 2, threads=1).problems
        assert problem.startswith(text)
    forget()
