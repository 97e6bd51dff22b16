"""What an evaluation leaves: a table for the terminal, and in a folder CSV, JSON, a picture and TensorBoard events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from metarl.evaluation.curve import REFERENCES, Evaluation
from metarl.evaluation.elsewhere import HOME, Elsewhere
from metarl.evaluation.plot import plot
from metarl.evaluation.wording import PASSED, gap_closed, in_interval, in_percent
from metarl.files import Folder
from metarl.run.events import Events, clear_events
from metarl.run.glossary import look_up
from metarl.run.progress import rounded
from metarl.system import file_name

EVENTS_SUFFIX = ".adaptation"
"""End of the name of the events file, which the next evaluation into the same folder replaces."""
MOST_ROWS = 8
"""Points of a curve that the table shows."""


def table(summary: dict[str, Any]) -> Table:
    """Return a summary as a table for the terminal, within 80 columns."""
    result = Table(
        title=f"{summary['family']}, {summary['tasks']} {summary['kind']}: return after adaptation",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
    )
    result.add_column("agent", no_wrap=True)
    notes = {} if summary["oracle_training"] is None else {"oracle": f"Oracle: {summary['oracle_training']}."}
    if summary["floor_agent"] is not None:
        notes["floor"] = f"Floor: {summary['floor_agent']}, before it adapts."
    last = ""
    has_gap = any(point["gap_closed"] is not None for agent in summary["agents"] for point in agent["points"])
    has_success = summary["agents"][0]["points"][0]["success"] is not None
    # Within 80 columns: the gain makes room for the success rate, an interval for the gap.
    fourth = ("success" if has_success else "gain") + ("" if has_gap else " \\[95%]")
    headers = ["step", "episodes", "mean \\[95%]", fourth]
    for header in (*headers, *(["gap closed \\[95%]"] if has_gap else [])):
        result.add_column(header, justify="right", no_wrap=True)
    for agent, reality in everyone(summary):
        if reality and reality != last:
            result.add_row(f"[italic]in {reality}[/]")
        last = reality
        points = agent["points"]
        shown = _some(len(points))
        if len(shown) < len(points):
            notes["points"] = "Of long curves some points are shown; the files hold all."
        for number in shown:
            point = points[number]
            cells = [
                agent["agent"].removesuffix(f" in {reality}") if number == 0 else "",
                str(point["step"]),
                str(point["episodes"]),
                in_interval(point),
            ]
            if has_success:
                cells.append(f"{point['success']:.0%}" if has_gap else in_percent(point, "success"))
            elif point["gain"] is None:
                cells.append("")
            else:
                gain = in_interval(point, ("gain", "gain_lower", "gain_upper"))
                cells.append(rounded(point["gain"])[0] if has_gap else gain)
            if has_gap:
                cells.append(gap_closed(point))
            if has_gap and cells[-1] == PASSED:
                notes["passed"] = "An oracle that is passed is not at its end: train it for longer."
            result.add_row(*map(escape, cells))
        if agent["total"] is not None:
            result.add_row("total", "", f"0-{points[-1]['episodes']}", escape(in_interval(agent["total"])))
        if agent.get("survives") is not None:
            result.add_row("survives", "", "", "", "", escape(in_percent(agent, "survives", 0)))
        result.add_section()
    result.caption = "\n".join(notes.values()) or None
    return result


def everyone(summary: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return the agents of a summary and its references, at home ("") and then in other realities, with their names."""
    found = []
    for part in (summary, *summary.get("realities", [])):
        reality = part["reality"]["name"] if "reality" in part else ""
        agents = [*part["agents"], *(part[name] for name in REFERENCES if part[name] is not None)]
        found += [(agent, reality) for agent in agents]
    return found


def _some(count: int) -> list[int]:
    """Return the numbers of at most MOST_ROWS of so many points, the first and the last among them.

    They become rarer along the curve, which changes most at its beginning.
    """
    if count <= MOST_ROWS:
        return list(range(count))
    return sorted({round(count ** (row / (MOST_ROWS - 1))) - 1 for row in range(MOST_ROWS)})


def write(
    evaluation: Evaluation,
    summary: dict[str, Any],
    folder: Folder | Path,
    *,
    films: Mapping[str, bytes] = MappingProxyType({}),
    elsewhere: Sequence[Elsewhere] = (),
) -> None:
    """Write adaptation.csv, adaptation.json, adaptation.png and TensorBoard events, in place of earlier ones.

    Args:
        evaluation: what was measured.
        summary: `summarise(evaluation)`.
        folder: where to; made where missing.
        films: agent -> GIF of a task before and after adaptation, for TensorBoard.
        elsewhere: the same in other realities.
    """
    folder = Folder.of(folder)
    picture = plot(summary)
    folder.write("adaptation.csv", _csv(evaluation, elsewhere).encode(errors="backslashreplace"))
    folder.write("adaptation.json", (json.dumps(summary, indent=2) + "\n").encode())
    folder.write("adaptation.png", picture)
    _write_events(summary, folder, picture, films)


def _csv(evaluation: Evaluation, elsewhere: Sequence[Elsewhere] = ()) -> str:
    """Return one row per agent, training seed, task and point; vector parameters as `goal[0]`, `goal[1]`.

    Where there are other realities the first column says in which each row was measured.
    """
    text = io.StringIO(newline="")
    tasks = evaluation.entries[0].curves[0].tasks
    parameters: dict[str, list[float]] = {}
    for name, values in tasks.values.items():
        columns = values.reshape(len(tasks), -1)
        for i in range(columns.shape[1]):
            label = name if values.ndim == 1 else f"{name}[{i}]"
            parameters[label] = columns[:, i].tolist()
    writer = csv.writer(text, lineterminator="\n")
    has_success = evaluation.entries[0].success is not None
    last = ["return", *(["success"] if has_success else [])]
    first = ["reality"] if elsewhere else []
    writer.writerow([*first, "agent", "training_seed", "task", *parameters, "step", "episodes", *last])
    for reality, part in ((HOME, evaluation), *((there.name, there.evaluation) for there in elsewhere)):
        where = [reality] if elsewhere else []
        for entry in part.everyone:
            for seed, curve in zip(entry.seeds, entry.curves, strict=True):
                for task in range(len(tasks)):
                    values = [column[task] for column in parameters.values()]
                    for step, episodes in enumerate(curve.episodes):
                        scores = [curve.returns[step, task].item()]
                        if curve.success is not None:
                            scores.append(curve.success[step, task].item())
                        writer.writerow([*where, entry.agent, seed, task, *values, step, episodes, *scores])
    return text.getvalue()


def _write_events(summary: dict[str, Any], folder: Folder, picture: bytes, films: Mapping[str, bytes]) -> None:
    """Write the curve of every agent for TensorBoard, in a folder of its name, so that one chart holds them all.

    The step is the episodes of experience; the interval stands in a margin chart. The picture of all curves is with the
    first agent, films are with theirs.
    """
    clear_events(folder, EVENTS_SUFFIX)
    tags = {key: f"adaptation/{key}" for key in ("mean", "lower", "upper", "iqm", "success")}
    chart = ["Margin", [tags["mean"], tags["lower"], tags["upper"]]]
    for agent in (agent for part in (summary, *summary.get("realities", [])) for agent in part["agents"]):
        with Events(folder.below(file_name(agent["agent"])), EVENTS_SUFFIX) as events:
            for key, tag in tags.items():
                look_up(tag)
                for point in agent["points"]:
                    if point[key] is not None:
                        events.add_scalar(tag, point[key], point["episodes"])
            title = "return over episodes of experience, mean and 95% interval"
            if agent.get("survives") is not None:
                look_up("adaptation/survives")
                events.add_scalar("adaptation/survives", agent["survives"], agent["points"][-1]["episodes"])
            events.add_custom_scalars({"adaptation": {title: chart}})
            if agent is summary["agents"][0]:
                events.add_picture("adaptation/picture", picture)
            if agent["agent"] in films:
                events.add_picture("adaptation/film", films[agent["agent"]])
