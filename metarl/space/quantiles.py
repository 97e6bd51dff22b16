"""Quantiles: what turns numbers uniform in (0, 1) into values of a parameter's scale, and values into such numbers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

MARGIN = 1e-9
"""Kept free at both ends of every range and strip, so that rounding never moves a task into another split."""


def fractions(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw numbers strictly inside of (0, 1), clear of both ends."""
    return MARGIN + (1.0 - 2.0 * MARGIN) * torch.rand(shape, generator=generator, dtype=torch.float64)


def warp(scale: str, values: Tensor) -> Tensor:
    """Map values (radii for a disc) to where their distribution is uniform."""
    if scale == "log-uniform":
        return values.log()
    return values.square() if scale == "disc" else values


def interpolate(scale: str, low: float | Tensor, high: float | Tensor, u: Tensor) -> Tensor:
    """Return the quantile `u` of the distribution between `low` and `high`."""
    start = warp(scale, torch.as_tensor(low, dtype=torch.float64))
    end = warp(scale, torch.as_tensor(high, dtype=torch.float64))
    warped = start + (end - start) * u
    if scale == "log-uniform":
        return warped.exp()
    return warped.sqrt() if scale == "disc" else warped


def position(scale: str, bounds: tuple[float, float], values: Tensor) -> Tensor:
    """Return which quantile between the bounds a value is: the inverse of `interpolate`."""
    low, high = warp(scale, torch.tensor(bounds, dtype=torch.float64))
    return (warp(scale, values) - low) / (high - low)


def polar(radius: Float[Tensor, " M"], turn: Float[Tensor, " M"]) -> Float[Tensor, "M 2"]:
    """Return the points at the given radii and turns (1 is the full circle)."""
    angle = 2.0 * math.pi * turn
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


def stick_breaking(u: Float[Tensor, "M R N"]) -> Float[Tensor, "M R N"]:
    """Return the flat Dirichlet's quantiles: each probability is a share of what the earlier ones left.

    Args:
        u: a number for each of N probabilities in each of R distributions; the last of the N is not used.
    """
    rest = torch.arange(u.shape[2] - 1, 0, -1, dtype=torch.float64)
    shares = 1.0 - (1.0 - u[..., :-1]) ** (1.0 / rest)
    left = torch.cat([torch.ones_like(shares[..., :1]), (1.0 - shares).cumprod(2)], dim=2)
    return torch.cat([shares, torch.ones_like(shares[..., :1])], dim=2) * left
