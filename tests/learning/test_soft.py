"""The pieces of soft actor-critic, by hand and beside PyTorch's distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from metarl.learning.soft import LEAST_LOG_STD, MOST_LOG_STD, follow, q_target, squashed
from tests.helpers.toys import DOUBLE, normal


def test_targets_by_hand() -> None:
    # A reward of 2, times 5, and 10 behind it: 10 + 0.99 * 10, or nothing behind a terminal state.
    reward, behind = torch.tensor([5.0 * 2.0] * 2), torch.tensor([10.0, 10.0])
    target = q_target(reward, torch.tensor([0.0, 1.0]), behind, discount=0.99)
    assert target.tolist() == pytest.approx([19.9, 10.0])


def test_actions_and_densities_are_those_of_a_squashed_gaussian() -> None:
    distribution, noise = squashed(normal(4, 6)), normal(4, 3, seed=1)
    action, log_prob = distribution.sample(noise)
    known = TransformedDistribution(Normal(distribution.mean, distribution.log_std.exp()), [TanhTransform()])
    torch.testing.assert_close(action, (distribution.mean + distribution.log_std.exp() * noise).tanh())
    torch.testing.assert_close(log_prob, known.log_prob(action).sum(-1))
    torch.testing.assert_close(distribution.mode, distribution.mean.tanh())


def test_far_out_densities_and_their_gradients_are_finite() -> None:
    output = torch.tensor([[300.0, -300.0, 50.0, -50.0]], dtype=DOUBLE, requires_grad=True)
    distribution = squashed(output)
    assert distribution.log_std.tolist() == [[MOST_LOG_STD, LEAST_LOG_STD]]
    _, log_prob = distribution.sample(torch.tensor([[1.0, -1.0]], dtype=DOUBLE))
    (gradient,) = torch.autograd.grad(log_prob.sum(), output)
    assert bool(log_prob.isfinite().all())
    assert bool(gradient.isfinite().all())


def test_a_slow_copy_goes_a_part_of_the_way() -> None:
    slow, params = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0], requires_grad=True)}
    follow(slow, params, 0.25)
    assert slow["w"].tolist() == [1.5, 2.0]
    assert not slow["w"].requires_grad
