"""A belief as a product of Gaussian factors, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metarl.learning.posterior import LEAST_VARIANCE, Factors, factors_of
from tests.helpers.toys import DOUBLE, normal


def told(means: list[float], variances: list[float]) -> Tensor:
    """Return what an encoder would have given for factors of one number, [n, 2]."""
    raw = torch.tensor(variances, dtype=DOUBLE).expm1().log()
    return torch.stack((torch.tensor(means, dtype=DOUBLE), raw), dim=-1)


def test_two_factors_by_hand() -> None:
    belief = factors_of(told([0.0, 2.0], [1.0, 1.0 / 3.0]))
    assert float(belief.mean) == pytest.approx(1.5)
    assert float(belief.variance) == pytest.approx(0.25)
    assert float(belief.kl_to_prior()) == pytest.approx(1.4431, abs=5e-5)


def test_equal_factors_divide_the_variance_in_any_order() -> None:
    for count in (1, 3, 10):
        belief = factors_of(told([0.7] * count, [0.4] * count))
        assert float(belief.mean) == pytest.approx(0.7)
        assert float(belief.variance) == pytest.approx(0.4 / count)
    output = normal(6, 8, seed=3)
    first, other = factors_of(output), factors_of(output[torch.tensor([3, 0, 5, 1, 4, 2])])
    for mine, its in zip(first, other, strict=True):
        torch.testing.assert_close(mine, its)


def test_steps_that_do_not_count_tell_nothing_and_sums_go_on() -> None:
    output = normal(2, 5, 6)
    mask = torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]], dtype=DOUBLE)
    both = factors_of(output, mask)
    for row, real in enumerate(mask > 0):
        one = factors_of(output[row][real])
        torch.testing.assert_close(both.mean[row], one.mean)
        torch.testing.assert_close(both.variance[row], one.variance)
    parts = factors_of(output[:, :2]).and_also(factors_of(output[:, 2:]))
    for mine, its in zip(parts, factors_of(output), strict=True):
        torch.testing.assert_close(mine, its)


def test_a_belief_that_is_the_prior_is_at_distance_0() -> None:
    assert float(Factors(torch.ones(3), torch.zeros(3)).kl_to_prior()) == 0.0


def test_a_variance_has_a_floor() -> None:
    belief = factors_of(torch.tensor([[1.0, -1e4]], dtype=DOUBLE))
    assert float(belief.variance) == pytest.approx(LEAST_VARIANCE)
    assert math.isfinite(float(belief.kl_to_prior()))
