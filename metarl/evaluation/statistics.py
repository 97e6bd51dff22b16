"""Statistics of results: mean, interquartile mean, bootstrap intervals, the gap closed and R2.

Values are laid out [M] (tasks) or [S, M] (seeds x tasks). Seeds are strata: the bootstrap draws tasks anew
within every seed and never mixes seeds up. Intervals are percentile intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UserError

AT_ONCE = 2**24
"""Values that are resampled at a time."""

Statistic = Callable[[Tensor], Tensor]
"""Reduces the last axis: [..., N] -> [...]."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    """The statistic of the values as they are."""
    lower: float
    """Lower end of the interval."""
    upper: float
    """Upper end of the interval."""


def mean(values: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
    """Return the mean over the last axis."""
    return values.mean(-1)


def iqm(values: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
    """Return the interquartile mean over the last axis: the mean without the lowest and the highest quarter.

    As in Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice": where
    N is no multiple of 4, floor(N / 4) values are cut at each end.
    """
    cut = values.shape[-1] // 4
    return values.sort(-1).values[..., cut : values.shape[-1] - cut].mean(-1)


def bootstrap_interval(
    values: Float[Tensor, "*S M"],
    statistic: Statistic,
    generator: torch.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return a statistic over all seeds and tasks with its stratified bootstrap interval.

    Args:
        values: one number per task, or per seed and task.
        statistic: such as `mean` or `iqm`; applied to seeds and tasks together.
        generator: draws the resamples.
        confidence: part of the resamples that the interval spans.
        resamples: R.

    Raises:
        ValueError: if there are no values, or one is not finite.
    """
    rows = _rows(values)
    # So many resamples at a time as take a bounded memory.
    most = max(1, AT_ONCE // rows.numel())
    parts = [min(most, resamples - first) for first in range(0, resamples, most)]
    drawn = torch.cat([statistic(_resample(rows, _independent(rows, part, generator))) for part in parts])
    return _interval(float(statistic(rows.flatten())), drawn, confidence)


def ratio_gap(
    agent: Float[Tensor, "*_S _M"],
    floor: Float[Tensor, "*_S _M"],
    oracle: Float[Tensor, "*_S _M"],
    generator: torch.Generator,
    *,
    paired: bool,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return the gap closed, (agent - floor) / (oracle - floor) of mean returns, with its interval.

    All three are resampled, so the interval holds the uncertainty of both references as well.

    Args:
        agent: returns of the agent, per task or per seed and task.
        floor: returns of the policy that the gap is measured from, before any adaptation.
        oracle: returns of a policy that is told the task.
        generator: draws the resamples.
        paired: whether all three, and all their seeds, were run on the same M tasks; then the same tasks are
            drawn for all of them. Otherwise every one is resampled by itself.
        confidence: part of the resamples that the interval spans.
        resamples: R.

    Raises:
        ValueError: if there are no values, one is not finite, or paired values differ in their tasks.
        UserError: if the oracle is not better than the floor: there is no gap to close.
    """
    rows = [_rows(values) for values in (agent, floor, oracle)]
    if paired:
        tasks = {row.shape[1] for row in rows}
        if len(tasks) > 1:
            raise ValueError(f"Got paired returns of {sorted(tasks)} tasks; paired runs have the same tasks.")
        shared = torch.randint(tasks.pop(), (resamples, 1, rows[0].shape[1]), generator=generator)
        drawn = [_resample(row, shared.expand(-1, len(row), -1)).mean(-1) for row in rows]
    else:
        drawn = [_resample(row, _independent(row, resamples, generator)).mean(-1) for row in rows]
    at_agent, at_floor, at_oracle = (float(row.mean()) for row in rows)
    if at_oracle <= at_floor:
        raise UserError(
            f"Got an oracle with mean return {at_oracle:.4g}, not above the floor, {at_floor:.4g}: the gap closed "
            "is not defined. Train the oracle for longer."
        )
    estimate = (at_agent - at_floor) / (at_oracle - at_floor)
    return _interval(estimate, (drawn[0] - drawn[1]) / (drawn[2] - drawn[1]), confidence)


References = tuple[Float[Tensor, "_S M"], Float[Tensor, "_S M"], Float[Tensor, "_S M"]]
"""Returns of agent, floor and oracle, each of its own seeds on the same M tasks."""


def surviving(
    there: References, home: References, generator: torch.Generator, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Return how much of the gap closed at home is closed in another reality too, with its interval.

    It is the gap closed there over that at home; the same tasks are drawn for all six.

    Args:
        there: returns in the other reality, on the same M tasks.
        home: returns at home.
        generator: draws the resamples.
        confidence: part of the resamples that the interval spans.
        resamples: R.

    Raises:
        UserError: no gap is closed at home, or there is none to close.
    """
    rows = [[_rows(values) for values in returns] for returns in (there, home)]
    size = rows[0][0].shape[1]
    shared = torch.randint(size, (resamples, 1, size), generator=generator)
    gaps, drawn = [], []
    for where, group in zip(("there", "at home"), rows, strict=True):
        agent, floor, oracle = (float(row.mean()) for row in group)
        if oracle <= floor:
            raise UserError(f"{where} the oracle's mean return {oracle:.4g} is not above the floor, {floor:.4g}")
        gaps.append((agent - floor) / (oracle - floor))
        means = [_resample(row, shared.expand(-1, len(row), -1)).mean(-1) for row in group]
        drawn.append((means[0] - means[1]) / (means[2] - means[1]))
    if gaps[1] <= 0.0:
        raise UserError(f"at home the gap closed is {gaps[1]:.1%}: nothing can survive")
    return _interval(gaps[0] / gaps[1], drawn[0] / drawn[1], confidence)


def r_squared(
    truth: Float[Tensor, "M C"],
    predicted: Float[Tensor, "M C"],
    generator: torch.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return R2 = 1 - Σ(y - ŷ)² / Σ(y - ȳ)², mean over C components, with its bootstrap interval over M tasks.

    Args:
        truth: y.
        predicted: ŷ.
        generator: draws the resamples.
        confidence: part of the resamples that the interval spans.
        resamples: R.

    Raises:
        ValueError: if there are no values, one is not finite, or a component is the same for all tasks.
    """
    truth, predicted = _rows(truth.T).T, _rows(predicted.T).T
    truth, predicted = truth - truth.mean(0), predicted - truth.mean(0)
    if bool((truth == 0.0).all(0).any()):
        raise ValueError("Got a component that is the same for all tasks; its R2 is not defined.")
    size = len(truth)
    drawn = torch.randint(size, (resamples, size), generator=generator)
    # How often each resample has each task, the values as they are first: all sums are then matrix products.
    counts = torch.zeros(resamples, size, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    counts = torch.cat((torch.ones(1, size, dtype=torch.float64), counts))
    around = counts @ truth.square() - (counts @ truth).square() / size
    # Not quite zero where a resample has one task only.
    scores = (1.0 - counts @ (truth - predicted).square() / around.clamp_min(1e-12)).mean(1)
    return _interval(float(scores[0]), scores[1:], confidence)


def _rows(values: Float[Tensor, "*S M"]) -> Float[Tensor, "S M"]:
    """Return the values as float64 [S, M], after a check."""
    if values.ndim not in (1, 2) or values.numel() == 0 or not values.isfinite().all():
        raise ValueError(f"Got values of shape {tuple(values.shape)}; needs finite numbers as [M] or [S, M].")
    return values.detach().to("cpu", torch.float64).reshape(-1, values.shape[-1])


def _independent(rows: Float[Tensor, "S M"], resamples: int, generator: torch.Generator) -> Int[Tensor, "R S M"]:
    """Draw task indices with replacement, for every seed by itself."""
    return torch.randint(rows.shape[1], (resamples, *rows.shape), generator=generator)


def _resample(rows: Float[Tensor, "S M"], index: Int[Tensor, "R S M"]) -> Float[Tensor, "R N"]:
    """Return the resamples, seeds and tasks flattened: N = S * M."""
    return rows.expand(len(index), -1, -1).gather(2, index).flatten(1)


def _interval(estimate: float, distribution: Float[Tensor, " R"], confidence: float) -> Interval:
    """Return the percentile interval of a bootstrap distribution."""
    tail = (1.0 - confidence) / 2.0
    ends = torch.quantile(distribution, torch.tensor([tail, 1.0 - tail], dtype=distribution.dtype))
    return Interval(estimate=estimate, lower=float(ends[0]), upper=float(ends[1]))
