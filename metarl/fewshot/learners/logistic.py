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

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as nnf

from metarl.config import check
from metarl.errors import NotFiniteError
from metarl.fewshot.episodic import EpisodicLearner, episodic_optimiser
from metarl.fewshot.learner import OptimiserConfig, Setting
from metarl.seeding import Streams
from metarl.types import Params

NEWTON_STEPS = 50
"""At most; far fewer are taken."""
TOLERANCE = 1e-10
"""Norm of the gradient at the optimum, and of the residual of a linear system relative to its right side."""
ROUNDING = 1e-13
"""Relative error of the objective."""


@dataclass(frozen=True, kw_only=True)
class LogisticConfig:
    """Settings of the logistic head."""

    iterations: int = 1000
    """Meta-updates."""
    tasks: int = 4
    """Episodes of a meta-update, M."""
    train_way: int = 20
    """Ways of the training episodes, at most as many as there are classes; 0: as many as at test."""
    ridge: float = 0.1
    """λ at the start."""
    scale: float = 1.0
    """α at the start."""
    optimiser: OptimiserConfig = field(default_factory=episodic_optimiser)
    """The outer optimiser."""

    def __post_init__(self) -> None:
        check(self, at_least={"iterations": 0, "tasks": 1, "train_way": 0})
        check(self, above={"ridge": 0.0, "scale": 0.0})


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """The head.

    Attributes:
        ridge: λ at the start.
        scale: α at the start.
    """

    ridge: float
    scale: float

    def init(self, features: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
        """Return the logarithms of λ and α."""
        return {
            "log_ridge": torch.tensor(math.log(self.ridge), dtype=dtype),
            "log_scale": torch.tensor(math.log(self.scale), dtype=dtype),
        }

    def learn(
        self, params: Params, features: Float[Tensor, "M S F"], y: Int[Tensor, "M S"], way: int
    ) -> tuple[Tensor, ...]:
        """Return the weights, [M, F, N]."""
        truth = nnf.one_hot(y, way).double()
        return (optimum(features.double(), truth, params["log_ridge"].double().exp()).to(features.dtype),)

    def scores(
        self, params: Params, learned: tuple[Tensor, ...], features: Float[Tensor, "M Q F"]
    ) -> Float[Tensor, "M Q N"]:
        """Return the scaled scores of the classifier."""
        (weights,) = learned
        return params["log_scale"].exp() * (features @ weights)


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
        after.register_hook(lambda u: _conjugate_gradients(product, u, TOLERANCE))
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
        step = -_conjugate_gradients(_hessian(weights, features, ridge), gradient, rough)
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


@torch.no_grad()
def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Float[Tensor, "M F N"], tolerance: float | Float[Tensor, " M"]
) -> Float[Tensor, "M F N"]:
    """Solve H x = b in every task, H symmetric and positive definite, to a residual relative to b."""
    x, residual = torch.zeros_like(right), right
    direction, size = right, right.square().sum((1, 2))
    enough = tolerance**2 * size
    # In exact arithmetic as many steps as unknowns suffice.
    for _ in range(right[0].numel()):
        open_ = size > enough
        if not bool(open_.any()):
            break
        bent = product(direction)
        rate = torch.where(open_, size / (direction * bent).sum((1, 2)), 0.0)[:, None, None]
        x, residual = x + rate * direction, residual - rate * bent
        before, size = size, residual.square().sum((1, 2))
        # A task whose right side is 0 has nothing to go by: 0 / 0 would spoil it while others are still open.
        direction = residual + torch.where(open_, size / before, 0.0)[:, None, None] * direction
    return x


def make(config: LogisticConfig, setting: Setting, streams: Streams, device: torch.device) -> EpisodicLearner:
    """Return the learner."""
    return EpisodicLearner(
        "logistic", config, setting, Logistic(ridge=config.ridge, scale=config.scale), streams, device
    )
