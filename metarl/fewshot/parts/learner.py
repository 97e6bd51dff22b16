"""What a few-shot learner is.

A learner is made of its own settings and a `Setting`: what it is to learn from, and with which backbone. It is trained
by `update`, one meta-update a call; for new tasks `fit(support)` gives a predictor, and `predict(query)` its answer.
Any number of ways and shots is allowed at test. Whatever is called `M` is a number of tasks that are handled at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episodes import EpisodeShape, Source, Support
from metarl.fewshot.parts.backbones import Backbone
from metarl.fewshot.parts.norms import BatchNorm
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics

Item = TypeVar("Item")


INNER_RATE, REGRESSION_RATE = 0.1, 0.01
"""Of gradient steps on a support set."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a learner is made for.

    Attributes:
        shape: of the training episodes, where the learner's own settings ask for no other.
        backbone: from items to features.
        batch_norm: policy, while training and at test.
        outputs: numbers to be predicted for an item in regression, J; 0 in classification.
        classes: of the training split, for learners that train an ordinary classifier; 0 in regression.
        most_way: ways that every training episode can have; 0 where nothing says.
        seed: of the training episodes.
        dtype: of the parameters.
        ranks: the processes that train it together, each on its share of every meta-batch.
    """

    shape: EpisodeShape
    backbone: Backbone
    batch_norm: BatchNorm = "support"
    outputs: int = 0
    classes: int = 0
    most_way: int = 0
    seed: int = 0
    dtype: torch.dtype = torch.float32
    ranks: Ranks = ALONE

    def inner_rate(self, given: float) -> float:
        """Return the rate of gradient steps on a support set: the given one, for 0 one that suits the loss.

        The gradients of a squared error grow with it: where those of a cross-entropy are bounded, they diverge.
        """
        return given or (REGRESSION_RATE if self.outputs else INNER_RATE)


@runtime_checkable
class Predictor(Protocol):
    """What was learned from the support sets of M tasks."""

    def predict(self, x: Float[Tensor, "M Q *item"]) -> Float[Tensor, "M Q values"]:
        """Return the scores of the N classes, whose softmax are the probabilities; or the J values, in regression."""
        ...


@runtime_checkable
class FewShotLearner(Protocol):
    """A few-shot learner.

    Attributes:
        name: its name.
        config: its settings.
        setting: what it was made for.
    """

    name: str
    config: Any
    setting: Setting

    def update(self, source: Source, number: int) -> Metrics:
        """Take one meta-update in place.

        Args:
            source: training data (split `train`).
            number: of the update, from 0. Which data it is taken on follows from it: update i of a learner with
                meta-batches of M episodes has the episodes i * M to i * M + M - 1, of which every rank takes its share.

        Returns:
            `train/loss`, and `train/accuracy` in classification, of the queries of this rank's episodes; and more.
        """
        ...

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Learn M tasks from their support sets, without changing anything here.

        Args:
            support: any number of ways and shots.
            batch_norm: another policy than the setting's.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training has changed (tensors and plain data)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()` exactly; raise ValueError where it does not fit."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A learner that learns a task in steps, which a curve can show."""

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Predictor]:
        """Return the predictors after 0, 1, ... `steps` steps; arguments as in `fit`."""
        ...


def meta_batch(setting: Setting, source: Source, number: int, size: int) -> range:
    """Return the numbers of the episodes of a meta-update that are this rank's.

    Args:
        setting: of the learner.
        source: training data.
        number: of the meta-update.
        size: episodes of a meta-update, of all ranks.

    Raises:
        UserError: the items of the data are others than those of the learner's backbone.
    """
    check_items(setting, source)
    mine = setting.ranks.rows(size)
    return range(number * size + mine.start, number * size + mine.stop)


def check_items(setting: Setting, source: Source) -> None:
    """Raise UserError if the items of the data are others than those of the learner's backbone."""
    if source.item_shape != tuple(setting.backbone.item_shape):
        raise UserError(
            f"Got {source.name} with items {source.item_shape}, and a backbone of items "
            f"{tuple(setting.backbone.item_shape)}. Make the backbone for the items of the data, or say by `layout` "
            "how the items of the data lie."
        )


def last(items: Iterable[Item]) -> Item:
    """Return the last of some items, of which no other is kept."""
    return deque(items, maxlen=1).pop()
