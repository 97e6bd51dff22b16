"""What a few-shot learner is, and the parts that several of them share.

A learner is made of its own settings and a `Setting`: what it is to learn from, and with which backbone. It is trained
by `update`, one meta-update a call; for new tasks `fit(support)` gives a predictor, and `predict(query)` its answer.
Any number of ways and shots is allowed at test. Whatever is called `M` is a number of tasks that are handled at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as nnf

from metarl.errors import NotFiniteError, UserError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Source, Support
from metarl.fewshot.parts.backbones import Backbone, BatchNorm, Moment, Norm
from metarl.nets.policy import load_params
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics, Params

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a learner is made for.

    Attributes:
        shape: of the training episodes, where the learner's own settings ask for no other.
        backbone: from items to features.
        batch_norm: policy, while training and at test.
        outputs: numbers to be predicted for an item in regression, J; 0 in classification.
        classes: of the training split, for learners that train an ordinary classifier; 0 in regression.
        seed: of the training episodes.
        dtype: of the parameters.
        ranks: the processes that train it together, each on its share of every meta-batch.
    """

    shape: EpisodeShape
    backbone: Backbone
    batch_norm: BatchNorm = "support"
    outputs: int = 0
    classes: int = 0
    seed: int = 0
    dtype: torch.dtype = torch.float32
    ranks: Ranks = ALONE


@runtime_checkable
class Predictor(Protocol):
    """What was learned from the support sets of M tasks."""

    def predict(self, x: Float[Tensor, "M Q *item"]) -> Float[Tensor, "M Q values"]:
        """Return the scores of the N classes, whose softmax are the probabilities; or the J values, in regression."""
        ...


@runtime_checkable
class FewShotLearner(Protocol):
    """A few-shot learner.

    Attributes:
        name: its name.
        config: its settings.
        setting: what it was made for.
    """

    name: str
    config: Any
    setting: Setting

    def update(self, source: Source, number: int) -> Metrics:
        """Take one meta-update in place.

        Args:
            source: training data (split `train`).
            number: of the update, from 0. Which data it is taken on follows from it: update i of a learner with
                meta-batches of M episodes has the episodes i * M to i * M + M - 1, of which every rank takes its share.

        Returns:
            `train/loss`, and `train/accuracy` in classification, of the queries of this rank's episodes; and more.
        """
        ...

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Predictor:
        """Learn M tasks from their support sets, without changing anything here.

        Args:
            support: any number of ways and shots.
            batch_norm: another policy than the setting's.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training has changed (tensors and plain data)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()` exactly; raise ValueError where it does not fit."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A learner that learns a task in steps, which a curve can show."""

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Predictor]:
        """Return the predictors after 0, 1, ... `steps` steps; arguments as in `fit`."""
        ...


# -- losses and scores ------------------------------------------------------------------------------------------------


def task_loss(scores: Float[Tensor, "*M Q values"], y: Shaped[Tensor, "*M Q *J"], way: int) -> Float[Tensor, "*M"]:
    """Return the mean loss of every task: cross-entropy, or squared error where there are no classes (way 0)."""
    if way == 0:
        return (scores - y).square().mean((-2, -1))
    # gather in place of nll_loss: it takes any number of leading axes, also under vmap.
    return -nnf.log_softmax(scores, -1).gather(-1, y[..., None]).squeeze(-1).mean(-1)


def accuracy(scores: Float[Tensor, "M Q N"], y: Int[Tensor, "M Q"]) -> Float[Tensor, " M"]:
    """Return the part of the queries of every task whose best score is that of their class."""
    return (scores.argmax(-1) == y).float().mean(-1)


def scores_metrics(scores: Tensor, episodes: Episodes) -> Metrics:
    """Return `train/loss`, and `train/accuracy` where there are classes."""
    way = episodes.support.way
    metrics = {"train/loss": float(task_loss(scores.detach(), episodes.query_y, way).mean())}
    if way:
        metrics["train/accuracy"] = float(accuracy(scores.detach(), episodes.query_y).mean())
    return metrics


def class_weights(y: Int[Tensor, "M S"], way: int, dtype: torch.dtype) -> Float[Tensor, "M N S"]:
    """Return the matrix that takes the mean of the support items of every class.

    Raises:
        UserError: a class has no support item.
    """
    members = nnf.one_hot(y, way).transpose(-1, -2).to(dtype)
    counts = members.sum(-1, keepdim=True)
    if bool((counts == 0).any()):
        raise UserError(f"Got a support set with none of some class. Give at least one item of each of {way} classes.")
    return members / counts


def nearness(features: Float[Tensor, "M Q F"], means: Float[Tensor, "M N F"]) -> Float[Tensor, "M Q N"]:
    """Return the negative squared distances to N points, but for a part that is the same for all of them."""
    # ‖f - c‖² without ‖f‖², and with no [M, Q, N, F] on the way.
    return 2.0 * features @ means.mT - means.square().sum(-1)[:, None]


# -- features ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A backbone with its parameters and batch-norm policy: M episodes to features."""

    backbone: Backbone
    params: Params
    batch_norm: BatchNorm
    averages: Sequence[Moment] | None = None

    def both(
        self, support: Float[Tensor, "M S *item"], x: Float[Tensor, "M Q *item"]
    ) -> tuple[Float[Tensor, "M S F"], Float[Tensor, "M Q F"]]:
        """Return the features of support sets and queries in one pass."""
        size = support.shape[1]
        norm = Norm(self.batch_norm, support=size, averages=self.averages)
        features = self.backbone(self.params, torch.cat((support, x), dim=1), norm)
        return features[:, :size], features[:, size:]


class RunningMoments:
    """Averages of the moments of every norm layer over training, for the batch-norm policy `running`.

    Args:
        ranks: which of them take in the moments of their own episodes each.
        momentum: weight of the newest.
    """

    def __init__(self, ranks: Ranks = ALONE, momentum: float = 0.1) -> None:
        self.ranks = ranks
        self.momentum = momentum
        self.averages: list[Moment] | None = None

    @torch.no_grad()
    def measure(self, backbone: Backbone, params: Params, episodes: Episodes, *, by_task: bool = False) -> None:
        """Take in the moments of all items of some episodes; arguments as of the backbone."""
        seen: list[Moment] = []
        everything = torch.cat((episodes.support.x, episodes.query_x), dim=1)
        backbone(params, everything, Norm("running", seen=seen), by_task=by_task)
        self.update(seen)

    @torch.no_grad()
    def update(self, seen: Sequence[Moment]) -> None:
        """Take in the moments of one pass; their mean over episodes, where they have such an axis."""
        own = [Moment(*(part.mean(0) if part.dim() == 2 else part for part in moment)) for moment in seen]
        now = self.ranks.mean(own)
        if self.averages is None:
            self.averages = now
        else:
            self.averages = [
                Moment(*(old.lerp(new, self.momentum) for old, new in zip(before, after, strict=True)))
                for before, after in zip(self.averages, now, strict=True)
            ]

    def state_dict(self) -> list[tuple[Tensor, Tensor]] | None:
        """Return the averages."""
        return (
            None if self.averages is None else [(m.mean.cpu().clone(), m.variance.cpu().clone()) for m in self.averages]
        )

    def load_state_dict(self, state: list[tuple[Tensor, Tensor]] | None, device: torch.device) -> None:
        """Restore the averages."""
        self.averages = None if state is None else [Moment(m.to(device), v.to(device)) for m, v in state]


def averages_for(batch_norm: BatchNorm, setting: Setting, moments: RunningMoments) -> Sequence[Moment] | None:
    """Return the averages that a batch-norm policy needs at test; None where it needs none.

    Raises:
        UserError: it needs averages, and the learner was trained under another policy.
    """
    if batch_norm != "running" or setting.backbone.norms == 0:
        return None
    if moments.averages is None:
        raise UserError(
            "Got the batch norm 'running', and this learner has no averages: it was trained with "
            f"'{setting.batch_norm}'. Use that one, or train with --batch-norm running."
        )
    return moments.averages


# -- optimisation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """The outer optimiser."""

    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with Nesterov momentum 0.9."""
    learning_rate: float = 1e-3
    """At the start."""
    halve_every: int = 0
    """Updates after which the learning rate is halved, again and again; 0: never."""
    weight_decay: float = 0.0
    """Decoupled from the gradient (AdamW), or added to it in SGD."""
    clip: float = 0.0
    """Each component of the gradient is cut to ±clip; 0: none is."""


class Optimiser:
    """An optimiser of parameters in a dict, with its schedule.

    Args:
        config: its settings.
        params: leaves, changed in place.
        ranks: over which the mean of the gradients is taken.
    """

    def __init__(self, config: OptimiserConfig, params: Params, ranks: Ranks = ALONE) -> None:
        self.config = config
        self.ranks = ranks
        self.params = params
        leaves = [value.requires_grad_() for value in params.values()]
        rate, decay = config.learning_rate, config.weight_decay
        if config.optimiser == "adam":
            self._optimiser: torch.optim.Optimizer = torch.optim.AdamW(leaves, lr=rate, weight_decay=decay, fused=True)
        else:
            self._optimiser = torch.optim.SGD(leaves, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)

    def step(self, gradients: Params, number: int) -> Metrics:
        """Take a step.

        Args:
            gradients: of every parameter, of this rank's tasks.
            number: of the update, from 0: the schedule follows it.

        Raises:
            NotFiniteError: a gradient is not finite; nothing is changed.
        """
        gradients = self.ranks.mean(gradients)
        norm = nn.utils.get_total_norm(list(gradients.values()))
        if not bool(norm.isfinite()):
            raise NotFiniteError("the meta-gradient is not finite: the learning rates may be too high")
        rate = self.config.learning_rate
        if self.config.halve_every:
            rate *= 0.5 ** (number // self.config.halve_every)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        for name, value in self.params.items():
            gradient = gradients[name].detach()
            gradient = gradient.clamp(-self.config.clip, self.config.clip) if self.config.clip else gradient
            # The fused optimiser takes elements as they lie in memory: in another layout it would mix them up.
            same = gradient.stride() == value.stride()
            value.grad = gradient if same else torch.empty_like(value).copy_(gradient)
        self._optimiser.step()
        return {"update/gradient_norm": float(norm), "update/learning_rate": rate}

    def descend(self, loss: Tensor, number: int) -> Metrics:
        """Take a step down a loss of the parameters; the rest as in `step`."""
        gradients = torch.autograd.grad(loss, list(self.params.values()), materialize_grads=True)
        return self.step(dict(zip(self.params, gradients, strict=True)), number)

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and the optimiser's own state."""
        return {
            "params": {name: value.detach().to("cpu", copy=True) for name, value in self.params.items()},
            # Copies: the optimiser works in place.
            "optimiser": deepcopy(self._optimiser.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both.

        Raises:
            ValueError: names or shapes differ.
        """
        stored = load_params(self.params, state["params"])
        with torch.no_grad():
            for name, value in self.params.items():
                value.copy_(stored[name])
        self._optimiser.load_state_dict(deepcopy(state["optimiser"]))


def meta_batch(number: int, size: int, ranks: Ranks) -> range:
    """Return the numbers of the episodes of a meta-update that are this rank's."""
    mine = ranks.rows(size)
    return range(number * size + mine.start, number * size + mine.stop)


def last(items: Iterable[Item]) -> Item:
    """Return the last of some items, of which no other is kept."""
    return deque(items, maxlen=1).pop()
