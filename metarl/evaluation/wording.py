"""How figures with their intervals are written, in all tables of evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarl.run.progress import rounded

PASSED = "oracle passed"
"""In place of a gap closed of more than all of it, which says nothing of the agent: its oracle could be better."""


def in_interval(
    figures: Mapping[str, Any],
    names: tuple[str, str, str] = ("mean", "lower", "upper"),
    decimals: int | None = None,
) -> str:
    """Return a figure with its interval: `-45.3 [-51.0, -40.2]`.

    Args:
        figures: name -> value.
        names: of estimate, lower and upper bound.
        decimals: None: as many as make three digits.
    """
    values = [figures[name] for name in names]
    estimate, low, high = rounded(*values) if decimals is None else (f"{value:.{decimals}f}" for value in values)
    return f"{estimate} [{low}, {high}]"


def in_percent(figures: Mapping[str, Any], name: str, digits: int = 1) -> str:
    """Return a share with its interval: `96.5% [89.0, 104.0]`.

    Args:
        figures: name -> value.
        name: of the estimate; its bounds are called by the name's first word, `gap_lower` of `gap_closed`.
        digits: decimals.
    """
    first = name.partition("_")[0]
    estimate, low, high = (100.0 * figures[key] for key in (name, f"{first}_lower", f"{first}_upper"))
    return f"{estimate:.{digits}f}% [{low:.{digits}f}, {high:.{digits}f}]"


def gap_closed(point: Mapping[str, Any]) -> str:
    """Return the gap closed of a point with its interval, in whole percents; nothing where there is no oracle."""
    if point["gap_closed"] is None:
        return ""
    return PASSED if point["gap_closed"] > 1.0 else in_percent(point, "gap_closed", 0)
