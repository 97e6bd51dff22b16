"""Learners that compare features: one backbone for all tasks, and a head that answers from the support's features.

Prototypical, matching, relation, ridge and logistic heads differ in nothing else: a meta-batch of episodes is embedded
in one pass, the head is learned on every support set and scores the queries, and their loss goes back through both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.backbones import BatchNorm, Norm
from metarl.fewshot.episodes import Episodes, EpisodeShape, Source, Support
from metarl.fewshot.learner import (
    Embedder,
    Optimiser,
    OptimiserConfig,
    Predictor,
    RunningMoments,
    Setting,
    meta_batch,
    scores_metrics,
    task_loss,
)
from metarl.seeding import Streams
from metarl.types import Metrics, Params


@runtime_checkable
class Head(Protocol):
    """What stands behind the backbone."""

    def init(self, features: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
        """Draw its own parameters for F features; none for many heads."""
        ...

    def learn(
        self, params: Params, features: Float[Tensor, "M S F"], y: Int[Tensor, "M S"], way: int
    ) -> tuple[Tensor, ...]:
        """Return what is kept of M support sets, differentiably."""
        ...

    def scores(
        self, params: Params, learned: tuple[Tensor, ...], features: Float[Tensor, "M Q F"]
    ) -> Float[Tensor, "M Q N"]:
        """Return the scores of queries, whose softmax are probabilities."""
        ...


@runtime_checkable
class HeadWithLoss(Head, Protocol):
    """A head that is not trained by the cross-entropy of its scores."""

    def loss(
        self,
        params: Params,
        support: Float[Tensor, "M S F"],
        support_y: Int[Tensor, "M S"],
        queries: Float[Tensor, "M Q F"],
        query_y: Int[Tensor, "M Q"],
        way: int,
    ) -> Float[Tensor, " M"]:
        """Return the training loss of every episode."""
        ...


class EpisodicConfig(Protocol):
    """What the settings of every such learner have."""

    @property
    def tasks(self) -> int: ...  # noqa: D102
    @property
    def train_way(self) -> int: ...  # noqa: D102
    @property
    def optimiser(self) -> OptimiserConfig: ...  # noqa: D102


class EpisodicLearner:
    """A backbone and a head, trained on episodes (see `metarl.fewshot.learner.FewShotLearner`).

    Args:
        name: of the learner.
        config: its settings.
        setting: what it is made for.
        head: behind the backbone.
        streams: `init` draws the initial parameters.
        device: where everything lives.

    Raises:
        UserError: it is to learn regression.
    """

    def __init__(
        self, name: str, config: Any, setting: Setting, head: Head, streams: Streams, device: torch.device
    ) -> None:
        if setting.outputs:
            raise UserError(f"{name} compares classes, and this data has none. Use maml, reptile or another of them.")
        self.name = name
        self.config: EpisodicConfig = config
        self.setting = setting
        self.head = head
        self.device = device
        params = setting.backbone.init(streams["init"], setting.dtype)
        own = head.init(setting.backbone.features, streams["init"], setting.dtype)
        # One dict, so that one optimiser has both: the head's names begin with "head.".
        params |= {f"head.{key}": value for key, value in own.items()}
        self.params = {key: value.to(device) for key, value in params.items()}
        self.optimiser = Optimiser(config.optimiser, self.params)
        self.moments = RunningMoments()

    @property
    def shape(self) -> EpisodeShape:
        """Size of the training episodes."""
        own = self.setting.shape
        return EpisodeShape(way=self.config.train_way or own.way, shot=own.shot, query=own.query)

    def update(self, source: Source, number: int) -> Metrics:
        """Take one meta-update."""
        numbers = meta_batch(number, self.config.tasks)
        episodes = source.episodes("train", numbers, self.shape, self.setting.seed).to(self.device)
        loss, scores = self._forward(episodes)
        metrics = self.optimiser.descend(loss.mean(), number)
        if self.setting.batch_norm == "running" and self.setting.backbone.norms:
            self._take_moments(episodes)
        return {**scores_metrics(scores, episodes), **metrics}

    def loss(self, episodes: Episodes) -> Float[Tensor, " M"]:
        """Return the training loss of every episode, differentiable by `params`."""
        return self._forward(episodes)[0]

    def _forward(self, episodes: Episodes) -> tuple[Float[Tensor, " M"], Float[Tensor, "M Q N"]]:
        support = episodes.support
        embedder = self._embedder(self.setting.batch_norm, training=True)
        kept, queries = embedder.both(support.x, episodes.query_x)
        own = self._own()
        scores = self.head.scores(own, self.head.learn(own, kept, support.y, support.way), queries)
        if isinstance(self.head, HeadWithLoss):
            return self.head.loss(own, kept, support.y, queries, episodes.query_y, support.way), scores
        return task_loss(scores, episodes.query_y, support.way), scores

    @torch.no_grad()
    def _take_moments(self, episodes: Episodes) -> None:
        seen: list[Any] = []
        everything = torch.cat((episodes.support.x, episodes.query_x), dim=1)
        self.setting.backbone(self.params, everything, Norm("running", seen=seen))
        self.moments.update(seen)

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Learn M tasks; the head keeps what it needs of their features."""
        embedder = self._embedder(batch_norm or self.setting.batch_norm, training=False)
        return EpisodicPredictor(self.head, self._own(), embedder, support.to(self.device))

    def _embedder(self, batch_norm: BatchNorm, *, training: bool) -> Embedder:
        averages = None if training else self.moments.averages
        if batch_norm == "running" and not training and averages is None and self.setting.backbone.norms:
            raise UserError(
                "Got the batch norm 'running', and this learner has no averages: it was trained with "
                f"'{self.setting.batch_norm}'. Use that one, or train with --batch-norm running."
            )
        return Embedder(backbone=self.setting.backbone, params=self.params, batch_norm=batch_norm, averages=averages)

    def _own(self) -> Params:
        return {key.removeprefix("head."): value for key, value in self.params.items() if key.startswith("head.")}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimiser and averages."""
        return {**self.optimiser.state_dict(), "moments": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything."""
        self.optimiser.load_state_dict(state)
        self.moments.load_state_dict(state["moments"], self.device)


@dataclass(frozen=True)
class EpisodicPredictor:
    """M support sets as their features (see `metarl.fewshot.learner.Predictor`)."""

    head: Head
    params: Params
    embedder: Embedder
    support: Support

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "M Q *item"]) -> Float[Tensor, "M Q N"]:
        """Return the scores of the classes."""
        # Support and queries in one pass: under the default policy the queries need the support's statistics anyway.
        kept, queries = self.embedder.both(self.support.x, x.to(self.support.x.device))
        learned = self.head.learn(self.params, kept, self.support.y, self.support.way)
        return self.head.scores(self.params, learned, queries)
