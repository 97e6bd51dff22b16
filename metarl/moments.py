"""Running mean and spread of what a run has met so far, to scale a network's inputs and targets by."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.distributed import ALONE, Ranks


class Moments:
    """Mean and mean square of D numbers over all that was seen of each. Before the first: mean 0, deviation 1.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        self.count = torch.zeros(size, dtype=torch.float64)
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.square = torch.ones(size, dtype=torch.float64)

    def update(
        self, rows: Float[Tensor, "N D"], mask: Float[Tensor, "N D"] | None = None, ranks: Ranks = ALONE
    ) -> None:
        """Take in N more rows.

        Args:
            rows: the numbers.
            mask: 1 for those that count, 0 for the others; None: all count.
            ranks: which of them give their rows, each its own.
        """
        rows = rows.detach().to("cpu", torch.float64)
        real = torch.ones_like(rows) if mask is None else mask.to(rows)
        new, total, squares = ranks.sum((real.sum(0), (rows * real).sum(0), (rows.square() * real).sum(0)))
        self.count = self.count + new
        # Where nothing is new, nothing changes.
        share, each = new / self.count.clamp_min(1.0), new.clamp_min(1.0)
        self.mean = self.mean + share * (total / each - self.mean)
        self.square = self.square + share * (squares / each - self.square)

    @property
    def deviation(self) -> Float[Tensor, " D"]:
        """Standard deviation; 1 for a number that never changed, so that dividing by it is harmless."""
        variance = self.square - self.mean.square()
        # Rounding leaves a little where nothing varies.
        still = variance <= 1e-10 * (1.0 + self.square)
        return torch.where(still, 1.0, variance.clamp_min(0.0).sqrt())

    @property
    def size(self) -> Float[Tensor, " D"]:
        """Root of the mean square; 1 for a number that was always 0."""
        return torch.where(self.square > 0.0, self.square.sqrt(), 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments."""
        return {"count": self.count, "mean": self.mean, "square": self.square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the moments.

        Raises:
            ValueError: of another size.
        """
        if state["mean"].shape != self.mean.shape:
            raise ValueError(f"the stored moments have {len(state['mean'])} numbers, these {len(self.mean)}")
        self.count, self.mean, self.square = state["count"], state["mean"], state["square"]
