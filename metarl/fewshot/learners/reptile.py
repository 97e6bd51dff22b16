"""Reptile: a step towards what training on a task comes to (Nichol, Achiam & Schulman 2018).

    φ_i = θ after k minibatch steps of Adam (β1 = 0) on task i
    θ <- θ + ε mean_i (φ_i - θ),   ε falls linearly to 0 over the training

The parameters of the M tasks of a meta-batch are stacked, [M, ...]: one element-wise optimiser trains all of them at
once. A training task is an episode of `train_shot` items a class, support and queries together.

Differences: the inner optimiser begins afresh in every task (the original release keeps its second moments from task to
task while training). Batch norm follows the policy of the run: the paper's better numbers are transductive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.fewshot.episodes import Episodes, EpisodeShape, Source, Support, keyed
from metarl.fewshot.parts.adapted import AdaptedPredictor, Model
from metarl.fewshot.parts.features import RunningMoments, averages_for
from metarl.fewshot.parts.learner import Predictor, Setting, last, meta_batch
from metarl.fewshot.parts.norms import BatchNorm, Norm
from metarl.fewshot.parts.scores import accuracy, task_loss
from metarl.learning.finite import check_parts
from metarl.nets.policy import load_params
from metarl.seeding import Streams
from metarl.types import Metrics, Params


@dataclass(frozen=True, kw_only=True)
class ReptileConfig:
    """Settings of Reptile."""

    iterations: int = 10000
    """Meta-updates, over which the outer step falls to 0."""
    tasks: int = 5
    """Tasks of a meta-update, M."""
    train_shot: int = 10
    """Items of each class in a training task; of the whole task in regression."""
    inner_steps: int = 5
    """Minibatch steps on a training task."""
    inner_batch: int = 10
    """Items of a minibatch while training."""
    inner_rate: float = 1e-3
    """Learning rate of Adam on a task."""
    test_steps: int = 50
    """Steps on a support set at test."""
    test_batch: int = 5
    """Items of a minibatch at test; the whole support set where it has no more."""
    outer_step: float = 1.0
    """ε at the start."""

    def unused(self) -> dict[str, str]:
        """Return settings that change nothing -> what they would need."""
        return {} if self.test_steps else {"test_batch": "--test-steps from 1"}

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS, "inner_steps": MOST_STEPS, "test_steps": MOST_STEPS})
        check(self, at_least={"iterations": 0, "tasks": 1, "train_shot": 2, "inner_steps": 1, "inner_batch": 1})
        check(self, at_least={"test_steps": 0, "test_batch": 1}, above={"inner_rate": 0.0, "outer_step": 0.0})


class Reptile:
    """The learner (see `metarl.fewshot.parts.learner.FewShotLearner`).

    Args:
        config: its settings.
        setting: what it is made for.
        streams: `init` draws the initial parameters.
        device: where everything lives.
    """

    name = "reptile"

    def __init__(self, config: ReptileConfig, setting: Setting, streams: Streams, device: torch.device) -> None:
        self.config = config
        self.setting = setting
        self.device = device
        self.model = Model.of(setting)
        self.params = {
            name: value.to(device) for name, value in self.model.init(streams["init"], setting.dtype).items()
        }
        self.moments = RunningMoments(setting.ranks)

    # -- training -----------------------------------------------------------------------------------------------------

    def update(self, source: Source, number: int) -> Metrics:
        """Take one meta-update."""
        numbers = meta_batch(self.setting, source, number, self.config.tasks)
        # The smallest query set is one item: it joins the rest.
        shape = EpisodeShape(way=self.setting.shape.way, shot=self.config.train_shot - 1, query=1)
        episodes = source.episodes("train", numbers, shape, self.setting.seed).to(self.device)
        x = torch.cat((episodes.support.x, episodes.query_x), dim=1)
        y = torch.cat((episodes.support.y, episodes.query_y), dim=1)
        batches = _minibatches(numbers, x.shape[1], self.config.inner_batch, self.config.inner_steps, self.setting.seed)
        batches = batches.to(self.device)
        norm = Norm("transductive")
        trained, losses = last(self._train(self.params, x, y, self.model.way, batches, norm))
        with torch.no_grad():
            own = {name: (value - self.params[name]).mean(0) for name, value in trained.items()}
            moves = self.setting.ranks.mean(own)
            length = torch.stack([move.norm() for move in moves.values()]).norm()
            if not bool(length.isfinite()):
                check_parts([("the parameter", self.params)], "the meta-update is not finite")
            step = self.config.outer_step * max(0.0, 1.0 - number / max(self.config.iterations, 1))
            self.params = {name: value + step * moves[name] for name, value in self.params.items()}
            if self.setting.batch_norm == "running" and self.setting.backbone.norms:
                self.moments.measure(self.setting.backbone, self.params, episodes)
            metrics = {"train/loss": float(losses.mean()), "update/move": float(length), "update/outer_step": step}
            if self.model.way:
                items, labels = self._rows(x, y, batches[-1])
                scores = self.model(trained, items, norm, by_task=True)
                metrics["train/accuracy"] = float(accuracy(scores, labels).mean())
        return metrics

    def _train(
        self, start: Params, x: Tensor, y: Tensor, way: int, batches: Int[Tensor, "steps M b"], norm: Norm
    ) -> Iterator[tuple[Params, Float[Tensor, " M"]]]:
        """Yield the parameters of M tasks behind every step, changed in place by the next, and the minibatch's losses.

        Args:
            start: of all of them.
            x: their items, [M, S, ...].
            y: their labels.
            way: N.
            batches: rows of every minibatch.
            norm: how batch norm takes its statistics.
        """
        leaves = {
            name: value.detach().expand(len(x), *value.shape).clone().requires_grad_() for name, value in start.items()
        }
        optimiser = torch.optim.Adam(list(leaves.values()), lr=self.config.inner_rate, betas=(0.0, 0.999))
        for rows in batches:
            with torch.enable_grad():
                loss = self.model.loss(leaves, *self._rows(x, y, rows), way, norm, by_task=True)
            # Tasks share nothing, so the gradient of the sum is the gradient of each.
            gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), materialize_grads=True)
            for leaf, gradient in zip(leaves.values(), gradients, strict=True):
                leaf.grad = gradient
            optimiser.step()
            yield leaves, loss.detach()

    @staticmethod
    def _rows(x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return a minibatch of every task."""
        tasks = torch.arange(len(x), device=x.device)[:, None]
        return x[tasks, rows], y[tasks, rows]

    def loss(self, episodes: Episodes) -> Float[Tensor, " M"]:
        """Return the query loss of every episode after training on its support set. Reptile has no gradient of it."""
        scores = self.fit(episodes.support).predict(episodes.query_x)
        return task_loss(scores, episodes.query_y.to(scores.device), episodes.support.way)

    # -- test ---------------------------------------------------------------------------------------------------------

    def _predictors(self, support: Support, steps: int, batch_norm: BatchNorm | None) -> Iterator[AdaptedPredictor]:
        """Yield the predictors after 0 ... `steps` minibatch steps; the next step changes the last one."""
        support = support.to(self.device)
        policy = batch_norm or self.setting.batch_norm
        averages = averages_for(policy, self.setting, self.moments)
        start = self.model.for_way(self.params, support.way)
        # The minibatches follow from the size of the support set alone: a task is learned in the same way each time.
        rows = _minibatches([0], support.x.shape[1], self.config.test_batch, steps, self.setting.seed)
        batches = rows.expand(-1, len(support.x), -1).to(self.device)
        norm = Norm("running", averages=averages) if averages is not None else Norm("transductive")
        first = {name: value.expand(len(support.x), *value.shape) for name, value in start.items()}
        yield AdaptedPredictor(self.model, first, support, policy, averages)
        for trained, _ in self._train(start, support.x, support.y, support.way, batches, norm):
            yield AdaptedPredictor(self.model, trained, support, policy, averages)

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Predictor]:
        """Return the predictors after 0 ... `steps` minibatch steps."""
        predictors = self._predictors(support, steps, batch_norm)
        return [
            replace(p, params={name: value.detach().clone() for name, value in p.params.items()}) for p in predictors
        ]

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Train on M support sets."""
        return last(self._predictors(support, self.config.test_steps, batch_norm))

    # -- storage ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and averages."""
        return {
            "params": {name: value.detach().to("cpu", copy=True) for name, value in self.params.items()},
            "moments": self.moments.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything.

        Raises:
            ValueError: names or shapes differ.
        """
        self.params = load_params(self.params, state["params"])
        self.moments.load_state_dict(state["moments"], self.device)


def _minibatches(numbers: Sequence[int], items: int, size: int, steps: int, seed: int) -> Int[Tensor, "steps M b"]:
    """Return rows of minibatches: all items in random order, again and again."""
    size = min(size, items)
    rounds = -(-steps * size // items)
    keys = keyed(numbers, rounds * items, seed, "minibatches").unflatten(1, (rounds, items))
    rows = keys.argsort(-1).flatten(1)[:, : steps * size]
    return rows.unflatten(1, (steps, size)).transpose(0, 1) if steps else rows.new_empty(0, len(rows), size)


def make(config: ReptileConfig, setting: Setting, streams: Streams, device: torch.device) -> Reptile:
    """Return the learner."""
    return Reptile(config, setting, streams, device)
