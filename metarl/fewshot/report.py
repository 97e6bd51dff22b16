"""What is shown and written of a test: tables for the terminal; fewshot.json and .csv, pictures, TensorBoard events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from metarl.evaluation.plot import Picture, draw_pictures, to_png
from metarl.fewshot.summary import Test, label
from metarl.files import Folder
from metarl.run.events import Events, clear_events
from metarl.run.glossary import look_up
from metarl.run.progress import rounded
from metarl.system import file_name

EVENTS_SUFFIX = ".fewshot"
"""End of the name of the events files, which the next evaluation into the same folder replaces."""
MOST_COLUMNS = 6
"""Inner steps that the table shows."""

# -- for the eye ------------------------------------------------------------------------------------------------------


def table(test: dict[str, Any], measure: str) -> Table:
    """Return one test of a summary as a table for the terminal, within 80 columns."""
    result = _table(f"{test['label']}, {test['episodes']} episodes of the {test['split']} split")
    result.add_column("learner", overflow="fold")
    result.add_column("batch norm", no_wrap=True)
    several = any(len(row["training_seeds"]) > 1 for row in test["rows"])
    headers = [*(["seeds"] if several else []), f"{measure} \\[95%]", *(["ECE"] if measure == "accuracy" else [])]
    for header in (*headers, *(["first - this"] if len(test["rows"]) > 1 else [])):
        result.add_column(header, justify="right", no_wrap=True)
    to_first = {pair["second"]: pair for pair in test["pairs"] if pair["first"] == test["rows"][0]["name"]}
    for row in test["rows"]:
        cells = [row["learner"], row["batch_norm"]]
        if several:
            cells.append(str(len(row["training_seeds"]) or ""))
        cells.append(figure(row, measure))
        if measure == "accuracy":
            cells.append("" if row["ece"] is None else f"{100.0 * row['ece']:.1f}%")
        if row["name"] in to_first:
            cells.append(figure(to_first[row["name"]], measure, "difference"))
        result.add_row(*cells)
    return result


def table_of_steps(test: dict[str, Any], measure: str) -> Table | None:
    """Return the curves of one test as a table, where there are such."""
    rows = [row for row in test["rows"] if row["points"]]
    if not rows:
        return None
    result = _table(f"{measure} after n inner steps, {test['label']}")
    result.add_column("learner", overflow="fold")
    count = max(len(row["points"]) for row in rows)
    shown = range(count)
    if count > MOST_COLUMNS:
        # They become rarer along the curve, which changes most at its beginning.
        shown = sorted({round(count ** (column / (MOST_COLUMNS - 1))) - 1 for column in range(MOST_COLUMNS)})
    for step in shown:
        result.add_column(f"n={step}", justify="right", no_wrap=True)
    for row in rows:
        points = row["points"]
        means = [points[step]["mean"] if step < len(points) else None for step in shown]
        result.add_row(row["name"], *("" if m is None else _number(m, measure) for m in means))
    return result


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def figure(found: dict[str, Any], measure: str, name: str = "mean") -> str:
    """Return a figure with its interval, for rich."""
    numbers = [found[key] for key in (name, "lower", "upper")]
    if measure == "accuracy":
        estimate, low, high = (f"{100.0 * number:.1f}" for number in numbers)
        return f"{estimate}% \\[{low}, {high}]"
    estimate, low, high = rounded(*numbers)
    return f"{estimate} \\[{low}, {high}]"


def _number(value: float, measure: str) -> str:
    return f"{100.0 * value:.1f}%" if measure == "accuracy" else rounded(value)[0]


# -- files ------------------------------------------------------------------------------------------------------------


def write(tests: Sequence[Test], summary: dict[str, Any], folder: Folder | Path) -> list[Path]:
    """Write fewshot.json, fewshot.csv, TensorBoard events and a picture of curves, in place of earlier ones.

    Args:
        tests: what was measured.
        summary: `summarise(tests, ...)`.
        folder: where to; made where missing.

    Returns:
        The pictures; none where no learner has inner steps.
    """
    folder = Folder.of(folder)
    folder.write("fewshot.csv", _csv(tests).encode(errors="backslashreplace"))
    folder.write("fewshot.json", (json.dumps(summary, indent=2) + "\n").encode())
    for name in folder.entries():
        if name.startswith("steps-") and name.endswith(".png"):
            folder.remove(name)
    pictures = []
    for test in summary["tests"]:
        if any(row["points"] for row in test["rows"]):
            name = f"steps-{test['label'].replace(' ', '-')}.png"
            pictures.append(folder.write(name, to_png(draw_pictures([_picture(test, summary)]))))
    _write_events(summary, folder)
    return pictures


def _csv(tests: Sequence[Test]) -> str:
    """Return one row per test, learner, policy, training seed, episode and inner step; no step: as it was learned."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["test", "learner", "batch_norm", "training_seed", "episode", "step", "value"])
    for test in tests:
        for row in test.rows:
            for seed, measured in zip(row.seeds or ("",), row.measured, strict=True):
                start = [label(test.manifest), row.learner, row.batch_norm, seed]
                curves = [("", measured.values), *enumerate(measured.path if measured.path is not None else ())]
                for step, values in curves:
                    writer.writerows([*start, episode, step, value] for episode, value in enumerate(values.tolist()))
    return text.getvalue()


def _picture(test: dict[str, Any], summary: dict[str, Any]) -> Picture:
    """Return the curves of one test, and the learners that have none as lines across."""
    rows = test["rows"]
    curves = {
        row["name"]: [(p["step"], p["mean"], p["lower"], p["upper"]) for p in row["points"]]
        for row in rows
        if row["points"]
    }
    references = {row["name"]: (row["mean"], row["lower"], row["upper"]) for row in rows if not row["points"]}
    return Picture(
        title=f"{', '.join(curves)} on {summary['data']}",
        subtitle=f"{test['label']}, {test['episodes']} {test['split']} episodes; mean and 95% bootstrap interval",
        x_label="inner steps on the support set",
        y_label="mean squared error of the queries" if summary["measure"] == "mse" else "accuracy on the queries",
        curves=curves,
        references=references,
    )


def _write_events(summary: dict[str, Any], folder: Folder) -> None:
    """Write the results of every learner for TensorBoard, in a folder of its name, so that one chart holds them all.

    The step of `test/...` is the shots, that of `steps/...` the inner steps; the intervals stand in margin charts.
    """
    clear_events(folder, EVENTS_SUFFIX)
    measure, tests = summary["measure"], summary["tests"]
    charts = {
        group: {f"{measure} over {over}, mean and 95% interval": ["Margin", _margin(group, measure)]}
        for group, over in (("test", "shots"), ("steps", "inner steps"))
    }
    for test in tests:
        for row in test["rows"]:
            name = row["name"] + (f" {test['label']}" if len(tests) > 1 else "")
            with Events(folder.below(file_name(name)), EVENTS_SUFFIX) as events:
                shot = test["shape"].get("shot", 0)
                points = [("test", shot, row), *(("steps", point["step"], point) for point in row["points"])]
                for group, step, found in points:
                    for tag, key in zip(_margin(group, measure), ("mean", "lower", "upper"), strict=True):
                        look_up(tag)
                        events.add_scalar(tag, found[key], step)
                if row["ece"] is not None:
                    look_up("test/ece")
                    events.add_scalar("test/ece", row["ece"], shot)
                events.add_custom_scalars(charts)


def _margin(group: str, measure: str) -> list[str]:
    """Return the tags of a mean with its interval."""
    return [f"{group}/{measure}", f"{group}/lower", f"{group}/upper"]
