"""Pictures of adaptation curves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from metarl.evaluation.curve import REFERENCES

COLOURS = ("#1f5a9e", "#d1603d", "#2a8c6e", "#8a5aa8", "#b8860b", "#c0417f", "#4fa8cf", "#7a4a21")
"""Of the agents, the evaluated one first; they stay apart for colour-blind readers in this order."""
INK, FAINT = "#222222", "#dddddd"
ACROSS = (("#555555", (0, (6, 3))), ("#999999", (0, (1, 2))), ("#777777", (0, (3, 1, 1, 1))))
"""Colours and dashes of lines across."""
LABEL_SPACING = 0.055
"""Least distance between two labels, as a part of the axis' height."""
MOST_TICKS = 11
"""Up to so many points each has its own tick."""
MOST_MARKERS = 30
"""Longer curves are lines without a marker at every point."""
LONG_TITLE = 60
"""Titles of more letters are written smaller."""
SHORT_CURVE = 0.85
"""A curve that ends left of this part of the axis has its name at its end, not at that of the axis."""
FAR_APART = 8.0
"""If the longest curve has so many times the shortest one's experience, the axis is logarithmic from 1 episode on."""
TICK_SPACING = 0.05
"""Least distance between two ticks of a logarithmic axis, as a part of its width."""

PLAIN_TEXT: Any = {"text.usetex": False}
"""matplotlib reads a file `matplotlibrc` in the present folder, which is anybody's, and LaTeX does what a text says."""

Point = tuple[int | float, ...]
"""x, mean, lower, upper."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a picture of curves shows.

    Attributes:
        title: the headline.
        subtitle: how it was measured.
        x_label: of the axis of experience.
        y_label: of the other one.
        curves: name -> points; the first one is drawn on top.
        references: name -> (mean, lower, upper) of a line across.
    """

    title: str
    subtitle: str
    x_label: str
    y_label: str
    curves: Mapping[str, Sequence[Point]]
    references: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def plot(summary: dict[str, Any]) -> bytes:
    """Draw the summary of an evaluation (metarl/evaluation/curve.py) and return it as the content of a PNG file."""
    return to_png(draw(summary))


@rc_context(PLAIN_TEXT)
def to_png(figure: Figure) -> bytes:
    """Return a picture as the content of a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def draw(summary: dict[str, Any]) -> Figure:
    """Draw the mean return with its interval over experience, a curve for each agent."""
    return draw_pictures([picture_of(summary)])


def picture_of(summary: dict[str, Any]) -> Picture:
    """Return what a picture of the summary of an evaluation shows."""
    parts = [summary, *summary.get("realities", [])]
    agents = [agent for part in parts for agent in part["agents"]]
    found = [part[name] for part in parts for name in REFERENCES if part[name] is not None]
    references = {reference["agent"]: reference["points"][0] for reference in found}
    keys = ("episodes", "mean", "lower", "upper")
    curves = {agent["agent"]: [tuple(point[key] for key in keys) for point in agent["points"]] for agent in agents}
    return Picture(
        title=_title(summary),
        subtitle=_subtitle(summary),
        x_label="episodes of experience on the new task",
        y_label="return",
        curves=curves,
        references={name: tuple(point[key] for key in keys[1:]) for name, point in references.items()},
    )


@rc_context(PLAIN_TEXT)
def draw_pictures(pictures: Sequence[Picture], columns: int = 1) -> Figure:
    """Draw pictures of curves with their intervals, so many side by side."""
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(7.2 * columns, 4.4 * rows), dpi=160, facecolor="white", layout="constrained")
    for place, picture in enumerate(pictures, start=1):
        _draw(figure.add_subplot(rows, columns, place), picture)
    return figure


def _draw(axes: Axes, picture: Picture) -> None:
    """Draw curves with their intervals."""
    labels: list[tuple[float, str, str]] = []
    for (name, (height, low, high)), (colour, style) in zip(picture.references.items(), cycle(ACROSS)):
        axes.axhspan(low, high, color=colour, alpha=0.13, linewidth=0, zorder=1)
        axes.axhline(height, color=colour, linestyle=style, linewidth=1.4, zorder=2)
        labels.append((height, name, colour))
    axes.set_xlabel(picture.x_label, color=INK, fontsize=10)
    _scale_experience(axes, picture)
    short: list[tuple[float, float, str, str]] = []
    # The first one is drawn last, on top of all others.
    for order, (name, points) in reversed(list(enumerate(picture.curves.items()))):
        colour = COLOURS[order % len(COLOURS)]
        x, mean, lower, upper = zip(*points, strict=True)
        axes.fill_between(x, lower, upper, color=colour, alpha=0.2, linewidth=0, zorder=3)
        marker = "o" if len(x) <= MOST_MARKERS else None
        axes.plot(x, mean, color=colour, linewidth=2.2, marker=marker, markersize=5, zorder=4, clip_on=False)
        if _along(axes, x[-1]) < SHORT_CURVE:
            short.append((x[-1], mean[-1], name, colour))
        else:
            labels.append((mean[-1], name, colour))
    axes.margins(y=0.08)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#888888")
    axes.tick_params(colors="#444444", length=3, labelsize=9)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.set_ylabel(picture.y_label, color=INK, fontsize=10)
    size = 12 * min(1.0, LONG_TITLE / len(picture.title))
    axes.set_title(picture.title, loc="left", color=INK, fontsize=size, fontweight="bold", pad=24)
    axes.text(0.0, 1.03, picture.subtitle, transform=axes.transAxes, color="#666666", fontsize=9)
    _label_ends(axes, labels)
    for end, height, text, colour in short:
        axes.annotate(
            text,
            (end, height),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            fontsize=10,
            va="center",
            zorder=5,
            # Other curves may pass behind it.
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )


def _scale_experience(axes: Axes, picture: Picture) -> None:
    """Set the axis of experience: linear, or logarithmic behind its first episode where curves differ much in length.

    An agent that learns in its memory has had 1 or 2 episodes where one that takes gradient steps has had 20 or 60: on
    a linear axis its whole curve would stand on the left edge.
    """
    experience = sorted({point[0] for points in picture.curves.values() for point in points})
    lengths = [points[-1][0] for points in picture.curves.values() if len(points) > 1]
    axes.set_xlim(experience[0], max(experience[-1], 1))
    if lengths and max(lengths) >= FAR_APART * min(lengths):
        axes.set_xscale("symlog", linthresh=1.0, linscale=0.5)
        axes.set_xlabel(f"{axes.get_xlabel()} (logarithmic from 1 on)")
        # From the end, which must have its tick, to the beginning.
        ticks = [experience[-1]]
        for value in reversed(experience[:-1]):
            if _along(axes, ticks[-1]) - _along(axes, value) >= TICK_SPACING:
                ticks.append(value)
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    elif len(experience) <= MOST_TICKS:
        axes.set_xticks(experience)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _along(axes: Axes, x: int | float) -> float:
    """Return where a number lies on its axis, from 0 at the left end to 1 at the right."""
    left, place, right = axes.xaxis.get_transform().transform([axes.get_xlim()[0], x, axes.get_xlim()[1]])
    return float((place - left) / (right - left))


def _title(summary: dict[str, Any]) -> str:
    """Return what is shown."""
    names = [agent["agent"] for agent in summary["agents"]]
    where = [part["reality"]["name"] for part in summary.get("realities", [])]
    what = f"tasks of {summary['family']}" + (f", at home and in {' and in '.join(where)}" if where else "")
    if len(names) == 1:
        return f"{names[0]} adapts to {what}"
    return f"{', '.join(names[:-1])} and {names[-1]} adapt to {what}"


def _subtitle(summary: dict[str, Any]) -> str:
    """Return how it was measured."""
    seeds = [len(agent["training_seeds"]) for agent in summary["agents"]]
    trained = ""
    if max(seeds) > 1:
        counts = " to ".join(str(count) for count in sorted({min(seeds), max(seeds)}))
        trained = f", {counts} training seeds{' each' if len(seeds) > 1 else ''}"
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
