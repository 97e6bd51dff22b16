"""What `metarl check` stands on; the command's own tests (tests/cli/test_check.py) look at its figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metarl.api import checking
from metarl.envs import get


def test_no_more_is_drawn_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    class Counting:
        def __call__(self, world: int) -> np.ndarray:
            drawn.append(world)
            return np.zeros((16, 16, 3), dtype=np.uint8)

        def close(self) -> None: ...

    def make_painter(*given: Any) -> Counting:
        return Counting()

    monkeypatch.setattr(checking, "make_painter", make_painter)
    clips = checking.pictures(get("point-nav"), tasks=2, times=3, size=(16, 16))
    assert drawn == [0, 1] * 3
    assert len(clips) == 6
