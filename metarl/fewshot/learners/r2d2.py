"""R2D2 (Bertinetto, Henriques, Torr & Vedaldi 2019): ridge regression on features, solved in closed form.

With X the features of the S support items and Y their one-hot labels, both divided by sqrt(S):

    W = (XᵀX + λ I)⁻¹ Xᵀ Y          F x F, where S > F
      = Xᵀ (XXᵀ + λ I)⁻¹ Y          S x S, Woodbury's form, else
    scores of a query = α f(x) W

Dividing by sqrt(S) makes λ weigh against the mean of the support's squared errors, so that one λ suits any number of
shots. λ and α are learned, as their logarithms. The gradient goes through the solution.

Differences: the paper's bias β on all scores is left out: it is one number for all classes, which a softmax does not
see. There is no constant among the features. The systems are solved in float64 by Cholesky.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.config import MOST_ITERATIONS, check
from metarl.errors import NotFiniteError
from metarl.fewshot.parts.comparing import EpisodicLearner, episodic_optimiser
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.parts.solved import SolvedHead
from metarl.seeding import Streams


@dataclass(frozen=True, kw_only=True)
class R2d2Config:
    """Settings of R2D2."""

    iterations: int = 600
    """Meta-updates."""
    tasks: int = 4
    """Episodes of a meta-update, M."""
    train_way: int = 20
    """Ways of the training episodes, at most as many as the data can give; 0: as many as at test."""
    min_shot: int = 0
    """Train with a random number of shots, from this one to those at test; 0: always with those at test."""
    ridge: float = 1.0
    """λ at the start."""
    scale: float = 10.0
    """α at the start."""
    optimiser: OptimiserConfig = field(default_factory=episodic_optimiser)
    """The outer optimiser."""

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_least={"iterations": 0, "tasks": 1, "train_way": 0, "min_shot": 0})
        check(self, above={"ridge": 0.0, "scale": 0.0})


def ridge_weights(
    features: Float[Tensor, "M S F"], targets: Float[Tensor, "M S N"], ridge: Float[Tensor, ""]
) -> Float[Tensor, "M F N"]:
    """Return the weights of least mean squared error plus λ times their squares; of two forms, the smaller system."""
    size, inputs = features.shape[1:]
    x, y = features / math.sqrt(size), targets / math.sqrt(size)
    small, first = (x.mT @ x, x.mT @ y) if size > inputs else (x @ x.mT, y)
    identity = torch.eye(small.shape[-1], dtype=small.dtype, device=small.device)
    factor, failed = torch.linalg.cholesky_ex(small + ridge * identity)
    if bool(failed.any()):
        raise NotFiniteError("ridge regression has no solution: the features, or its λ, have run away")
    solved = torch.cholesky_solve(first, factor)
    return solved if size > inputs else x.mT @ solved


def make(config: R2d2Config, setting: Setting, streams: Streams, device: torch.device) -> EpisodicLearner:
    """Return the learner."""
    head = SolvedHead(solve=ridge_weights, ridge=config.ridge, scale=config.scale)
    return EpisodicLearner("r2d2", config, setting, head, streams, device, min_shot=config.min_shot)
