"""A backbone with a linear head: what learners that take gradient steps adapt.

The head has a column for each class. Labels are given out at random in every training episode, so its columns are
exchangeable: a test with fewer ways uses the first ones, a test with more gets further columns that begin as the mean
of those there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episodes import Support
from metarl.fewshot.parts.backbones import Backbone
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.norms import BatchNorm, Moment, Norm
from metarl.fewshot.parts.scores import task_loss
from metarl.types import Params

HEAD = ("head.weight", "head.bias")
"""Names of the head's parameters."""


@dataclass(frozen=True)
class Model:
    """Backbone and head, functional; parameters and items may have a task axis as in metarl/fewshot/parts/backbones.py.

    Attributes:
        backbone: from items to features.
        outputs: columns of the head at first: ways, or the J numbers of regression.
        way: ways while training; 0 in regression.
    """

    backbone: Backbone
    outputs: int
    way: int

    @classmethod
    def of(cls, setting: Setting) -> Model:
        """Return the model of a setting."""
        way = 0 if setting.outputs else setting.shape.way
        return cls(backbone=setting.backbone, outputs=setting.outputs or way, way=way)

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters: the backbone's, and Glorot-uniform weights [F, N] with zero biases for the head."""
        params = self.backbone.init(generator, dtype)
        size = (self.backbone.features, self.outputs)
        bound = math.sqrt(6.0 / sum(size))
        unit = torch.rand(size, generator=generator, dtype=torch.float64)
        return {
            **params,
            "head.weight": ((unit * 2.0 - 1.0) * bound).to(dtype),
            "head.bias": torch.zeros(self.outputs, dtype=dtype),
        }

    def for_way(self, params: Params, way: int) -> Params:
        """Return parameters, without a task axis, with a head for another number of ways.

        Raises:
            UserError: classes where the model was made for regression, or the other way round.
        """
        if bool(way) != bool(self.way):
            kinds = ("regression", "classification")
            raise UserError(f"Got a model for {kinds[bool(self.way)]} and data for {kinds[bool(way)]}. Give its own.")
        if way == self.way:
            return params
        further = way - self.way

        def columns(head: Tensor) -> Tensor:
            mean = head.mean(-1, keepdim=True)
            return head[..., :way] if further <= 0 else torch.cat((head, mean.expand(*mean.shape[:-1], further)), -1)

        return {name: columns(value) if name in HEAD else value for name, value in params.items()}

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n N"]:
        """Return scores, or the numbers predicted in regression."""
        features = self.backbone(params, x, norm, by_task=by_task)
        return features @ params["head.weight"] + params["head.bias"].unsqueeze(-2)

    def loss(
        self,
        params: Params,
        x: Float[Tensor, "*M S *item"],
        y: Shaped[Tensor, "*M S *J"],
        way: int,
        norm: Norm,
        *,
        by_task: bool = False,
    ) -> Float[Tensor, "*M"]:
        """Return the loss on items that are learned from: their own statistics, or the averages."""
        return task_loss(self(params, x, norm, by_task=by_task), y, way)

    def queries(
        self,
        params: Params,
        support: Float[Tensor, "*M S *item"],
        x: Float[Tensor, "*M Q *item"],
        batch_norm: BatchNorm,
        averages: Sequence[Moment] | None = None,
        *,
        by_task: bool = False,
    ) -> Float[Tensor, "*M Q N"]:
        """Return the scores of queries, under a batch-norm policy."""
        if batch_norm != "support" or self.backbone.norms == 0:
            return self(params, x, Norm(batch_norm, averages=averages), by_task=by_task)
        axis = x.dim() - len(self.backbone.item_shape) - 1
        size = support.shape[axis]
        both = torch.cat((support, x), dim=axis)
        return self(params, both, Norm(batch_norm, support=size), by_task=by_task).narrow(axis, size, x.shape[axis])


@dataclass(frozen=True)
class AdaptedPredictor:
    """M adapted models (see `metarl.fewshot.parts.learner.Predictor`).

    Attributes:
        model: what they are parameters of.
        params: with a task axis.
        support: what they were adapted to.
        batch_norm: policy for the queries.
        averages: for the policy `running`.
    """

    model: Model
    params: Params
    support: Support
    batch_norm: BatchNorm
    averages: Sequence[Moment] | None = None

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "M Q *item"]) -> Float[Tensor, "M Q values"]:
        """Return scores, or values in regression."""
        x = x.to(self.support.x.device)
        return self.model.queries(self.params, self.support.x, x, self.batch_norm, self.averages, by_task=True)
