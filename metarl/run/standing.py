"""Where a run stands: what its checkpoints hold beside the agent and the random streams."""

from __future__ import annotations

from dataclasses import dataclass, field

from metarl.run.glossary import look_up
from metarl.types import Metrics


@dataclass
class Standing:
    """Iterations done, sums over the run, and the figures that are not logged or scored yet."""

    iteration: int = 0
    """Iterations done."""
    totals: dict[str, float] = field(default_factory=dict)
    """Figures that are summed over the run."""
    row: dict[str, list[float]] = field(default_factory=dict)
    """All other figures of the iterations since the last row that was logged."""
    scores: list[float] = field(default_factory=list)
    """Scores of the iterations since the last full checkpoint interval; higher is better."""
    room: dict[str, int] = field(default_factory=dict)
    """What the buffers of the engine have room for, by name, so that they begin there; empty where it has none."""
    reference: list[float] = field(default_factory=list)
    """Returns of the validation, task by task, at the checkpoint that raised it last; empty before the first one."""
    waited: int = 0
    """Checkpoints in a row since then (see plateau.py)."""
    rises: int = 0
    """Checkpoints that raised the validation above the first one's."""

    def take(self, metrics: Metrics, score: str) -> None:
        """Count one more iteration.

        Args:
            metrics: its figures.
            score: the figure among them, if it is there, by which the best checkpoint is chosen.
        """
        self.iteration += 1
        for tag, value in metrics.items():
            if tag in self.totals:
                self.totals[tag] += value
            else:
                self.row.setdefault(tag, []).append(value)
        if score in metrics:
            self.scores.append(-metrics[score] if look_up(score).good == "lower" else metrics[score])

    def logged(self) -> Metrics:
        """Return the means of the figures since the last row, and the sums over the run; start a new row."""
        means = {tag: sum(values) / len(values) for tag, values in self.row.items()}
        self.row = {}
        return {**means, **self.totals}

    def scored(self) -> float | None:
        """Return the mean score since the last full checkpoint interval, None without any; start a new interval."""
        mean = sum(self.scores) / len(self.scores) if self.scores else None
        self.scores = []
        return mean
