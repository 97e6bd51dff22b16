"""Baseline and Baseline++ (Chen, Liu, Kira, Wang & Huang 2019): an ordinary classifier, and a new head for every task.

    training    a backbone with a head over all training classes, by cross-entropy on batches of items
    test        the backbone stays; a new head for the N classes is fitted to the support features by SGD

    Baseline      scores = Wᵀ f(x) + b
    Baseline++    scores = s · cos(W, f(x))

At test: learning rate .01, momentum and dampening .9, weight decay 1e-3, batches of 4, 100 epochs, for all M tasks at
once. A step of `path` is an epoch.

Batch norm: while training, statistics over the batch. At test the policy decides (see
metarl/fewshot/parts/classifier.py); the paper's is `running`.

Differences: heads begin alike for all classes (weights 0; for cosines, the mean direction of the support), so that
nothing depends on which class has which label; the paper's begin at random. Support items come in the same random order
in all tasks. The scale s is fixed, and there is no augmentation of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as nnf

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.fewshot.episodes import Episodes, Source, Support, generator_of
from metarl.fewshot.parts.classifier import Classifier, classifier_optimiser, head_scores
from metarl.fewshot.parts.features import Embedder
from metarl.fewshot.parts.learner import Predictor, Setting, last
from metarl.fewshot.parts.norms import BatchNorm
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.parts.scores import task_loss
from metarl.seeding import Streams
from metarl.types import Metrics, Params


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Settings of Baseline."""

    iterations: int = 600
    """Updates of the classifier."""
    batch_size: int = 128
    """Items of an update."""
    optimiser: OptimiserConfig = field(default_factory=classifier_optimiser)
    """Of the classifier."""
    epochs: int = 100
    """Passes over the support set at test."""
    test_rate: float = 0.01
    """Learning rate at test."""
    test_batch: int = 4
    """Support items of a step at test."""

    def unused(self) -> dict[str, str]:
        """Return settings that change nothing -> what they would need."""
        return {} if self.epochs else dict.fromkeys(("test_rate", "test_batch"), "--epochs from 1")

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS, "epochs": MOST_STEPS})
        check(self, at_least={"iterations": 0, "batch_size": 2, "epochs": 0, "test_batch": 1})
        check(self, above={"test_rate": 0.0})


@dataclass(frozen=True, kw_only=True)
class BaselinePlusPlusConfig(BaselineConfig):
    """Settings of Baseline++."""

    scale: float = 30.0
    """What cosines are multiplied by, s. With many training classes the backbone learns little from a small one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, above={"scale": 0.0})


class Baseline:
    """The learner (see `metarl.fewshot.parts.learner.FewShotLearner` and `Stepwise`).

    Args:
        config: its settings: those of Baseline++ make it one.
        setting: what it is made for.
        streams: `init` draws the initial parameters.
        device: where everything lives.
    """

    def __init__(self, config: BaselineConfig, setting: Setting, streams: Streams, device: torch.device) -> None:
        self.cosine_scale = config.scale if isinstance(config, BaselinePlusPlusConfig) else 0.0
        self.name = "baseline++" if self.cosine_scale else "baseline"
        self.config = config
        self.setting = setting
        self.classifier = Classifier(
            self.name,
            setting,
            batch_size=config.batch_size,
            optimiser=config.optimiser,
            cosine_scale=self.cosine_scale,
            streams=streams,
            device=device,
        )

    def update(self, source: Source, number: int) -> Metrics:
        """Take one step of the classifier, on a batch of items."""
        return self.classifier.update(source, number)

    def loss(self, episodes: Episodes) -> Float[Tensor, " M"]:
        """Return the loss of the queries of every episode, by heads fitted to its support; without gradients."""
        episodes = episodes.to(self.classifier.device)
        return task_loss(self.fit(episodes.support).predict(episodes.query_x), episodes.query_y, episodes.support.way)

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Fit the heads of M tasks."""
        return last(self._epochs(support, self.config.epochs, batch_norm))

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Predictor]:
        """Return the predictors after 0, 1, ... `steps` epochs."""
        return list(self._epochs(support, steps, batch_norm))

    def _epochs(self, support: Support, epochs: int, batch_norm: BatchNorm | None) -> Iterator[HeadPredictor]:
        support = support.to(self.classifier.device)
        embedder = self.classifier.embedder(batch_norm)
        with torch.no_grad():
            features, _ = embedder.both(support.x, support.x[:, :0])
        head = self._first_head(features, support.way)
        leaves = [value.requires_grad_() for value in head.values()]
        optimiser = torch.optim.SGD(leaves, lr=self.config.test_rate, momentum=0.9, dampening=0.9, weight_decay=1e-3)
        generator = generator_of(0, self.setting.seed, "order of support items")
        yield self._predictor(head, embedder, support)
        for _ in range(epochs):
            order = torch.randperm(features.shape[1], generator=generator).to(features.device)
            for rows in order.split(self.config.test_batch):
                with torch.enable_grad():
                    scores = head_scores(head, features[:, rows], self.cosine_scale)
                    # Tasks share nothing: the gradient of the sum is that of each.
                    loss = task_loss(scores, support.y[:, rows], support.way).sum()
                for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
                    leaf.grad = gradient
                optimiser.step()
            yield self._predictor(head, embedder, support)

    def _first_head(self, features: Float[Tensor, "M S F"], way: int) -> Params:
        if self.cosine_scale:
            middle = nnf.normalize(nnf.normalize(features, dim=-1).mean(1), dim=-1)
            return {"weight": middle[..., None].repeat(1, 1, way)}
        tasks, _, inputs = features.shape
        return {"weight": features.new_zeros(tasks, inputs, way), "bias": features.new_zeros(tasks, way)}

    def _predictor(self, head: Params, embedder: Embedder, support: Support) -> HeadPredictor:
        head = {name: value.detach().clone() for name, value in head.items()}
        return HeadPredictor(head=head, cosine_scale=self.cosine_scale, embedder=embedder, support=support)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the classifier."""
        return self.classifier.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.classifier.load_state_dict(state)


@dataclass(frozen=True, kw_only=True)
class HeadPredictor:
    """M fitted heads (see `metarl.fewshot.parts.learner.Predictor`)."""

    head: Params
    cosine_scale: float
    embedder: Embedder
    support: Support

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "M Q *item"]) -> Float[Tensor, "M Q N"]:
        """Return the scores of the classes."""
        _, features = self.embedder.both(self.support.x, x.to(self.support.x.device))
        return head_scores(self.head, features, self.cosine_scale)


def make(config: BaselineConfig, setting: Setting, streams: Streams, device: torch.device) -> Baseline:
    """Return the learner: Baseline++ for its config, else Baseline."""
    return Baseline(config, setting, streams, device)
