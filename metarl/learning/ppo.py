"""PPO (Schulman et al. 2017): one update, of several passes over what was played, in minibatches.

    max_θ  mean_t  min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t) - c (V_t - target_t)² + β H_t,   ρ_t = π_θ / π_old

The rows of a minibatch are whole trials (or episodes), so that a memory can be computed anew from its first step. Of
several ranks each computes those of its own; their losses add up to that of the minibatch, and all take the same step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metarl.errors import NotFiniteError
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics

MEANS = ("update/value_error", "update/clipped", "update/gradient_norm", "policy/entropy")
"""Figures that are means over the steps of the optimiser."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """What an update learns from: M rows of L steps.

    Attributes:
        inputs: what the network is given.
        actions: as the policy gave them.
        log_probs: of the actions, under the policy that played.
        advantages: zero in the padding.
        targets: what the values should have been.
        mask: 1 for real steps.
    """

    inputs: Float[Tensor, "M L I"]
    actions: Float[Tensor, "M L A"]
    log_probs: Float[Tensor, "M L"]
    advantages: Float[Tensor, "M L"]
    targets: Float[Tensor, "M L"]
    mask: Float[Tensor, "M L"]


def ppo_update(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    played: Played,
    generator: torch.Generator,
    *,
    clip: float,
    epochs: int,
    minibatches: int,
    max_kl: float,
    value_weight: float,
    entropy_weight: float,
    max_gradient_norm: float,
    ranks: Ranks = ALONE,
) -> tuple[Metrics, Metrics]:
    """Improve a network in place.

    Args:
        network: inputs [N, L, I] -> action distribution and values [N, L].
        optimiser: of its parameters.
        played: by this rank.
        generator: draws the minibatches.
        clip: ε.
        epochs: passes over all rows.
        minibatches: steps of the optimiser in a pass.
        max_kl: the update ends early where KL(π_old ‖ π) has come to this, nats.
        value_weight: c.
        entropy_weight: β.
        max_gradient_norm: gradients are shortened to this norm.
        ranks: which of them have M rows each.

    Returns:
        Means over the steps that were taken, none where none was; and how the update ended.

    Raises:
        NotFiniteError: a gradient is not finite; the parameters are as before the step.
    """
    # On the device until the end: every look at a figure makes the host wait for a GPU.
    sums = torch.zeros(len(MEANS), dtype=torch.float64, device=played.mask.device)
    steps, kl, enough = 0, 0.0, False
    for rows, mask in shared_minibatches(played.mask, epochs, minibatches, generator, ranks):
        # Of all ranks, so that their losses add up to that of the minibatch.
        count = ranks.sum(mask.sum())
        distribution, value = network(played.inputs[rows])
        log_ratio = (distribution.log_prob(played.actions[rows]) - played.log_probs[rows]) * mask
        ratio = log_ratio.exp()
        # Schulman's estimate of KL(π_old ‖ π): never negative, and exact in the mean over actions of π_old.
        kl = float(ranks.sum(((ratio - 1.0 - log_ratio) * mask).sum().detach()) / count)
        if kl > max_kl:
            enough = True
            break
        gain = (clipped_gain(ratio, played.advantages[rows], clip) * mask).sum() / count
        error = ((value - played.targets[rows]).square() * mask).sum() / count
        entropy = (distribution.entropy() * mask).sum() / count
        loss = -gain + value_weight * error - entropy_weight * entropy
        optimiser.zero_grad()
        loss.backward()
        _add_gradients(network, ranks)
        norm = nn.utils.clip_grad_norm_(network.parameters(), max_gradient_norm)
        if not bool(norm.isfinite()):
            raise NotFiniteError("the policy gradient is not finite: look for NaN in observations or rewards")
        optimiser.step()
        steps += 1
        outside = (((ratio - 1.0).abs() > clip) * mask).sum() / count
        # The norm is the same on all ranks, where the others are parts of a sum.
        sums += torch.stack((error, outside, norm / ranks.size, entropy)).detach()
    totals = ranks.sum(dict(zip(MEANS, sums.tolist(), strict=True)) if steps else {})
    means = {name: total / steps for name, total in totals.items()}
    return means, {"update/kl": kl, "update/steps": float(steps), "update/early_stop": float(enough)}


def clipped_gain(ratio: Float[Tensor, "*N"], advantages: Float[Tensor, "*N"], clip: float) -> Float[Tensor, "*N"]:
    """Compute min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) of every step."""
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    return torch.minimum(ratio * advantages, clipped * advantages)


def shared_minibatches(
    mask: Float[Tensor, "M L"], epochs: int, minibatches: int, generator: torch.Generator, ranks: Ranks = ALONE
) -> Iterator[tuple[Int[Tensor, " N"], Float[Tensor, "N L"]]]:
    """Yield this rank's rows in every minibatch of every epoch, with their masks.

    Args:
        mask: of this rank's rows; each of them stands in one minibatch of an epoch.
        epochs: passes over all rows.
        minibatches: of a pass.
        generator: draws who is where; the same on all ranks.
        ranks: which of them have M rows each.
    """
    own = len(mask)
    everyone = ranks.size * own
    first = ranks.rows(everyone).start
    for _ in range(epochs):
        order = torch.randperm(everyone, generator=generator).to(mask.device)
        for rows in order.tensor_split(minibatches):
            mine = rows[(rows >= first) & (rows < first + own)] - first
            if len(mine):
                yield mine, mask[mine]
            else:
                # Some row, of which nothing counts: all ranks take part in every step.
                yield mine.new_zeros(1), torch.zeros_like(mask[:1])


def _add_gradients(network: nn.Module, ranks: Ranks) -> None:
    """Give every parameter the sum of its gradients over the ranks."""
    leaves = [value for value in network.parameters() if value.grad is not None]
    for leaf, gradient in zip(leaves, ranks.sum([leaf.grad for leaf in leaves]), strict=True):
        leaf.grad = gradient
