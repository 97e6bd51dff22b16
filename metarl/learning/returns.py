"""Returns and advantages of padded episodes. Terminated and truncated are told apart by what follows the last step.

Every function takes time on the last axis; leading axes (tasks, episodes, ...) are free.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.ranks import ALONE, Ranks

ROUNDING = 1e-10
"""Added to the deviation that values are divided by, in parts of the size of what they come from."""


def discounted_returns(
    rewards: Float[Tensor, "*batch T"], discount: float, bootstrap: Float[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch T"]:
    """Compute G_t = r_t + γ G_{t+1}.

    Args:
        rewards: zero in the padding.
        discount: γ.
        bootstrap: value of what follows step T-1; None for 0. For padded episodes of different lengths pass rewards
            that already contain γ·value at the last real step.
    """
    following = torch.zeros_like(rewards[..., 0]) if bootstrap is None else bootstrap
    if in_one_product(rewards):
        last = (torch.arange(rewards.shape[-1], device=rewards.device) == rewards.shape[-1] - 1).to(rewards)
        return _summed_ahead(rewards + last * (discount * following).unsqueeze(-1), discount)
    result = torch.empty_like(rewards)
    for t in range(rewards.shape[-1] - 1, -1, -1):
        following = rewards[..., t] + discount * following
        result[..., t] = following
    return result


def gae(
    rewards: Float[Tensor, "*batch T"],
    values: Float[Tensor, "*batch T"],
    mask: Float[Tensor, "*batch T"],
    discount: float,
    trace: float,
    final_values: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Compute generalised advantage estimates (Schulman et al. 2016, eq. 16).

    A_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V(s_{t+1}) - V(s_t).

    Args:
        rewards: zero in the padding.
        values: V(s_t).
        mask: 1 for real steps, 0 for padding (padding only at the end of time).
        discount: γ.
        trace: λ; with 1 the result is the discounted return minus the value.
        final_values: V of the state after the last real step, already zero for terminated episodes. None: 0 for all
            (terminated episodes, or a finite-horizon objective in which nothing follows the time limit).

    Returns:
        Advantages, zero in the padding.
    """
    last = torch.zeros_like(rewards[..., 0]) if final_values is None else final_values
    if in_one_product(rewards):
        behind = torch.cat((values[..., 1:], last.unsqueeze(-1)), -1)
        ended = torch.cat((mask[..., 1:], torch.zeros_like(mask[..., :1])), -1) <= 0
        behind = torch.where(ended, last.unsqueeze(-1), behind)
        return mask * _summed_ahead(mask * (rewards + discount * behind - values), discount * trace)
    advantage = torch.zeros_like(last)
    result = torch.empty_like(rewards)
    following = last
    for t in range(rewards.shape[-1] - 1, -1, -1):
        real = mask[..., t]
        delta = rewards[..., t] + discount * following - values[..., t]
        advantage = real * (delta + discount * trace * advantage)
        result[..., t] = advantage
        following = torch.where(real > 0, values[..., t], last)
    return result


def in_one_product(rewards: Tensor) -> bool:
    """Tell whether sums over what follows are one matrix product; if not, they go backwards step by step.

    On a GPU a step is a dozen kernels to launch.
    """
    return rewards.is_cuda


def _summed_ahead(values: Tensor, factor: float) -> Tensor:
    """Return y_t = x_t + factor · y_{t+1} = Σ_l factor^l x_{t+l}, over the last axis; summed in float64."""
    steps = torch.arange(values.shape[-1], device=values.device, dtype=torch.float64)
    ahead = steps.unsqueeze(1) - steps
    weights = torch.where(ahead >= 0.0, torch.pow(factor, ahead.clamp_min(0.0)), 0.0)
    return (values.double() @ weights).to(values.dtype)


def standardise(
    values: Float[Tensor, "*M T"],
    mask: Float[Tensor, "*M T"],
    of: Float[Tensor, "*M T"] | None = None,
    *,
    over: tuple[int, ...] = (-2, -1),
    ranks: Ranks = ALONE,
) -> Float[Tensor, "*M T"]:
    """Shift and scale to mean 0 and standard deviation 1 over real steps only; zero in the padding.

    Args:
        values: to be standardised.
        mask: 1 for real steps.
        of: what the values were computed from, zero in the padding: a deviation far below its size is rounding, which
            is not blown up. The values themselves if None. There is no other limit, so that the unit does not matter.
        over: axes with one mean: all but the first of [M, K, T] by default, so that each task has its own.
        ranks: which of them have values with the same mean, each its own.
    """
    size = ((values if of is None else of) * mask).square().sum(over, keepdim=True)
    count, total, square = ranks.sum((mask.sum(over, keepdim=True), (values * mask).sum(over, keepdim=True), size))
    centred = (values - total / count) * mask
    deviation = (ranks.sum(centred.square().sum(over, keepdim=True)) / count).sqrt()
    least = ROUNDING * (square / count).sqrt()
    return centred / (deviation + least).clamp_min(torch.finfo(values.dtype).tiny)
