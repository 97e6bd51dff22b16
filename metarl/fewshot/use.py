"""A trained learner in Python: its score on a data set, and what it answers for a user's own items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.arguments import checked
from metarl.errors import UserError
from metarl.evaluation.statistics import Interval, bootstrap_interval, mean
from metarl.fewshot import manifest as manifests
from metarl.fewshot.data.function_sets import function_points
from metarl.fewshot.data.scaling import Regression
from metarl.fewshot.episodes import EpisodeShape, Source, Support
from metarl.fewshot.form import ItemForm
from metarl.fewshot.layout import AUTO
from metarl.fewshot.measure import measure
from metarl.fewshot.parts.learner import FewShotLearner
from metarl.fewshot.reading.arrays import array_of
from metarl.seeding import Streams


@checked
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


@runtime_checkable
class Classes(Protocol):
    """Data with classes: a `Source` that tells the form of its items."""

    @property
    def name(self) -> str:
        """Return the name."""
        ...

    @property
    def form(self) -> ItemForm:
        """Return what its items are."""
        ...


@overload
def predict(
    learner: FewShotLearner, data: Classes | ItemForm, items: Any, labels: Any, queries: Any, *, layout: str = AUTO
) -> tuple[list[Any], Float[Tensor, "Q N"]]: ...


@overload
def predict(
    learner: FewShotLearner, data: Regression, items: Any, labels: Any, queries: Any, *, layout: str = AUTO
) -> Float[Tensor, "Q J"]: ...


@checked
def predict(
    learner: FewShotLearner,
    data: Classes | ItemForm | Regression,
    items: Any,
    labels: Any,
    queries: Any,
    *,
    layout: str = AUTO,
) -> tuple[list[Any], Float[Tensor, "Q N"]] | Float[Tensor, "Q J"]:
    """Learn new classes, or a new function, from a few items, and tell the class of others, or the values at others.

    Args:
        learner: it is not changed.
        data: what it was trained on, which says how items are taken and scaled; of data with classes, the `form` of
            their items does.
        items: S items in the form of the training items: a numpy array, a tensor or a sequence of arrays. In regression
            x, [S, inputs], in the units of the training data.
        labels: their classes, numbers or words; in regression y, [S, outputs].
        queries: Q items whose classes, or values, are asked for; there may be none.
        layout: of items and queries (see `metarl.fewshot.layout`). "auto": that of the training items, or another one
            of the usual where only that one fits.

    Returns:
        The answers, and the probability of every class: in the order of the sorted labels, numbers before words; of
        molecules inactive before active. In regression the values, [Q, outputs], in the units of the training data.

    Raises:
        UserError: items and labels do not fit together, or items are not in the form of the training items.
    """
    if isinstance(data, Regression):
        if layout != AUTO:
            raise UserError(
                f"Got the layout {layout} for {data.name}, whose items are points [items, inputs]. Leave it out."
            )
        return _values(learner, data, items, labels, queries)
    form = data if isinstance(data, ItemForm) else data.form
    made_for = learner.setting.backbone.item_shape
    if made_for != form.shape:
        raise UserError(
            f"Got a learner of items {made_for}, and {form.name} with items {form.shape}. Give the data that it was "
            "trained on."
        )
    support, asked = form.take(items, "items", layout), form.take(queries, "queries", layout)
    if not len(support):
        raise UserError("Got no items to learn from. Give some of every class, with their labels.")
    given = plain_labels(labels)
    if len(given) != len(support):
        raise UserError(f"Got {len(support)} items and {len(given)} labels. Give one label for each item.")
    device = device_of(learner)
    x, q = (form.scaled(part)[None].to(device) for part in (support, asked))
    known = known_labels(given, form.labels)
    y = torch.tensor([[known.index(label) for label in given]], device=device)
    scores = torch.zeros(0, len(known))
    if len(asked):
        scores = _answered(learner, Support(x=x, y=y, way=len(known)), q)
    return [known[place] for place in scores.argmax(-1).tolist()], scores.softmax(-1)


def _values(learner: FewShotLearner, data: Regression, x: Any, y: Any, queries: Any) -> Float[Tensor, "Q J"]:
    """Return a function's values at the queries, learned from its values at some points."""
    if learner.setting.outputs != data.outputs:
        raise UserError(
            f"Got a learner of {learner.setting.outputs} outputs and {data.name} with {data.outputs}. Give the data "
            "that it was trained on."
        )
    inputs = function_points("x", x, data.item_shape)
    if not len(queries):
        return torch.zeros(0, data.outputs, dtype=torch.float64)
    asked = function_points("queries", queries, data.item_shape)
    outputs = function_points("y", y, (data.outputs,))
    if len(inputs) != len(outputs):
        raise UserError(f"Got {len(inputs)} points in x and {len(outputs)} in y. Give the values at every point.")
    support = Support(x=data.scaling.x(inputs)[None], y=data.scaling.y(outputs)[None], way=0).to(device_of(learner))
    return data.scaling.values(_answered(learner, support, data.scaling.x(asked)[None].to(support.x.device)))


def plain_labels(labels: Any) -> list[Any]:
    """Return labels as Python's own numbers and words."""
    if isinstance(labels, Tensor | np.ndarray):
        labels = array_of(labels, "labels").tolist()
    if isinstance(labels, str | bytes | Set | Mapping) or not isinstance(labels, Iterable):
        raise UserError(f"Got labels of the type {type(labels).__name__}. Give a list, one label for each item.")
    return [label.item() if isinstance(label, np.generic | Tensor) and label.ndim == 0 else label for label in labels]


def known_labels(labels: Sequence[Any], fixed: Sequence[str]) -> list[Any]:
    """Return the different labels of a support set in the order of the learner's classes.

    Args:
        labels: of the items.
        fixed: names of the classes, where these are the same in all tasks.

    Raises:
        UserError: fewer than two labels, some that are neither numbers nor words, or others than the fixed ones.
    """
    for label in labels:
        huge = isinstance(label, int) and abs(label) >= 1 << 64
        if huge or not isinstance(label, bool | int | float | str) or label != label:
            got = "of more than 64 bits" if huge else repr(label)[:200]
            raise UserError(f"Got the label {got}. Give numbers or words, one for each item.")
    known = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    if len({str(label) for label in known}) < len(known):
        raise UserError(f"Got labels that read alike as numbers and as words: {known}. Give all as one of them.")
    if len(known) < 2:
        raise UserError(f"Got one label only, {known[0]!r}. Give items of at least 2 classes.")
    if not fixed:
        return known
    if set(known) == set(fixed):
        return list(fixed)
    if {str(label) for label in known} in ({"0", "1"}, {"False", "True"}) and len(fixed) == 2:
        return known
    raise UserError(
        f"Got the labels {known}, and the classes of this learner are always {' and '.join(fixed)}. Name them so, or "
        f"{' and '.join(map(str, range(len(fixed))))}."
    )


def device_of(learner: FewShotLearner) -> torch.device:
    """Return where a learner lives; the CPU where it does not say."""
    return getattr(learner, "device", torch.device("cpu"))


def _answered(learner: FewShotLearner, support: Support, queries: Float[Tensor, "1 Q *item"]) -> Float[Tensor, "Q N"]:
    """Return the scores of the queries.

    Raises:
        UserError: they are no numbers: the greatest of them would be the first class.
    """
    scores = learner.fit(support).predict(queries)[0].detach().cpu()
    bad = torch.nonzero(~scores.isfinite().all(1))[:, 0]
    if len(bad):
        raise UserError(
            f"The answers for {len(bad)} of {len(scores)} queries are NaN or infinite; the first is query "
            f"{int(bad[0])}. Bring items to the scale of the training's, or train with lower rates."
        )
    return scores
