"""Pieces of soft actor-critic (Haarnoja et al. 2018, arXiv 1801.01290), the form with a value network beside two Q.

    action  a = tanh u,   u ~ N(mean, std²),   log π(a) = log N(u) - Σ log(1 - tanh² u)
    Q       goes to  c r + γ (1 - terminal) V̄(s'),   V̄ a slow copy of V
    V       goes to  min(Q1, Q2)(s, a) - α log π(a),  a drawn anew
    policy  goes down  α log π(a) - min(Q1, Q2)(s, a)

α is the temperature: what a nat of entropy is worth, in the unit of c r.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from metarl.types import Params

LEAST_LOG_STD, MOST_LOG_STD = -20.0, 2.0
"""Bounds of the logarithm of a standard deviation, as the network gives it."""


class Squashed(NamedTuple):
    """A Gaussian over u whose tanh is the action: the output of a policy.

    Attributes:
        mean, log_std: of u.
    """

    mean: Float[Tensor, "*N A"]
    log_std: Float[Tensor, "*N A"]

    @property
    def mode(self) -> Float[Tensor, "*N A"]:
        """The action without noise: tanh of the mean of u."""
        return self.mean.tanh()

    def sample(self, noise: Float[Tensor, "*N A"]) -> tuple[Float[Tensor, "*N A"], Float[Tensor, "*N"]]:
        """Return actions, and the logarithms of their densities.

        Args:
            noise: standard normal; gradients go through it to mean and deviation.
        """
        u = torch.addcmul(self.mean, noise, self.log_std.exp())
        per_dimension = -0.5 * noise.square() - self.log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh² u), which would be log 0 where u is large.
        squeezed = 2.0 * (math.log(2.0) - u - softplus(-2.0 * u))
        return u.tanh(), (per_dimension - squeezed).sum(-1)


def squashed(output: Float[Tensor, "*N B"]) -> Squashed:
    """Return the distribution that an output of 2 A numbers stands for: means, then logarithms of deviations."""
    mean, log_std = output.chunk(2, -1)
    return Squashed(mean, log_std.clamp(LEAST_LOG_STD, MOST_LOG_STD))


def q_target(
    reward: Float[Tensor, "*N"], terminal: Float[Tensor, "*N"], behind: Float[Tensor, "*N"], *, discount: float
) -> Float[Tensor, "*N"]:
    """Compute what Q goes to: the (scaled) reward, and what is behind a step that did not end in a terminal state."""
    return reward + discount * (1.0 - terminal) * behind


def follow(slow: Params, params: Params, rate: float) -> None:
    """Move a slow copy of parameters a part of the way towards them, in place."""
    with torch.no_grad():
        for name, value in slow.items():
            value.lerp_(params[name], rate)
