"""Linear feature baseline (Duan et al. 2016, "Benchmarking deep RL", section 4): V(s_t) = w · (s, s², t, t², t³, 1).

Refitted for every task and adaptation step by regularised least squares on the observed returns, all tasks in one
batched solve.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import NotFiniteError, WorldNotFiniteError

OBSERVATION_CLIP = 10.0
TIME_SCALE = 100.0
"""Steps per unit of the time features."""
RIDGE = 1e-5
"""Ridge coefficient; grows tenfold, `TRIALS` times at most, where a system is singular to working precision."""
TRIALS = 8


def features(observations: Float[Tensor, "M K T O"]) -> Float[Tensor, "M K T F"]:
    """Compute (s, s², t, t², t³, 1) in float64; F = 2 O + 4."""
    clipped = observations.double().clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
    steps = observations.shape[-2]
    time = (torch.arange(steps, dtype=torch.float64, device=observations.device) / TIME_SCALE).expand(
        observations.shape[:-1]
    )
    polynomial = torch.stack((time, time.square(), time.pow(3), torch.ones_like(time)), dim=-1)
    return torch.cat((clipped, clipped.square(), polynomial), dim=-1)


def fit_values(
    observations: Float[Tensor, "M K T O"],
    returns: Float[Tensor, "M K T"],
    mask: Float[Tensor, "M K T"],
    regularisation: float = RIDGE,
) -> Float[Tensor, "M K T"]:
    """Fit one baseline per task to `returns` and return its values at `observations`.

    Args:
        observations: observation before each step.
        returns: the targets.
        mask: 1 for real steps; padding is left out of the fit and gets value 0.
        regularisation: ridge coefficient; grows tenfold for a task whose system is singular to working precision.

    Raises:
        NotFiniteError: an observation is NaN, or a return is not finite.
    """
    design = (features(observations) * mask.unsqueeze(-1)).flatten(1, 2)
    targets = (returns.double() * mask).flatten(1)
    gram = design.mT @ design
    moment = (design.mT @ targets.unsqueeze(-1)).squeeze(-1)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridge = torch.full((gram.shape[0], 1, 1), regularisation, dtype=gram.dtype, device=gram.device)
    for _ in range(TRIALS):
        factor, failed = torch.linalg.cholesky_ex(gram + ridge * identity)
        if not bool(failed.any()):
            break
        ridge = torch.where((failed > 0)[:, None, None], ridge * 10.0, ridge)
    else:
        raise NotFiniteError("the baseline's normal equations are not finite: observations are, or are shown as, NaN")
    weights = _solved(factor, moment.unsqueeze(-1))
    if not bool(weights.isfinite().all()):
        raise WorldNotFiniteError(f"the returns are not finite, with rewards that come to {returns.abs().max():.3g}")
    values = (design @ weights).squeeze(-1).reshape(returns.shape)
    return values.to(returns.dtype)


def _solved(factor: Float[Tensor, "M F F"], moment: Float[Tensor, "M F 1"]) -> Float[Tensor, "M F 1"]:
    """Return x of L Lᵀ x = moment."""
    if by_triangles(factor):
        lower = torch.linalg.solve_triangular(factor, moment, upper=False)
        return torch.linalg.solve_triangular(factor.mT, lower, upper=True)
    return torch.cholesky_solve(moment, factor)


def by_triangles(factor: Tensor) -> bool:
    """Tell whether a system is solved as two triangular ones.

    For several systems on a GPU torch's solver of both would be MAGMA's, a library that takes seconds to load.
    """
    return factor.is_cuda


def explained_variance(
    values: Float[Tensor, "M K T"], returns: Float[Tensor, "M K T"], mask: Float[Tensor, "M K T"]
) -> Float[Tensor, " M"]:
    """Compute 1 - Var(returns - values) / Var(returns) per task, over real steps."""

    def variance(x: Tensor) -> Tensor:
        count = mask.sum((-2, -1))
        mean = (x * mask).sum((-2, -1)) / count
        return ((x - mean[:, None, None]).square() * mask).sum((-2, -1)) / count

    # What rounding leaves where nothing varies is a part of the returns' own size, whatever their unit.
    size = (returns * mask).square().sum((-2, -1)) / mask.sum((-2, -1))
    least = (1e-12 * size).clamp_min(torch.finfo(size.dtype).tiny)
    return 1.0 - variance(returns - values) / torch.maximum(variance(returns), least)
