"""What a probe leaves: tables for the terminal, probe.json and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from metarl.evaluation.swap import MEMORIES
from metarl.evaluation.wording import in_interval
from metarl.files import Folder
from metarl.run.events import Events, clear_events
from metarl.run.glossary import look_up
from metarl.system import file_name
from metarl.version import __version__

EVENTS_SUFFIX = ".probe"
"""End of the name of the events file, which the next probe into the same folder replaces."""


def tables(result: dict[str, Any], kind: str) -> Iterator[Table | str]:
    """Yield a result for the terminal, within 80 columns: tables, and lines of text.

    Args:
        result: of `probe`.
        kind: of tasks, in words.
    """
    scores, swap = result["probe"], result["swap"]
    last = result["episodes"]
    table = _table(f"{result['agent']}, {result['tasks']} {kind}: what its memory tells a linear probe")
    table.add_column("parameter", overflow="fold")
    has_choice = any(score["score"] == "accuracy" for score in scores)
    headers = ["score", *(["chance"] if has_choice else []), "before", "1 episode", f"{last} episodes"]
    for header in headers[: len(headers) - (last == 1)]:
        table.add_column(header, justify="right", no_wrap=True)
    for score in scores:
        points = score["points"]
        many = f" ×{score['components']}" if score["components"] > 1 else ""
        if many:
            table.caption = "Of a vector with ×n components: the mean of their scores."
        chance = "" if score["chance"] is None else f"{score['chance']:.2f}"
        later = [_interval(point, 2) for point in (points[1], points[-1])[: 1 + (last > 1)]]
        cells = [score["score"], *([chance] if has_choice else []), f"{points[0]['estimate']:.2f}"]
        table.add_row(score["parameter"] + many, *cells, *later)
    yield table
    if swap is None:
        yield "No swap of memories: the trials that this agent was trained on have one episode."
        return
    table = _table(f"Episode {last} with other memories")
    table.add_column("memory", no_wrap=True)
    table.add_column("return \\[95%]", justify="right", no_wrap=True)
    if "success" in swap["own"]:
        table.add_column("success \\[95%]", justify="right", no_wrap=True)
    names = {"own": "its own", "other": "another task's", "none": "none"}
    names |= {"own_minus_other": "own - another task's", "own_minus_none": "own - none"}
    for row, name in names.items():
        figures = [_interval(swap[row][figure]) for figure in ("return", "success") if figure in swap[row]]
        table.add_row(name, *figures, end_section=row == "none")
    yield table
    change = _interval(swap["first_action"], 2)
    if swap["discrete"]:
        yield f"Another task's memory changes {change} of the first actions."
    else:
        yield f"Another task's memory moves the first action by {change} (of -1..1)."


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def _interval(figure: dict[str, Any], decimals: int | None = None) -> str:
    """Return an estimate with its interval, to so many decimals, or to three digits."""
    return escape(in_interval(figure, ("estimate", "lower", "upper"), decimals))


def write(results: Sequence[dict[str, Any]], folder: Folder | Path) -> None:
    """Write probe.json, and TensorBoard events in a folder for each agent, in place of earlier ones.

    Without results the earlier ones go all the same: they belong to another evaluation.
    """
    folder = Folder.of(folder).make()
    if results:
        content = {"version": __version__, "results": list(results)}
        folder.write("probe.json", (json.dumps(content, indent=2) + "\n").encode())
    else:
        folder.remove("probe.json")
    clear_events(folder, EVENTS_SUFFIX)
    for result in results:
        with Events(folder.below(file_name(result["agent"])), EVENTS_SUFFIX) as events:
            for tag, value, episodes in _scalars(result):
                look_up(tag)
                events.add_scalar(tag, value, episodes)


def _scalars(result: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Yield tag, figure and episodes of experience."""
    for score in result["probe"]:
        # TensorBoard takes no brackets.
        name = score["parameter"].replace("[", "_").rstrip("]")
        for point in score["points"]:
            yield f"probe_{score['score'].lower()}/{name}", point["estimate"], point["episodes"]
            if score["chance"] is not None:
                yield f"probe_chance/{name}", score["chance"], point["episodes"]
    swap = result["swap"]
    if swap is not None:
        for whose in MEMORIES:
            yield f"swap/{whose}", swap[whose]["return"]["estimate"], swap["episodes"]
        yield "swap/first_action", swap["first_action"]["estimate"], swap["episodes"]
