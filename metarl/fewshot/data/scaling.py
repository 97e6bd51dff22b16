"""Units of a regression: x and y as networks get them, and back to the units that they came in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Means and deviations, in the data's own units, that x and y are brought to 0 and 1 by.

    Attributes:
        x_mean: of every input (of every first axis of an item, where items have several).
        x_deviation: likewise.
        y_mean: of every output, [J].
        y_deviation: likewise.
    """

    x_mean: tuple[float, ...] = (0.0,)
    x_deviation: tuple[float, ...] = (1.0,)
    y_mean: tuple[float, ...] = (0.0,)
    y_deviation: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, x: Float[Tensor, "n *item"], y: Float[Tensor, "n J"]) -> Scaling:
        """Return the moments of the points of all training functions; what never changes keeps its unit."""
        x_mean, x_deviation = _moments(x.flatten(2) if x.dim() > 2 else x[..., None])
        y_mean, y_deviation = _moments(y[..., None])
        return cls(x_mean=x_mean, x_deviation=x_deviation, y_mean=y_mean, y_deviation=y_deviation)

    def x(self, raw: Float[Tensor, "n *item"]) -> Float[Tensor, "n *item"]:
        """Return inputs as networks get them, float32."""
        axes = (1,) * (raw.dim() - 2)
        mean, deviation = (_tensor(part).view(-1, *axes) for part in (self.x_mean, self.x_deviation))
        # In float64: times and places may be large numbers that differ in their last digits.
        return ((raw.double() - mean) / deviation).float()

    def y(self, raw: Float[Tensor, "n J"]) -> Float[Tensor, "n J"]:
        """Return values as networks are to give them, float32."""
        return ((raw.double() - _tensor(self.y_mean)) / _tensor(self.y_deviation)).float()

    def values(self, y: Float[Tensor, "*n J"]) -> Float[Tensor, "*n J"]:
        """Return values in the data's own units, float64."""
        return y.double() * _tensor(self.y_deviation) + _tensor(self.y_mean)

    def describe(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: list(value) for name, value in asdict(self).items()}


@runtime_checkable
class Regression(Protocol):
    """A `Source` of regression that tells its units."""

    @property
    def name(self) -> str:
        """Return the name."""
        ...

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Return the shape of the inputs of a point."""
        ...

    @property
    def outputs(self) -> int:
        """Return J."""
        ...

    @property
    def scaling(self) -> Scaling:
        """Return what x and y are scaled by."""
        ...


def _moments(values: Float[Tensor, "n parts rest"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    deviation, mean = torch.std_mean(values.double(), dim=(0, 2), correction=0)
    # Rounding leaves a little of a constant that is no round number.
    constant = deviation <= 1e-12 * mean.abs()
    return tuple(mean.tolist()), tuple(torch.where(constant, 1.0, deviation).tolist())


def _tensor(numbers: Iterable[float]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.float64)
