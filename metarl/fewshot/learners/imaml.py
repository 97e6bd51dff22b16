"""iMAML: MAML's meta-gradient at the end of a long inner loop, without a graph of it (Rajeswaran et al. 2019).

    φ_i = argmin over φ of  L_support(φ) + λ/2 ‖φ - θ‖²          (n gradient steps from θ)
    d L_query(φ_i) / dθ = (I + H_i / λ)^-1 ∇ L_query(φ_i),       H_i = ∇² L_support(φ_i)

The linear system is solved by conjugate gradients, for all tasks of a meta-batch at once: Hessian products cost two
backward passes each, and the memory does not grow with the number of inner steps.

As in the authors' code, a damping may be added to λ in the system. Differences: the inner loop takes plain gradient
steps (the paper also offers a Hessian-free one), and the number of conjugate-gradient steps is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.fewshot.episodes import Episodes, Source, Support
from metarl.fewshot.parts.adapted import AdaptedPredictor, Model
from metarl.fewshot.parts.features import RunningMoments, averages_for
from metarl.fewshot.parts.learner import Predictor, Setting, last, meta_batch
from metarl.fewshot.parts.norms import BatchNorm, Norm
from metarl.fewshot.parts.optimiser import Optimiser, OptimiserConfig
from metarl.fewshot.parts.own import refuse_once_differentiable
from metarl.fewshot.parts.scores import scores_metrics, task_loss
from metarl.fewshot.parts.solved import conjugate_gradients
from metarl.learning.inner import gradient_of
from metarl.seeding import Streams
from metarl.types import Metrics, Params


@dataclass(frozen=True, kw_only=True)
class ImamlConfig:
    """Settings of iMAML."""

    iterations: int = 1000
    """Meta-updates."""
    tasks: int = 16
    """Episodes of a meta-update, M."""
    inner_steps: int = 16
    """Gradient steps on a support set."""
    inner_rate: float = 0.0
    """Inner rate α; 0: 0.1, in regression 0.01."""
    strength: float = 2.0
    """λ, how strongly a task's parameters are held at the initial ones."""
    cg_iterations: int = 5
    """Steps of conjugate gradients."""
    cg_damping: float = 10.0
    """Added to λ in the linear system, so that it stays positive-definite where the loss is not convex."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """The outer optimiser."""

    def unused(self) -> dict[str, str]:
        """Return settings that change nothing -> what they would need."""
        return {} if self.cg_iterations else {"cg_damping": "--cg-iterations from 1"}

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS, "cg_iterations": MOST_STEPS, "inner_steps": MOST_STEPS})
        check(self, at_least={"iterations": 0, "tasks": 1, "inner_steps": 1, "cg_iterations": 0, "cg_damping": 0.0})
        check(self, at_least={"inner_rate": 0.0}, above={"strength": 0.0})


class Imaml:
    """The learner (see `metarl.fewshot.parts.learner.FewShotLearner`).

    Args:
        config: its settings.
        setting: what it is made for.
        streams: `init` draws the initial parameters.
        device: where everything lives.
    """

    name = "imaml"

    def __init__(self, config: ImamlConfig, setting: Setting, streams: Streams, device: torch.device) -> None:
        refuse_once_differentiable(setting.backbone, "maml --first-order, or reptile")
        # What was chosen stands in the run's settings.
        self.config = replace(config, inner_rate=setting.inner_rate(config.inner_rate))
        self.setting = setting
        self.device = device
        self.model = Model.of(setting)
        self.params = {
            name: value.to(device) for name, value in self.model.init(streams["init"], setting.dtype).items()
        }
        self.optimiser = Optimiser(config.optimiser, self.params, setting.ranks)
        self.moments = RunningMoments(setting.ranks)

    # -- the inner loop -----------------------------------------------------------------------------------------------

    def _adapt(self, support: Support, steps: int, norm: Norm) -> Iterator[Params]:
        """Yield the parameters of M tasks after 0 ... `steps` gradient steps, without a graph."""
        tasks = len(support.x)
        start = self.model.for_way({name: value.detach() for name, value in self.params.items()}, support.way)
        at = {name: value.expand(tasks, *value.shape) for name, value in start.items()}
        yield at

        def loss(params: Params, fixed: Params) -> Tensor:
            return self.model.loss(params, support.x, support.y, support.way, norm, by_task=True)

        rate, strength = self.config.inner_rate, self.config.strength
        for _ in range(steps):
            gradient = gradient_of(loss, at, {}, keep=False)
            # With the pull towards the start.
            at = {
                name: value - rate * (gradient[name] + strength * (value - start[name])) for name, value in at.items()
            }
            yield at

    # -- training -----------------------------------------------------------------------------------------------------

    def meta_gradient(self, episodes: Episodes) -> tuple[Params, Float[Tensor, " M"], Tensor]:
        """Return the meta-gradient of a meta-batch, its losses [M] and the scores of its queries."""
        support, policy = episodes.support, self.setting.batch_norm
        norm = Norm(policy)
        adapted = last(self._adapt(support, self.config.inner_steps, norm))
        leaves = {name: value.detach().requires_grad_() for name, value in adapted.items()}
        values = list(leaves.values())
        scores = self.model.queries(leaves, support.x, episodes.query_x, policy, by_task=True)
        losses = task_loss(scores, episodes.query_y, support.way)
        outer = _flat(torch.autograd.grad(losses.sum(), values, materialize_grads=True))
        inner_loss = self.model.loss(leaves, support.x, support.y, support.way, norm, by_task=True)
        inner = _flat(torch.autograd.grad(inner_loss.sum(), values, create_graph=True, materialize_grads=True))

        def curved(vector: Tensor) -> Tensor:
            """Return (I + H / (λ + damping)) v of every task."""
            product = _flat(torch.autograd.grad(inner, values, vector, retain_graph=True, materialize_grads=True))
            return vector + product / (self.config.strength + self.config.cg_damping)

        solved = conjugate_gradients(curved, outer, self.config.cg_iterations).mean(0)
        sizes = [value[0].numel() for value in values]
        parts = solved.split(sizes)
        gradient = {name: part.view(self.params[name].shape) for name, part in zip(leaves, parts, strict=True)}
        return gradient, losses.detach(), scores.detach()

    def loss(self, episodes: Episodes) -> Float[Tensor, " M"]:
        """Return the query loss of every episode after adaptation; its gradient is `meta_gradient`'s business."""
        with torch.no_grad():
            scores = self.fit(episodes.support).predict(episodes.query_x)
        return task_loss(scores, episodes.query_y.to(scores.device), episodes.support.way)

    def update(self, source: Source, number: int) -> Metrics:
        """Take one meta-update."""
        numbers = meta_batch(self.setting, source, number, self.config.tasks)
        episodes = source.episodes("train", numbers, self.setting.shape, self.setting.seed).to(self.device)
        gradient, _, scores = self.meta_gradient(episodes)
        metrics = self.optimiser.step(gradient, number)
        if self.setting.batch_norm == "running" and self.setting.backbone.norms:
            self.moments.measure(self.setting.backbone, self.params, episodes)
        return {**scores_metrics(scores, episodes), **metrics}

    # -- test ---------------------------------------------------------------------------------------------------------

    def _predictors(self, support: Support, steps: int, batch_norm: BatchNorm | None) -> Iterator[AdaptedPredictor]:
        support = support.to(self.device)
        policy = batch_norm or self.setting.batch_norm
        averages = averages_for(policy, self.setting, self.moments)
        for params in self._adapt(support, steps, Norm(policy, averages=averages)):
            yield AdaptedPredictor(self.model, params, support, policy, averages)

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Predictor]:
        """Return the predictors after 0 ... `steps` inner steps."""
        return list(self._predictors(support, steps, batch_norm))

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Adapt to M tasks."""
        return last(self._predictors(support, self.config.inner_steps, batch_norm))

    # -- storage ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimiser and averages."""
        return {**self.optimiser.state_dict(), "moments": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything."""
        self.optimiser.load_state_dict(state)
        self.moments.load_state_dict(state["moments"], self.device)


def _flat(parts: Sequence[Tensor]) -> Float[Tensor, "M P"]:
    """Return parameters, or gradients of them, of M tasks as rows."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def make(config: ImamlConfig, setting: Setting, streams: Streams, device: torch.device) -> Imaml:
    """Return the learner."""
    return Imaml(config, setting, streams, device)
