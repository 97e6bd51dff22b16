"""Running mean and spread of what a run has met so far, to scale a network's inputs and targets by."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.ranks import ALONE, Ranks


class Moments:
    """Mean and mean square of D numbers over all that was seen of each. Before the first: mean 0, deviation 1.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        self.count = torch.zeros(size, dtype=torch.float64)
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.square = torch.zeros(size, dtype=torch.float64)
        self._there: dict[tuple[torch.device, torch.dtype], tuple[Tensor, tuple[Tensor, ...]]] = {}
        self._known: tuple[Tensor, bool] | None = None

    def update(
        self, rows: Float[Tensor, "N D"], mask: Float[Tensor, "N D"] | None = None, ranks: Ranks = ALONE
    ) -> None:
        """Take in N more rows.

        Args:
            rows: the numbers.
            mask: 1 for those that count, 0 for the others; None: all count.
            ranks: which of them give their rows, each its own.
        """
        rows = rows.detach().to(torch.float64)
        real = torch.ones_like(rows) if mask is None else mask.to(rows)
        sums = tuple(x.sum(0).cpu() for x in (real, rows * real, rows.square() * real))
        new, total, squares = ranks.sum(sums)
        self.count = self.count + new
        # Where nothing is new, nothing changes.
        share, each = new / self.count.clamp_min(1.0), new.clamp_min(1.0)
        self.mean = self.mean + share * (total / each - self.mean)
        self.square = self.square + share * (squares / each - self.square)

    @property
    def still(self) -> Bool[Tensor, " D"]:
        """Which numbers never changed, as far as rounding lets one tell, in any unit; or were never seen."""
        # Rounding leaves a little where nothing varies: a part of the square, or of numbers of size 1 that cancelled.
        least = (1e-12 * self.square).clamp_min(1e-30)
        return (self.count == 0.0) | (self.square - self.mean.square() <= least)

    @property
    def deviation(self) -> Float[Tensor, " D"]:
        """Standard deviation; 1 for a number that never changed, so that dividing by it is harmless."""
        variance = self.square - self.mean.square()
        return torch.where(self.still, 1.0, variance.clamp_min(0.0).sqrt())

    @property
    def size(self) -> Float[Tensor, " D"]:
        """Root of the mean square; 1 for a number that was always 0."""
        return torch.where(self.square > 0.0, self.square.sqrt(), 1.0)

    def on(self, like: Tensor) -> tuple[Float[Tensor, " D"], ...]:
        """Return mean, deviation and size with the device and type of a tensor; they are copied once after an update.

        The tensors stay the same ones, with the numbers of the last call.
        """
        key = like.device, like.dtype
        known = self._there.get(key)
        if known is None:
            # Of one's own, even where the mean is there already.
            numbers = (self.mean, self.deviation, self.size)
            known = self.mean, tuple(x.to(like, copy=True) for x in numbers)
        # An update puts another tensor in the place of the mean.
        elif known[0] is not self.mean:
            for there, new in zip(known[1], (self.mean, self.deviation, self.size), strict=True):
                there.copy_(new)
            known = self.mean, known[1]
        self._there[key] = known
        return known[1]

    def refresh(self) -> None:
        """Bring the copies that `on` returned before up to date, in their places."""
        for _, (mean, _, _) in list(self._there.values()):
            self.on(mean)

    @property
    def known(self) -> bool:
        """Whether anything was seen; it is looked at once after an update."""
        if self._known is None or self._known[0] is not self.count:
            self._known = self.count, bool(self.count.any())
        return self._known[1]

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
