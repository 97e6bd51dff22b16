"""Random draws from distributions for which torch takes no generator."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def draw_gamma(shape: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Draw from the gamma distribution of every shape, each at least 1, with scale 1 (Marsaglia & Tsang 2000)."""
    drawn = torch.empty_like(shape).flatten()
    d = shape.flatten() - 1.0 / 3.0
    open_ = torch.arange(len(d))
    while len(open_) > 0:
        normal = torch.randn(len(open_), generator=generator, dtype=d.dtype)
        uniform = torch.rand(len(open_), generator=generator, dtype=d.dtype)
        base = d[open_]
        cube = (1.0 + normal / (9.0 * base).sqrt()) ** 3
        bound = 0.5 * normal.square() + base * (1.0 - cube + cube.clamp_min(1e-300).log())
        accepted = (cube > 0.0) & (uniform.log() < bound)
        drawn[open_[accepted]] = (base * cube)[accepted]
        open_ = open_[~accepted]
    return drawn.view_as(shape)
