"""SimpleShot (Wang, Chao, Weinberger & van der Maaten 2019): an ordinary classifier, then the nearest mean of a class.

    training    a backbone with a linear head over all training classes, by cross-entropy on batches of items
    test        p(y = n | x) = softmax_n(-‖t(f(x)) - c_n‖²),  c_n = mean of t(f(x)) over the support items of class n

    un      t(f) = f
    l2n     t(f) = f / ‖f‖
    cl2n    t(f) = (f - m) / ‖f - m‖,  m the mean feature of the training items

m is an average over the latest batches of training, kept with the parameters.

Batch norm: while training, statistics over the batch. At test the policy decides (see
metarl/fewshot/parts/classifier.py); the paper's is `running`.

Differences: no augmentation of images. Distances of unit vectors are at most 2, so that the probabilities of l2n and
cl2n are far less sure than they could be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as nnf

from metarl.config import MOST_ITERATIONS, check
from metarl.fewshot.episodes import Episodes, Source, Support
from metarl.fewshot.parts.classifier import Classifier, classifier_optimiser
from metarl.fewshot.parts.features import Embedder
from metarl.fewshot.parts.learner import Predictor, Setting
from metarl.fewshot.parts.norms import BatchNorm
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.parts.scores import class_weights, nearness, task_loss
from metarl.seeding import Streams
from metarl.types import Metrics

Transform = Literal["un", "l2n", "cl2n"]


@dataclass(frozen=True, kw_only=True)
class SimpleShotConfig:
    """Settings of SimpleShot."""

    iterations: int = 600
    """Updates of the classifier."""
    batch_size: int = 128
    """Items of an update."""
    transform: Transform = "cl2n"
    """What is done to features at test: nothing; unit length; centred, then unit length."""
    optimiser: OptimiserConfig = field(default_factory=classifier_optimiser)
    """Of the classifier."""

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_least={"iterations": 0, "batch_size": 2})


class SimpleShot:
    """The learner (see `metarl.fewshot.parts.learner.FewShotLearner`).

    Args:
        config: its settings.
        setting: what it is made for.
        streams: `init` draws the initial parameters.
        device: where everything lives.
    """

    name = "simpleshot"

    def __init__(self, config: SimpleShotConfig, setting: Setting, streams: Streams, device: torch.device) -> None:
        self.config = config
        self.setting = setting
        self.classifier = Classifier(
            self.name,
            setting,
            batch_size=config.batch_size,
            optimiser=config.optimiser,
            cosine_scale=0.0,
            streams=streams,
            device=device,
        )

    def update(self, source: Source, number: int) -> Metrics:
        """Take one step of the classifier, on a batch of items."""
        return self.classifier.update(source, number)

    def loss(self, episodes: Episodes) -> Float[Tensor, " M"]:
        """Return the loss of the queries of every episode; without gradients."""
        episodes = episodes.to(self.classifier.device)
        return task_loss(self.fit(episodes.support).predict(episodes.query_x), episodes.query_y, episodes.support.way)

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Learn M tasks; means are taken when they are needed."""
        return MeansPredictor(
            transform=self.config.transform,
            mean=self.classifier.mean,
            embedder=self.classifier.embedder(batch_norm),
            support=support.to(self.classifier.device),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the classifier."""
        return self.classifier.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.classifier.load_state_dict(state)


@dataclass(frozen=True, kw_only=True)
class MeansPredictor:
    """M support sets (see `metarl.fewshot.parts.learner.Predictor`).

    Attributes:
        transform: of features.
        mean: feature of the training items; None before training, and then nothing is taken off.
        embedder: the backbone.
        support: what is learned from.
    """

    transform: Transform
    mean: Float[Tensor, " F"] | None
    embedder: Embedder
    support: Support

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "M Q *item"]) -> Float[Tensor, "M Q N"]:
        """Return the scores of the classes."""
        features = self.embedder.both(self.support.x, x.to(self.support.x.device))
        kept, queries = (self._transformed(part) for part in features)
        return nearness(queries, class_weights(self.support.y, self.support.way, kept.dtype) @ kept)

    def _transformed(self, features: Float[Tensor, "M n F"]) -> Float[Tensor, "M n F"]:
        if self.transform == "cl2n" and self.mean is not None:
            features = features - self.mean
        return features if self.transform == "un" else nnf.normalize(features, dim=-1)


def make(config: SimpleShotConfig, setting: Setting, streams: Streams, device: torch.device) -> SimpleShot:
    """Return the learner."""
    return SimpleShot(config, setting, streams, device)
