"""Steps down a mean error over what was played, in minibatches of whole episodes or trials."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metarl.learning.ppo import add_gradients, shared_minibatches
from metarl.ranks import ALONE, Ranks


def descend(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    errors: Callable[[Int[Tensor, " n"]], Float[Tensor, "n L"]],
    mask: Float[Tensor, "N L"],
    generator: torch.Generator,
    *,
    epochs: int,
    minibatches: int,
    ranks: Ranks = ALONE,
) -> float:
    """Take steps on the mean error over all real steps of a minibatch, in place.

    Args:
        network: what errors depend on.
        optimiser: of its parameters.
        errors: numbers of rows -> the error at each of their steps.
        mask: 1 for real steps, of this rank's N rows.
        generator: draws the minibatches.
        epochs: passes over all rows.
        minibatches: steps of the optimiser in a pass.
        ranks: which of them have N rows each.

    Returns:
        The mean error of the minibatches, each before its step.
    """
    found = []
    for rows in shared_minibatches(mask, epochs, minibatches, generator, ranks):
        some, real = rows, mask[rows]
        if not len(rows):
            # Some row, of which nothing counts: all ranks take part in every step.
            some, real = rows.new_zeros(1), torch.zeros_like(mask[:1])
        # Of all ranks, so that their errors add up to that of the minibatch.
        loss = (errors(some) * real).sum() / ranks.sum(real.sum())
        optimiser.zero_grad()
        loss.backward()
        add_gradients(network.parameters(), ranks)
        optimiser.step()
        found.append(loss.detach())
    return float(ranks.sum(torch.stack(found).mean()))
