"""Trust-region steps (Schulman et al. 2015): conjugate gradient, Fisher products, line search.

The step solves F x = g, is scaled so that the quadratic model of the KL is δ, and is shortened until the true KL and
the true objective agree to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import NotFiniteError
from metarl.learning.finite import check_parts
from metarl.nets.policy import Distribution, fisher_of, stack
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics, Params

Vector = Float[Tensor, " D"]


def flatten(params: Params) -> Vector:
    """Join all parameters into one vector, [D], in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Vector, like: Params) -> Params:
    """Cut a vector into parameters shaped as `like`."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {name: piece.view_as(value) for (name, value), piece in zip(like.items(), pieces, strict=True)}


def conjugate_gradient(
    product: Callable[[Vector], Vector],
    target: Vector,
    iterations: int,
    tolerance: float = 1e-10,
    *,
    watch: bool | None = None,
) -> Vector:
    """Solve A x = target approximately for a positive definite A.

    What ends the search is kept as a mask, under which nothing changes any more: the same result, whether the host
    looks or not.

    Args:
        product: v -> A v.
        target: right-hand side.
        iterations: at most this many products.
        tolerance: stop when the squared residual falls below this fraction of the first one.
        watch: whether the host looks before each product if the search has ended; by default where vectors are on the
            CPU. A GPU would stand still at every look.
    """
    watched = target.is_cpu if watch is None else watch
    x = torch.zeros_like(target)
    residual = target.clone()
    direction = residual.clone()
    square = residual.dot(residual)
    # In float64, so that the smallest residuals can be told from 0.
    enough = tolerance * square.double()
    going = square != 0.0
    for _ in range(iterations):
        going = going & ~(square.double() <= enough)
        if watched and not bool(going):
            break
        image = product(direction)
        curvature = direction.dot(image)
        going = going & ~(curvature <= 0.0)
        step = square / curvature
        x = torch.where(going, x + step * direction, x)
        residual = torch.where(going, residual - step * image, residual)
        following = torch.where(going, residual.dot(residual), square)
        direction = torch.where(going, residual + (following / square) * direction, direction)
        square = following
    return x


class PolicyFisher:
    """The Fisher information of a policy, mean over a batch, as v -> F v: per task, at the given parameters.

    Gauss-Newton form Jᵀ F_out J with J the Jacobian of the distribution's parameters: exact for the KL divergence at
    zero distance. The graph is built once and kept.

    Args:
        policy: (parameters, observations [M, N, O]) -> distribution.
        params: with leading axis M.
        observations: [M, N, O].
        weights: [M, N], sum 1 per task.
    """

    def __init__(
        self,
        policy: Callable[[Params, Tensor], Distribution],
        params: Params,
        observations: Float[Tensor, "M N O"],
        weights: Float[Tensor, "M N"],
    ) -> None:
        self.leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        self.weights = weights
        self.outputs = policy(self.leaves, observations)
        self.probes = [torch.zeros_like(output, requires_grad=True) for output in self.outputs]
        # Jᵀ u is linear in the probe u, so its derivative with respect to u, applied to v, is J v.
        self.transposed = torch.autograd.grad(
            list(self.outputs),
            list(self.leaves.values()),
            self.probes,
            create_graph=True,
            materialize_grads=True,
        )

    def __len__(self) -> int:
        return self.weights.shape[0]

    def __call__(self, vector: Params) -> Params:
        """Return F v for every task."""
        pushed = torch.autograd.grad(
            self.transposed, self.probes, list(vector.values()), retain_graph=True, materialize_grads=True
        )
        with torch.no_grad():
            weighted = fisher_of(self.outputs, pushed, self.weights)
        pulled = torch.autograd.grad(
            list(self.outputs),
            list(self.leaves.values()),
            list(weighted),
            retain_graph=True,
            materialize_grads=True,
        )
        return dict(zip(self.leaves, pulled, strict=True))


def mean_product(
    products: Sequence[tuple[int, Callable[[Params], Params]]], ranks: Ranks = ALONE
) -> Callable[[Params], Params]:
    """Return v -> the mean over all tasks of their products F_i v.

    Args:
        products: by chunk of tasks, how many they are, m, and v [m, ...] -> F_i v of each, [m, ...].
        ranks: which of them have the products of as many tasks each.
    """
    tasks = sum(count for count, _ in products)

    def product(vector: Params) -> Params:
        total = {name: torch.zeros_like(value) for name, value in vector.items()}
        for count, of_tasks in products:
            for name, value in of_tasks(stack(vector, count)).items():
                total[name] += value.sum(0) / tasks
        return ranks.mean(total)

    return product


@dataclass(frozen=True)
class Outcome:
    """What a trust-region step did.

    Attributes:
        params: new parameters; the old ones where no step was accepted.
        before, after: objective (to be maximised) before and after.
        kl: true mean KL of the accepted step, 0 where none.
        tried: candidates evaluated.
        accepted: whether a candidate satisfied both conditions.
    """

    params: Params
    before: float
    after: float
    kl: float
    tried: int
    accepted: bool

    def metrics(self) -> Metrics:
        """Return the figures to log."""
        return {
            "update/surrogate_before": self.before,
            "update/surrogate_after": self.after,
            "update/improvement": self.after - self.before,
            "update/kl": self.kl,
            "update/line_search_steps": float(self.tried),
            "update/accepted": float(self.accepted),
        }


def trust_region_step(
    params: Params,
    gradient: Params,
    fisher_product: Callable[[Params], Params],
    evaluate: Callable[[Params], tuple[float, float]],
    before: float,
    *,
    max_kl: float,
    iterations: int = 10,
    damping: float = 1e-5,
    backtrack: float = 0.8,
    max_backtracks: int = 15,
) -> Outcome:
    """Maximise an objective within KL <= `max_kl` of the present policy.

    Args:
        params: present parameters.
        gradient: of the objective.
        fisher_product: v -> F v, without damping.
        evaluate: candidate -> (objective, mean KL from the present policy), on all data.
        before: the present objective.
        max_kl: δ, nats.
        iterations: conjugate-gradient products.
        damping: added to F's diagonal.
        backtrack: factor between candidates.
        max_backtracks: candidates at most.

    Raises:
        NotFiniteError: parameters, gradient or a Fisher product are not finite.
    """
    flat = flatten(gradient)

    def product(v: Vector) -> Vector:
        return flatten(fisher_product(unflatten(v, params))) + damping * v

    direction = conjugate_gradient(product, flat, iterations)
    # The one look at what the device has computed so far.
    finite, curvature = torch.stack((flat.isfinite().all().to(flat), direction.dot(product(direction)))).tolist()
    if not finite:
        check_parts([("the parameter", params)], "the policy gradient is not finite")
    if not math.isfinite(curvature):
        raise NotFiniteError("a Fisher product is not finite: the policy's parameters have grown out of bounds")
    if curvature <= 0.0:
        return Outcome(params, before, before, 0.0, 0, False)
    full = direction * (2.0 * max_kl / curvature) ** 0.5
    base = flatten(params)
    for tried in range(1, max_backtracks + 1):
        candidate = unflatten(base + full * backtrack ** (tried - 1), params)
        objective, kl = evaluate(candidate)
        if objective > before and kl <= max_kl:
            return Outcome(candidate, before, objective, kl, tried, True)
    return Outcome(params, before, before, 0.0, max_backtracks, False)


def gradient_metrics(gradients: Params, ranks: Ranks = ALONE) -> Metrics:
    """Compute norm and signal-to-noise ratio of the mean of M tasks' gradients.

    The ratio is ‖mean‖² / (trace of the covariance over tasks / M): about 1 is what noise alone gives.

    Args:
        gradients: every tensor [M, ...].
        ranks: which of them have the gradients of M tasks each.
    """
    tasks = next(iter(gradients.values())).shape[0]
    mean = ranks.mean({name: g.mean(0) for name, g in gradients.items()})
    square = _sum(value.square().sum() for value in mean.values())
    metrics = {"update/gradient_norm": square**0.5}
    if ranks.size * tasks > 1:
        if ranks.size == 1:
            noise = _sum(g.var(0).sum() for g in gradients.values()) / tasks
        else:
            spread = _sum((g - mean[name]).square().sum() for name, g in gradients.items())
            noise = ranks.sum(spread) / (ranks.size * tasks - 1) / (ranks.size * tasks)
        metrics["update/gradient_snr"] = square / max(noise, 1e-30)
    return metrics


def _sum(parts: Iterable[Tensor]) -> float:
    """Return the sum of some numbers, taken in Python's precision; one look at the device."""
    return sum(torch.stack(list(parts)).tolist())
