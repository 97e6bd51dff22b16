"""The differentiable inner loop, shared by meta-RL and supervised few-shot learning.

    θ_{k+1} = θ_k - α ⊙ ∇L_k(θ_k)          one `adapt` per step
    meta-gradient of task i = ∇_θ O_i(θ_n(θ))

A task's parameters and data may carry a leading task axis M: losses then return one value per task, [M], and the
gradient of their sum is every task's own gradient, since tasks share nothing. Three executors compute the same
meta-gradients: `grouped` (tasks are an axis of every matrix product), `vmap`, and `loop`. In all three the gradient is
taken *inside* the task, never through `vmap`: differentiating through vmap gives silently wrong second-order
gradients for networks with affine normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.func import grad, grad_and_value, vmap
from torch.utils._pytree import tree_leaves, tree_map

from metarl.nets.policy import stack
from metarl.types import Params

Data = Any
"""A dict (or other pytree) of tensors; with tasks, every tensor has the leading axis M."""
Loss = Callable[[Params, Data], Tensor]
"""(parameters, data) -> scalar; or [M], given a leading task axis."""
Rates = Mapping[str, Tensor | float]
"""Inner rate α of every parameter, broadcastable to it."""
Executor = Literal["grouped", "vmap", "loop"]


def adapt(loss: Loss, params: Params, data: Data, rates: Rates, *, first_order: bool = False) -> Params:
    """Take one gradient step on `loss`, differentiably.

    Args:
        loss: scalar for one task, [M] for M tasks.
        params: of one task, or with leading axis M.
        data: of one task, or with leading axis M.
        rates: α of every parameter.
        first_order: treat the gradient as a constant (no second derivatives).

    Returns:
        The adapted parameters, a differentiable function of `params` and `rates`.
    """
    inside = any(is_functorch_wrapped_tensor(value) for value in params.values())
    gradient = (functional_gradient_of if inside else gradient_of)(loss, params, data, keep=not first_order)
    return moved(params, rates, gradient)


def functional_gradient_of(loss: Loss, params: Params, data: Data, *, keep: bool) -> Params:
    """Return the same as `gradient_of` inside torch.func's vmap or grad, where only its own grad may be taken.

    It imports torch's compiler, which takes two seconds, so that it is not the way for all.
    """
    gradient = grad(lambda p: loss(p, data).sum())(params)
    return gradient if keep else {name: value.detach() for name, value in gradient.items()}


def gradient_of(loss: Loss, params: Params, data: Data, *, keep: bool) -> Params:
    """Return ∇ loss(params, data) with respect to `params`, with its graph if `keep`; of every task, if it is [M]."""
    with torch.enable_grad():
        # Leaves have no history; what has one keeps it.
        at = {name: value if value.requires_grad else value.detach().requires_grad_() for name, value in params.items()}
        value = loss(at, data).sum()
        gradient = torch.autograd.grad(value, list(at.values()), create_graph=keep, materialize_grads=True)
    return dict(zip(params, gradient, strict=True))


def moved(params: Params, rates: Rates, gradient: Params) -> Params:
    """Return params - α ⊙ gradient."""
    return {name: value - rates[name] * gradient[name] for name, value in params.items()}


class AdaptationJacobian:
    """The Jacobian J of θ -> θ_n at given points, as a linear map with its transpose.

    With H_k the Hessian of L_k at θ_k, one step maps a change v of θ_k to v - α ⊙ H_k v. The graph of every inner
    gradient is built once and kept, so a product costs one backward pass through it.

    Args:
        loss: the inner loss; [M], given the task axis.
        points: θ_0 ... θ_{n-1}, each with leading axis M.
        data: the n data sets, every tensor [M, ...].
        rates: α of every parameter.
        first_order: leave the Hessians out, as `adapt` does.
    """

    def __init__(
        self,
        loss: Loss,
        points: Sequence[Params],
        data: Sequence[Data],
        rates: Rates,
        *,
        first_order: bool = False,
    ) -> None:
        self.rates = rates
        self.steps: list[tuple[list[Tensor], Sequence[Tensor]]] = []
        for params, batch in zip(points, data, strict=True):
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            value = loss(leaves, batch).sum()
            gradient = torch.autograd.grad(
                value, list(leaves.values()), create_graph=not first_order, materialize_grads=True
            )
            self.steps.append((list(leaves.values()), gradient))

    def push(self, tangent: Params, rate_tangent: Params | None = None) -> Params:
        """Return J v: how θ_n changes when θ (and the rates) change by the tangents."""
        for leaves, gradient in self.steps:
            curved = self._hessian(leaves, gradient, list(tangent.values()))
            tangent = {name: v - self.rates[name] * h for (name, v), h in zip(tangent.items(), curved, strict=True)}
            if rate_tangent is not None:
                tangent = {
                    name: v - rate_tangent[name] * g.detach()
                    for (name, v), g in zip(tangent.items(), gradient, strict=True)
                }
        return tangent

    def pull(self, cotangent: Params) -> tuple[Params, Params]:
        """Return Jᵀ w for θ and for the rates."""
        rate_cotangent = {name: torch.zeros_like(w) for name, w in cotangent.items()}
        for leaves, gradient in reversed(self.steps):
            for (name, w), g in zip(cotangent.items(), gradient, strict=True):
                rate_cotangent[name] = rate_cotangent[name] - w * g.detach()
            scaled = [self.rates[name] * w for name, w in cotangent.items()]
            curved = self._hessian(leaves, gradient, scaled)
            cotangent = {name: w - h for (name, w), h in zip(cotangent.items(), curved, strict=True)}
        return cotangent, rate_cotangent

    def _hessian(
        self, leaves: list[Tensor], gradient: Sequence[Tensor], vector: list[Tensor]
    ) -> Sequence[Tensor | float]:
        # A constant gradient (first order, or a loss that is linear in a parameter) has no graph and no curvature.
        curved = [(g, v) for g, v in zip(gradient, vector, strict=True) if g.requires_grad]
        if not curved:
            return [0.0] * len(leaves)
        gradient, vector = (list(column) for column in zip(*curved, strict=True))
        return torch.autograd.grad(gradient, leaves, vector, retain_graph=True, materialize_grads=True)


def meta_gradients(
    objective: Loss, params: Params, data: Data, *, executor: Executor = "grouped", chunk: int = 0
) -> tuple[Params, Float[Tensor, " M"]]:
    """Compute every task's gradient of `objective` with respect to shared parameters.

    Not `MetaGradient` of metarl/fewshot/parts/executors.py: that sums over the tasks, and TRPO's figures need each.

    Args:
        objective: (params, data of one task, or of M tasks with both leading) -> value; usually `adapt`s first.
        params: shared by all tasks, no task axis.
        data: every tensor [M, ...].
        executor: how; all give the same numbers up to rounding.
        chunk: tasks computed at a time, to bound memory and stay in cache; 0 for all. (`loop` takes one.)

    Returns:
        Gradients with leading axis M, and the objective's values, [M].
    """
    parts = [
        _chunk_gradients(objective, params, part, executor)
        for part in task_chunks(data, 1 if executor == "loop" else chunk)
    ]
    gradients = {name: torch.cat([part[0][name] for part in parts]) for name in params}
    return gradients, torch.cat([part[1] for part in parts])


def _chunk_gradients(objective: Loss, params: Params, data: Data, executor: Executor) -> tuple[Params, Tensor]:
    if executor == "grouped":
        stacked = {k: v.detach().requires_grad_() for k, v in stack(params, _leading(data)).items()}
        values = objective(stacked, data)
        gradients = torch.autograd.grad(values.sum(), list(stacked.values()), materialize_grads=True)
        return dict(zip(stacked, gradients, strict=True)), values.detach()
    if executor == "vmap":
        gradients, values = vmap(grad_and_value(objective), in_dims=(None, 0))(params, data)
        return gradients, values
    gradients, value = grad_and_value(objective)(params, tree_map(lambda x: x[0], data))
    return {name: g.unsqueeze(0) for name, g in gradients.items()}, value.unsqueeze(0)


def over_tasks(
    function: Callable[[Params, Data], Any],
    params: Params,
    data: Data,
    *,
    executor: Executor = "grouped",
    chunk: int = 0,
) -> Any:
    """Evaluate `function` for every task without gradients, e.g. to adapt M tasks or to measure a loss.

    Args:
        function: (params, data) of one task, or of M tasks with both leading -> pytree of tensors (leading M).
        params: with leading axis M.
        data: every tensor [M, ...].
        executor: as in `meta_gradients`.
        chunk: as in `meta_gradients`.
    """
    parts = []
    for p, d in task_chunks((params, data), 1 if executor == "loop" else chunk):
        if executor == "grouped":
            parts.append(function(p, d))
        elif executor == "vmap":
            parts.append(vmap(function)(p, d))
        else:
            single = function(tree_map(lambda x: x[0], p), tree_map(lambda x: x[0], d))
            parts.append(tree_map(lambda x: x.unsqueeze(0), single))
    return parts[0] if len(parts) == 1 else tree_map(lambda *xs: torch.cat(xs), *parts)


def task_chunks(data: Data, size: int) -> Iterator[Data]:
    """Yield the data of at most `size` tasks at a time, in their order; of all together where it is 0."""
    tasks = _leading(data)
    for start in range(0, tasks, size or tasks):
        rows = slice(start, start + (size or tasks))
        yield tree_map(lambda x, rows=rows: x[rows], data)


def _leading(data: Data) -> int:
    return tree_leaves(data)[0].shape[0]
