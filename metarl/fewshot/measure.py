"""What is measured: a learner on the episodes of a manifest, in chunks that fit in memory.

An episode's figure is the accuracy on its queries, or their mean squared error in regression, in the units of the data
(squared; a mean over outputs, each in its own); with it comes the same after 0, 1, ... inner steps, where a learner
takes such, and the numbers for its calibration.

Calibration is the expected calibration error (Guo et al. 2017) of all queries, over 15 bins of equal width:

    ECE = Σ_b n_b / n |accuracy(b) - confidence(b)|,   confidence: the softmax of the scores at the class answered
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import NotFiniteError, UserError
from metarl.fewshot.data.scaling import Regression
from metarl.fewshot.episodes import Episodes, Source, Support
from metarl.fewshot.manifest import Manifest
from metarl.fewshot.parts.learner import FewShotLearner, Predictor, Stepwise
from metarl.fewshot.parts.norms import BatchNorm
from metarl.fewshot.parts.scores import accuracy, task_loss
from metarl.run.progress import counting

BINS = 15
"""Of the calibration error."""
MEMORY = 512 * 2**20
"""About what the features of a chunk of episodes may take, bytes."""
CHANNELS = 256
"""Numbers that networks are reckoned to keep of a pixel, or of a number, at once."""


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
            values.append(_values(scores, episodes, source))
            if episodes.support.way:
                bins += calibration_bins(scores, episodes.query_y.cpu())
            if steps and isinstance(learner, Stepwise):
                path = learner.path(episodes.support, steps, batch_norm)
                found = [
                    _values(predictor.predict(episodes.query_x).detach().cpu(), episodes, source) for predictor in path
                ]
                paths.append(torch.stack(found))
            count(len(episodes))
    return Measured(
        values=torch.cat(values),
        path=torch.cat(paths, dim=1) if paths else None,
        bins=None if source.outputs else bins,
    )


def items_at_once(item_shape: Sequence[int]) -> int:
    """Return how many items a chunk of episodes may have, so that its features stay within MEMORY."""
    places = math.prod(item_shape[1:]) if len(item_shape) in (2, 3) else math.prod(item_shape)
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


def _values(scores: Float[Tensor, "M Q N"], episodes: Episodes, source: Source) -> Float[Tensor, " M"]:
    """Return accuracy of every episode, or mean squared error in the data's own units."""
    if not bool(scores.isfinite().all()):
        raise NotFiniteError("the learner's scores are not finite: its training has run away")
    y = episodes.query_y.cpu()
    if episodes.support.way:
        return accuracy(scores, y).double()
    if isinstance(source, Regression):
        scores, y = source.scaling.values(scores), source.scaling.values(y)
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
