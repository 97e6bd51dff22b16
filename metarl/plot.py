"""The picture of an adaptation curve."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#1f5a9e", "#d1603d", "#2a8c6e", "#8a5aa8", "#b8860b", "#c0417f")
"""Of the agents, the evaluated one first; they stay apart for colour-blind readers in this order."""
INK, FAINT, ORACLE, RANDOM = "#222222", "#dddddd", "#555555", "#999999"
LABEL_SPACING = 0.055
"""Least distance between two labels, as a part of the axis' height."""
MOST_TICKS = 11
"""Up to so many points each has its own tick."""


def plot(summary: dict[str, Any]) -> bytes:
    """Draw the summary of an evaluation (metarl/evaluate.py): mean return with its interval over experience.

    Returns:
        A PNG file's content.
    """
    figure = Figure(figsize=(7.2, 4.4), dpi=160, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    labels: list[tuple[float, str, str]] = []
    for name, colour, style in (("oracle", ORACLE, (0, (6, 3))), ("random", RANDOM, (0, (1, 2)))):
        if summary[name] is not None:
            point = summary[name]["points"][0]
            axes.axhspan(point["lower"], point["upper"], color=colour, alpha=0.13, linewidth=0, zorder=1)
            axes.axhline(point["mean"], color=colour, linestyle=style, linewidth=1.4, zorder=2)
            labels.append((point["mean"], name, colour))
    # The evaluated agent is drawn last, on top of all others.
    for order, agent in reversed(list(enumerate(summary["agents"]))):
        colour = COLOURS[order % len(COLOURS)]
        x, mean, lower, upper = ([p[key] for p in agent["points"]] for key in ("episodes", "mean", "lower", "upper"))
        axes.fill_between(x, lower, upper, color=colour, alpha=0.2, linewidth=0, zorder=3)
        axes.plot(x, mean, color=colour, linewidth=2.2, marker="o", markersize=5, zorder=4, clip_on=False)
        labels.append((mean[-1], agent["agent"], colour))

    experience = sorted({p["episodes"] for agent in summary["agents"] for p in agent["points"]})
    axes.set_xlim(experience[0], max(experience[-1], 1))
    if len(experience) <= MOST_TICKS:
        axes.set_xticks(experience)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.08)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#888888")
    axes.tick_params(colors="#444444", length=3, labelsize=9)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.set_xlabel("episodes of experience on the new task", color=INK, fontsize=10)
    axes.set_ylabel("return", color=INK, fontsize=10)
    axes.set_title(_title(summary), loc="left", color=INK, fontsize=12, fontweight="bold", pad=24)
    axes.text(0.0, 1.03, _subtitle(summary), transform=axes.transAxes, color="#666666", fontsize=9)
    _label_ends(axes, labels)

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _title(summary: dict[str, Any]) -> str:
    """Return what is shown."""
    return f"{summary['agents'][0]['agent']} adapts to tasks of {summary['family']}"


def _subtitle(summary: dict[str, Any]) -> str:
    """Return how it was measured."""
    seeds = len(summary["agents"][0]["training_seeds"])
    trained = f", {seeds} training seeds" if seeds > 1 else ""
    return f"{summary['tasks']} {summary['kind']}{trained}; mean and 95% bootstrap interval over tasks"


def _label_ends(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write names beside the right ends of their lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(labels)
    heights = [(value - low) / (high - low) for value, _, _ in ordered]
    # Each pass moves neighbours apart by half of what they lack, which may push them onto the next ones.
    for _ in range(100):
        for i in range(len(heights) - 1):
            lack = LABEL_SPACING - (heights[i + 1] - heights[i])
            if lack > 0.0:
                heights[i] -= lack / 2.0
                heights[i + 1] += lack / 2.0
    for height, (_, text, colour) in zip(heights, ordered, strict=True):
        axes.text(1.02, height, text, transform=axes.transAxes, color=colour, fontsize=10, va="center")
