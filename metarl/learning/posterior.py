"""A Gaussian belief about a task, made of one Gaussian factor for each step that was met (PEARL, arXiv 1903.08254).

    q(z | steps) ∝ Π_n N(z; μ_n, σ²_n):   1/σ² = Σ 1/σ²_n,   μ = σ² Σ μ_n/σ²_n

Sums do not hang on the order of the steps, and go on where they stopped.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

LEAST_VARIANCE = 1e-7
"""Of a factor."""


class Factors(NamedTuple):
    """Sums over the factors of some steps.

    Attributes:
        precision: Σ 1/σ²_n, above 0.
        weighted: Σ μ_n/σ²_n.
    """

    precision: Float[Tensor, "*M L"]
    weighted: Float[Tensor, "*M L"]

    @property
    def mean(self) -> Float[Tensor, "*M L"]:
        """μ of their product."""
        return self.weighted / self.precision

    @property
    def variance(self) -> Float[Tensor, "*M L"]:
        """σ² of their product."""
        return 1.0 / self.precision

    def and_also(self, other: Factors) -> Factors:
        """Return the sums over these factors and others."""
        return Factors(self.precision + other.precision, self.weighted + other.weighted)

    def kl_to_prior(self) -> Float[Tensor, "*M"]:
        """Compute KL(q ‖ N(0, I)), nats."""
        variance = self.variance
        return 0.5 * (variance + self.mean.square() - 1.0 - variance.log()).sum(-1)


def factors_of(output: Float[Tensor, "*M n B"], mask: Float[Tensor, "*M n"] | None = None) -> Factors:
    """Return the sums over n steps of what an encoder gives for each: μ_n, then what softplus makes σ²_n of (B = 2 L).

    Args:
        output: of the encoder.
        mask: 1 for the steps that count; None: all do.
    """
    mean, raw = output.chunk(2, -1)
    precision = 1.0 / softplus(raw).clamp_min(LEAST_VARIANCE)
    if mask is not None:
        precision = precision * mask.unsqueeze(-1)
    return Factors(precision.sum(-2), (mean * precision).sum(-2))
