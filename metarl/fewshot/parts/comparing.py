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
from metarl.fewshot.episodes import Episodes, EpisodeShape, Source, Support, keyed
from metarl.fewshot.parts.features import Embedder, RunningMoments, averages_for
from metarl.fewshot.parts.learner import Predictor, Setting, meta_batch
from metarl.fewshot.parts.norms import BatchNorm, Moment, Norm
from metarl.fewshot.parts.optimiser import Optimiser, OptimiserConfig
from metarl.fewshot.parts.scores import scores_metrics, task_loss
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
        scores: Float[Tensor, "M Q N"],
        features: Float[Tensor, "M all F"],
        y: Int[Tensor, "M all"],
    ) -> Float[Tensor, " M"]:
        """Return the training loss of every episode.

        Args:
            params: its own.
            scores: of the queries.
            features: of all items, those of the support first.
            y: their labels.
        """
        ...


def episodic_optimiser() -> OptimiserConfig:
    """Return the outer optimiser that suits all of these learners with images of 28 x 28 pixels."""
    return OptimiserConfig(learning_rate=3e-3, halve_every=200)


class EpisodicConfig(Protocol):
    """What the settings of every such learner have."""

    @property
    def tasks(self) -> int:
        """Return the episodes of a meta-update, M."""
        ...

    @property
    def train_way(self) -> int:
        """Return the ways of the training episodes; 0: as many as at test."""
        ...

    @property
    def optimiser(self) -> OptimiserConfig:
        """Return the settings of the outer optimiser."""
        ...


class EpisodicLearner:
    """A backbone and a head, trained on episodes (see `metarl.fewshot.parts.learner.FewShotLearner`).

    Args:
        name: of the learner.
        config: its settings.
        setting: what it is made for.
        head: behind the backbone.
        streams: `init` draws the initial parameters.
        device: where everything lives.
        min_shot: training episodes have a random number of shots, from this one to the setting's, the same for all of
            a meta-batch; 0: always the setting's.

    Raises:
        UserError: it is to learn regression, or `min_shot` is above the setting's shots.
    """

    def __init__(
        self,
        name: str,
        config: Any,
        setting: Setting,
        head: Head,
        streams: Streams,
        device: torch.device,
        min_shot: int = 0,
    ) -> None:
        refuse_regression(name, setting)
        if min_shot > setting.shape.shot:
            raise UserError(
                f"Got --min-shot {min_shot} and --shot {setting.shape.shot}. Give at most as many as shots, or 0."
            )
        self.name = name
        self.config: EpisodicConfig = config
        self.setting = setting
        self.head = head
        self.device = device
        self.min_shot = min_shot
        params = setting.backbone.init(streams["init"], setting.dtype)
        own = head.init(setting.backbone.features, streams["init"], setting.dtype)
        # One dict, so that one optimiser has both: the head's names begin with "head.".
        params |= {f"head.{key}": value for key, value in own.items()}
        self.params = {key: value.to(device) for key, value in params.items()}
        self.optimiser = Optimiser(config.optimiser, self.params, setting.ranks)
        self.moments = RunningMoments(setting.ranks)

    def shape(self, number: int) -> EpisodeShape:
        """Return the size of the training episodes of an update."""
        own, shot = self.setting.shape, self.setting.shape.shot
        if self.min_shot:
            shots = range(self.min_shot, own.shot + 1)
            shot = shots[int(keyed([number], 1, self.setting.seed, "shots")) % len(shots)]
        way = self.config.train_way or own.way
        return EpisodeShape(
            way=min(way, self.setting.most_way or self.setting.classes or way), shot=shot, query=own.query
        )

    def update(self, source: Source, number: int) -> Metrics:
        """Take one meta-update."""
        numbers = meta_batch(self.setting, source, number, self.config.tasks)
        episodes = source.episodes("train", numbers, self.shape(number), self.setting.seed).to(self.device)
        seen: list[Moment] = []
        loss, scores = self._forward(episodes, seen)
        metrics = self.optimiser.descend(loss.mean(), number)
        if seen:
            self.moments.update(seen)
        return {**scores_metrics(scores, episodes), **metrics}

    def loss(self, episodes: Episodes) -> Float[Tensor, " M"]:
        """Return the training loss of every episode, differentiable by `params`."""
        return self._forward(episodes.to(self.device), [])[0]

    def _forward(self, episodes: Episodes, seen: list[Moment]) -> tuple[Float[Tensor, " M"], Float[Tensor, "M Q N"]]:
        support, policy = episodes.support, self.setting.batch_norm
        size = support.x.shape[1]
        norm = Norm(policy, support=size, seen=seen if policy == "running" else None)
        features = self.setting.backbone(self.params, torch.cat((support.x, episodes.query_x), dim=1), norm)
        own = self._own()
        learned = self.head.learn(own, features[:, :size], support.y, support.way)
        scores = self.head.scores(own, learned, features[:, size:])
        if isinstance(self.head, HeadWithLoss):
            y = torch.cat((support.y, episodes.query_y), dim=1)
            return self.head.loss(own, scores, features, y), scores
        return task_loss(scores, episodes.query_y, support.way), scores

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Learn M tasks; the head keeps what it needs of their features."""
        policy = batch_norm or self.setting.batch_norm
        averages = averages_for(policy, self.setting, self.moments)
        embedder = Embedder(backbone=self.setting.backbone, params=self.params, batch_norm=policy, averages=averages)
        return EpisodicPredictor(self.head, self._own(), embedder, support.to(self.device))

    def _own(self) -> Params:
        return {key.removeprefix("head."): value for key, value in self.params.items() if key.startswith("head.")}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimiser and averages."""
        return {**self.optimiser.state_dict(), "moments": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything."""
        self.optimiser.load_state_dict(state)
        self.moments.load_state_dict(state["moments"], self.device)


def refuse_regression(name: str, setting: Setting) -> None:
    """Refuse data that have no classes.

    Raises:
        UserError: it is to learn regression.
    """
    if setting.outputs:
        raise UserError(f"{name} compares classes, and this data has none. Use maml, reptile or imaml.")


@dataclass(frozen=True)
class EpisodicPredictor:
    """M support sets as their features (see `metarl.fewshot.parts.learner.Predictor`)."""

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
