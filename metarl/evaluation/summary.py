"""The summary of an evaluation: means, intervals, gains and the gap closed, as plain data."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.evaluation.curve import REFERENCES, Entry, Evaluation
from metarl.evaluation.statistics import bootstrap_interval, iqm, mean, ratio_gap
from metarl.seeding import Streams
from metarl.version import __version__

VERSIONS = ("torch", "mujoco", "gymnasium", "numpy")
"""Packages whose version a result is told with."""


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Return the result as plain data: what adaptation.json holds.

    The gap closed is None where a reference is missing, and where the oracle is not better than the floor;
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
        "oracle_training": evaluation.oracle_training,
        "floor_agent": evaluation.floor_agent,
        "agents": [],
        **dict.fromkeys(REFERENCES),
        "task_records": first.curves[0].tasks.records(),
    }
    for entry in evaluation.entries:
        described = _describe(entry, range(len(entry.episodes)), generator)
        if evaluation.gap is not None:
            try:
                gaps = _gaps(entry, *evaluation.gap, generator)
            except UserError as undefined:
                summary["gap_note"] = str(undefined)
            else:
                for point, gap in zip(described["points"], gaps, strict=True):
                    point.update(gap)
        summary["agents"].append(described)
    for name, entry in evaluation.references.items():
        summary[name] = _describe(entry, range(1), generator)
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


def _gaps(
    entry: Entry, floor: Float[Tensor, "_S M"], oracle: Float[Tensor, "_S M"], generator: torch.Generator
) -> list[dict[str, float]]:
    """Return the gap closed at every point, with its interval."""
    gaps = []
    for returns in entry.returns:
        gap = ratio_gap(returns, floor, oracle, generator, paired=True)
        gaps.append({"gap_closed": gap.estimate, "gap_lower": gap.lower, "gap_upper": gap.upper})
    return gaps
