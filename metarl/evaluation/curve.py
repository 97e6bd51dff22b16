"""Evaluation: one protocol for every agent, on one axis, the episodes of experience with a new task.

Every task is met afresh. At each point of the curve K episodes of every task are played in parallel, their mean return
is the task's score there, and the same episodes are what the agent learns from before the next point: the point at n
episodes says how well the agent does after having learned from n episodes. An agent that pools (MAML) learns from the K
episodes together, so that its points are at 0, K, 2K, ...; for one that has a memory in each world (RL2) they belong to
K trials, which are averaged: its points are at 0, 1, 2, ... All tasks are adapted in parallel.

The gain of a point is what adaptation brought: its return less that of the first point, task by task.

All agents meet the same tasks and, as far as their actions allow, the same starts. Intervals are 95% bootstrap
intervals over tasks (within every training seed where there are several; see metarl/evaluation/statistics.py), and

    gap closed = (agent - random@0) / (oracle - random@0)

is drawn with the same tasks for all three.
"""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from metarl.errors import UserError
from metarl.evaluation.plot import plot
from metarl.evaluation.statistics import bootstrap_interval, iqm, mean, ratio_gap
from metarl.files import write_atomically
from metarl.learning.rollout import collect
from metarl.run.glossary import look_up
from metarl.run.progress import rounded
from metarl.run.tracking import clear_events
from metarl.seeding import Streams
from metarl.types import BatchEnv, MetaAgent, Tasks
from metarl.version import __version__

EVENTS_SUFFIX = ".adaptation"
"""End of the name of the events file, which the next evaluation into the same folder replaces."""
VERSIONS = ("torch", "mujoco", "gymnasium", "numpy")
"""Packages whose version a result is told with."""
MOST_ROWS = 8
"""Points of a curve that the table shows."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How one trained agent adapts to M tasks, at X = steps + 1 points."""

    parallel: int
    """Episodes of each task played at every point, K."""
    pools: bool
    """Whether the agent learns from the K episodes together; if not, each belongs to a trial of its own."""
    episodes: tuple[int, ...]
    """Episodes of experience with each task before every point: 0, K, 2K, ..., or of each trial: 0, 1, 2, ..."""
    returns: Float[Tensor, "X M"]
    """Undiscounted return, mean over the K episodes of the point, float64."""
    tasks: Tasks
    """The tasks."""
    failures: int
    """Simulations that became invalid; each ended its own episode only."""
    success: Float[Tensor, "X M"] | None = None
    """Part of the K episodes that met the task's goal at any step; None where the family has no such goal."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of an evaluation: an agent, with a curve for every training seed."""

    agent: str
    """Name."""
    curves: tuple[Curve, ...]
    """At least one, all on the same tasks."""
    runs: tuple[str, ...]
    """Where each was trained; empty for an untrained agent."""
    seeds: tuple[int, ...]
    """Seed that each was trained with."""

    @property
    def pools(self) -> bool:
        """Whether the agent learns from the parallel episodes together."""
        return self.curves[0].pools

    @property
    def episodes(self) -> tuple[int, ...]:
        """Episodes of experience before every point."""
        return self.curves[0].episodes

    @property
    def returns(self) -> Float[Tensor, "X S M"]:
        """Returns of all S training seeds."""
        return torch.stack([curve.returns for curve in self.curves], dim=1)

    @property
    def success(self) -> Float[Tensor, "X S M"] | None:
        """Success rates of all S training seeds, or None where the family has no such goal."""
        rates = [curve.success for curve in self.curves if curve.success is not None]
        return torch.stack(rates, dim=1) if rates else None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that one evaluation measured."""

    family: str
    """Full family name."""
    split: str
    """Where the tasks are from: train, test or ood."""
    seed: int
    """Seed of tasks, starts, policy noise and bootstrap."""
    entries: tuple[Entry, ...]
    """The agent itself first, then those it is compared with."""
    oracle: Entry | None = None
    """A policy that is told the task; only its first point counts."""
    random: Entry | None = None
    """An untrained policy; only its first point counts."""
    coincide: bool = False
    """Whether the family has too few tasks to hold any out: its test tasks are its training tasks."""

    def __post_init__(self) -> None:
        known = self.entries[0].curves[0].tasks.records()
        for entry in self.everyone:
            if any(curve.tasks.records() != known for curve in entry.curves):
                raise ValueError(f"Got other tasks for {entry.agent}; evaluate all agents on the same tasks.")

    @property
    def everyone(self) -> tuple[Entry, ...]:
        """All entries, the references last."""
        return (*self.entries, *(entry for entry in (self.oracle, self.random) if entry is not None))


def adaptation_curve(
    agent: MetaAgent, env: BatchEnv, tasks: Tasks, *, steps: int, episodes: int, generator: torch.Generator
) -> Curve:
    """Adapt an agent to new tasks, all in parallel, and measure it on the way.

    Where the agent does not pool, the episodes of a world follow one another in one trial.

    Args:
        agent: a trained agent; it is not changed.
        env: M * `episodes` worlds.
        tasks: M tasks.
        steps: adaptation steps, for an agent that does not pool: episodes; the curve has one point more.
        episodes: K, episodes of each task at every point.
        generator: draws starts and policy noise.

    Raises:
        UserError: if there are no episodes, or fewer than 0 steps.
    """
    if steps < 0 or episodes < 1:
        raise UserError(f"Got {steps} steps of {episodes} episodes. Ask for 0 or more steps of 1 or more episodes.")
    failures = env.failures
    learner = agent.start(tasks)
    returns, success = [], []
    for step in range(steps + 1):
        new_trial = agent.pools or step == 0
        experience = collect(env, learner.policy, tasks, episodes, generator, new_trial=new_trial)
        returns.append(experience.returns.double().mean(1).cpu())
        if experience.success is not None:
            success.append(experience.success.double().mean(1).cpu())
        if step < steps:
            learner = learner.learn(experience)
    return Curve(
        parallel=episodes,
        pools=agent.pools,
        episodes=tuple(step * (episodes if agent.pools else 1) for step in range(steps + 1)),
        returns=torch.stack(returns),
        tasks=tasks,
        failures=env.failures - failures,
        success=torch.stack(success) if success else None,
    )


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Return the result as plain data: what adaptation.json holds.

    The gap closed is None where a reference is missing, and where the oracle is not better than the random policy;
    `gap_note` then says so.
    """
    generator = Streams(evaluation.seed)["bootstrap"]
    first = evaluation.entries[0]
    summary: dict[str, Any] = {
        "version": __version__,
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS},
        "family": evaluation.family,
        "split": evaluation.split,
        "kind": task_kind(evaluation.split, coincide=evaluation.coincide),
        "seed": evaluation.seed,
        "tasks": len(first.curves[0].tasks),
        "gap_note": None,
        "agents": [],
        "oracle": None,
        "random": None,
        "task_records": first.curves[0].tasks.records(),
    }
    for entry in evaluation.entries:
        described = _describe(entry, range(len(entry.episodes)), generator)
        if evaluation.oracle is not None and evaluation.random is not None:
            try:
                gaps = _gaps(entry, evaluation.random, evaluation.oracle, generator)
            except UserError as undefined:
                summary["gap_note"] = str(undefined)
            else:
                for point, gap in zip(described["points"], gaps, strict=True):
                    point.update(gap)
        summary["agents"].append(described)
    if evaluation.oracle is not None:
        summary["oracle"] = _describe(evaluation.oracle, range(1), generator)
    if evaluation.random is not None:
        summary["random"] = _describe(evaluation.random, range(1), generator)
    return summary


def task_kind(split: str, *, coincide: bool) -> str:
    """Return in words which tasks an evaluation used; never "held-out" where there are none."""
    if coincide and split != "ood":
        return "tasks (train and test tasks coincide)"
    return {"train": "training tasks", "test": "held-out tasks", "ood": "out-of-distribution tasks"}[split]


def _describe(entry: Entry, steps: Sequence[int], generator: torch.Generator) -> dict[str, Any]:
    """Return an entry with the statistics of its points, and of whole trials where there are several episodes."""
    points = []
    for step in steps:
        average = bootstrap_interval(entry.returns[step], mean, generator)
        middle = bootstrap_interval(entry.returns[step], iqm, generator)
        success = None if entry.success is None else bootstrap_interval(entry.success[step], mean, generator)
        # Task by task: how much one task's returns differ from another's does not blur it.
        gain = bootstrap_interval(entry.returns[step] - entry.returns[0], mean, generator) if step > 0 else None
        points.append(
            {
                "step": step,
                "episodes": entry.episodes[step],
                "mean": average.estimate,
                "lower": average.lower,
                "upper": average.upper,
                "iqm": middle.estimate,
                "iqm_lower": middle.lower,
                "iqm_upper": middle.upper,
                "gain": None if gain is None else gain.estimate,
                "gain_lower": None if gain is None else gain.lower,
                "gain_upper": None if gain is None else gain.upper,
                "success": None if success is None else success.estimate,
                "success_lower": None if success is None else success.lower,
                "success_upper": None if success is None else success.upper,
                "gap_closed": None,
                "gap_lower": None,
                "gap_upper": None,
            }
        )
    total = None
    if not entry.pools and len(steps) > 2:
        over_trial = bootstrap_interval(entry.returns.sum(0), mean, generator)
        total = {"mean": over_trial.estimate, "lower": over_trial.lower, "upper": over_trial.upper}
    return {
        "agent": entry.agent,
        "runs": list(entry.runs),
        "training_seeds": list(entry.seeds),
        "pools": entry.pools,
        "parallel": entry.curves[0].parallel,
        "failures": sum(curve.failures for curve in entry.curves),
        "points": points,
        "total": total,
    }


def _gaps(entry: Entry, random: Entry, oracle: Entry, generator: torch.Generator) -> list[dict[str, float]]:
    """Return the gap closed at every point, with its interval."""
    gaps = []
    for returns in entry.returns:
        gap = ratio_gap(returns, random.returns[0], oracle.returns[0], generator, paired=True)
        gaps.append({"gap_closed": gap.estimate, "gap_lower": gap.lower, "gap_upper": gap.upper})
    return gaps


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
    has_gap = any(point["gap_closed"] is not None for agent in summary["agents"] for point in agent["points"])
    has_success = summary["agents"][0]["points"][0]["success"] is not None
    # Within 80 columns: the gain makes room for the success rate, an interval for the gap.
    fourth = ("success" if has_success else "gain") + ("" if has_gap else " \\[95%]")
    headers = ["step", "episodes", "mean \\[95%]", fourth]
    for header in (*headers, *(["gap closed \\[95%]"] if has_gap else [])):
        result.add_column(header, justify="right", no_wrap=True)
    references = [summary[name] for name in ("oracle", "random") if summary[name] is not None]
    for agent in (*summary["agents"], *references):
        points = agent["points"]
        shown = _some(len(points))
        if len(shown) < len(points):
            result.caption = "Of long curves some points are shown; the files hold all."
        for number in shown:
            point = points[number]
            cells = [
                agent["agent"] if number == 0 else "",
                str(point["step"]),
                str(point["episodes"]),
                _interval(point),
            ]
            if has_success:
                cells.append(f"{point['success']:.0%}" if has_gap else _percent(point, "success"))
            elif point["gain"] is None:
                cells.append("")
            else:
                gain = _interval(point, ("gain", "gain_lower", "gain_upper"))
                cells.append(rounded(point["gain"])[0] if has_gap else gain)
            if point["gap_closed"] is not None:
                cells.append(_percent(point, "gap_closed", 0 if has_success else 1))
            result.add_row(*cells)
        if agent["total"] is not None:
            result.add_row("total", "", f"0-{points[-1]['episodes']}", _interval(agent["total"]))
        result.add_section()
    return result


def _some(count: int) -> list[int]:
    """Return the numbers of at most MOST_ROWS of so many points, the first and the last among them.

    They become rarer along the curve, which changes most at its beginning.
    """
    if count <= MOST_ROWS:
        return list(range(count))
    return sorted({round(count ** (row / (MOST_ROWS - 1))) - 1 for row in range(MOST_ROWS)})


def _interval(figures: dict[str, Any], names: tuple[str, str, str] = ("mean", "lower", "upper")) -> str:
    """Return a figure with its interval."""
    estimate, low, high = rounded(*(figures[name] for name in names))
    return f"{estimate} \\[{low}, {high}]"


def _percent(point: dict[str, Any], name: str, digits: int = 1) -> str:
    """Return one figure of a point with its interval, in percent with so many decimals."""
    first = name.partition("_")[0]
    estimate, low, high = (100.0 * point[key] for key in (name, f"{first}_lower", f"{first}_upper"))
    return f"{estimate:.{digits}f}% \\[{low:.{digits}f}, {high:.{digits}f}]"


def write(evaluation: Evaluation, summary: dict[str, Any], folder: Path) -> None:
    """Write adaptation.csv, adaptation.json, adaptation.png and TensorBoard events, in place of earlier ones.

    Args:
        evaluation: what was measured.
        summary: `summarise(evaluation)`.
        folder: where to; made where missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "adaptation.csv", _csv(evaluation).encode())
    write_atomically(folder / "adaptation.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_atomically(folder / "adaptation.png", plot(summary))
    _write_events(summary, folder)


def _csv(evaluation: Evaluation) -> str:
    """Return one row per agent, training seed, task and point; vector parameters as `goal[0]`, `goal[1]`."""
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
    writer.writerow(["agent", "training_seed", "task", *parameters, "step", "episodes", *last])
    for entry in evaluation.everyone:
        for seed, curve in zip(entry.seeds, entry.curves, strict=True):
            for task in range(len(tasks)):
                values = [column[task] for column in parameters.values()]
                for step, episodes in enumerate(curve.episodes):
                    scores = [curve.returns[step, task].item()]
                    if curve.success is not None:
                        scores.append(curve.success[step, task].item())
                    writer.writerow([entry.agent, seed, task, *values, step, episodes, *scores])
    return text.getvalue()


def _write_events(summary: dict[str, Any], folder: Path) -> None:
    """Write the curve of every agent for TensorBoard, in a folder of its name, so that one chart holds them all.

    The step is the episodes of experience; the interval stands in a margin chart.
    """
    clear_events(folder, EVENTS_SUFFIX)
    tags = {key: f"adaptation/{key}" for key in ("mean", "lower", "upper", "iqm", "success")}
    chart = ["Margin", [tags["mean"], tags["lower"], tags["upper"]]]
    for agent in summary["agents"]:
        with SummaryWriter(str(folder / agent["agent"]), filename_suffix=EVENTS_SUFFIX) as events:
            for key, tag in tags.items():
                look_up(tag)
                for point in agent["points"]:
                    if point[key] is not None:
                        events.add_scalar(tag, point[key], point["episodes"])
            title = "return over episodes of experience, mean and 95% interval"
            events.add_custom_scalars({"adaptation": {title: chart}})
