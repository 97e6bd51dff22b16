"""Relation networks (Sung, Yang, Zhang, Xiang, Torr & Hospedales 2018): a comparison that is learned as well.

    c_n = sum of f(x) over the support items of class n
    r_n = g([c_n, f(x)]) in (0, 1)
    loss = ½ mean over the classes of queries of (r - 1)² + ½ mean over the other classes of r²

g is a network with one hidden layer and a sigmoid at the end. Scores are the log-odds log(r / (1 - r)): their softmax
is the probability of every class, given that the query is of one of them.

Differences: the paper's g is convolutional, on feature maps of an embedding that pools twice only; here it gets the
features that all learners get, which are few (64 at 28 x 28 pixels). c_n and f(x) are scaled to a mean square of 1,
so that shots may differ between training and test; and their squared difference goes in as well, in which g finds
sameness at once. (A layer norm in g would take away how large it is, and learned badly.) In the paper all relations
weigh the same: with 20 ways, 19 of 20 are to be 0, and training may stay for long where all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as nnf

from metarl.config import MOST_ITERATIONS, check
from metarl.fewshot.parts.comparing import EpisodicLearner, episodic_optimiser
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.norms import EPSILON
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.parts.scores import class_weights
from metarl.nets.policy import MLP
from metarl.seeding import Streams
from metarl.types import Params


@dataclass(frozen=True, kw_only=True)
class RelationConfig:
    """Settings of relation networks."""

    iterations: int = 600
    """Meta-updates."""
    tasks: int = 4
    """Episodes of a meta-update, M."""
    train_way: int = 20
    """Ways of the training episodes, at most as many as the data can give; 0: as many as at test."""
    relation_hidden: int = 64
    """Hidden units of the network that compares."""
    optimiser: OptimiserConfig = field(default_factory=episodic_optimiser)
    """The outer optimiser."""

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_least={"iterations": 0, "tasks": 1, "train_way": 0, "relation_hidden": 1})


@dataclass(frozen=True, kw_only=True)
class Relation:
    """The head.

    Attributes:
        network: g without its sigmoid, from 3 F inputs.
    """

    network: MLP

    def init(self, features: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
        """Draw the network."""
        return self.network.init(generator, dtype)

    def learn(
        self, params: Params, features: Float[Tensor, "M S F"], y: Int[Tensor, "M S"], way: int
    ) -> tuple[Tensor, ...]:
        """Return the sums of the classes, scaled, [M, N, F]."""
        # The mean, which the scaling takes for the sum.
        return (_scaled(class_weights(y, way, features.dtype) @ features),)

    def scores(
        self, params: Params, learned: tuple[Tensor, ...], features: Float[Tensor, "M Q F"]
    ) -> Float[Tensor, "M Q N"]:
        """Return the log-odds of the relations."""
        (sums,) = learned
        classes, queries = torch.broadcast_tensors(sums[:, None], _scaled(features)[:, :, None])
        return self.network(params, torch.cat((classes, queries, (classes - queries).square()), dim=-1)).squeeze(-1)

    def loss(
        self,
        params: Params,
        scores: Float[Tensor, "M Q N"],
        features: Float[Tensor, "M all F"],
        y: Int[Tensor, "M all"],
    ) -> Float[Tensor, " M"]:
        """Return the balanced squared error of the relations."""
        queries, way = scores.shape[1:]
        truth = nnf.one_hot(y[:, -queries:], way).to(scores.dtype)
        errors = (torch.sigmoid(scores) - truth).square()
        others = (errors * (1.0 - truth)).sum(2) / max(way - 1, 1)
        return 0.5 * ((errors * truth).sum(2) + others).mean(1)


def _scaled(features: Float[Tensor, "M n F"]) -> Float[Tensor, "M n F"]:
    """Return features with a mean square of 1."""
    return features * (features.square().mean(-1, keepdim=True) + EPSILON).rsqrt()


def make(config: RelationConfig, setting: Setting, streams: Streams, device: torch.device) -> EpisodicLearner:
    """Return the learner."""
    inputs = 3 * setting.backbone.features
    network = MLP(inputs=inputs, hidden=(config.relation_hidden,), outputs=1, activation="relu")
    return EpisodicLearner("relation", config, setting, Relation(network=network), streams, device)
