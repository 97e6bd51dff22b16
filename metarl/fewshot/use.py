"""A trained learner in Python: its score on a data set, and what it answers for a user's own items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.evaluation.statistics import Interval, bootstrap_interval, mean
from metarl.fewshot import manifest as manifests
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.function_sets import function_points
from metarl.fewshot.data.scaling import Regression
from metarl.fewshot.episodes import EpisodeShape, Source, Support
from metarl.fewshot.measure import measure
from metarl.fewshot.parts.learner import FewShotLearner
from metarl.seeding import Streams


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


@overload
def predict(
    learner: FewShotLearner, data: ClassData, items: Any, labels: Sequence[Any], queries: Any
) -> tuple[list[Any], Float[Tensor, "Q N"]]: ...


@overload
def predict(learner: FewShotLearner, data: Regression, items: Any, labels: Any, queries: Any) -> Tensor: ...


def predict(
    learner: FewShotLearner, data: ClassData | Regression, items: Any, labels: Any, queries: Any
) -> tuple[list[Any], Float[Tensor, "Q N"]] | Float[Tensor, "Q J"]:
    """Learn new classes, or a new function, from a few items, and tell the class of others, or the values at others.

    Args:
        learner: it is not changed.
        data: what it was trained on, which says how items are scaled.
        items: S items, a numpy array or tensor in the form of the training items; in regression x, [S, inputs], in
            the units of the training data.
        labels: their classes, numbers or words; in regression y, [S, outputs].
        queries: Q items whose classes, or values, are asked for.

    Returns:
        The answers, and the probability of every class, in the sorted order of the labels. In regression the values,
        [Q, outputs], in the units of the training data.

    Raises:
        UserError: items and labels do not fit together, or items are not in the form of the training items.
    """
    if isinstance(data, Regression):
        return _values(learner, data, items, labels, queries)
    known = sorted(set(labels))
    if len(labels) != len(items):
        raise UserError(f"Got {len(items)} items and {len(labels)} labels. Give one label for each item.")
    y = torch.tensor([[known.index(label) for label in labels]])
    support = Support(x=_scaled(data, items)[None], y=y, way=len(known))
    scores = learner.fit(support).predict(_scaled(data, queries)[None])[0].detach().cpu()
    return [known[place] for place in scores.argmax(-1).tolist()], scores.softmax(-1)


def _values(learner: FewShotLearner, data: Regression, x: Any, y: Any, queries: Any) -> Float[Tensor, "Q J"]:
    """Return a function's values at the queries, learned from its values at some points."""
    if learner.setting.outputs != data.outputs:
        raise UserError(
            f"Got a learner of {learner.setting.outputs} outputs and {data.name} with {data.outputs}. Give the data "
            "that it was trained on."
        )
    inputs, asked = function_points("x", x, data.item_shape), function_points("queries", queries, data.item_shape)
    outputs = function_points("y", y, (data.outputs,))
    if len(inputs) != len(outputs):
        raise UserError(f"Got {len(inputs)} points in x and {len(outputs)} in y. Give the values at every point.")
    support = Support(x=data.scaling.x(inputs)[None], y=data.scaling.y(outputs)[None], way=0)
    found = learner.fit(support).predict(data.scaling.x(asked)[None])[0].detach().cpu()
    return data.scaling.values(found)


def _scaled(data: ClassData, items: Any) -> Float[Tensor, "n *item"]:
    """Return a user's items as networks get them."""
    rows = torch.as_tensor(items)
    if rows[0].numel() != math.prod(data.item_shape):
        raise UserError(f"Got items of the shape {tuple(rows.shape[1:])}, and {data.name} has {data.item_shape}.")
    stored = next(iter(data.splits.values())).items.dtype
    if (rows.dtype == torch.uint8) != (stored == torch.uint8):
        raise UserError(f"Got items of the type {rows.dtype}, and {data.name} has {stored}. Give them on that scale.")
    return data.scaled(rows.reshape(len(rows), *data.item_shape))
