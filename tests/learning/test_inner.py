"""The inner loop against a plain autograd loop over tasks, which shares no code with it but the losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.learning.experience import StochasticPolicy, inner_loss, surrogate
from metarl.learning.inner import AdaptationJacobian, Executor, Loss, Rates, adapt, meta_gradients, over_tasks
from metarl.learning.trust_region import flatten, unflatten
from metarl.nets.policy import MLP, stack
from metarl.types import Params
from tests.helpers.toys import (
    DOUBLE,
    assert_params_close,
    categorical,
    gaussian,
    init,
    near,
    normal,
    plain_adapt,
    random_batch,
    task,
)

TASKS = 5
RATE = "rate/"


@dataclass
class Problem:
    """Meta-parameters, data and losses of a two-level problem."""

    loss: Loss
    outer: Loss
    meta: Params
    before: list[Any]
    after: Any
    first_order: bool = False
    rate: float = 0.3
    learned: bool = field(init=False)

    def __post_init__(self) -> None:
        self.learned = any(name.startswith(RATE) for name in self.meta)

    @property
    def data(self) -> dict[str, Any]:
        return {"before": self.before, "after": self.after}

    def split(self, meta: Params) -> tuple[Params, Rates]:
        theta = {name: value for name, value in meta.items() if not name.startswith(RATE)}
        return theta, {name: meta[RATE + name] if self.learned else self.rate for name in theta}

    def objective(self, meta: Params, data: dict[str, Any]) -> Tensor:
        """What the executors are given: the project's `adapt`."""
        theta, rates = self.split(meta)
        for batch in data["before"]:
            theta = adapt(self.loss, theta, batch, rates, first_order=self.first_order)
        return self.outer(theta, data["after"])

    def plain(self, meta: Params, index: int) -> Tensor:
        """The objective of one task by a plain autograd loop."""
        theta, rates = self.split(meta)
        batches = [task(batch, index) for batch in self.before]
        theta = plain_adapt(self.loss, theta, batches, rates, first_order=self.first_order)
        return self.outer(theta, task(self.after, index))

    def plain_gradients(self) -> tuple[Params, Tensor]:
        """All tasks' gradients, one after the other."""
        gradients, values = [], []
        for index in range(TASKS):
            leaves = {name: value.clone().requires_grad_() for name, value in self.meta.items()}
            value = self.plain(leaves, index)
            gradients.append(torch.autograd.grad(value, list(leaves.values())))
            values.append(value.detach())
        columns = zip(self.meta, zip(*gradients, strict=True), strict=True)
        return {name: torch.stack(column) for name, column in columns}, torch.stack(values)


def with_rates(params: Params) -> Params:
    """Add a different rate for every parameter."""
    return params | {RATE + name: 0.2 + 0.05 * normal(*value.shape, seed=3) for name, value in params.items()}


def reinforcement(
    policy: StochasticPolicy, steps: int, *, learned: bool = False, discrete: bool = False, estimator: str = "lvc"
) -> Problem:
    """A policy that adapts by policy gradients."""
    params = init(policy)
    return Problem(
        loss=inner_loss(policy, estimator),  # pyright: ignore
        outer=surrogate(policy),
        meta=with_rates(params) if learned else params,
        before=[random_batch(TASKS, steps=6 - k, discrete=discrete, seed=10 + k) for k in range(steps)],
        after=random_batch(TASKS, steps=7, discrete=discrete, seed=20),
    )


def regression(steps: int) -> Problem:
    """A layer-normalised network that adapts by supervised learning."""
    network = MLP(inputs=2, hidden=(6, 6), outputs=1, activation="relu", layer_norm=True)
    params = {name: value + 0.1 * normal(*value.shape) for name, value in network.init(seeded(), DOUBLE).items()}

    def loss(params: Params, data: Params) -> Tensor:
        return (network(params, data["x"]) - data["y"]).square().mean((-2, -1))

    def data(seed: int) -> Params:
        return {"x": normal(TASKS, 8, 2, seed=seed), "y": normal(TASKS, 8, 1, seed=seed + 1)}

    return Problem(loss=loss, outer=loss, meta=params, before=[data(30 + 2 * k) for k in range(steps)], after=data(40))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "plain": lambda steps: reinforcement(gaussian(), steps),
    "normalised": lambda steps: reinforcement(gaussian(layer_norm=True), steps),
    "learned-rates": lambda steps: reinforcement(gaussian(layer_norm=True), steps, learned=True),
    "dice": lambda steps: reinforcement(gaussian(), steps, estimator="dice"),
    "log-likelihood": lambda steps: reinforcement(gaussian(), steps, estimator="log-likelihood"),
    "categorical": lambda steps: reinforcement(categorical(layer_norm=True), steps, discrete=True, estimator="dice"),
    "regression": regression,
}


@pytest.mark.parametrize("first_order", [False, True], ids=["second-order", "first-order"])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_every_executor_is_a_plain_loop(name: str, steps: int, first_order: bool) -> None:
    problem = PROBLEMS[name](steps)
    problem.first_order = first_order
    expected, expected_values = problem.plain_gradients()
    executors: list[tuple[Executor, int]] = [("grouped", 0), ("grouped", 2), ("vmap", 0), ("vmap", 3), ("loop", 0)]
    for executor, chunk in executors:
        gradients, values = meta_gradients(
            problem.objective, problem.meta, problem.data, executor=executor, chunk=chunk
        )
        torch.testing.assert_close(values, expected_values, rtol=0.0, atol=1e-12)
        assert_params_close(gradients, expected)


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_the_second_order_gradient_is_a_finite_difference(name: str) -> None:
    problem = PROBLEMS[name](2)
    # Small, so that it does not step over a rectifier's kink.
    width = 1e-6
    gradients, _ = meta_gradients(problem.objective, problem.meta, problem.data)
    direction = {name: normal(*value.shape, seed=8) for name, value in problem.meta.items()}

    def values(sign: float) -> Tensor:
        moved = {name: value + sign * width * direction[name] for name, value in problem.meta.items()}
        return over_tasks(problem.objective, stack(moved, TASKS), problem.data)

    slopes = (values(1.0) - values(-1.0)) / (2.0 * width)
    expected = torch.stack([(g * direction[name]).flatten(1).sum(1) for name, g in gradients.items()]).sum(0)
    assert float(expected.abs().min()) > 1e-3
    torch.testing.assert_close(slopes, expected, rtol=1e-6, atol=1e-7)


def test_first_order_is_another_gradient() -> None:
    problem = PROBLEMS["plain"](1)
    second, _ = meta_gradients(problem.objective, problem.meta, problem.data)
    problem.first_order = True
    first, _ = meta_gradients(problem.objective, problem.meta, problem.data)
    assert float((second["w0"] - first["w0"]).abs().max()) > 1e-3


@pytest.mark.parametrize(("executor", "chunk"), [("grouped", 0), ("grouped", 2), ("vmap", 0), ("vmap", 3), ("loop", 0)])
def test_tasks_adapt_as_in_a_plain_loop(executor: Executor, chunk: int) -> None:
    policy = gaussian(layer_norm=True)
    loss, params, batch = inner_loss(policy, "lvc"), near(init(policy), TASKS), random_batch(TASKS)
    rates = dict.fromkeys(params, 0.3)
    with torch.no_grad():
        adapted = over_tasks(
            lambda p, b: adapt(loss, p, b, rates, first_order=True), params, batch, executor=executor, chunk=chunk
        )
    assert not any(value.requires_grad for value in adapted.values())
    for index in range(TASKS):
        leaves = {name: value.clone().requires_grad_() for name, value in task(params, index).items()}
        assert_params_close(task(adapted, index), plain_adapt(loss, leaves, [task(batch, index)], rates))


def test_results_of_any_shape_keep_the_order_of_tasks() -> None:
    params, data = {"a": normal(TASKS, 3)}, {"x": normal(TASKS, 3, seed=1)}

    def measure(p: Params, d: Params) -> tuple[Tensor, Params]:
        product = p["a"] * d["x"]
        return product.sum(-1), {"product": product}

    expected = measure(params, data)
    executors: list[tuple[Executor, int]] = [("grouped", 2), ("vmap", 0), ("vmap", 2), ("loop", 0)]
    for executor, chunk in executors:
        total, parts = over_tasks(measure, params, data, executor=executor, chunk=chunk)
        torch.testing.assert_close(total, expected[0])
        assert torch.equal(parts["product"], expected[1]["product"])


# -- the Jacobian of the adaptation ---------------------------------------------------------------------------------


@dataclass
class Linearised:
    """An adaptation, the project's Jacobian of it, and torch's own, [M, theta_n, (theta, rates)]."""

    jacobian: AdaptationJacobian
    explicit: Tensor
    theta: Params
    rates: Params

    def tangents(self, seed: int) -> tuple[Params, Params]:
        sizes = {name: (TASKS, *value.shape) for name, value in self.theta.items()}
        return (
            {name: normal(*size, seed=seed) for name, size in sizes.items()},
            {name: normal(*size, seed=seed + 1) for name, size in sizes.items()},
        )


def by_task(params: Params) -> Tensor:
    return torch.cat([value.flatten(1) for value in params.values()], dim=1)


def linearise(steps: int, first_order: bool) -> Linearised:
    policy = gaussian(layer_norm=True)
    loss = inner_loss(policy, "dice")
    theta = init(policy)
    rates = {name: 0.2 + 0.05 * normal(*value.shape, seed=3) for name, value in theta.items()}
    batches = [random_batch(TASKS, seed=10 + k) for k in range(steps)]
    points = [stack(theta, TASKS)]
    for batch in batches:
        points.append(over_tasks(lambda p, b: adapt(loss, p, b, rates), points[-1], batch))
    jacobian = AdaptationJacobian(loss, points[:-1], batches, rates, first_order=first_order)

    size = flatten(theta).numel()
    explicit = []
    for index in range(TASKS):

        def end(vector: Tensor, index: int = index) -> Tensor:
            start, alpha = unflatten(vector[:size], theta), unflatten(vector[size:], rates)
            data = [task(batch, index) for batch in batches]
            return flatten(plain_adapt(loss, start, data, alpha, first_order=first_order))

        joined = torch.cat((flatten(theta), flatten(rates)))
        explicit.append(torch.autograd.functional.jacobian(end, joined, vectorize=True))
    return Linearised(jacobian, torch.stack(explicit), theta, rates)


@pytest.mark.parametrize(("steps", "first_order"), [(1, False), (2, False), (3, False), (2, True)])
def test_the_jacobian_is_torchs_own(steps: int, first_order: bool) -> None:
    this = linearise(steps, first_order)
    size = flatten(this.theta).numel()
    tangent, rate_tangent = this.tangents(seed=50)

    pushed = by_task(this.jacobian.push(tangent))
    expected = torch.einsum("mij,mj->mi", this.explicit[:, :, :size], by_task(tangent))
    torch.testing.assert_close(pushed, expected, rtol=0.0, atol=1e-12)

    pushed = by_task(this.jacobian.push(tangent, rate_tangent))
    both = torch.cat((by_task(tangent), by_task(rate_tangent)), dim=1)
    torch.testing.assert_close(pushed, torch.einsum("mij,mj->mi", this.explicit, both), rtol=0.0, atol=1e-12)

    pulled = torch.cat([by_task(part) for part in this.jacobian.pull(tangent)], dim=1)
    expected = torch.einsum("mij,mi->mj", this.explicit, by_task(tangent))
    torch.testing.assert_close(pulled, expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_pull_is_the_transpose_of_push(first_order: bool) -> None:
    this = linearise(2, first_order)
    tangent, rate_tangent = this.tangents(seed=50)
    cotangent, _ = this.tangents(seed=60)
    pushed = this.jacobian.push(tangent, rate_tangent)
    pulled, pulled_rate = this.jacobian.pull(cotangent)
    left = (by_task(cotangent) * by_task(pushed)).sum(1)
    right = (by_task(pulled) * by_task(tangent)).sum(1) + (by_task(pulled_rate) * by_task(rate_tangent)).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_the_jacobian_of_no_step_is_the_identity() -> None:
    jacobian = AdaptationJacobian(inner_loss(gaussian(), "lvc"), [], [], {})
    tangent = near(init(gaussian()), TASKS)
    assert_params_close(jacobian.push(tangent), tangent, atol=0.0)
    assert_params_close(jacobian.pull(tangent)[0], tangent, atol=0.0)


def test_parameters_without_curvature_are_no_obstacle() -> None:
    params = {"curved": normal(TASKS, 3), "linear": normal(TASKS, 3, seed=1), "unused": normal(TASKS, 3, seed=2)}
    rates = dict.fromkeys(params, 0.1)

    def loss(p: Params, d: Tensor) -> Tensor:
        return (p["curved"] * d).sum(-1).square() + p["linear"].sum(-1)

    data = normal(TASKS, 3, seed=3)
    tangent = {name: normal(TASKS, 3, seed=4) for name in params}
    hessian = 2.0 * data.unsqueeze(-1) * data.unsqueeze(-2)
    curved = tangent["curved"] - 0.1 * torch.einsum("mij,mj->mi", hessian, tangent["curved"])
    jacobian = AdaptationJacobian(loss, [params], [data], rates)
    for product in (jacobian.push(tangent), jacobian.pull(tangent)[0]):
        assert_params_close(product, tangent | {"curved": curved})
