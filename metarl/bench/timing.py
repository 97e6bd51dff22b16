"""What all benchmarks share: contenders take turns round by round, medians, ratios of rounds, and tables.

Machines are noisy, and a machine that is busy now is idle a minute later. So in every round every contender has its
turn; a figure is the median over rounds, and a ratio is the median of the rounds' ratios. Absolute figures hold for the
machine and the moment only. The first round warms up and is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import median
from typing import TypeVar

from rich.console import Console
from rich.table import Table

Key = TypeVar("Key", bound=Hashable)
Figure = TypeVar("Figure")


def in_turn(rounds: int, contenders: dict[Key, Callable[[], Figure]]) -> dict[Key, list[Figure]]:
    """Return what every contender gives in every round; one more round before warms up."""
    turns = [{key: run() for key, run in contenders.items()} for _ in range(rounds + 1)]
    return {key: [turn[key] for turn in turns[1:]] for key in contenders}


def ratio(over: Iterable[float], under: Iterable[float]) -> float:
    """Return the median of the rounds' ratios."""
    return median(a / b for a, b in zip(over, under, strict=True))


def seconds_of(run: Callable[[], object], least: float = 0.0) -> float:
    """Return the seconds of one call, over as many calls as fill `least` seconds."""
    started, passed, calls = time.perf_counter(), 0.0, 0
    while calls == 0 or passed < least:
        run()
        calls += 1
        passed = time.perf_counter() - started
    return passed / calls


# -- what is printed --------------------------------------------------------------------------------------------------


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str]) -> None:
    """Print a table.

    Args:
        title: above it.
        columns: their names.
        rows: one text a column.
        words: columns of words, which stand left; numbers stand right.
    """
    table = Table()
    for column in columns:
        # Where a table is too wide, its cells are broken, not cut off.
        table.add_column(column, justify="left" if column in words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    # Not the table's own title, which would be broken to the width of a narrow table.
    console.print(title, style="italic")
    console.print(table)


def percent(share: float) -> str:
    """Return a share as text, small ones with a decimal."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def explain(columns: dict[str, str]) -> str:
    """Return what the columns of a benchmark mean, a line each: for below its tables, and for `--help`."""
    width = max(map(len, columns))
    return "\n".join(f"  {name:{width}}  {meaning}" for name, meaning in columns.items())
