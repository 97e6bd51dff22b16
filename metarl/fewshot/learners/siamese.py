"""Siamese networks (Koch, Zemel & Salakhutdinov 2015): learn whether two items are of one class.

    p(same | x, x') = σ(b - Σ_j w_j |f_j(x) - f_j(x')|)        `distance` l1
    p(same | x, x') = σ(b - Σ_j w_j (f_j(x) - f_j(x'))²)       `distance` l2

A query is given the class of the support item with which it makes the most probable pair. The score of a class is the
best log-odds of its items.

Both twins are the one backbone. It is trained by the binary cross-entropy of all pairs of an episode, support and
query items alike; pairs of one class and pairs of two weigh half each, however many there are.

Differences: the distance is l2 unless the paper's l1 is asked for: on features of Conv4 it generalises far better.
Weights w are positive, so that it is a distance (the paper's have any sign). Features go in as the backbone gives them
(the paper's through a sigmoid, which made l1 worse). Pairs come from episodes; all layers have one learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as nnf

from metarl.config import MOST_ITERATIONS, check
from metarl.fewshot.parts.comparing import EpisodicLearner, episodic_optimiser
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.seeding import Streams
from metarl.types import Params

Distance = Literal["l1", "l2"]


@dataclass(frozen=True, kw_only=True)
class SiameseConfig:
    """Settings of Siamese networks."""

    iterations: int = 600
    """Meta-updates."""
    tasks: int = 4
    """Episodes of a meta-update, M."""
    train_way: int = 20
    """Ways of the training episodes, at most as many as the data can give; 0: as many as at test."""
    distance: Distance = "l2"
    """Weighted sum of squared differences of the features; or, l1, of absolute ones, which learns its training classes
    by heart sooner."""
    optimiser: OptimiserConfig = field(default_factory=episodic_optimiser)
    """The outer optimiser."""

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_least={"iterations": 0, "tasks": 1, "train_way": 0})


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The head.

    Attributes:
        distance: between features.
    """

    distance: Distance

    def init(self, features: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
        """Return log w, [F], and b."""
        # At the start the mean difference of the features counts, and b lies among the distances.
        return {
            "log_weight": torch.full((features,), -math.log(features), dtype=dtype),
            "bias": torch.ones((), dtype=dtype),
        }

    def learn(
        self, params: Params, features: Float[Tensor, "M S F"], y: Int[Tensor, "M S"], way: int
    ) -> tuple[Tensor, ...]:
        """Return the features and the one-hot labels, [M, S, N]."""
        return features, nnf.one_hot(y, way)

    def scores(
        self, params: Params, learned: tuple[Tensor, ...], features: Float[Tensor, "M Q F"]
    ) -> Float[Tensor, "M Q N"]:
        """Return the log-odds of the best pair with every class."""
        support, members = learned
        odds = self.log_odds(params, features, support)[..., None]
        return odds.masked_fill(members[:, None] == 0, -math.inf).amax(2)

    def log_odds(
        self, params: Params, first: Float[Tensor, "M n F"], second: Float[Tensor, "M m F"]
    ) -> Float[Tensor, "M n m"]:
        """Return the log-odds that two items are of one class, for all pairs."""
        # Distances of weighted features in place of weighted distances: no [M, n, m, F] on the way.
        if self.distance == "l1":
            weight = params["log_weight"].exp()
            return params["bias"] - torch.cdist(first * weight, second * weight, p=1.0)
        weight = (0.5 * params["log_weight"]).exp()
        first, second = first * weight, second * weight
        products = first @ second.mT
        squares = first.square().sum(-1)[..., None] + second.square().sum(-1)[..., None, :] - 2.0 * products
        return params["bias"] - squares

    def loss(
        self,
        params: Params,
        scores: Float[Tensor, "M Q N"],
        features: Float[Tensor, "M all F"],
        y: Int[Tensor, "M all"],
    ) -> Float[Tensor, " M"]:
        """Return the balanced binary cross-entropy of all pairs of an episode."""
        odds = self.log_odds(params, features, features)
        same = (y[:, :, None] == y[:, None]).to(odds.dtype)
        itself = torch.eye(y.shape[1], dtype=odds.dtype, device=odds.device)
        same_loss = _mean_over(same - itself, -nnf.logsigmoid(odds))
        return 0.5 * (same_loss + _mean_over(1.0 - same, -nnf.logsigmoid(-odds)))


def _mean_over(mask: Float[Tensor, "M n n"], values: Float[Tensor, "M n n"]) -> Float[Tensor, " M"]:
    """Return the mean of the values under a mask; 0 where there are none, as in an episode of one class."""
    return (mask * values).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1.0)


def make(config: SiameseConfig, setting: Setting, streams: Streams, device: torch.device) -> EpisodicLearner:
    """Return the learner."""
    return EpisodicLearner("siamese", config, setting, Pairs(distance=config.distance), streams, device)
