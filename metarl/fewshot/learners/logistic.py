"""MetaOptNet's form (Lee, Maji, Ravichandran & Soatto 2019): a convex classifier on features, solved to its optimum.

With x_i the features of the S support items, y_i their labels:

    W* = argmin_W  mean_i cross-entropy(W x_i, y_i) + λ/2 ‖W‖²
    scores of a query = α W* f(x)

The optimum is found by Newton's method in float64, every step by conjugate gradients; and the gradient by the implicit
function theorem, from another such system in place of a pass back through the solver: with G(W, x, λ) the gradient of
the objective and H its Hessian at W*, a gradient u by W* becomes -uᵀ H⁻¹ ∂G/∂(x, λ). λ and α are learned, as their
logarithms.

Differences: multinomial logistic regression in place of the paper's support vector machine (one of its alternatives);
no constant among the features. Both λ and the scale α are learned (in the paper the scale alone).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.config import MOST_ITERATIONS, check
from metarl.errors import NotFiniteError
from metarl.fewshot.parts.comparing import EpisodicLearner, episodic_optimiser
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.parts.solved import SolvedHead, conjugate_gradients
from metarl.seeding import Streams

NEWTON_STEPS = 50
"""At most; far fewer are taken."""
TOLERANCE = 1e-10
"""Norm of the gradient at the optimum, and of the residual of a linear system relative to its right side."""
ROUNDING = 1e-13
"""Relative error of the objective."""


@dataclass(frozen=True, kw_only=True)
class LogisticConfig:
    """Settings of the logistic head."""

    iterations: int = 600
    """Meta-updates."""
    tasks: int = 4
    """Episodes of a meta-update, M."""
    train_way: int = 20
    """Ways of the training episodes, at most as many as the data can give; 0: as many as at test."""
    ridge: float = 0.1
    """λ at the start."""
    scale: float = 1.0
    """α at the start."""
    optimiser: OptimiserConfig = field(default_factory=episodic_optimiser)
    """The outer optimiser."""

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_least={"iterations": 0, "tasks": 1, "train_way": 0})
        check(self, above={"ridge": 0.0, "scale": 0.0})


def optimum(
    features: Float[Tensor, "M S F"], truth: Float[Tensor, "M S N"], ridge: Float[Tensor, ""]
) -> Float[Tensor, "M F N"]:
    """Return the weights of regularised logistic regression, differentiable (once) by features and ridge.

    Raises:
        NotFiniteError: Newton's method did not arrive, for features that are not finite or far too large.
    """
    with torch.no_grad():
        weights = _newton(features, truth, ridge)
    if not torch.is_grad_enabled():
        return weights
    # Its value is W*, up to the tolerance, and its derivative by features and ridge is -∂G; the hook brings in H⁻¹.
    after = weights - _gradient(weights, features, truth, ridge)
    if after.requires_grad:
        fixed = features.detach()
        product = _hessian(weights, fixed, ridge.detach())
        after.register_hook(lambda u: conjugate_gradients(product, u, _unknowns(u), TOLERANCE))
    return after


def _newton(features: Tensor, truth: Tensor, ridge: Tensor) -> Float[Tensor, "M F N"]:
    """Return W*, by Newton steps, each shortened until the objective of its task does not rise."""
    weights = features.new_zeros(len(features), features.shape[-1], truth.shape[-1])
    lengths = 0.5 ** torch.arange(12, dtype=features.dtype, device=features.device)[:, None]
    value = _objective(weights, features, truth, ridge)
    first = None
    for _ in range(NEWTON_STEPS):
        gradient = _gradient(weights, features, truth, ridge)
        sizes = gradient.flatten(1).norm(dim=1)
        first = sizes.clamp_min(1.0) if first is None else first
        if bool((sizes <= TOLERANCE * first).all()):
            return weights
        # Far from the optimum a rough step does as well: the closer, the more exact (Dembo, Eisenstat & Steihaug 1982).
        rough = (sizes / first).sqrt().clamp(TOLERANCE, 0.1)
        step = -conjugate_gradients(_hessian(weights, features, ridge), gradient, _unknowns(gradient), rough)
        values = _objective(weights + lengths[..., None, None] * step, features, truth, ridge)
        # Close to the optimum the objective changes by rounding alone.
        fits = values <= value + ROUNDING * (1.0 + value)
        length, chosen = torch.where(fits, lengths, 0.0).max(0)
        weights, value = weights + length[:, None, None] * step, values.gather(0, chosen[None])[0]
    raise NotFiniteError("the logistic head found no optimum: its features may have run away")


def _objective(weights: Float[Tensor, "*L M F N"], features: Tensor, truth: Tensor, ridge: Tensor) -> Tensor:
    scores = features @ weights
    entropies = torch.logsumexp(scores, -1) - (scores * truth).sum(-1)
    return entropies.mean(-1) + 0.5 * ridge * weights.square().sum((-2, -1))


def _gradient(weights: Tensor, features: Tensor, truth: Tensor, ridge: Tensor) -> Float[Tensor, "M F N"]:
    excess = torch.softmax(features @ weights, -1) - truth
    return features.mT @ excess / features.shape[1] + ridge * weights


def _hessian(weights: Tensor, features: Tensor, ridge: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the product of the Hessian at some weights with a vector [M, F, N]."""
    p = torch.softmax(features @ weights, -1)

    def product(v: Tensor) -> Tensor:
        change = p * (features @ v)
        change = change - p * change.sum(-1, keepdim=True)
        return features.mT @ change / features.shape[1] + ridge * v

    return product


def _unknowns(right: Float[Tensor, "M F N"]) -> int:
    """Return the unknowns of one system: in exact arithmetic so many steps suffice."""
    return right[0].numel()


def make(config: LogisticConfig, setting: Setting, streams: Streams, device: torch.device) -> EpisodicLearner:
    """Return the learner."""
    head = SolvedHead(solve=optimum, ridge=config.ridge, scale=config.scale)
    return EpisodicLearner("logistic", config, setting, head, streams, device)
