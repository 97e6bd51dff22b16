"""Heads of the few-shot learners that compare features: each against the same thing done by hand, or by a library."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as nnf

from metarl.errors import NotFiniteError
from metarl.fewshot.learners import logistic, r2d2
from metarl.fewshot.learners.matching import Attention
from metarl.fewshot.learners.proto import Prototypes
from metarl.fewshot.learners.relation import Relation
from metarl.fewshot.learners.siamese import Distance, Pairs
from metarl.fewshot.parts.scores import task_loss
from metarl.fewshot.parts.solved import SolvedHead
from metarl.nets.policy import MLP
from tests.helpers.toys import DOUBLE, normal, seeded

TASKS, WAY, FEATURES, QUERIES = 3, 4, 5, 6
UNEVEN = torch.tensor([[0, 1, 2, 3, 3, 1], [3, 3, 3, 0, 1, 2], [2, 1, 0, 3, 2, 2]])
"""Labels of three support sets: no class order, and other numbers of shots in each."""


def near(first: Tensor, second: Any, close: float = 1e-12) -> None:
    torch.testing.assert_close(first, torch.as_tensor(second, dtype=first.dtype), rtol=0.0, atol=close)


def support(seed: int = 0) -> Tensor:
    return normal(*UNEVEN.shape, FEATURES, seed=seed)


def queries() -> Tensor:
    return normal(TASKS, QUERIES, FEATURES, seed=9)


# -- prototypes -------------------------------------------------------------------------------------------------------


def test_prototypes_are_means_and_scores_are_squared_distances() -> None:
    items = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]]], dtype=DOUBLE)
    query = torch.tensor([[[1.0, 1.0]]], dtype=DOUBLE)
    head = Prototypes()
    learned = head.learn({}, items, torch.tensor([[0, 0, 1]]), 2)
    near(learned[0], [[[1.0, 0.0], [0.0, 3.0]]])
    # Squared distances 1 and 5; distances would be 1 and 2.236.
    scores = head.scores({}, learned, query)
    near(scores.softmax(-1)[0, 0], [1.0 / (1.0 + math.exp(-4.0)), 1.0 / (1.0 + math.exp(4.0))])
    near(scores - scores[..., :1], [[[0.0, -4.0]]])


# -- matching ---------------------------------------------------------------------------------------------------------


def test_matching_adds_up_the_attention_of_every_class() -> None:
    head = Attention(inverse_temperature=3.0, steps=0)
    params = head.init(FEATURES, seeded(), DOUBLE)
    scores = head.scores(params, head.learn(params, support(), UNEVEN, WAY), queries())
    for m in range(TASKS):
        for q in range(QUERIES):
            x = queries()[m, q]
            cosines = [float(x @ s / x.norm() / s.norm()) for s in support()[m]]
            weights = [math.exp(3.0 * c) for c in cosines]
            by_class = [sum(w for w, y in zip(weights, UNEVEN[m].tolist(), strict=True) if y == n) for n in range(WAY)]
            near(scores[m, q].exp(), [w / sum(weights) for w in by_class])


def test_matching_in_full_context_is_the_papers_recurrence() -> None:
    steps = 3
    head = Attention(inverse_temperature=2.0, steps=steps)
    params = head.init(FEATURES, seeded(), DOUBLE)
    scores = head.scores(params, head.learn(params, support(), UNEVEN, WAY), queries())

    def cell(name: str, inputs: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        p = {key: params[f"{name}.{key}"] for key in ("into", "within", "into_bias", "within_bias")}
        gates = p["into"] @ inputs + p["into_bias"] + p["within"] @ hidden + p["within_bias"]
        admit, keep, new, show = gates.chunk(4)
        memory = keep.sigmoid() * memory + admit.sigmoid() * new.tanh()
        return show.sigmoid() * memory.tanh(), memory

    for m in range(TASKS):
        # Classes by their first items, items as they come: 0 1 1 2 3 3, then 3 3 3 0 1 2, then 2 2 2 1 0 3.
        order = [[0, 1, 5, 2, 3, 4], [0, 1, 2, 3, 4, 5], [0, 4, 5, 1, 2, 3]][m]
        items, labels = support()[m, order], UNEVEN[m, order]
        context = items.clone()
        for name, walk in (("forwards", range(6)), ("backwards", reversed(range(6)))):
            hidden = memory = torch.zeros(FEATURES, dtype=DOUBLE)
            for i in walk:
                hidden, memory = cell(name, items[i], hidden, memory)
                context[i] += hidden
        for q, x in enumerate(queries()[m]):
            hidden = memory = torch.zeros(FEATURES, dtype=DOUBLE)
            for _ in range(steps):
                seen = (context @ hidden).softmax(0) @ context
                hidden, memory = cell("read", x, torch.cat((hidden, seen)), memory)
                hidden = hidden + x
            attention = (2.0 * nnf.cosine_similarity(hidden[None], context)).softmax(0)
            near(scores[m, q].exp(), attention @ nnf.one_hot(labels, WAY).double())


def test_full_context_depends_on_the_order_of_classes_but_not_on_how_their_items_are_mixed() -> None:
    head = Attention(inverse_temperature=2.0, steps=2)
    params = head.init(FEATURES, seeded(), DOUBLE)
    items, y = support()[:1, :4], torch.tensor([[0, 0, 1, 1]])

    def scores(order: list[int]) -> Tensor:
        return head.scores(params, head.learn(params, items[:, order], y[:, order], 2), queries()[:1])

    near(scores([0, 2, 1, 3]), scores([0, 1, 2, 3]))
    assert (scores([2, 3, 0, 1]) - scores([0, 1, 2, 3])).abs().max() > 1e-4


# -- Siamese ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_siamese_takes_the_best_pair_and_learns_from_all_of_them(distance: Distance) -> None:
    head = Pairs(distance=distance)
    params = {"log_weight": 0.3 * normal(FEATURES, seed=3), "bias": torch.tensor(0.7, dtype=DOUBLE)}
    weight, power = params["log_weight"].exp(), 1 if distance == "l1" else 2

    def odds(a: Tensor, b: Tensor) -> float:
        return float(0.7 - (weight * (a - b).abs() ** power).sum())

    scores = head.scores(params, head.learn(params, support(), UNEVEN, WAY), queries())
    features, y = support(), UNEVEN
    loss = head.loss(params, scores, features, y)
    for m in range(TASKS):
        for q in range(QUERIES):
            pairs = [(odds(queries()[m, q], s), int(n)) for s, n in zip(support()[m], UNEVEN[m], strict=True)]
            near(scores[m, q], [max(value for value, n in pairs if n == k) for k in range(WAY)])
        same, other = [], []
        for i in range(6):
            for j in range(i):
                value = odds(features[m, i], features[m, j])
                if y[m, i] == y[m, j]:
                    same.append(math.log1p(math.exp(-value)))
                else:
                    other.append(math.log1p(math.exp(value)))
        near(loss[m], 0.5 * float(np.mean(same)) + 0.5 * float(np.mean(other)))


# -- relation ---------------------------------------------------------------------------------------------------------


def test_relation_is_trained_by_balanced_squared_errors_and_scored_by_log_odds() -> None:
    head = Relation(network=MLP(inputs=3 * FEATURES, hidden=(7,), outputs=1, activation="relu"))
    params = head.init(FEATURES, seeded(), DOUBLE)
    scores = head.scores(params, head.learn(params, support(), UNEVEN, WAY), queries())
    y = torch.arange(QUERIES).remainder(WAY).expand(TASKS, -1)
    loss = head.loss(params, scores, torch.cat((support(), queries()), dim=1), torch.cat((UNEVEN, y), dim=1))
    for m in range(TASKS):
        own, others = [], []
        for q in range(QUERIES):
            for n in range(WAY):
                total = support()[m, UNEVEN[m] == n].sum(0)
                a, b = (
                    v / (v.square().mean() + 1e-5 * k**2).sqrt()
                    for v, k in ((total, int((UNEVEN[m] == n).sum())), (queries()[m, q], 1))
                )
                hidden = torch.relu(torch.cat((a, b, (a - b) ** 2)) @ params["w0"] + params["b0"])
                relation = (hidden @ params["w1"] + params["b1"]).sigmoid()
                near(torch.logit(relation)[0], scores[m, q, n], 1e-9)
                if y[m, q] == n:
                    own.append(float((relation - 1.0) ** 2))
                else:
                    others.append(float(relation**2))
        near(loss[m], 0.5 * float(np.mean(own)) + 0.5 * float(np.mean(others)))


# -- ridge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, FEATURES, 12], ids=["fewer items", "as many", "more items"])
def test_ridge_weights_are_numpys_in_both_of_woodburys_forms(size: int) -> None:
    x, y = normal(TASKS, size, FEATURES), normal(TASKS, size, WAY, seed=1)
    weights = r2d2.ridge_weights(x, y, torch.tensor(0.3, dtype=DOUBLE))
    for m in range(TASKS):
        a, b = x[m].numpy() / math.sqrt(size), y[m].numpy() / math.sqrt(size)
        near(weights[m], np.linalg.solve(a.T @ a + 0.3 * np.eye(FEATURES), a.T @ b), 1e-9)
        near(weights[m], a.T @ np.linalg.solve(a @ a.T + 0.3 * np.eye(size), b), 1e-9)


@pytest.mark.parametrize("size", [3, 12], ids=["dual", "primal"])
def test_ridge_weights_are_differentiated_through_the_solution(size: int) -> None:
    x, y = normal(1, size, FEATURES).requires_grad_(), normal(1, size, WAY, seed=1)
    ridge = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, ridge: r2d2.ridge_weights(x, y, ridge), (x, ridge))


def test_a_support_set_given_twice_changes_no_ridge_or_logistic_head() -> None:
    for head in (SolvedHead(solve=solve, ridge=0.5, scale=2.0) for solve in (r2d2.ridge_weights, logistic.optimum)):
        params = head.init(FEATURES, seeded(), DOUBLE)
        once = head.learn(params, support(), UNEVEN, WAY)
        twice = head.learn(params, torch.cat((support(),) * 2, 1), torch.cat((UNEVEN,) * 2, 1), WAY)
        near(head.scores(params, twice, queries()), head.scores(params, once, queries()), 1e-8)


def test_ridge_and_scale_begin_as_configured() -> None:
    head = SolvedHead(solve=r2d2.ridge_weights, ridge=0.5, scale=2.0)
    params = head.init(FEATURES, seeded(), DOUBLE)
    weights = r2d2.ridge_weights(support(), nnf.one_hot(UNEVEN, WAY).double(), torch.tensor(0.5, dtype=DOUBLE))
    near(head.scores(params, head.learn(params, support(), UNEVEN, WAY), queries()), 2.0 * queries() @ weights)


# -- logistic ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_logistic_head_is_at_scipys_optimum(ridge: float, scale: float) -> None:
    x, truth = scale * support(), nnf.one_hot(UNEVEN, WAY).double()
    weights = logistic.optimum(x, truth, torch.tensor(ridge, dtype=DOUBLE))
    for m in range(TASKS):
        a, t = x[m].numpy(), truth[m].numpy()

        def objective(flat: np.ndarray, a: np.ndarray = a, t: np.ndarray = t) -> tuple[float, np.ndarray]:
            w = flat.reshape(FEATURES, WAY)
            scores = a @ w
            top = scores.max(1, keepdims=True)
            logs = scores - top - np.log(np.exp(scores - top).sum(1, keepdims=True))
            gradient = a.T @ (np.exp(logs) - t) / len(a) + ridge * w
            return float(-(logs * t).sum(1).mean() + 0.5 * ridge * (w**2).sum()), gradient.ravel()

        options = {"gtol": 1e-12, "ftol": 1e-16, "maxiter": 20_000, "maxfun": 40_000}
        best = minimize(objective, np.zeros(FEATURES * WAY), jac=True, method="L-BFGS-B", options=options)
        ours, slope = objective(weights[m].numpy().ravel())
        assert ours <= best.fun + 1e-12
        assert np.abs(slope).max() < 1e-9 * scale
        if ridge >= 0.1:
            near(weights[m], best.x.reshape(FEATURES, WAY), 1e-5)


@pytest.mark.parametrize(("tasks", "size"), [(2, 3), (1, 5)], ids=["fewer items", "more items"])
def test_the_logistic_heads_implicit_gradient_is_the_finite_difference(tasks: int, size: int) -> None:
    x = normal(tasks, size, 4).requires_grad_()
    ridge = torch.tensor(0.2, dtype=DOUBLE, requires_grad=True)
    truth = nnf.one_hot(torch.arange(size).remainder(3).expand(tasks, -1), 3).double()

    def solve(x: Tensor, ridge: Tensor) -> Tensor:
        return logistic.optimum(x, truth, ridge)

    assert torch.autograd.gradcheck(solve, (x, ridge), atol=1e-7, check_undefined_grad=False)


def test_features_that_are_not_finite_give_a_logistic_head_no_optimum() -> None:
    x = support()
    x[0, 0, 0] = math.nan
    with pytest.raises(NotFiniteError, match="found no optimum"):
        logistic.optimum(x, nnf.one_hot(UNEVEN, WAY).double(), torch.tensor(0.1, dtype=DOUBLE))


def test_the_loss_of_a_logistic_head_falls_with_its_gradient() -> None:
    head = SolvedHead(solve=logistic.optimum, ridge=0.1, scale=1.0)
    params = {name: value.requires_grad_() for name, value in head.init(FEATURES, seeded(), DOUBLE).items()}
    y = torch.arange(QUERIES).remainder(WAY).expand(TASKS, -1)

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return task_loss(head.scores(params, head.learn(params, x, UNEVEN, WAY), queries()), y, WAY).mean()

    x = nn.Parameter(support())
    before = loss(params, x)
    leaves = [x, *params.values()]
    gradients = torch.autograd.grad(before, leaves)
    moved = [leaf.detach() - 0.1 * gradient for leaf, gradient in zip(leaves, gradients, strict=True)]
    after = loss(dict(zip(params, moved[1:], strict=True)), moved[0])
    slope = sum(float(gradient.square().sum()) for gradient in gradients)
    assert 0.5 * 0.1 * slope < float(before.detach() - after.detach()) < 1.5 * 0.1 * slope
