"""Prototypical networks (Snell, Swersky & Zemel 2017): a class is the mean of its support items' features.

    c_n = mean of f(x) over the support items of class n
    p(y = n | x) = softmax_n(-‖f(x) - c_n‖²)

Distances are squared Euclidean, as in the paper. Differences: training episodes have 20 ways unless `train_way` asks
for another number (the paper trains Omniglot with 60 ways), and a meta-update takes several episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.config import MOST_ITERATIONS, check
from metarl.fewshot.parts.comparing import EpisodicLearner, episodic_optimiser
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.parts.scores import class_weights, nearness
from metarl.seeding import Streams
from metarl.types import Params


@dataclass(frozen=True, kw_only=True)
class ProtoConfig:
    """Settings of prototypical networks."""

    iterations: int = 600
    """Meta-updates."""
    tasks: int = 4
    """Episodes of a meta-update, M."""
    train_way: int = 20
    """Ways of the training episodes, at most as many as the data can give; 0: as many as at test."""
    optimiser: OptimiserConfig = field(default_factory=episodic_optimiser)
    """The outer optimiser."""

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_least={"iterations": 0, "tasks": 1, "train_way": 0})


class Prototypes:
    """The head."""

    def init(self, features: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
        """Return no parameters."""
        return {}

    def learn(
        self, params: Params, features: Float[Tensor, "M S F"], y: Int[Tensor, "M S"], way: int
    ) -> tuple[Tensor, ...]:
        """Return the prototypes, [M, N, F]."""
        return (class_weights(y, way, features.dtype) @ features,)

    def scores(
        self, params: Params, learned: tuple[Tensor, ...], features: Float[Tensor, "M Q F"]
    ) -> Float[Tensor, "M Q N"]:
        """Return the negative squared distances, up to a number that all classes have in common."""
        (prototypes,) = learned
        return nearness(features, prototypes)


def make(config: ProtoConfig, setting: Setting, streams: Streams, device: torch.device) -> EpisodicLearner:
    """Return the learner."""
    return EpisodicLearner("proto", config, setting, Prototypes(), streams, device)
