"""Gittins indices of Bernoulli arms: what an arm is worth that may be pulled so many times more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

CELLS = 256
"""Cells of the grid of known rewards in the calibration."""


@cache
def gittins_indices(pulls: int, discount: float = 1.0) -> Sequence[Float[Tensor, "_S _F"]]:
    """Compute the Gittins indices of a Bernoulli arm with a flat prior, by calibration.

    The index of an arm with r pulls left is the reward λ of a known arm at which both are equally good first choices:
    with V_r(a, b, λ) the value of r pulls of an arm of belief Beta(a, b) that may be given up for the known one,

        V_r(a, b, λ) = max(λ (1 + γ + ... + γ^(r-1)),  p (1 + γ V_(r-1)(a + 1, b, λ)) + (1 - p) γ V_(r-1)(a, b + 1, λ))

    with p = a / (a + b), the index is where the two sides of the maximum meet (Niño-Mora 2011; Kaufmann 2018, "On
    Bayesian index policies for sequential resource allocation"). It is found on a grid of λ, linearly between its
    points: 2e-5 off on average, 1.2e-3 at most. With γ < 1 and r large it is the index of the endless discounted
    bandit (Gittins 1979).

    Args:
        pulls: n, the longest horizon.
        discount: γ.

    Returns:
        A list of tables; entry r (from 1; 0 is empty) is [n - r + 1, n - r + 1]: the index after so many successes and
        failures, where r pulls are left. Sums of more than n - r are never met, and hold no meaning.
    """
    known = torch.linspace(0.0, 1.0, CELLS + 1, dtype=torch.float64)
    known_value = torch.zeros_like(known)
    counts = torch.arange(pulls, dtype=torch.float64)
    probability = ((counts[:, None] + 1.0) / (counts[:, None] + counts + 2.0))[:, :, None]
    value = torch.zeros(pulls + 1, pulls + 1, CELLS + 1, dtype=torch.float64)
    tables = [torch.empty(0, 0, dtype=torch.float64)]
    for left in range(1, pulls + 1):
        p = probability[: pulls - left + 1, : pulls - left + 1]
        known_value = known + discount * known_value
        # These arrays are large: p (1 + γ up) + (1 - p) γ down, in place.
        success, failure = value[1:, :-1], value[:-1, 1:]
        go_on = (success - failure).mul_(p).add_(failure).mul_(discount).add_(p)
        tables.append(_crossing(known_value - go_on, known))
        value = torch.maximum(go_on, known_value, out=go_on)
    return tables


def _crossing(loss: Float[Tensor, "S F G"], grid: Float[Tensor, " G"]) -> Float[Tensor, "S F"]:
    """Return where an increasing function on a grid becomes 0."""
    zero = torch.zeros_like(loss[:, :, :1])
    cell = (torch.searchsorted(loss, zero, right=True) - 1).clamp(0, len(grid) - 2)
    before, after = loss.gather(2, cell), loss.gather(2, cell + 1)
    part = (before / (before - after)).clamp(0.0, 1.0)
    return (grid[cell] + part * (grid[1] - grid[0])).squeeze(2)
