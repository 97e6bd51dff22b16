"""Trajectories made ready for a policy-gradient loss, and the losses: shared by every likelihood-ratio algorithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.learning.baseline import explained_variance, fit_values
from metarl.learning.returns import discounted_returns, gae, standardise
from metarl.nets.pictures import Seeing
from metarl.nets.policy import CategoricalPolicy, Distribution, GaussianPolicy, divergence
from metarl.types import Metrics, Params, Trajectories

Batch = dict[str, Tensor]
"""`observations` [M, K, T, O], `actions` [M, K, T, A], and [M, K, T]: `advantages`, `weights` (1 / real steps of the
task, 0 in the padding, so that weighted sums are means over real steps) and `old_log_probs`. Without M for one task."""
StochasticPolicy = GaussianPolicy | CategoricalPolicy
Estimator = Literal["lvc", "dice", "log-likelihood"]


def distribution(policy: StochasticPolicy, params: Params, batch: Batch) -> Distribution:
    """Compute the action distribution at all N = K*T observations of the batch: [M, N, A], or [N, A] for one task."""
    return policy(params, batch["observations"].flatten(-3, -2))


def log_probs(policy: StochasticPolicy, params: Params, batch: Batch) -> Float[Tensor, "*M K T"]:
    """Compute the log-probability of every action of the batch."""
    flat = distribution(policy, params, batch).log_prob(batch["actions"].flatten(-3, -2))
    return flat.unflatten(-1, batch["weights"].shape[-2:])


def prepare(
    trajectories: Trajectories, policy: StochasticPolicy, params: Params, *, discount: float, trace: float
) -> tuple[Batch, float]:
    """Fit the baseline, compute advantages (standardised per task) and old log-probabilities.

    The objective is finite-horizon by design: nothing is bootstrapped at the time limit, and the baseline knows the
    time.

    Args:
        trajectories: M tasks, K episodes.
        policy: the policy that acted.
        params: its parameters, with leading axis M.
        discount: γ.
        trace: λ of the advantage estimate.

    Returns:
        The batch, and the baseline's explained variance (mean over tasks).
    """
    mask = trajectories.mask
    returns = discounted_returns(trajectories.rewards, discount)
    seen = trajectories.observations
    if isinstance(policy.network, Seeing):
        # As many weights as pixels would fit any returns, and leave no advantages.
        seen = policy.network.encoder.coarse(seen)
    values = fit_values(seen, returns, mask)
    advantages = standardise(gae(trajectories.rewards, values, mask, discount, trace), mask, returns)
    batch = {
        "observations": trajectories.observations,
        "actions": trajectories.actions,
        "advantages": advantages,
        "weights": mask / mask.sum((1, 2), keepdim=True),
    }
    with torch.no_grad():
        batch["old_log_probs"] = log_probs(policy, params, batch)
    return batch, float(explained_variance(values, returns, mask).mean())


def first_episodes(batch: Batch, episodes: int) -> Batch:
    """Keep the first `episodes` episodes of every task (episodes are exchangeable), weighted to a mean again."""
    kept = {name: value[:, :episodes] for name, value in batch.items()}
    kept["weights"] = kept["weights"] / kept["weights"].sum((1, 2), keepdim=True)
    return kept


def surrogate(policy: StochasticPolicy) -> Callable[[Params, Batch], Tensor]:
    """Return the surrogate objective: mean over real steps of π(a|s) / π_old(a|s) · A(s, a), per task."""

    def objective(params: Params, batch: Batch) -> Float[Tensor, "*M"]:
        ratio = torch.exp(log_probs(policy, params, batch) - batch["old_log_probs"])
        return (ratio * batch["advantages"] * batch["weights"]).sum((-2, -1))

    return objective


def inner_loss(policy: StochasticPolicy, estimator: Estimator) -> Callable[[Params, Batch], Tensor]:
    """Return the loss whose gradient is the policy gradient and whose Hessian makes the meta-gradient.

    * `lvc` (Rothfuss et al. 2018, low-variance curvature): the likelihood ratio π/π_old, whose value is 1.
    * `dice` (Foerster et al. 2018; Farquhar et al. 2019 for the advantage form): Σ_t (□_{<=t} - □_{<t}) A_t with
      □ the likelihood ratio of the trajectory so far; unbiased derivatives of any order.
    * `log-likelihood`: log π · A as in the 2017 code; its Hessian lacks the term ∇logπ ∇logπᵀ A.
    """
    objective = surrogate(policy)

    def lvc(params: Params, batch: Batch) -> Float[Tensor, "*M"]:
        return -objective(params, batch)

    def dice(params: Params, batch: Batch) -> Float[Tensor, "*M"]:
        real = batch["weights"] > 0
        log_ratio = (log_probs(policy, params, batch) - batch["old_log_probs"]) * real
        through = _sums_so_far(log_ratio)
        boxes = torch.exp(through) - torch.exp(through - log_ratio)
        return -(boxes * batch["advantages"] * batch["weights"]).sum((-2, -1))

    def log_likelihood(params: Params, batch: Batch) -> Float[Tensor, "*M"]:
        return -(log_probs(policy, params, batch) * batch["advantages"] * batch["weights"]).sum((-2, -1))

    return {"lvc": lvc, "dice": dice, "log-likelihood": log_likelihood}[estimator]


def _sums_so_far(values: Float[Tensor, "*N T"]) -> Float[Tensor, "*N T"]:
    """Return the sums up to every step; `cumsum` rounds otherwise in every run on a GPU."""
    if not torch.are_deterministic_algorithms_enabled():
        return values.cumsum(-1)
    return values @ values.new_ones(values.shape[-1], values.shape[-1]).triu()


def mean_kl(policy: StochasticPolicy, old: Params, new: Params, batch: Batch) -> Float[Tensor, "*M"]:
    """Compute the mean over real steps of KL(π_old ‖ π_new), per task."""
    before, after = distribution(policy, old, batch), distribution(policy, new, batch)
    return (divergence(before, after) * batch["weights"].flatten(-2)).sum(-1)


@torch.no_grad()
def spread(policy: StochasticPolicy, params: Params, batch: Batch) -> Metrics:
    """Return how random the policy is, mean over tasks: the standard deviation or, where discrete, the entropy."""
    if isinstance(policy, GaussianPolicy):
        return {"policy/std": float(params["log_std"].exp().mean())}
    per_step = distribution(policy, params, batch).entropy()
    return {"policy/entropy": float((per_step * batch["weights"].flatten(-2)).sum(-1).mean())}
