"""What a log says of a family's parameters: a table, notes, numbers and a picture."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from metarl.envs.robots.robot_family import RobotFamily
from metarl.evaluation.plot import to_png
from metarl.files import Folder
from metarl.identification import summary
from metarl.identification.narrowing import narrowed_file
from metarl.identification.picture import draw

DIGITS = 6
"""Of numbers in identification.json."""
ROBOT = "narrowed.yaml"
"""A robot's file with narrowed ranges."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Identification:
    """What a log says of a family's parameters. A notebook shows its picture."""

    family: str
    """Full name."""
    narrowed: str
    """The same with narrowed ranges, as `metarl train --family` takes it: those of modifiers in its name, those of a
    robot's file in narrowed.yaml, which `write` writes."""
    log: str
    """The file."""
    quantities: list[summary.Quantity]
    """One for every number of a task."""
    together: list[tuple[str, str, float]]
    """Pairs that are told together only, with their correlation."""
    fit: list[dict[str, Any]]
    """For every observation that moves: noise (what is not explained), change in a segment, explained part."""
    ranges: dict[str, tuple[float, ...]]
    """New training ranges of the parameters that are told."""
    warning: str
    """Where simulations fit badly; else empty."""
    modes: list[float]
    """Probability of each mode of the posterior that is worth telling."""
    facts: dict[str, Any]
    """How it was computed."""
    robot: RobotFamily | None = None
    """Of the robot's file, where there is one."""
    draws: dict[str, np.ndarray] = field(repr=False)
    """Draws from the posterior by parameter."""

    def table(self) -> Table:
        """Return it as a table for `rich`."""
        table = Table(title=f"What {self.log} says of {self.family}")
        for column in ("parameter", "median", "90% interval", "before", "told"):
            table.add_column(column)
        known = any(row.truth is not None for row in self.quantities)
        if known:
            table.add_column("true")
        for row in self.quantities:
            if row.probabilities:
                best = max(row.probabilities, key=lambda name: row.probabilities[name])
                cells = [best, f"{row.probabilities[best]:.0%}", f"{len(row.probabilities)} choices"]
            else:
                unit = f" {row.unit}" if row.unit else ""
                cells = [f"{row.median:.4g}{unit}", f"{row.lower:.4g} to {row.upper:.4g}"]
                cells.append(f"{row.prior[0]:.3g} to {row.prior[1]:.3g}")
            truth = [f"{row.truth:.4g}" if row.truth is not None else ""] if known else []
            table.add_row(row.name, *cells, row.told, *truth)
        return table

    def notes(self) -> list[str]:
        """Return what else is to be said, a line each."""
        part = summary.explained(self.fit)
        lines = [f"The simulation explains {part:.1%} of the changes of {len(self.fit)} observations that move."]
        untold = [row.name for row in self.quantities if row.told == "no"]
        if untold:
            lines.append(f"The log cannot tell {', '.join(untold)}: the interval is as wide as before.")
        lines += [
            f"{one} and {other} are told together only (correlation {rho:.2f})."
            for one, other, rho in self.together[:10]
        ]
        for row in self.quantities:
            if row.at_end:
                lines.append(f"{row.name} is at the {row.at_end} end of its range: widen it, and identify again.")
        if len(self.modes) > 1:
            lines.append(f"There are {len(self.modes)} modes: {', '.join(f'{part:.0%}' for part in self.modes)}.")
        return lines

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain data: the content of identification.json."""
        rows = [asdict(row) | {"name": row.name, "told": row.told} for row in self.quantities]
        names = ("family", "narrowed", "log", "together", "fit", "ranges", "warning", "modes", "facts")
        plain = {name: getattr(self, name) for name in names} | {"quantities": rows, "notes": self.notes()}
        return _rounded(plain)

    def figure(self) -> Figure:
        """Return prior and posterior of every parameter, with the interval, as a matplotlib figure."""
        told = "grey: 90% before; blue: after, bar: 90%"
        if any(row.truth is not None for row in self.quantities):
            told += "; dashed: true"
        return draw(self.quantities, self.draws, f"What the log says of {self.family}\n({told})")

    def write(self, folder: Folder | Path | str) -> None:
        """Write identification.json and .png, posterior.npz, and of a robot's file narrowed.yaml, over earlier ones."""
        folder = Folder.of(folder)
        if self.robot is not None:
            head = f"{self.robot.robot.file.path.name}, with ranges narrowed by {self.log}"
            folder.write(ROBOT, narrowed_file(self.robot, self.ranges, folder.path, head).encode())
        with folder.writing("posterior.npz") as file:
            np.savez(file, allow_pickle=False, **self.draws)
        folder.write("identification.png", to_png(self.figure()))
        folder.write("identification.json", json.dumps(self.as_plain(), indent=1).encode())

    def __repr__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=100, force_jupyter=False, force_terminal=False)
        console.print(self.table())
        console.print("\n".join(self.notes()), markup=False)
        return text.getvalue().rstrip()

    def _repr_png_(self) -> bytes:
        return to_png(self.figure())


def _rounded(value: Any) -> Any:
    """Return plain data with `DIGITS` of every number: those after them depend on where arrays lie in memory."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
