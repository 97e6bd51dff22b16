"""What an evaluation gives in Python: adaptation curves as a table, a picture, arrays, and files."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from metarl.errors import UserError
from metarl.evaluation import probe_report, protocol_report, report
from metarl.evaluation.curve import Entry, Evaluation
from metarl.evaluation.elsewhere import Elsewhere
from metarl.evaluation.plot import draw, to_png
from metarl.files import Folder


@dataclass(frozen=True, kw_only=True, repr=False)
class Adaptation:
    """Adaptation curves of some agents on the same tasks: what `metarl.evaluate` returns. A notebook shows its picture.

    Shapes: X points of a curve, S training seeds, M tasks.
    """

    evaluation: Evaluation
    """All that was measured, return by return."""
    summary: dict[str, Any] = field(repr=False)
    """Means, intervals, gains and the gap closed as plain data: the content of adaptation.json."""
    probes: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """What the agents' memories know, where that was asked for: the content of probe.json."""
    protocols: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """What Meta-World's protocol says of each agent, where that was asked for: the content of protocol.json."""
    films: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Agent -> GIF of the first task before and after adaptation, where films were asked for and could be drawn."""
    elsewhere: tuple[Elsewhere, ...] = field(default=(), repr=False)
    """The same agents on the same tasks in other realities, where that was asked for."""

    @property
    def agents(self) -> list[str]:
        """What the agents are called, in the order of the runs."""
        return [entry.agent for entry in self.evaluation.entries]

    def arrays(self, agent: str | None = None) -> dict[str, np.ndarray]:
        """Return the curve of an agent as arrays, float64.

        Args:
            agent: one of `agents`, or what the table calls a reference, such as `teacher`, `floor` or `random`; the
                first agent if None.

        Returns:
            `episodes` [X] of experience before each point; `mean`, `lower`, `upper` [X] with the 95% interval; `iqm`
            [X]; `returns` [X, S, M], undiscounted, mean over the parallel episodes; and where the family has a goal
            `success` [X], the part of the episodes that met it.

        Raises:
            UserError: there is no such agent.
        """
        found = self._everyone()
        name = self.agents[0] if agent is None else agent
        if name not in found:
            raise UserError(f"Unknown agent '{name}'. Choose from: {', '.join(found)}.")
        entry, points = found[name]
        keys = ["episodes", "mean", "lower", "upper", "iqm"]
        if points[0]["success"] is not None:
            keys.append("success")
        columns = {key: np.array([point[key] for point in points], dtype=np.float64) for key in keys}
        return {**columns, "returns": entry.returns.numpy()}

    def _everyone(self) -> dict[str, tuple[Entry, list[dict[str, Any]]]]:
        """Return agents and references by name, with the points of their curves; `AGENT in REALITY` elsewhere."""
        parts = [(self.evaluation, self.summary)]
        elsewhere = self.summary.get("realities", [])
        parts += [(there.evaluation, part) for there, part in zip(self.elsewhere, elsewhere, strict=True)]
        found: dict[str, tuple[Entry, list[dict[str, Any]]]] = {}
        for evaluation, part in parts:
            references = [(entry, part[name]) for name, entry in evaluation.references.items()]
            for entry, described in (*zip(evaluation.entries, part["agents"], strict=True), *references):
                found[described["agent"]] = entry, described["points"]
        return found

    def table(self) -> Table:
        """Return the curves as a table for `rich`; `print(curve)` shows it too."""
        return report.table(self.summary)

    def figure(self) -> Figure:
        """Return the curves as a matplotlib figure."""
        return draw(self.summary)

    def write(self, folder: Folder | Path | str) -> None:
        """Write adaptation.csv, .json and .png, events, probe.json and protocol.json, in place of earlier ones."""
        report.write(self.evaluation, self.summary, Folder.of(folder), films=self.films, elsewhere=self.elsewhere)
        probe_report.write(self.probes, Folder.of(folder))
        protocol_report.write(self.protocols, Folder.of(folder))

    def __repr__(self) -> str:
        text = io.StringIO()
        # As plain text also in a notebook, where rich would show it by itself.
        Console(file=text, width=80, force_jupyter=False, force_terminal=False).print(self.table())
        return text.getvalue().rstrip()

    def _repr_png_(self) -> bytes:
        return to_png(self.figure())
