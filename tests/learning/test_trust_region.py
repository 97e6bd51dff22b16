from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from metarl.errors import NotFiniteError
from metarl.learning.experience import StochasticPolicy, mean_kl
from metarl.learning.trust_region import (
    Outcome,
    PolicyFisher,
    conjugate_gradient,
    flatten,
    gradient_metrics,
    trust_region_step,
    unflatten,
)
from metarl.nets.policy import stack
from metarl.types import Params
from tests.helpers.looks import Looks
from tests.helpers.no_waits import no_waits
from tests.helpers.toys import DOUBLE, assert_params_close, categorical, gaussian, init, near, normal, task

TASKS = 3


def positive_definite(size: int, seed: int = 0) -> Tensor:
    factor = normal(size, size, seed=seed)
    return factor @ factor.T + 0.1 * torch.eye(size, dtype=DOUBLE)


def test_parameters_become_a_vector_and_back() -> None:
    params = {"b": normal(2, 3), "a": normal(4, seed=1), "c": normal(1, 2, 2, seed=2)}
    vector = flatten(params)
    assert torch.equal(vector[:6], params["b"].flatten())
    assert_params_close(unflatten(vector, params), params, atol=0.0)


def test_conjugate_gradient_solves() -> None:
    matrix, target = positive_definite(12), normal(12, seed=1)
    solution = conjugate_gradient(lambda v: matrix @ v, target, iterations=24, tolerance=1e-28)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target), rtol=1e-9, atol=1e-9)


def test_conjugate_gradient_is_best_in_the_subspace_it_has_seen() -> None:
    # After k products the error is the smallest in the matrix's norm over span(b, Ab, ..., A^(k-1) b).
    matrix, target = positive_definite(8), normal(8, seed=1)
    krylov = torch.stack([torch.linalg.matrix_power(matrix, k) @ target for k in range(3)], dim=1)
    basis = torch.linalg.qr(krylov).Q
    expected = basis @ torch.linalg.solve(basis.T @ matrix @ basis, basis.T @ target)
    solution = conjugate_gradient(lambda v: matrix @ v, target, iterations=3)
    torch.testing.assert_close(solution, expected, rtol=1e-9, atol=1e-9)


def test_conjugate_gradient_stops_by_itself() -> None:
    calls = 0

    def product(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.tensor([1.0, 1.0, 4.0], dtype=DOUBLE) * v

    # Two different eigenvalues: two products are all it takes.
    target = torch.tensor([1.0, 2.0, 4.0], dtype=DOUBLE)
    expected = torch.tensor([1.0, 2.0, 1.0], dtype=DOUBLE)
    torch.testing.assert_close(conjugate_gradient(product, target, iterations=10), expected)
    assert calls == 2
    assert torch.equal(conjugate_gradient(product, torch.zeros(3, dtype=DOUBLE), 10), torch.zeros(3, dtype=DOUBLE))
    assert calls == 2
    # A direction that does not curve upwards is not followed.
    assert torch.equal(conjugate_gradient(torch.neg, target, 10), torch.zeros(3, dtype=DOUBLE))


def stopping_early(target: Tensor, iterations: int, product: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what conjugate gradients give that look at every number as soon as they have it."""
    x, residual = torch.zeros_like(target), target.clone()
    direction, square = residual.clone(), residual.dot(residual)
    first = float(square)
    for _ in range(iterations):
        if float(square) <= 1e-10 * first or first == 0.0:
            break
        image = product(direction)
        curvature = direction.dot(image)
        if float(curvature) <= 0.0:
            break
        step = square / curvature
        x = x + step * direction
        residual = residual - step * image
        following = residual.dot(residual)
        direction = residual + (following / square) * direction
        square = following
    return x


@pytest.mark.parametrize("watch", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_conjugate_gradient_gives_the_same_bits_whether_it_looks_or_not(watch: bool, dtype: torch.dtype) -> None:
    bent = torch.diag(torch.tensor([3.0, 1.0, -2.0], dtype=dtype))
    matrix = positive_definite(12).to(dtype)
    few = torch.diag(torch.tensor([1.0, 1.0, 4.0], dtype=dtype))
    cases = [
        (matrix, normal(12, seed=1).to(dtype)),  # all its products
        (few, torch.tensor([1.0, 2.0, 4.0], dtype=dtype)),  # two products are enough
        (torch.eye(3, dtype=dtype), torch.tensor([1.0, 2.0, 4.0], dtype=dtype)),  # the residual becomes exactly 0
        (bent, torch.tensor([1.0, 1.0, 1.0], dtype=dtype)),  # the second direction curves downwards
        (few, torch.full((3,), 1e-15, dtype=dtype)),  # squares far below 1
        (few, torch.zeros(3, dtype=dtype)),
    ]
    for matrix, target in cases:
        expected = stopping_early(target, 9, lambda v, matrix=matrix: matrix @ v)
        with Looks() as looks:
            found = conjugate_gradient(lambda v, matrix=matrix: matrix @ v, target, 9, watch=watch)
        assert torch.equal(found, expected)
        assert set(looks.seen) == ({"__bool__"} if watch else set())


@pytest.mark.gpu
def test_on_a_gpu_the_host_waits_for_no_product() -> None:
    matrix, target = positive_definite(12).cuda(), normal(12, seed=1).cuda()
    with no_waits():
        found = conjugate_gradient(lambda v: matrix @ v, target, 24)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-4, atol=1e-4)


def test_a_step_looks_at_the_device_once_and_once_for_each_candidate() -> None:
    problem = Quadratic(steepness=3.0)
    with Looks() as looks:
        outcome = problem.step(damping=0.0)
    assert outcome.tried == 4
    # `evaluate` looks at two numbers of each candidate. On a CPU the products are watched as well.
    assert [look for look in looks.seen if look != "__bool__"] == ["tolist", *["__float__"] * 8]


def test_the_figures_of_the_gradients_take_two_looks() -> None:
    with Looks() as looks:
        gradient_metrics({"a": torch.tensor([[2.0], [4.0]]), "b": torch.tensor([4.0, 4.0])})
    assert looks.seen == ["tolist", "tolist"]


POLICIES: dict[str, StochasticPolicy] = {
    "gaussian": gaussian(hidden=3),
    "gaussian-normalised": gaussian(hidden=3, layer_norm=True),
    "categorical": categorical(),
}


@pytest.mark.parametrize("name", list(POLICIES))
def test_policy_fisher_is_the_hessian_of_the_mean_divergence(name: str) -> None:
    policy = POLICIES[name]
    params = near(init(policy), TASKS)
    observations = normal(TASKS, 2, 4, 3)
    weights = torch.rand(TASKS, 2, 4, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    weights[0, 1, 2:] = 0.0
    weights = weights / weights.sum((1, 2), keepdim=True)
    fisher = PolicyFisher(policy, params, observations.flatten(1, 2), weights.flatten(1))
    assert len(fisher) == TASKS
    tangent = {name: normal(*value.shape, seed=7) for name, value in params.items()}
    product = fisher(tangent)
    for index in range(TASKS):
        here = task(params, index)
        batch = {"observations": observations[index], "weights": weights[index]}

        def divergence(vector: Tensor, here: Params = here, batch: Params = batch) -> Tensor:
            return mean_kl(policy, here, unflatten(vector, here), batch)

        hessian = jacrev(jacrev(divergence))(flatten(here))
        expected = hessian @ flatten(task(tangent, index))
        torch.testing.assert_close(flatten(task(product, index)), expected, rtol=0.0, atol=1e-12)
    # The graph is kept: a second product is as good as the first.
    assert_params_close(fisher(tangent), product, atol=0.0)


# -- the step on a quadratic: maximise g x - x B x / 2 with the divergence x F x / 2 --------------------------------


class Quadratic:
    def __init__(self, bend: float = 0.0, steepness: float = 1.0) -> None:
        self.start = {"a": normal(2, 2), "b": normal(3, seed=1)}
        self.gradient = unflatten(normal(7, seed=2), self.start)
        self.fisher = positive_definite(7, seed=3)
        self.bend = bend
        self.steepness = steepness
        self.seen: list[Tensor] = []

    def product(self, vector: Params) -> Params:
        return unflatten(self.fisher @ flatten(vector), self.start)

    def evaluate(self, candidate: Params) -> tuple[float, float]:
        moved = flatten(candidate) - flatten(self.start)
        self.seen.append(moved)
        gain = flatten(self.gradient) @ moved - 0.5 * self.bend * moved @ moved
        return 5.0 + float(gain), 0.5 * self.steepness * float(moved @ self.fisher @ moved)

    def step(self, damping: float) -> Outcome:
        return trust_region_step(
            self.start,
            self.gradient,
            self.product,
            self.evaluate,
            5.0,
            max_kl=0.02,
            iterations=20,
            damping=damping,
        )


def full_step(problem: Quadratic, max_kl: float, damping: float) -> Tensor:
    """The solution on paper: F^-1 g, scaled to the edge of the trust region."""
    matrix = problem.fisher + damping * torch.eye(7, dtype=DOUBLE)
    direction = torch.linalg.solve(matrix, flatten(problem.gradient))
    return direction * math.sqrt(2.0 * max_kl / float(direction @ matrix @ direction))


def test_the_step_is_the_solution_on_paper() -> None:
    problem = Quadratic()
    outcome = problem.step(damping=0.3)
    moved = flatten(outcome.params) - flatten(problem.start)
    expected = full_step(problem, 0.02, damping=0.3)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-7)
    assert (outcome.accepted, outcome.tried, outcome.before) == (True, 1, 5.0)
    assert outcome.after == pytest.approx(5.0 + float(flatten(problem.gradient) @ expected), rel=1e-6)
    # With damping the step stays inside of the region: its true divergence lacks the damping's share.
    share = 0.5 * 0.3 * float(expected @ expected)
    assert outcome.kl == pytest.approx(0.02 - share, rel=1e-5)
    assert_params_close(problem.start, {"a": normal(2, 2), "b": normal(3, seed=1)}, atol=0.0)


def test_a_step_outside_of_the_region_is_shortened() -> None:
    # The true divergence is three times its model: 3 * .64^k <= 1 for the first time at k = 3.
    problem = Quadratic(steepness=3.0)
    outcome = problem.step(damping=0.0)
    assert (outcome.accepted, outcome.tried) == (True, 4)
    assert outcome.kl == pytest.approx(3.0 * 0.02 * 0.8**6, rel=1e-5)
    expected = 0.8**3 * full_step(problem, 0.02, damping=0.0)
    torch.testing.assert_close(problem.seen[-1], expected, rtol=1e-5, atol=1e-7)


def test_a_step_that_does_not_improve_is_shortened() -> None:
    full = full_step(Quadratic(), 0.02, damping=0.0)
    slope = float(flatten(Quadratic().gradient) @ full)
    # Along the step s the objective is slope s - bend s^2 / 2: at s = 1 and .8 too bent, at .64 just better.
    problem = Quadratic(bend=2.0 * slope / float(full @ full) / 0.7)
    outcome = problem.step(damping=0.0)
    assert (outcome.accepted, outcome.tried) == (True, 3)
    assert outcome.after == pytest.approx(5.0 + slope * (0.64 - 0.64**2 / 0.7), rel=1e-5)


def test_without_an_acceptable_candidate_nothing_changes() -> None:
    problem = Quadratic(steepness=1e9)
    outcome = trust_region_step(
        problem.start, problem.gradient, problem.product, problem.evaluate, 5.0, max_kl=0.02, max_backtracks=7
    )
    assert (outcome.accepted, outcome.tried, outcome.kl) == (False, 7, 0.0)
    assert (outcome.before, outcome.after) == (5.0, 5.0)
    assert_params_close(outcome.params, problem.start, atol=0.0)
    assert len(problem.seen) == 7
    assert outcome.metrics() == {
        "update/surrogate_before": 5.0,
        "update/surrogate_after": 5.0,
        "update/improvement": 0.0,
        "update/kl": 0.0,
        "update/line_search_steps": 7.0,
        "update/accepted": 0.0,
    }


def test_candidates_that_are_not_finite_are_not_accepted() -> None:
    problem = Quadratic()

    def evaluate(candidate: Params) -> tuple[float, float]:
        objective, kl = problem.evaluate(candidate)
        return (math.nan, kl) if len(problem.seen) == 1 else (objective, math.nan if len(problem.seen) == 2 else kl)

    outcome = trust_region_step(problem.start, problem.gradient, problem.product, evaluate, 5.0, max_kl=0.02)
    assert (outcome.accepted, outcome.tried) == (True, 3)


def test_no_gradient_is_no_step() -> None:
    problem = Quadratic()
    nothing = {name: torch.zeros_like(value) for name, value in problem.start.items()}
    outcome = trust_region_step(problem.start, nothing, problem.product, problem.evaluate, 5.0, max_kl=0.02)
    assert (outcome.accepted, outcome.tried) == (False, 0)
    assert_params_close(outcome.params, problem.start, atol=0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error(value: float) -> None:
    problem = Quadratic()
    broken = {name: gradient.clone() for name, gradient in problem.gradient.items()}
    broken["b"][1] = value
    with pytest.raises(NotFiniteError, match="gradient is not finite"):
        trust_region_step(problem.start, broken, problem.product, problem.evaluate, 5.0, max_kl=0.02)
    problem.fisher[3, 3] = value
    with pytest.raises(NotFiniteError, match="Fisher product is not finite"):
        trust_region_step(problem.start, problem.gradient, problem.product, problem.evaluate, 5.0, max_kl=0.02)


def test_gradient_metrics_by_hand() -> None:
    # Means 3 and 4: norm 5. Variances over the two tasks 2 and 0: noise (2 + 0) / 2 = 1, ratio 25.
    gradients = {"a": torch.tensor([[2.0], [4.0]]), "b": torch.tensor([4.0, 4.0])}
    assert gradient_metrics(gradients) == pytest.approx({"update/gradient_norm": 5.0, "update/gradient_snr": 25.0})
    alone = gradient_metrics({"a": torch.tensor([[3.0]]), "b": torch.tensor([4.0])})
    assert alone == pytest.approx({"update/gradient_norm": 5.0})
    assert gradient_metrics(stack({"a": torch.ones(2)}, 3))["update/gradient_snr"] > 1e20
