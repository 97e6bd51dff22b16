"""MAML: parameters from which a few gradient steps on a support set lead far (Finn, Abbeel & Levine 2017).

    θ_{k+1} = θ_k - α_k ⊙ ∇ L_support(θ_k),   k = 0 ... n - 1
    min over θ_0 (and α):  mean over tasks of L_query(θ_n)

By its settings it is also

    first-order MAML    --first-order: the inner gradients are constants
    ANIL                --adapts head: the backbone stays as it is (Raghu et al. 2020)
    Meta-SGD            --rates parameter: an own learned rate for every parameter (Li et al. 2017)
    MAML++              --rates step --multi-step-updates N --first-order-updates N --step-norm: a rate for every layer
                        and step, a loss behind every step that gives way to that of the last one, first order in the
                        beginning, norms of their own for every step (Antoniou, Edwards & Storkey 2019)

Differences: the loss is the mean over the meta-batch, not the sum. MAML++'s cosine schedule of the outer rate and its
ensemble of checkpoints at test are left out. Batch norm follows the policy of the run; the papers are transductive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes, Source, Support
from metarl.fewshot.parts.adapted import HEAD, AdaptedPredictor, Model
from metarl.fewshot.parts.executors import Data, Executor, MetaGradient, Objective, Pass, choose, laid_out
from metarl.fewshot.parts.features import RunningMoments, averages_for
from metarl.fewshot.parts.learner import Predictor, Setting, last, meta_batch
from metarl.fewshot.parts.norms import BatchNorm, Moment, Norm
from metarl.fewshot.parts.optimiser import Optimiser, OptimiserConfig
from metarl.fewshot.parts.own import OwnBackbone, refuse_once_differentiable
from metarl.fewshot.parts.scores import scores_metrics, task_loss
from metarl.launches import launches_on
from metarl.seeding import Streams
from metarl.types import Metrics, Params

RATE = "rate."
"""Learned inner rates have the names of their parameters behind it."""


@dataclass(frozen=True, kw_only=True)
class MamlConfig:
    """Settings of MAML and of its kin."""

    iterations: int = 1000
    """Meta-updates."""
    tasks: int = 16
    """Episodes of a meta-update, M."""
    inner_steps: int = 5
    """Gradient steps on a support set while training, n."""
    test_steps: int = 0
    """Gradient steps at test; 0: as many as while training."""
    inner_rate: float = 0.0
    """Inner rate α; where rates are learned, their first value; 0: 0.1, in regression 0.01."""
    rates: Literal["fixed", "step", "parameter"] = "fixed"
    """Inner rates: fixed; learned for every layer and step (MAML++); or for every parameter (Meta-SGD)."""
    adapts: Literal["all", "head"] = "all"
    """What the inner steps change: everything, or the head alone (ANIL)."""
    first_order: bool = False
    """Treat the inner gradients as constants."""
    first_order_updates: int = 0
    """Be first-order in so many updates at the beginning (MAML++)."""
    multi_step_updates: int = 0
    """Over so many updates the losses behind the earlier inner steps fade out (MAML++); 0: the last one alone."""
    step_norm: bool = False
    """Scales, shifts and averages of the norms are of their own for every step, and not adapted (MAML++)."""
    executor: Executor = "auto"
    """How meta-gradients are computed: auto, loop, grouped, vmap or compiled."""
    memory: int = 2000
    """Budget for what is kept for a backward pass, MB: so many tasks are computed at a time as fit."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """The outer optimiser."""

    def unused(self) -> dict[str, str]:
        """Return settings that change nothing -> what they would need."""
        unused = {"first_order_updates": "second derivatives, no --first-order"} if self.first_order else {}
        return unused | ({"multi_step_updates": "--inner-steps from 2"} if self.inner_steps == 1 else {})

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS, "inner_steps": MOST_STEPS, "test_steps": MOST_STEPS})
        check(self, at_least={"iterations": 0, "tasks": 1, "inner_steps": 1, "test_steps": 0, "memory": 1})
        check(self, at_least={"first_order_updates": 0, "multi_step_updates": 0, "inner_rate": 0.0})
        if self.rates == "parameter" and self.adapts == "head":
            raise UserError("Got --rates parameter with --adapts head. Use --rates step, or adapt everything.")


class Maml:
    """The learner (see `metarl.fewshot.parts.learner.FewShotLearner`).

    Args:
        config: its settings.
        setting: what it is made for.
        streams: `init` draws the initial parameters.
        device: where everything lives.
    """

    name = "maml"

    def __init__(self, config: MamlConfig, setting: Setting, streams: Streams, device: torch.device) -> None:
        own = isinstance(setting.backbone, OwnBackbone)
        if config.step_norm and (own or not setting.backbone.norms):
            which = "one's own backbone" if own else "this backbone has no norms"
            raise UserError(f"Got --step-norm, and {which}. Leave it out, or use conv4 or resnet12.")
        if not config.first_order and config.adapts == "all":
            refuse_once_differentiable(setting.backbone, "--first-order, or --adapts head")
        self.executor: Executor = choose(config.executor, setting.backbone)
        setting = replace(setting, backbone=laid_out(setting.backbone, self.executor))
        # What was chosen stands in the run's settings.
        self.config = replace(config, inner_rate=setting.inner_rate(config.inner_rate))
        self.setting = setting
        self.device = device
        self.model = Model.of(setting)
        params = self.model.init(streams["init"], setting.dtype)
        if config.step_norm:
            steps = config.inner_steps + 1
            params = {
                name: value.expand(steps, -1).clone() if _of_norm(name) else value for name, value in params.items()
            }
        self.inner = [name for name in params if self._is_adapted(name)]
        params |= {RATE + name: self._first_rate(params[name]) for name in self.inner if config.rates != "fixed"}
        self.params = {name: value.to(device) for name, value in params.items()}
        self.optimiser = Optimiser(config.optimiser, self.params, setting.ranks)
        self.moments = [RunningMoments(setting.ranks) for _ in range(config.inner_steps + 1 if config.step_norm else 1)]
        self._gradients: dict[tuple[bool, bool], MetaGradient] = {}

    def _is_adapted(self, name: str) -> bool:
        if self.config.adapts == "head":
            return name in HEAD
        return not (self.config.step_norm and _of_norm(name))

    def _first_rate(self, value: Tensor) -> Tensor:
        like = value if self.config.rates == "parameter" else value.new_empty(self.config.inner_steps)
        return torch.full_like(like, self.config.inner_rate)

    # -- the inner loop -----------------------------------------------------------------------------------------------

    def _rates(self, params: Params, step: int, how: Pass) -> dict[str, Tensor | float]:
        """Return the rates of one inner step, broadcastable to the parameters."""
        if self.config.rates == "fixed":
            return dict.fromkeys(self.inner, self.config.inner_rate)
        learned = {name: params[RATE + name] for name in self.inner}
        if self.config.rates == "parameter":
            return dict(learned)
        # Further steps at test go on with the rates of the last one in training.
        last = min(step, self.config.inner_steps - 1)
        leading = int(how.by_task)
        return {
            name: rate.select(-1, last).view(-1, *(1 for _ in params[name].shape[leading:])) if leading else rate[last]
            for name, rate in learned.items()
        }

    def _at_step(self, params: Params, step: int) -> Params:
        """Return the parameters that the model gets behind so many inner steps."""
        if not self.config.step_norm:
            return params
        row = min(step, self.config.inner_steps)
        return {name: value.select(-2, row) if _of_norm(name) else value for name, value in params.items()}

    def _step(
        self, params: Params, data: Data, step: int, how: Pass, *, second_order: bool, norm: Norm, way: int
    ) -> Params:
        """Return all parameters after one more inner step."""

        def loss(adapted: Params, fixed: Params) -> Tensor:
            at = self._at_step({**fixed, **adapted}, step)
            return self.model.loss(at, data["support_x"], data["support_y"], way, norm, by_task=how.by_task)

        adapted = {name: params[name] for name in self.inner}
        fixed = {name: value for name, value in params.items() if name not in adapted and not name.startswith(RATE)}
        rates = self._rates(params, step, how)
        return {**params, **how.step(loss, adapted, fixed, rates, second_order=second_order)}

    def _averages(self, step: int, batch_norm: BatchNorm) -> Sequence[Moment] | None:
        """Return the averages for the norms at an inner step of a test."""
        return averages_for(batch_norm, self.setting, self.moments[min(step, len(self.moments) - 1)])

    # -- training -----------------------------------------------------------------------------------------------------

    def _weights(self, number: int) -> list[float]:
        """Return the weight of the query loss behind each inner step; their sum is 1."""
        steps = self.config.inner_steps
        fade = 1.0 - number / self.config.multi_step_updates if number < self.config.multi_step_updates else 0.0
        return [fade / steps] * (steps - 1) + [1.0 - fade * (steps - 1) / steps]

    def _objective(self, way: int, *, second_order: bool, every_step: bool = False) -> Objective:
        """Return the query loss of one task behind its last inner step; or that of every step, by `data["weights"]`."""
        policy = self.setting.batch_norm

        def objective(params: Params, data: Data, how: Pass) -> tuple[Tensor, Tensor]:
            def behind(params: Params, step: int) -> tuple[Tensor, Tensor]:
                at = self._at_step(params, step)
                scores = self.model.queries(at, data["support_x"], data["query_x"], policy, by_task=how.by_task)
                return task_loss(scores, data["query_y"], way), scores

            total, scores = None, None
            for step in range(self.config.inner_steps):
                norm = Norm(policy)
                params = self._step(params, data, step, how, second_order=second_order, norm=norm, way=way)
                if every_step or step == self.config.inner_steps - 1:
                    loss, scores = behind(params, step + 1)
                    weighted = data["weights"][..., step] * loss if every_step else loss
                    total = weighted if total is None else total + weighted
            assert total is not None
            assert scores is not None
            return total, scores

        return objective

    def meta_gradient(self, episodes: Episodes, number: int = 0) -> tuple[Params, Float[Tensor, " M"], Tensor]:
        """Return the meta-gradient of a meta-batch, its losses [M] and the scores of its queries.

        Args:
            episodes: with the ways of training.
            number: of the update, which the schedules of MAML++ follow.
        """
        config = self.config
        second_order = not config.first_order and number >= config.first_order_updates
        every_step = number < config.multi_step_updates
        data = _data(episodes)
        if every_step:
            data["weights"] = episodes.query_x.new_tensor(self._weights(number)).expand(len(episodes), -1)
        if (second_order, every_step) not in self._gradients:
            objective = self._objective(self.model.way, second_order=second_order, every_step=every_step)
            launches = None if isinstance(self.setting.backbone, OwnBackbone) else launches_on(self.device)
            self._gradients[second_order, every_step] = MetaGradient(objective, self.executor, config.memory, launches)
        return self._gradients[second_order, every_step](self.params, data)

    def loss(self, episodes: Episodes) -> Float[Tensor, " M"]:
        """Return the query loss of every episode after adaptation, differentiable by `params`."""
        tasks = len(episodes)
        stacked = {name: value.expand(tasks, *value.shape) for name, value in self.params.items()}
        objective = self._objective(episodes.support.way, second_order=not self.config.first_order)
        return objective(stacked, _data(episodes), Pass(by_task=True))[0]

    def update(self, source: Source, number: int) -> Metrics:
        """Take one meta-update."""
        numbers = meta_batch(self.setting, source, number, self.config.tasks)
        episodes = source.episodes("train", numbers, self.setting.shape, self.setting.seed).to(self.device)
        gradient, _, scores = self.meta_gradient(episodes, number)
        metrics = self.optimiser.step(gradient, number)
        if self.setting.batch_norm == "running" and self.setting.backbone.norms:
            self._take_moments(episodes)
        if self.config.rates != "fixed":
            rates = [value.detach().flatten() for name, value in self.params.items() if name.startswith(RATE)]
            metrics["inner/rate"] = float(torch.cat(rates).mean())
        return {**scores_metrics(scores, episodes), **metrics}

    def _take_moments(self, episodes: Episodes) -> None:
        """Keep the averages of all items, behind every inner step."""
        for step, params in enumerate(self._path(episodes.support, self.config.inner_steps, "running", training=True)):
            moments = self.moments[min(step, len(self.moments) - 1)]
            moments.measure(self.setting.backbone, self._at_step(params, step), episodes, by_task=True)

    # -- test ---------------------------------------------------------------------------------------------------------

    def _path(self, support: Support, steps: int, batch_norm: BatchNorm, *, training: bool = False) -> Iterator[Params]:
        """Yield the parameters of M tasks after 0 ... n inner steps, without a graph."""
        tasks = len(support.x)
        data = {"support_x": support.x.to(self.device), "support_y": support.y.to(self.device)}
        shared = self.model.for_way({name: value.detach() for name, value in self.params.items()}, support.way)
        if support.way != self.model.way and self.config.rates == "parameter":
            rates = {name: self.params[RATE + name].detach() for name in HEAD}
            shared |= {RATE + name: value for name, value in self.model.for_way(rates, support.way).items()}
        at = {name: value.expand(tasks, *value.shape) for name, value in shared.items()}
        yield at
        how = Pass(by_task=True)
        for step in range(steps):
            norm = Norm(batch_norm, averages=None if training else self._averages(step, batch_norm))
            after = self._step(at, data, step, how, second_order=False, norm=norm, way=support.way)
            at = {name: value.detach() for name, value in after.items()}
            yield at

    def _predictors(self, support: Support, steps: int, batch_norm: BatchNorm | None) -> Iterator[AdaptedPredictor]:
        support = support.to(self.device)
        policy = batch_norm or self.setting.batch_norm
        for step, params in enumerate(self._path(support, steps, policy)):
            averages = self._averages(step, policy)
            yield AdaptedPredictor(self.model, self._at_step(params, step), support, policy, averages)

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Predictor]:
        """Return the predictors after 0 ... `steps` inner steps."""
        return list(self._predictors(support, steps, batch_norm))

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Adapt to M tasks."""
        return last(self._predictors(support, self.config.test_steps or self.config.inner_steps, batch_norm))

    # -- storage ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimiser and averages."""
        return {**self.optimiser.state_dict(), "moments": [moments.state_dict() for moments in self.moments]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything."""
        self.optimiser.load_state_dict(state)
        for moments, stored in zip(self.moments, state["moments"], strict=True):
            moments.load_state_dict(stored, self.device)


def _of_norm(name: str) -> bool:
    return name.startswith(("scale", "shift"))


def _data(episodes: Episodes) -> dict[str, Tensor]:
    return {
        "support_x": episodes.support.x,
        "support_y": episodes.support.y,
        "query_x": episodes.query_x,
        "query_y": episodes.query_y,
    }


def make(config: MamlConfig, setting: Setting, streams: Streams, device: torch.device) -> Maml:
    """Return the learner."""
    return Maml(config, setting, streams, device)
