"""Batch norm for episodes: it never mixes them.

What its mean and variance are taken over is the batch-norm policy, recorded with every result:

    support        the support set alone, for support and queries: no query can influence a prediction (default)
    transductive   support and queries each over themselves: the queries of a test are seen together
    running        averages of training (`Norm.averages`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from metarl.errors import UserError, nearest
from metarl.ranks import Ranks

BatchNorm = Literal["support", "transductive", "running"]
EPSILON = 1e-5
"""Added to variances."""


class Moment(NamedTuple):
    """Mean and variance of one layer's channels, [C]; or [M, C], one for each episode."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Norm:
    """How batch norm takes its statistics in one pass.

    Attributes:
        policy: see the module.
        support: the first so many items are the support set, the others queries; 0: all of them are.
        averages: of every norm layer in order, for `running`; None: over all items of the pass, as while training.
        seen: where given, a list to which every layer adds the moments over all items of each episode. Only outside
            of function transforms.
        ranks: where given, items of the pass are those of all ranks: each has its part of one batch.
    """

    policy: BatchNorm = "support"
    support: int = 0
    averages: Sequence[Moment] | None = None
    seen: list[Moment] | None = field(default=None, compare=False)
    ranks: Ranks | None = None

    def __post_init__(self) -> None:
        if self.policy not in get_args(BatchNorm):
            raise UserError(f"Got the batch norm '{self.policy}'.{nearest(self.policy, get_args(BatchNorm))}")


def moments_of(parts: Tensor, ranks: Ranks | None = None) -> Moment:
    """Return mean and variance of every channel over items and places, [outer, 1, inner, C, 1, 1]."""
    if ranks is not None and ranks.size > 1:
        own = moments_of(parts)
        mean = ranks.mean_with_gradient(own.mean)
        return Moment(mean, ranks.mean_with_gradient(own.variance + (own.mean - mean).square()))
    if torch.compiler.is_compiling():
        # The compiler makes one pass of these by itself, and has no custom derivatives under vmap.
        mean = parts.mean((1, 4, 5), keepdim=True)
        return Moment(mean, (parts - mean).square().mean((1, 4, 5), keepdim=True))
    return Moment(*_Moments.apply(parts))


class _Moments(torch.autograd.Function):
    """Mean and variance over the axes 1, 4 and 5, with derivatives of any order that pass over x as seldom as can be.

    torch.var_mean takes ten times as long on a CPU, and its derivatives make a dozen tensors of the size of x.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean((1, 4, 5), keepdim=True)
        return mean, (x - mean).square().mean((1, 4, 5), keepdim=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[0])

    @staticmethod
    def backward(ctx: Any, *of_output: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        of_mean, of_variance = of_output
        items = x.shape[1] * x.shape[4] * x.shape[5]
        # Of the mean of (x - mean)²: 2 (x - mean) / items. With mean as a function of x, for the second derivative.
        slope = of_variance * (2.0 / items)
        return torch.addcmul(of_mean / items - slope * mean, x, slope)
