"""Advantages over whole trials, and the scale of the values that they are computed with.

    A_t = Σ_l (γλ)^l δ_{t+l},   δ_t = r_t + γ V_{t+1} - V_t,   V_{t+1} = 0 behind the trial's last step

Where the time limit cut the trial's last episode, V of what would have come takes the place of the 0, unless the
horizon is finite: nothing was to come then. Inside a trial there is nothing to bootstrap: behind the last step of an
episode comes the first of the next, whether a terminal state or the time limit ended it.

Values are scaled by the moments of the returns from each step of a trial on, so that a network need not learn how much
of the trial is left.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from metarl.learning.returns import gae, standardise
from metarl.learning.trials import Trials
from metarl.nets.moments import Moments
from metarl.ranks import ALONE, Ranks

Over = Literal["batch", "task"]
"""What advantages are standardised over: all trials of an update, or each trial by itself."""


def trial_advantages(
    trials: Trials,
    scaled: Float[Tensor, "M moments"],
    returns: Moments,
    *,
    discount: float,
    trace: float,
    finite_horizon: bool,
    over: Over,
    ranks: Ranks,
) -> tuple[Float[Tensor, "M L"], Float[Tensor, "M L"], float]:
    """Compute what PPO needs of the rewards of trials; `returns` takes theirs in.

    Args:
        trials: M of them, of this rank.
        scaled: the values at every step, and behind the last one, as the network gave them.
        returns: moments of the returns from each step of a trial on, which scale the values.
        discount: γ.
        trace: λ.
        finite_horizon: nothing follows a trial's end.
        over: what advantages are standardised over.
        ranks: which of them have a share of the trials each.

    Returns:
        Advantages, standardised; what the (scaled) values should have been; what part of it they explain.
    """
    mask = trials.mask
    steps = mask.shape[1]
    # What is behind the trial's last step is scaled as the last step itself.
    moments = [*range(steps), steps - 1]
    shift, scale = (x[moments].to(scaled) for x in scale_of_returns(returns))
    # Before any return was seen, values mean nothing in its unit.
    values = shift + scale * scaled if bool(returns.count.any()) else torch.zeros_like(scaled)
    behind = values.gather(1, trials.lengths[:, None]).squeeze(1)
    behind = torch.zeros_like(behind) if finite_horizon else behind * trials.cut
    values = values[:, :-1] * mask
    advantages = gae(trials.rewards, values, mask, discount, trace, behind)
    targets = advantages + values
    later = (0, len(returns.mean) - steps)
    returns.update(pad(targets, later), pad(mask, later), ranks)
    shift, scale = (x[:steps].to(scaled) for x in scale_of_returns(returns))
    # About the mean of each step: what the values know beside how much of the trial is left.
    about = ((targets - shift) * mask).square().sum()
    left, spread, size = ranks.sum((advantages.square().sum(), about, (targets * mask).square().sum()))
    least = (1e-12 * size).clamp_min(torch.finfo(size.dtype).tiny)
    explained = 1.0 - float(left / torch.maximum(spread, least))
    axes, sharing = ((0, 1), ranks) if over == "batch" else ((1,), ALONE)
    weights = standardise(advantages, mask, targets, over=axes, ranks=sharing)
    return weights, (targets - shift) / scale, explained


def scale_of_returns(returns: Moments) -> tuple[Float[Tensor, " L"], Float[Tensor, " L"]]:
    """Return mean and spread of the returns from every step of a trial on.

    Where a step's own spread is not known, that of the others stands in for it, or the returns' size: a spread of 1
    would be that of a unit.
    """
    known = ~returns.still
    if bool(known.any()):
        stand_in = returns.deviation[known].mean()
    else:
        seen = returns.square[returns.count > 0]
        stand_in = seen.mean().sqrt() if bool(seen.any()) else torch.ones((), dtype=seen.dtype)
    return returns.mean, torch.where(known, returns.deviation, stand_in)
