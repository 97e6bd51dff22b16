"""The inner estimators on a tabular problem that is small enough to be known exactly.

Exact: J(θ), the expected return, by dynamic programming; its derivatives, and those of J(θ - α ∇J(θ)), by autograd.
Expected: what an estimator gives on average, by enumerating all trajectories: they become the episodes of one batch,
weighted by their probabilities. With g_t = ∇log π(a_t|s_t) and R_t the return from step t on, the Hessians of J are

    dice             E Σ_t R_t (g_t g_tᵀ + ∇²log π_t  +  Σ_{u<t} (g_t g_uᵀ + g_u g_tᵀ))     the exact one
    lvc              E Σ_t R_t (g_t g_tᵀ + ∇²log π_t)           lacks how earlier actions move the states of later ones
    log-likelihood   E Σ_t R_t ∇²log π_t                        lacks that, and g_t g_tᵀ

All losses are means over T steps, so J stands divided by T throughout, and α is the rate of that loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from metarl.learning.experience import Batch, Estimator, inner_loss, log_probs, surrogate
from metarl.learning.inner import adapt, meta_gradients
from metarl.learning.returns import discounted_returns
from metarl.learning.trust_region import flatten, unflatten
from metarl.nets.policy import MLP, CategoricalPolicy, stack
from metarl.types import Params
from tests.helpers.toys import DOUBLE, assert_params_close, normal, seeded

STATES, ACTIONS, TERMINAL = 3, 2, 2
ESTIMATORS: tuple[Estimator, ...] = ("dice", "lvc", "log-likelihood")
RATE = 4.0
POLICY = CategoricalPolicy(network=MLP(inputs=STATES, hidden=(3,), outputs=ACTIONS))


@dataclass(frozen=True)
class Tabular:
    """A decision process that starts in state 0 and ends in state 2 or after `horizon` steps.

    Attributes:
        horizon: T.
        theta: the policy's parameters.
    """

    horizon: int
    theta: Params

    @cached_property
    def transitions(self) -> Tensor:
        """Probability of the next state, [S, A, S]; action 1 is the way to state 1."""
        return torch.tensor(
            [[[0.6, 0.2, 0.2], [0.1, 0.7, 0.2]], [[0.5, 0.4, 0.1], [0.3, 0.6, 0.1]], [[0.0, 0.0, 1.0]] * 2],
            dtype=DOUBLE,
        )

    @cached_property
    def rewards(self) -> Tensor:
        """Reward, [S, A]; state 1 is the rich one."""
        return torch.tensor([[0.5, -1.0], [2.0, 4.0], [0.0, 0.0]], dtype=DOUBLE)

    def objective(self, theta: Params) -> Tensor:
        """Compute J / T by dynamic programming, differentiably."""
        probabilities = torch.softmax(POLICY.network(theta, torch.eye(STATES, dtype=DOUBLE)), -1)
        values = torch.zeros(STATES, dtype=DOUBLE)
        for _ in range(self.horizon):
            values = (probabilities * (self.rewards + self.transitions @ values)).sum(-1)
        return values[0] / self.horizon

    @cached_property
    def trajectories(self) -> list[list[tuple[int, int]]]:
        """Every possible sequence of (state, action)."""

        # After the last step any state may follow; it does not show, so the trajectory is listed once.
        def from_state(state: int, steps: int) -> list[list[tuple[int, int]]]:
            if steps == 0 or state == TERMINAL:
                return [[]]
            return [
                [(state, action), *rest]
                for action in range(ACTIONS)
                for following in (range(STATES) if steps > 1 else [TERMINAL])
                for rest in from_state(following, steps - 1)
            ]

        return from_state(0, self.horizon)

    def batch(self, theta: Params) -> Batch:
        """Return all trajectories as the episodes of one task, weighted by their probabilities under `theta`."""
        shape = (1, len(self.trajectories), self.horizon)
        states, actions = torch.zeros(*shape, STATES, dtype=DOUBLE), torch.zeros(*shape, ACTIONS, dtype=DOUBLE)
        rewards, mask, dynamics = (torch.zeros(shape, dtype=DOUBLE) for _ in range(3))
        for k, steps in enumerate(self.trajectories):
            for t, (state, action) in enumerate(steps):
                states[0, k, t, state] = actions[0, k, t, action] = mask[0, k, t] = 1.0
                rewards[0, k, t] = self.rewards[state, action]
                following = steps[t + 1][0] if t + 1 < len(steps) else TERMINAL
                last = t + 1 == self.horizon
                dynamics[0, k, t] = 0.0 if last else self.transitions[state, action, following].log()
        batch = {"observations": states, "actions": actions, "weights": mask}
        with torch.no_grad():
            old = log_probs(POLICY, stack(theta, 1), batch)
        probability = ((old + dynamics) * mask).sum(-1, keepdim=True).exp()
        return batch | {
            "old_log_probs": old,
            "advantages": discounted_returns(rewards, 1.0),
            "weights": probability * mask / self.horizon,
        }


def tabular(horizon: int) -> Tabular:
    params = POLICY.init(seeded(0), DOUBLE)
    return Tabular(horizon, {name: 2.0 * value + 0.3 * normal(*value.shape) for name, value in params.items()})


def one(batch: Batch) -> Batch:
    """Return the only task's part."""
    return {name: value[0] for name, value in batch.items()}


def flat_hessian(problem: Tabular, estimator: Estimator, batch: Batch) -> Tensor:
    """Return the Hessian that the estimator's loss has at θ; the sign makes it one of J."""
    loss = inner_loss(POLICY, estimator)
    return jacrev(jacrev(lambda vector: -loss(unflatten(vector, problem.theta), one(batch))))(flatten(problem.theta))


def exact_hessian(problem: Tabular) -> Tensor:
    return jacrev(jacrev(lambda vector: problem.objective(unflatten(vector, problem.theta))))(flatten(problem.theta))


def dropped(problem: Tabular, estimator: Estimator) -> Tensor:
    """Return the terms of the exact Hessian that the estimator lacks, from the formulas above."""
    batch = one(problem.batch(problem.theta))
    episodes, steps = batch["weights"].shape

    def scores(vector: Tensor) -> Tensor:
        return log_probs(POLICY, unflatten(vector, problem.theta), batch)

    gradients = jacrev(scores)(flatten(problem.theta))
    lacking = torch.zeros(gradients.shape[-1], gradients.shape[-1], dtype=DOUBLE)
    for k in range(episodes):
        for t in range(steps):
            share = batch["weights"][k, t] * batch["advantages"][k, t]
            now, earlier = gradients[k, t], gradients[k, :t].sum(0)
            if estimator != "dice":
                lacking += share * (torch.outer(now, earlier) + torch.outer(earlier, now))
            if estimator == "log-likelihood":
                lacking += share * torch.outer(now, now)
    return lacking


def outer_gradient(problem: Tabular, theta: Params) -> Params:
    """Return the exact gradient of J / T."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    return dict(zip(leaves, torch.autograd.grad(problem.objective(leaves), list(leaves.values())), strict=True))


def ascended(problem: Tabular) -> Params:
    """Return θ' = θ + α ∇J(θ) / T."""
    gradient = outer_gradient(problem, problem.theta)
    return {name: value + RATE * gradient[name] for name, value in problem.theta.items()}


def exact_meta_gradient(problem: Tabular) -> Params:
    """Return the gradient of J(θ + α ∇J(θ) / T) / T by differentiating it."""
    leaves = {name: value.clone().requires_grad_() for name, value in problem.theta.items()}
    inner = torch.autograd.grad(problem.objective(leaves), list(leaves.values()), create_graph=True)
    moved = {name: value + RATE * g for (name, value), g in zip(leaves.items(), inner, strict=True)}
    return dict(zip(leaves, torch.autograd.grad(problem.objective(moved), list(leaves.values())), strict=True))


def expected_meta_gradient(problem: Tabular, estimator: Estimator) -> Params:
    """Return the project's meta-gradient on all trajectories before and after the adaptation."""
    loss, outer = inner_loss(POLICY, estimator), surrogate(POLICY)
    rates = dict.fromkeys(problem.theta, RATE)
    data = {"before": problem.batch(problem.theta), "after": problem.batch(ascended(problem))}
    gradients, _ = meta_gradients(
        lambda params, part: outer(adapt(loss, params, part["before"], rates), part["after"]), problem.theta, data
    )
    return one(gradients)


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_enumeration_is_complete(horizon: int) -> None:
    problem = tabular(horizon)
    batch = one(problem.batch(problem.theta))
    first = batch["weights"][:, 0] * horizon
    assert float(first.sum()) == pytest.approx(1.0, abs=1e-12)
    # The first step's return is the trajectory's.
    expected = float((first * batch["advantages"][:, 0]).sum()) / horizon
    assert expected == pytest.approx(float(problem.objective(problem.theta)), abs=1e-12)
    assert horizon < 2 or bool((batch["weights"][:, -1] == 0.0).any())


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_every_expected_gradient_is_exact(horizon: int, estimator: Estimator) -> None:
    problem = tabular(horizon)
    rates = dict.fromkeys(problem.theta, RATE)
    batch = problem.batch(problem.theta)
    adapted = adapt(inner_loss(POLICY, estimator), stack(problem.theta, 1), batch, rates)
    assert_params_close(one(adapted), ascended(problem))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_every_expected_hessian_lacks_what_it_should(horizon: int, estimator: Estimator) -> None:
    problem = tabular(horizon)
    ours = flat_hessian(problem, estimator, problem.batch(problem.theta))
    lacking = dropped(problem, estimator)
    torch.testing.assert_close(ours + lacking, exact_hessian(problem), rtol=0.0, atol=1e-12)
    complete = estimator == "dice" or (estimator == "lvc" and horizon == 1)
    assert (float(lacking.abs().max()) < 1e-14) if complete else (float(lacking.abs().max()) > 1e-2)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_every_expected_meta_gradient_is_exact_but_for_what_the_hessian_lacks(
    horizon: int, estimator: Estimator
) -> None:
    problem = tabular(horizon)
    ours = flatten(expected_meta_gradient(problem, estimator))
    after = flatten(outer_gradient(problem, ascended(problem)))
    exact = flatten(exact_meta_gradient(problem))
    torch.testing.assert_close(ours + RATE * dropped(problem, estimator) @ after, exact, rtol=0.0, atol=1e-12)
    if estimator == "dice":
        torch.testing.assert_close(ours, exact, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_baseline_changes_no_expected_hessian_of_a_likelihood_ratio(estimator: Estimator) -> None:
    problem = tabular(3)
    batch = problem.batch(problem.theta)
    baseline = batch["observations"] @ torch.tensor([3.0, -2.0, 5.0], dtype=DOUBLE) + torch.arange(3)
    shifted = batch | {"advantages": batch["advantages"] - baseline}
    difference = flat_hessian(problem, estimator, shifted) - flat_hessian(problem, estimator, batch)
    if estimator == "log-likelihood":
        assert float(difference.abs().max()) > 1e-2
    else:
        torch.testing.assert_close(difference, torch.zeros_like(difference), rtol=0.0, atol=1e-12)


# -- by sampling ----------------------------------------------------------------------------------------------------

BATCHES, EPISODES = 3000, 4


def sampled_meta_gradients(problem: Tabular, estimator: Estimator) -> Tensor:
    """Return one meta-gradient per sampled inner batch, [batches, D].

    The gradient after adaptation is the exact one: so the mean over batches has no bias but the estimator's own.
    """
    everything = one(problem.batch(problem.theta))
    probability = everything["weights"][:, 0] * problem.horizon
    chosen = torch.multinomial(probability, BATCHES * EPISODES, replacement=True, generator=seeded(4))
    drawn = {name: value[chosen].unflatten(0, (BATCHES, EPISODES)) for name, value in everything.items()}
    drawn["weights"] = (drawn["weights"] > 0).to(DOUBLE) / (EPISODES * problem.horizon)
    after = outer_gradient(problem, ascended(problem))
    loss, rates = inner_loss(POLICY, estimator), dict.fromkeys(problem.theta, RATE)

    def objective(params: Params, batch: Batch) -> Tensor:
        adapted = adapt(loss, params, batch, rates)
        return torch.stack([(value * after[name]).flatten(1).sum(1) for name, value in adapted.items()]).sum(0)

    gradients, _ = meta_gradients(objective, problem.theta, drawn)
    return torch.cat([value.flatten(1) for value in gradients.values()], dim=1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("horizon", [1, 3])
def test_sampled_meta_gradients_agree_within_their_interval(horizon: int, estimator: Estimator) -> None:
    problem = tabular(horizon)
    gradients = sampled_meta_gradients(problem, estimator)
    mean, error = gradients.mean(0), gradients.std(0) / BATCHES**0.5
    expected = flatten(expected_meta_gradient(problem, estimator))
    # Twenty parameters: four standard errors are exceeded by chance once in a thousand times.
    assert bool(((mean - expected).abs() <= 4.0 * error + 1e-12).all())

    away = (mean - flatten(exact_meta_gradient(problem))).abs()
    if estimator == "dice" or (estimator == "lvc" and horizon == 1):
        assert bool((away <= 4.0 * error + 1e-12).all())
    else:
        assert bool((away > 8.0 * error).any())
