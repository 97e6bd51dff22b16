"""Logs of one's own system: episodes as they happen, then one NPZ file. Needs numpy alone; may be copied elsewhere.

    recorder = Recorder(family="half-cheetah-vel@v5", step_seconds=0.05)
    recorder.reset(observation)
    recorder.step(action, observation, reward)  # what was done, what was seen then, what it was worth
    recorder.save("log.npz")

The layout: an array a name, of E episodes with S steps in all, episode after episode. README.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
"""Version of the layout."""


class Recorder:
    """Episodes of a system, kept until they are saved.

    Args:
        family: full name of the family that describes the system, such as `half-cheetah-vel@v5`.
        step_seconds: time from one action to the next, s.
        facts: more arrays or texts for the log, such as `observation_names`.
    """

    def __init__(self, family: str, step_seconds: float, **facts: Any) -> None:
        self.facts = {"format": FORMAT, "family": family, "step_seconds": step_seconds, **facts}
        self.steps: dict[str, list[Any]] = {}
        self.episodes: dict[str, list[Any]] = {"lengths": [], "final_observations": []}
        self._seen: Any = None
        self._start: dict[str, Any] = {}
        self._length = 0

    def reset(self, observation: Any, *, start: Mapping[str, Any] | None = None) -> None:
        """Begin an episode.

        Args:
            observation: the first one, [O].
            start: the state that it begins in where that is known: `qpos` (m, rad) and `qvel` (m/s, rad/s).
        """
        self._end()
        self._seen = np.array(observation, dtype=np.float64)
        self._start = {f"start.{name}": np.array(value, dtype=np.float64) for name, value in (start or {}).items()}

    def step(
        self,
        action: Any,
        observation: Any,
        reward: float | None = None,
        *,
        terminated: bool = False,
        truncated: bool = False,
    ) -> None:
        """Note what was done, and what came of it.

        Args:
            action: in the family's units, as the system was given it, [A].
            observation: after the step, [O].
            reward: of the step; leave it out in all of them where there is none.
            terminated: the episode ended in a terminal state.
            truncated: it was ended otherwise.
        """
        row = {"observations": self._seen, "actions": np.array(action, dtype=np.float64)}
        for name, value in (row if reward is None else row | {"rewards": float(reward)}).items():
            self.steps.setdefault(name, []).append(value)
        self._seen, self._length = np.array(observation, dtype=np.float64), self._length + 1
        if terminated or truncated:
            self._end(terminated=terminated, truncated=truncated)

    def save(self, path: str | Path) -> None:
        """Write the log; FileExistsError where there is a file."""
        self._end()
        arrays = {name: np.array(rows) for name, rows in (self.steps | self.episodes).items()} | self.facts
        if Path(path).exists():
            raise FileExistsError(f"{path} is there: give another name")
        part = Path(f"{path}.partial")
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        # So the log is whole, or not there.
        part.replace(path)

    def _end(self, *, terminated: bool = False, truncated: bool = True) -> None:
        """End the episode, if a step of it was taken."""
        if self._length:
            ends = {"lengths": self._length, "terminated": terminated, "truncated": truncated}
            for name, value in (ends | {"final_observations": self._seen} | self._start).items():
                self.episodes.setdefault(name, []).append(value)
        self._length = 0
