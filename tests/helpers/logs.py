"""A log of one's own loop, small enough to be looked through."""

from __future__ import annotations

from pathlib import Path

from metarl.identification.recorder import Recorder


def recorded(path: Path) -> Path:
    """Two episodes, of two steps and of one."""
    recorder = Recorder("point-nav@maml17", 0.1, observation_names=["x", "y"])
    recorder.reset([0.0, 1.0], start={"position": [0.0, 1.0]})
    recorder.step([0.1, 0.2], [2.0, 3.0], -1.0)
    recorder.step([0.3, 0.4], [4.0, 5.0], -2.0, terminated=True)
    recorder.reset([6.0, 7.0], start={"position": [6.0, 7.0]})
    recorder.step([0.5, 0.6], [8.0, 9.0], -3.0)
    # An episode without a step is none.
    recorder.reset([0.0, 0.0], start={"position": [0.0, 0.0]})
    recorder.save(path)
    return path
