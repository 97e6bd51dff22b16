"""What measurements come to: means with intervals, curves, paired differences, calibration errors; as plain data.

All learners meet the same episodes. Intervals are 95% percentile bootstrap intervals over episodes (within every
training seed where there are several; see metarl/evaluation/statistics.py). Two learners are compared episode by
episode: the interval of their mean difference.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.evaluation.statistics import Interval, bootstrap_interval, mean
from metarl.fewshot.episodes import Source
from metarl.fewshot.manifest import Manifest
from metarl.fewshot.measure import BINS, Measured, calibration_error
from metarl.seeding import Streams
from metarl.version import __version__

VERSIONS = ("torch", "numpy")
"""Packages whose version a result is told with."""
INTERVAL = "95% percentile bootstrap over episodes within training seeds, 2000 resamples"
"""What the intervals are."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A learner under one batch-norm policy, tested with every one of its training seeds.

    Attributes:
        learner: what it is called.
        batch_norm: policy of the test; `none` where it has no batch norm, `-` where it has no network.
        own: whether it was trained with that policy.
        measured: of every training seed, S.
        seeds: they.
        runs: where each was trained.
        iterations: for how long each was trained.
        checkpoints: which one of each was tested.
    """

    learner: str
    batch_norm: str
    own: bool
    measured: tuple[Measured, ...]
    seeds: tuple[int, ...] = ()
    runs: tuple[str, ...] = ()
    iterations: tuple[int, ...] = ()
    checkpoints: tuple[str, ...] = ()

    @property
    def values(self) -> Float[Tensor, "S E"]:
        """Figures of all seeds."""
        return torch.stack([measured.values for measured in self.measured])

    @property
    def path(self) -> Float[Tensor, "X S E"] | None:
        """Curves of all seeds."""
        paths = [measured.path for measured in self.measured if measured.path is not None]
        return torch.stack(paths, dim=1) if paths else None


@dataclass(frozen=True, kw_only=True)
class Test:
    """All rows on the episodes of one manifest."""

    manifest: Manifest
    file: str
    """Where the manifest is."""
    rows: tuple[Row, ...]

    # Not a test of pytest's.
    __test__ = False


def summarise(tests: Sequence[Test], source: Source, seed: int) -> dict[str, Any]:
    """Return the results as plain data: what fewshot.json holds.

    Args:
        tests: at least one.
        source: their data.
        seed: of the bootstrap.
    """
    generator = Streams(seed)["bootstrap"]
    return {
        "version": __version__,
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS},
        "data": source.name,
        "fingerprint": source.describe()["fingerprint"],
        "measure": "mse" if source.outputs else "accuracy",
        "interval": INTERVAL,
        "calibration": None if source.outputs else f"ECE, {BINS} bins of equal width",
        "seed": seed,
        "tests": [_summarise_one(test, generator) for test in tests],
    }


def _summarise_one(test: Test, generator: torch.Generator) -> dict[str, Any]:
    rows = [_describe(row, generator) for row in test.rows]
    for row in rows:
        row["name"] = name_of(row, rows)
    pairs = []
    for first, second in combinations(range(len(rows)), 2):
        # Seeds of one learner are averaged: what remains is one difference for every episode.
        difference = test.rows[first].values.mean(0) - test.rows[second].values.mean(0)
        found = _plain("difference", bootstrap_interval(difference, mean, generator))
        pairs.append({"first": rows[first]["name"], "second": rows[second]["name"], **found})
    return {
        "label": label(test.manifest),
        "split": test.manifest.header["split"],
        "shape": test.manifest.header["shape"],
        "episodes": len(test.manifest),
        "episode_seed": test.manifest.header["seed"],
        "manifest": test.manifest.hash,
        "manifest_file": test.file,
        "rows": rows,
        "pairs": pairs,
    }


def _describe(row: Row, generator: torch.Generator) -> dict[str, Any]:
    """Return a row with its statistics."""
    bins = [measured.bins for measured in row.measured if measured.bins is not None]
    points = []
    for step, values in enumerate(row.path if row.path is not None else ()):
        points.append({"step": step, **_plain("mean", bootstrap_interval(values, mean, generator))})
    return {
        "learner": row.learner,
        "batch_norm": row.batch_norm,
        "trained_with_it": row.own,
        "training_seeds": list(row.seeds),
        "runs": list(row.runs),
        "iterations": list(row.iterations),
        "checkpoints": list(row.checkpoints),
        **_plain("mean", bootstrap_interval(row.values, mean, generator)),
        "ece": sum(map(calibration_error, bins)) / len(bins) if bins else None,
        "points": points,
    }


def _plain(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, "lower": interval.lower, "upper": interval.upper}


def label(manifest: Manifest) -> str:
    """Return the size of a manifest's episodes in words, for titles and names of files."""
    shape = manifest.header["shape"]
    if "shot" not in shape:
        return "meta-dataset"
    ways = "" if not manifest.arrays["sizes"][0, 0] else f"{shape['way']}-way "
    return f"{ways}{shape['shot']}-shot"


def name_of(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Return what a row is called among others: with its batch-norm policy where the learner has several rows."""
    several = sum(other["learner"] == row["learner"] for other in rows) > 1
    return f"{row['learner']} {row['batch_norm']}" if several else row["learner"]
