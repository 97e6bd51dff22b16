"""Tests of few-shot learners on the episodes of manifests: accuracy, curves over inner steps, calibration, comparisons.

All learners meet the same episodes. An episode's figure is the accuracy on its queries, or their mean squared error in
regression. Intervals are 95% percentile bootstrap intervals over episodes (within every training seed where there are
several; see metarl/evaluation/statistics.py). Two learners are compared episode by episode: the interval of their mean
difference.

Calibration is the expected calibration error (Guo et al. 2017) of all queries, over 15 bins of equal width:

    ECE = Σ_b n_b / n |accuracy(b) - confidence(b)|,   confidence: the softmax of the scores at the class answered
"""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from metarl.errors import NotFiniteError, UserError
from metarl.evaluation.plot import Picture, draw_picture, to_png
from metarl.evaluation.statistics import Interval, bootstrap_interval, mean
from metarl.fewshot import manifest as manifests
from metarl.fewshot.classes import ClassData
from metarl.fewshot.episodes import Episodes, EpisodeShape, Source, Support
from metarl.fewshot.manifest import Manifest
from metarl.fewshot.parts.backbones import BatchNorm
from metarl.fewshot.parts.learner import FewShotLearner, Predictor, Stepwise, accuracy, task_loss
from metarl.files import write_atomically
from metarl.run.glossary import look_up
from metarl.run.progress import counting, rounded
from metarl.run.tracking import clear_events
from metarl.seeding import Streams
from metarl.version import __version__

EVENTS_SUFFIX = ".fewshot"
"""End of the name of the events files, which the next evaluation into the same folder replaces."""
VERSIONS = ("torch", "numpy")
"""Packages whose version a result is told with."""
BINS = 15
"""Of the calibration error."""
MEMORY = 512 * 2**20
"""About what the features of a chunk of episodes may take, bytes."""
CHANNELS = 256
"""Numbers that networks are reckoned to keep of a pixel, or of a number, at once."""
MOST_COLUMNS = 6
"""Inner steps that the table shows."""
INTERVAL = "95% percentile bootstrap over episodes within training seeds, 2000 resamples"
"""What the intervals are."""


@runtime_checkable
class Fits(Protocol):
    """What can be tested: a learner, or the pixel baseline."""

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Learn M tasks from their support sets."""
        ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one trained learner does on E episodes.

    Attributes:
        values: accuracy, or mean squared error, of every episode, float64.
        path: the same after 0, 1, ... inner steps; None of a learner without such.
        bins: of the calibration: number of queries, sum of their confidences, number of right answers. None in
            regression.
    """

    values: Float[Tensor, " E"]
    path: Float[Tensor, "X E"] | None = None
    bins: Float[Tensor, "bins 3"] | None = None


def measure(
    learner: Fits,
    source: Source,
    manifest: Manifest,
    *,
    batch_norm: BatchNorm | None = None,
    steps: int = 0,
    title: str = "",
) -> Measured:
    """Test a learner on all episodes of a manifest, a few of them at a time.

    Args:
        learner: it is not changed.
        source: the data of the manifest.
        manifest: the episodes.
        batch_norm: another policy than the learner's own.
        steps: inner steps of the curve, for learners that have such; 0: no curve.
        title: what a terminal shows while it lasts; nothing if empty.

    Raises:
        NotFiniteError: the learner gives scores that are not finite.
    """
    values, paths = [], []
    bins = torch.zeros(BINS, 3, dtype=torch.float64)
    most = tasks_at_once(learner, steps) if isinstance(learner, Stepwise) else None
    with counting(title, len(manifest)) as count:
        for episodes in manifest.chunks(source, items_at_once(source.item_shape), most):
            scores = learner.fit(episodes.support, batch_norm).predict(episodes.query_x).detach().cpu()
            values.append(_values(scores, episodes))
            if episodes.support.way:
                bins += calibration_bins(scores, episodes.query_y.cpu())
            if steps and isinstance(learner, Stepwise):
                path = learner.path(episodes.support, steps, batch_norm)
                found = [_values(predictor.predict(episodes.query_x).detach().cpu(), episodes) for predictor in path]
                paths.append(torch.stack(found))
            count(len(episodes))
    return Measured(
        values=torch.cat(values),
        path=torch.cat(paths, dim=1) if paths else None,
        bins=None if source.outputs else bins,
    )


def items_at_once(item_shape: Sequence[int]) -> int:
    """Return how many items a chunk of episodes may have, so that its features stay within MEMORY."""
    places = math.prod(item_shape[-2:] if len(item_shape) == 3 else item_shape)
    return max(1, MEMORY // (4 * CHANNELS * places))


def tasks_at_once(learner: Stepwise, steps: int) -> int:
    """Return how many tasks may have parameters of their own behind every one of some steps, within MEMORY."""
    numbers = _numbers(learner.state_dict()) if isinstance(learner, FewShotLearner) else 0
    return max(1, MEMORY // max(1, 4 * numbers * (steps + 1)))


def _numbers(state: Any) -> int:
    """Return the numbers in a learner's state; those of its optimiser make it too many by some times."""
    if isinstance(state, Tensor):
        return state.numel()
    if isinstance(state, Mapping):
        return sum(map(_numbers, state.values()))
    return sum(map(_numbers, state)) if isinstance(state, list | tuple) else 0


def _values(scores: Float[Tensor, "M Q N"], episodes: Episodes) -> Float[Tensor, " M"]:
    """Return accuracy or mean squared error of every episode."""
    if not bool(scores.isfinite().all()):
        raise NotFiniteError("the learner's scores are not finite: its training has run away")
    y = episodes.query_y.cpu()
    if episodes.support.way:
        return accuracy(scores, y).double()
    return task_loss(scores.double(), y.double(), 0)


def calibration_bins(scores: Float[Tensor, "M Q N"], y: Int[Tensor, "M Q"]) -> Float[Tensor, "bins 3"]:
    """Return for every bin the number of queries, the sum of their confidences, and the number of right answers."""
    confidence, answer = scores.double().softmax(-1).max(-1)
    # A bin holds its upper end: confidence 1 belongs to the last one.
    place = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1).flatten()
    columns = (torch.ones_like(confidence), confidence, (answer == y).double())
    return torch.stack([torch.zeros(BINS).double().index_add(0, place, part.flatten()) for part in columns], dim=1)


def calibration_error(bins: Float[Tensor, "bins 3"]) -> float:
    """Return the expected calibration error."""
    count, confidence, right = bins.unbind(1)
    return float((right - confidence).abs().sum() / count.sum())


@dataclass(frozen=True)
class PixelNeighbour:
    """The pixel baseline: a query has the class of the support item that is nearest by Euclidean distance.

    Nothing is learned: what a learner's accuracy is worth on some data shows beside it.
    """

    support: Support | None = None

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> PixelNeighbour:
        """Keep the support sets."""
        if support.way == 0:
            raise UserError("Got the pixel baseline for regression. Leave --baseline out.")
        return PixelNeighbour(support)

    def predict(self, x: Float[Tensor, "M Q *item"]) -> Float[Tensor, "M Q N"]:
        """Return the negative distance to the nearest item of every class."""
        if self.support is None:
            raise ValueError("fit it first")
        distances = torch.cdist(x.flatten(2), self.support.x.flatten(2))
        classes = torch.arange(self.support.way, device=x.device)
        elsewhere = self.support.y.to(x.device)[:, None, None, :] != classes[:, None]
        return -distances[:, :, None, :].masked_fill(elsewhere, torch.inf).amin(-1)


# -- results ----------------------------------------------------------------------------------------------------------


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
        steps: whether the curve is its own; learners without inner steps have none.
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


def write(tests: Sequence[Test], summary: dict[str, Any], folder: Path) -> list[Path]:
    """Write fewshot.json, fewshot.csv, TensorBoard events and a picture of curves, in place of earlier ones.

    Args:
        tests: what was measured.
        summary: `summarise(tests, ...)`.
        folder: where to; made where missing.

    Returns:
        The pictures; none where no learner has inner steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "fewshot.csv", _csv(tests).encode())
    write_atomically(folder / "fewshot.json", (json.dumps(summary, indent=2) + "\n").encode())
    for earlier in folder.glob("steps-*.png"):
        earlier.unlink()
    pictures = []
    for test in summary["tests"]:
        if any(row["points"] for row in test["rows"]):
            path = folder / f"steps-{test['label'].replace(' ', '-')}.png"
            write_atomically(path, to_png(draw_picture(_picture(test, summary))))
            pictures.append(path)
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


def _write_events(summary: dict[str, Any], folder: Path) -> None:
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
            with SummaryWriter(str(folder / name), filename_suffix=EVENTS_SUFFIX) as events:
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


# -- in short ---------------------------------------------------------------------------------------------------------


def score(
    learner: FewShotLearner,
    source: Source,
    *,
    split: str = "test",
    episodes: int = 600,
    shape: EpisodeShape | None = None,
    seed: int = 0,
) -> Interval:
    """Return a learner's mean accuracy, or mean squared error, with its 95% interval.

    Args:
        learner: it is not changed.
        source: the data.
        split: where the episodes are from.
        episodes: how many.
        shape: of the episodes; the shape of the training episodes if not given.
        seed: of the episodes and of the bootstrap.

    Raises:
        UserError: the data cannot give such episodes.
    """
    manifest = manifests.make(source, split, episodes, shape or learner.setting.shape, seed)
    return bootstrap_interval(measure(learner, source, manifest).values, mean, Streams(seed)["bootstrap"])


def predict(
    learner: FewShotLearner, data: ClassData, items: Any, labels: Sequence[Any], queries: Any
) -> tuple[list[Any], Float[Tensor, "Q N"]]:
    """Learn new classes from a few items, and tell the class of others.

    Args:
        learner: it is not changed.
        data: what it was trained on, which says how items are scaled.
        items: S items, a numpy array or tensor in the form of the training items.
        labels: their classes, numbers or words.
        queries: Q items whose classes are asked for.

    Returns:
        The answers, and the probability of every class, in the sorted order of the labels.

    Raises:
        UserError: items and labels do not fit together, or items are not in the form of the training items.
    """
    known = sorted(set(labels))
    if len(labels) != len(items):
        raise UserError(f"Got {len(items)} items and {len(labels)} labels. Give one label for each item.")
    y = torch.tensor([[known.index(label) for label in labels]])
    support = Support(x=_scaled(data, items)[None], y=y, way=len(known))
    scores = learner.fit(support).predict(_scaled(data, queries)[None])[0].detach().cpu()
    return [known[place] for place in scores.argmax(-1).tolist()], scores.softmax(-1)


def _scaled(data: ClassData, items: Any) -> Float[Tensor, "n *item"]:
    """Return a user's items as networks get them."""
    rows = torch.as_tensor(items)
    if rows[0].numel() != math.prod(data.item_shape):
        raise UserError(f"Got items of the shape {tuple(rows.shape[1:])}, and {data.name} has {data.item_shape}.")
    stored = next(iter(data.splits.values())).items.dtype
    if (rows.dtype == torch.uint8) != (stored == torch.uint8):
        raise UserError(f"Got items of the type {rows.dtype}, and {data.name} has {stored}. Give them on that scale.")
    return data.scaled(rows.reshape(len(rows), *data.item_shape))
