"""What a posterior says: intervals, what cannot be told, what is told together only, and how well it fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarl.identification.log import Log
from metarl.identification.posterior import Posterior
from metarl.identification.prior import Prior
from metarl.identification.segments import Segments
from metarl.space.parameter import Parameter

INTERVAL = 0.9
"""Probability of the intervals."""
UNTOLD, BARELY = 0.8, 0.5
"""Parts of the prior's interval from which on a log cannot tell a parameter, or barely can."""
TOGETHER = 0.8
"""Correlation from which on two numbers are told together only."""
AT_END = 0.02
"""Part of the training range: a median as near to an end of it is told to be there."""
MODE = 0.05
"""Probability of a mode that is worth telling."""
PRIOR_DRAWS = 4000


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number of a task, or one choice, and what is known of it after the log."""

    parameter: str
    index: int | None
    """Of a number in a vector; None for a single one."""
    unit: str
    scale: str
    prior: tuple[float, float]
    """90% interval before."""
    lower: float
    median: float
    upper: float
    """90% interval after, and its middle."""
    part: float
    """Width of the interval as a part of the prior's, on the parameter's scale."""
    at_end: str
    """`lower` or `upper` where the posterior is at that end of the training range, else empty."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """Of a choice: of its values."""
    truth: float | None = None
    """Where the log knows it."""

    @property
    def name(self) -> str:
        """Name of the parameter, with the place in it."""
        return self.parameter if self.index is None else f"{self.parameter}[{self.index}]"

    @property
    def told(self) -> str:
        """How well the log tells it: yes, barely or no."""
        return "no" if self.part > UNTOLD else "barely" if self.part > BARELY else "yes"


def quantities(prior: Prior, found: Posterior, log: Log) -> list[Quantity]:
    """Return what is known of every number of a task."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PRIOR_DRAWS, prior.size, generator=generator, dtype=torch.float64)
    strata = torch.randint(len(prior.strata), (PRIOR_DRAWS,), generator=generator).tolist()
    before = prior.tasks(x, strata)
    rows = []
    for parameter in prior.space.parameters:
        was, now = (t[parameter.name].reshape(len(t), -1) for t in (before, found.tasks))
        known = log.tasks.get(parameter.name)
        for index in range(now.shape[1]):
            values = now[:, index]
            ends = interval(was[:, index])
            lower, median, upper = interval(values)
            part = (_even(parameter, upper) - _even(parameter, lower)) / (
                _even(parameter, ends[2]) - _even(parameter, ends[0])
            )
            probabilities = {}
            if parameter.is_choice:
                names = parameter.choice_names or tuple(f"{value:g}" for value in parameter.choices)
                named = zip(names, parameter.choices, strict=False)
                probabilities = {name: float((values == value).double().mean()) for name, value in named}
                # As wide as the prior where every value is as likely as another.
                sure = (max(probabilities.values()) - 1.0 / len(probabilities)) * len(probabilities)
                part = 1.0 - sure / max(1, len(probabilities) - 1)
            rows.append(
                Quantity(
                    parameter=parameter.name,
                    index=None if now.shape[1] == 1 else index,
                    unit=parameter.unit,
                    scale=parameter.scale,
                    prior=(ends[0], ends[2]),
                    lower=lower,
                    median=median,
                    upper=upper,
                    part=part,
                    at_end=_at_end(parameter, median),
                    probabilities=probabilities,
                    truth=None if known is None else float(known.reshape(len(known), -1)[0, index]),
                )
            )
    return rows


def interval(values: Tensor) -> tuple[float, float, float]:
    """Return the ends of the 90% interval of draws, and the median between them."""
    places = torch.tensor([(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2], dtype=torch.float64)
    low, middle, high = torch.quantile(values, places).tolist()
    return low, middle, high


def _even(parameter: Parameter, value: float) -> float:
    """Return a value on the scale on which the prior is even."""
    return float(torch.tensor(value).log()) if parameter.scale == "log-uniform" else value


def _at_end(parameter: Parameter, median: float) -> str:
    if parameter.scale not in ("uniform", "log-uniform"):
        return ""
    low, high = (_even(parameter, end) for end in parameter.bounds)
    place = (_even(parameter, median) - low) / (high - low)
    return "lower" if place < AT_END else "upper" if place > 1.0 - AT_END else ""


def together(prior: Prior, found: Posterior, rows: list[Quantity]) -> list[tuple[str, str, float]]:
    """Return pairs of numbers that are told together only, with their correlation, the strongest first."""
    columns = [found.tasks[p.name].reshape(len(found.tasks), -1) for p in prior.space.parameters]
    values = torch.cat(columns, dim=1)
    logs = [row.scale == "log-uniform" for row in rows]
    values = torch.where(torch.tensor(logs), values.abs().clamp_min(1e-300).log(), values)
    away = values - values.mean(0)
    size = away.square().mean(0).sqrt().clamp_min(1e-300)
    matrix = away.T @ away / len(away) / (size[:, None] * size)
    pairs = [
        (rows[i].name, rows[j].name, float(matrix[i, j]))
        for i in range(len(rows))
        for j in range(i)
        if abs(float(matrix[i, j])) > TOGETHER and rows[i].scale != "sphere"
    ]
    return sorted(pairs, key=lambda pair: -abs(pair[2]))


def fit(found: Posterior, segments: Segments) -> list[dict[str, Any]]:
    """Return for every observation that moves its noise, and what part of its change in a segment is explained."""
    rows = []
    for number, name in enumerate(segments.names):
        # What does not move says nothing; a few segments that meet a contact or miss it do not decide.
        last = int((segments.channels == number).nonzero()[-1])
        missed = found.misses[:, last].clamp(-2.0, 2.0).square().mean()
        if segments.moves[number]:
            scale = float(segments.scale[number])
            noise, explained = float(found.noise[number]) * scale, 1.0 - float(missed)
            rows.append(
                {"name": name, "unit": segments.units[number], "noise": noise, "change": scale, "explained": explained}
            )
    return rows


def explained(rows: list[dict[str, Any]]) -> float:
    """Return the part of the changes that is explained, the median over observations."""
    return float(torch.tensor([row["explained"] for row in rows]).median()) if rows else 0.0
