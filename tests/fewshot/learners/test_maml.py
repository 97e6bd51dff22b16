from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.learners.imaml import Imaml, ImamlConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.parts.norms import BatchNorm
from metarl.fewshot.parts.scores import task_loss
from metarl.seeding import Streams
from tests.helpers.stepping_learners import (
    CPU,
    KINDS,
    SHAPE,
    TRAINED,
    Lines,
    Noise,
    flat,
    maml,
    regression,
)
from tests.helpers.toys import DOUBLE, seeded


@pytest.mark.parametrize("policy", TRAINED)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "first-order"])
def test_meta_gradients_are_finite_differences(kind: str, policy: BatchNorm) -> None:
    learner = maml(policy, **KINDS[kind])
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    gradient, _, _ = learner.meta_gradient(episodes, 3)
    direction = {name: torch.randn(v.shape, generator=seeded(3), dtype=DOUBLE) for name, v in learner.params.items()}
    # Short, so that no ReLU changes its side on the way.
    direction = {name: 0.01 * value for name, value in direction.items()}
    along = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
    values = []
    for step in (1e-6, -1e-6):
        moved = maml(policy, **KINDS[kind])
        with torch.no_grad():
            for name, value in moved.params.items():
                value.add_(step * direction[name])
        values.append(float(moved.meta_gradient(episodes, 3)[1].mean()))
    assert along == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-4, abs=1e-8)


def test_first_order_leaves_the_curvature_out() -> None:
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    exact, first = (flat(maml(first_order=value).meta_gradient(episodes)[0]) for value in (False, True))
    learner = maml(first_order=True)
    # By definition: the query loss's gradient at the adapted parameters.
    *_, path = learner._path(episodes.support, 2, "support")
    leaves = {name: value.clone().requires_grad_() for name, value in path.items()}
    scores = learner.model.queries(leaves, episodes.support.x, episodes.query_x, "support", by_task=True)
    loss = task_loss(scores, episodes.query_y, 3).mean()
    at_the_end = [g.sum(0).flatten() for g in torch.autograd.grad(loss, list(leaves.values()))]
    torch.testing.assert_close(first, torch.cat(at_the_end), rtol=1e-10, atol=1e-12)
    assert float((exact - first).norm() / exact.norm()) > 0.05


def test_derivative_order_and_step_weights_follow_their_schedules() -> None:
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    learner = maml(first_order_updates=4, inner_steps=2)
    early, late = (flat(learner.meta_gradient(episodes, number)[0]) for number in (3, 4))
    torch.testing.assert_close(early, flat(maml(first_order=True).meta_gradient(episodes)[0]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(late, flat(maml().meta_gradient(episodes)[0]), rtol=1e-12, atol=1e-14)
    learner = maml(multi_step_updates=10, inner_steps=4)
    assert learner._weights(0) == pytest.approx([0.25, 0.25, 0.25, 0.25])
    assert learner._weights(5) == pytest.approx([0.125, 0.125, 0.125, 0.625])
    assert learner._weights(10) == learner._weights(99) == [0.0, 0.0, 0.0, 1.0]


def test_averages_are_asked_for_only_where_they_are() -> None:
    episodes = Noise().episodes("test", range(2), SHAPE, 0)
    with pytest.raises(UserError, match="it was trained with 'support'"):
        maml().fit(episodes.support, "running")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="--adapts head"):
        MamlConfig(rates="parameter", adapts="head")
    with pytest.raises(UserError, match="has no norms"):
        Maml(MamlConfig(step_norm=True), regression(), Streams(0), CPU)
    with pytest.raises(UserError, match="a model for classification and data for regression"):
        maml().fit(Lines().episodes("test", range(2), regression().shape, 0).support)


def test_the_inner_rate_suits_the_loss_where_none_is_given() -> None:
    """And config.yaml has the number: what a run folder keeps are the learner's own settings."""
    kinds: list[tuple[Any, Any]] = [(Maml, MamlConfig), (Imaml, ImamlConfig)]
    for make, settings in kinds:
        for setting, rate in ((regression(), 0.01), (maml().setting, 0.1)):
            assert make(settings(), setting, Streams(0), CPU).config == settings(inner_rate=rate)
            assert make(settings(inner_rate=0.3), setting, Streams(0), CPU).config.inner_rate == 0.3
        with pytest.raises(UserError, match="--inner-rate"):
            settings(inner_rate=-0.1)
