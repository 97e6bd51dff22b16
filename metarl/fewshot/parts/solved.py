"""Heads that are solved on each support set: linear scores of features, with a learned penalty and scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as nnf

from metarl.types import Params

Solver = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Features [M, S, F], one-hot labels [M, S, N] and λ, all in float64 -> weights [M, F, N], differentiably."""


@dataclass(frozen=True, kw_only=True)
class SolvedHead:
    """A head (see `metarl.fewshot.parts.comparing.Head`): its scores are α W* f(x).

    Attributes:
        solve: returns W*.
        ridge: λ at the start.
        scale: α at the start.
    """

    solve: Solver
    ridge: float
    scale: float

    def init(self, features: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
        """Return the logarithms of λ and α."""
        return {
            "log_ridge": torch.tensor(math.log(self.ridge), dtype=dtype),
            "log_scale": torch.tensor(math.log(self.scale), dtype=dtype),
        }

    def learn(
        self, params: Params, features: Float[Tensor, "M S F"], y: Int[Tensor, "M S"], way: int
    ) -> tuple[Tensor, ...]:
        """Return the weights, [M, F, N]."""
        weights = self.solve(features.double(), nnf.one_hot(y, way).double(), params["log_ridge"].double().exp())
        return (weights.to(features.dtype),)

    def scores(
        self, params: Params, learned: tuple[Tensor, ...], features: Float[Tensor, "M Q F"]
    ) -> Float[Tensor, "M Q N"]:
        """Return the scaled scores."""
        (weights,) = learned
        return params["log_scale"].exp() * (features @ weights)


@torch.no_grad()
def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Float[Tensor, "M *P"],
    steps: int,
    tolerance: float | Float[Tensor, " M"] = 0.0,
) -> Float[Tensor, "M *P"]:
    """Solve A_i x_i = b_i for M symmetric systems that should be positive definite.

    Args:
        product: A x of all systems.
        right: b.
        steps: at most; 0 returns b.
        tolerance: a system is solved where its residual has come to this part of b.
    """
    if steps == 0:
        return right

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1)

    def each(factors: Tensor) -> Tensor:
        return factors.view(-1, *(1 for _ in right.shape[1:]))

    solution, residual, direction = torch.zeros_like(right), right, right
    square = dot(right, right)
    enough = tolerance**2 * square
    for _ in range(steps):
        open_ = square > enough
        if not bool(open_.any()):
            break
        image = product(direction)
        curvature = dot(direction, image)
        # Where a system is not positive definite, what has been found so far stays.
        length = each(torch.where(open_ & (curvature > 0.0), square / curvature, 0.0))
        solution, residual = solution + length * direction, residual - length * image
        before, square = square, torch.where(open_, dot(residual, residual), square)
        # A system whose right side is 0 has nothing to go by: 0 / 0 would spoil it while others are still open.
        direction = residual + each(torch.where(open_, square / before, 0.0)) * direction
    return solution
