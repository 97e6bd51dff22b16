"""A picture of what was known before a log and after it, a panel for each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.evaluation.plot import COLOURS, FAINT, INK, PLAIN_TEXT
from metarl.identification.summary import Quantity

COLUMNS = 4
MOST = 24
"""Panels; of more numbers, those that are told best."""
BINS = 40


@rc_context(PLAIN_TEXT)
def draw(rows: Sequence[Quantity], draws: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw prior and posterior of every number, the 90% interval below them, and the true value where it is known.

    Args:
        rows: what is known.
        draws: from the posterior by parameter.
        title: of the picture.
    """
    shown = sorted(sorted(range(len(rows)), key=lambda i: rows[i].part)[:MOST])
    columns = min(COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = Figure(
        figsize=(max(5.0, 2.6 * columns), 0.7 + 2.3 * lines), dpi=140, facecolor="white", layout="constrained"
    )
    figure.suptitle(title, color=INK, fontsize=10)
    for place, number in enumerate(shown):
        row = rows[number]
        values = draws[row.parameter].reshape(len(draws[row.parameter]), -1)[:, row.index or 0]
        _panel(figure.add_subplot(lines, columns, place + 1), row, values)
    return figure


def _panel(axes: Axes, row: Quantity, values: np.ndarray) -> None:
    """Draw one number."""
    name = row.name + (f", {row.unit}" if row.unit else "")
    axes.set_title(f"{name}\ntold: {row.told}", fontsize=8, color=INK)
    axes.set_yticks([])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=7)
    if row.probabilities:
        names = list(row.probabilities)
        axes.bar(range(len(names)), list(row.probabilities.values()), color=COLOURS[0])
        axes.axhline(1.0 / len(names), color="#999999", linewidth=1.0, linestyle="--")
        axes.set_xticks(range(len(names)), names, rotation=30, fontsize=7)
        axes.set_ylim(0.0, 1.05)
        return
    wide = 0.06 * (row.prior[1] - row.prior[0])
    low, high = min(row.prior[0] - wide, values.min()), max(row.prior[1] + wide, values.max())
    logs = row.scale == "log-uniform" and low > 0
    edges = np.geomspace(low, high, BINS + 1) if logs else np.linspace(low, high, BINS + 1)
    if logs:
        axes.set_xscale("log")
        ticks = [float(f"{value:.2g}") for value in np.geomspace(row.prior[0], row.prior[1], 3)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    counts, _ = np.histogram(values, bins=edges)
    axes.axvspan(*row.prior, color=FAINT, alpha=0.6, linewidth=0, label="90% before")
    axes.stairs(counts / counts.max(), edges, fill=True, color=COLOURS[0], alpha=0.85)
    axes.plot([row.lower, row.upper], [-0.09, -0.09], color=COLOURS[0], linewidth=3.0, solid_capstyle="butt")
    axes.plot([row.median], [-0.09], "o", color=COLOURS[0], markersize=4)
    if row.truth is not None:
        axes.axvline(row.truth, color=COLOURS[1], linewidth=1.6, linestyle="--")
    axes.set_ylim(-0.2, 1.08)
    axes.set_xlim(low, high)
