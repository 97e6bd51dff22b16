"""One definition of a meta-update, several ways to compute it.

The objective of one task is written once, for parameters and data with or without a task axis, and its meta-gradient,
the mean over the tasks of a meta-batch, is computed by an executor:

    loop       task by task; least memory, and as fast as any where one task fills the machine (84x84 images)
    grouped    all tasks in batched matrix products and grouped convolutions, parameters with a task axis
    vmap       torch.vmap over tasks, with the gradient taken inside
    compiled   the same through torch.compile, which needs a C++ compiler and some seconds at the start

All give the same numbers up to rounding. The gradient is never taken through vmap: for a network with affine norms that
is silently wrong. `auto` follows what `metarl bench fewshot` measured: grouped for small items, else the loop.

Memory: `grouped` and `vmap` take as many tasks at a time as fit in a budget, by what one task was measured to keep for
its backward pass; where a single one is too large, inner steps are computed anew in the backward pass (`recomputed`),
so that no more than one of them is in memory.

On a GPU `grouped` is given to it as a graph: see metarl/fewshot/parts/replayed.py.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad_and_value, vmap

from metarl.errors import UserError, nearest
from metarl.fewshot.parts.backbones import Backbone, Conv4, Identity, MlpBackbone, ResNet12
from metarl.fewshot.parts.conv1d import Conv1d
from metarl.fewshot.parts.own import OwnBackbone
from metarl.fewshot.parts.replayed import Replayed
from metarl.launches import Launches
from metarl.learning.inner import Rates, functional_gradient_of, gradient_of, moved, task_chunks
from metarl.types import Params

Executor = Literal["auto", "loop", "grouped", "vmap", "compiled"]
Data = Mapping[str, Tensor]
"""Tensors with a leading task axis M; without it for one task."""
SMALL_ITEM = 32 * 32
"""Up to so many pixels, or values of a signal, `auto` is `grouped`: one task alone leaves the machine idle."""

TOGETHER = 8
"""Tasks of images that a CPU takes at a time: with more of them the tensors leave its cache."""
LARGE_DATA = 3
"""Axes of queries that are no images: tasks, items, numbers."""


@dataclass(frozen=True)
class Pass:
    """How an objective is to be computed in one pass.

    Attributes:
        by_task: parameters and data have a task axis.
        functional: by the function transforms of torch.func, which vmap needs.
        recompute: inner steps are computed anew in the backward pass.
    """

    by_task: bool = False
    functional: bool = False
    recompute: bool = False

    def step(
        self,
        loss: Callable[[Params, Params], Tensor],
        params: Params,
        fixed: Params,
        rates: Rates,
        *,
        second_order: bool,
    ) -> Params:
        """Return params - α ⊙ ∇ loss(params, fixed), differentiably.

        Args:
            loss: of the parameters that the step changes and of those that it leaves; [M] with a task axis.
            params: that it changes.
            fixed: that it leaves, and that the loss may depend on.
            rates: α of every parameter, broadcastable to it.
            second_order: else the gradient is a constant.
        """
        if self.functional:
            return moved(params, rates, functional_gradient_of(loss, params, fixed, keep=second_order))
        if not (self.recompute and second_order and torch.is_grad_enabled()):
            return moved(params, rates, gradient_of(loss, params, fixed, keep=second_order))
        names, others = list(params), list(fixed)
        learned = [name for name, rate in rates.items() if isinstance(rate, Tensor)]

        def anew(*tensors: Tensor) -> tuple[Tensor, ...]:
            p = dict(zip(names, tensors, strict=False))
            f = dict(zip(others, tensors[len(names) :], strict=False))
            r = {**rates, **dict(zip(learned, tensors[len(names) + len(others) :], strict=True))}
            return tuple(moved(p, r, gradient_of(loss, p, f, keep=torch.is_grad_enabled())).values())

        tensors = (*params.values(), *fixed.values(), *(rates[name] for name in learned))
        return dict(zip(names, _Recomputed.apply(anew, *tensors), strict=True))


class _Recomputed(torch.autograd.Function):
    """A function whose graph is built only when its gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        with torch.no_grad():
            return tuple(value.detach() for value in function(*tensors))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        leaves = [value.detach().requires_grad_(value.is_floating_point()) for value in ctx.saved_tensors]
        with torch.enable_grad():
            results = ctx.function(*leaves)
        gradients = torch.autograd.grad(results, leaves, cotangents, allow_unused=True)
        return (None, *gradients)


@runtime_checkable
class Objective(Protocol):
    """What a meta-update descends: (parameters, data, how) -> (loss, scores of the queries)."""

    def __call__(self, params: Params, data: Data, how: Pass) -> tuple[Tensor, Tensor]:
        """Return loss and scores; of one task, or [M] and [M, Q, N] if `how.by_task`."""
        ...


def choose(executor: str, backbone: Backbone) -> Executor:
    """Return the executor that `auto` stands for, or the one that was asked for.

    Raises:
        UserError: there is none of that name, or it cannot work here.
    """
    if executor not in get_args(Executor):
        raise UserError(f"Unknown executor '{executor}'.{nearest(executor, get_args(Executor))}")
    if executor == "compiled" and shutil.which("g++") is None and shutil.which("clang++") is None:
        raise UserError("Got the executor 'compiled', and there is no C++ compiler here. Install g++, or use grouped.")
    if isinstance(backbone, OwnBackbone):
        # Its tasks are computed one after the other anyway, and in the loop they need the memory of one.
        return _choose_for_own(executor, backbone)
    if executor != "auto":
        return cast(Executor, executor)
    pixels = math.prod(backbone.item_shape[1:])
    return "grouped" if isinstance(backbone, MlpBackbone | Identity) or pixels <= SMALL_ITEM else "loop"


def _choose_for_own(executor: str, backbone: OwnBackbone) -> Executor:
    if executor == "compiled":
        raise UserError(f"Got the executor 'compiled' for {backbone.name}. Use loop, or vmap.")
    if executor == "vmap":
        backbone.check_vmap()
    return "loop" if executor == "auto" else cast(Executor, executor)


def laid_out(backbone: Backbone, executor: Executor) -> Backbone:
    """Return a backbone in a memory layout that an executor can work with."""
    if executor in ("vmap", "compiled") and isinstance(backbone, Conv1d | Conv4 | ResNet12):
        return replace(backbone, channels_last=False)
    return backbone


class MetaGradient:
    """Computes mean meta-gradients of one objective.

    Not `meta_gradients` of metarl/learning/inner.py: that keeps every task's gradient; here they are summed inside the
    graph, and chunk, recomputation and compiled graph follow from the memory that one task was measured to need.

    Args:
        objective: of one task.
        executor: not `auto`.
        memory: budget for what is kept for the backward pass, in MB.
        launches: where the graphs of `grouped` are kept; None, and where steps are computed anew: kernel by kernel.
    """

    def __init__(self, objective: Objective, executor: Executor, memory: int, launches: Launches | None = None) -> None:
        self.objective = objective
        self.executor = executor
        self.memory = memory
        self._each: dict[Any, int] = {}
        self._replayed: Replayed[tuple[Params, Tensor, Tensor]] | None = None
        if executor == "grouped" and launches is not None:
            self._replayed = Replayed(self._grouped, launches)
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, params: Params, data: Data) -> tuple[Params, Float[Tensor, " M"], Tensor]:
        """Compute the gradient of the mean over M tasks.

        Args:
            params: shared by all tasks.
            data: every tensor [M, ...].

        Returns:
            The gradient, the losses [M], and the scores of the queries [M, Q, N].
        """
        tasks = next(iter(data.values())).shape[0]
        each = self._bytes_of_a_task(params, data)
        fit = max(1, int(self.memory * 1e6) // max(each, 1))
        recompute = each > self.memory * 1e6
        if recompute and self.executor in ("vmap", "compiled"):
            raise UserError(
                f"Got the executor '{self.executor}' and --memory {self.memory}, and one task keeps "
                f"{each / 1e6:,.0f} MB for its backward pass. Give more, or use loop or grouped, which can compute "
                "inner steps anew."
            )
        size = 1 if self.executor == "loop" else min(fit, tasks)
        if next(iter(params.values())).is_cpu and data["query_x"].dim() > LARGE_DATA:
            size = min(size, TOGETHER)
        parts = [self._part(params, part, recompute) for part in task_chunks(dict(data), size)]
        if len(parts) == 1:
            gradient, losses, scores = parts[0]
        else:
            gradients, several_losses, several_scores = zip(*parts, strict=True)
            gradient = {name: torch.stack([part[name] for part in gradients]).sum(0) for name in params}
            losses, scores = torch.cat(several_losses), torch.cat(several_scores)
        return {name: value / tasks for name, value in gradient.items()}, losses, scores

    def _part(self, params: Params, data: Data, recompute: bool) -> tuple[Params, Tensor, Tensor]:
        """Return the sum of the gradients of some tasks, their losses and scores."""
        if self.executor in ("vmap", "compiled"):
            return self._by_vmap(params, data)
        if self._replayed is not None and not recompute:
            return self._replayed(params, data)
        if self.executor == "grouped":
            return self._grouped(params, data, recompute=recompute)
        leaves = _leaves(params)
        loss, scores = self.objective(
            leaves, {name: value[0] for name, value in data.items()}, Pass(recompute=recompute)
        )
        return _descended(loss[None], scores[None], leaves)

    def _grouped(self, params: Params, data: Data, *, recompute: bool = False) -> tuple[Params, Tensor, Tensor]:
        leaves = _leaves(params)
        tasks = next(iter(data.values())).shape[0]
        stacked = {name: value.expand(tasks, *value.shape) for name, value in leaves.items()}
        return _descended(*self.objective(stacked, data, Pass(by_task=True, recompute=recompute)), leaves)

    def _by_vmap(self, params: Params, data: Data) -> tuple[Params, Tensor, Tensor]:
        if self._compiled is None:
            how = Pass(functional=True)

            def inside(p: Params, d: Data) -> tuple[Params, Tensor, Tensor]:
                def objective(p: Params, d: Data) -> tuple[Tensor, Tensor]:
                    return self.objective(p, d, how)

                gradients, (losses, scores) = vmap(grad_and_value(objective, has_aux=True), in_dims=(None, 0))(p, d)
                return {name: value.sum(0) for name, value in gradients.items()}, losses, scores

            # In one piece: with a break in its graph it would go on without a word, and seven times as slow.
            self._compiled = torch.compile(inside, fullgraph=True) if self.executor == "compiled" else inside
        # Compiled functions want tensors without a gradient history.
        return self._compiled({name: value.detach() for name, value in params.items()}, dict(data))

    def _bytes_of_a_task(self, params: Params, data: Data) -> int:
        """Return the bytes that one task keeps for its backward pass, measured once for each shape of data."""
        key = tuple(tuple(value.shape[1:]) for value in data.values())
        if key not in self._each:
            kept: dict[int, int] = {}

            def keep(tensor: Tensor) -> Tensor:
                storage = tensor.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
                return tensor

            leaves = _leaves(params)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                self.objective(leaves, {name: value[0] for name, value in data.items()}, Pass())
            self._each[key] = sum(kept.values())
        return self._each[key]


def _leaves(params: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def _descended(losses: Tensor, scores: Tensor, leaves: Params) -> tuple[Params, Tensor, Tensor]:
    """Return the gradient of the sum of some losses, the losses and the scores."""
    gradient = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, gradient, strict=True)), losses.detach(), scores.detach()
