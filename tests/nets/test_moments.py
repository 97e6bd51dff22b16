"""Running moments are those of all rows together, in however many parts they came."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.nets.moments import Moments
from tests.helpers.toys import normal, seeded


def test_before_anything_was_seen_scaling_changes_nothing() -> None:
    moments = Moments(3)
    for figure, expected in ((moments.mean, 0.0), (moments.deviation, 1.0), (moments.size, 1.0)):
        assert figure.tolist() == [expected] * 3
        assert figure.dtype == torch.float64
    moments.update(torch.zeros(0, 3))
    assert moments.deviation.tolist() == [1.0] * 3


@pytest.mark.parametrize("parts", [[60], [1] * 60, [1, 0, 7, 40, 12]], ids=str)
def test_parts_count_as_the_whole(parts: list[int]) -> None:
    rows = 5.0 + torch.tensor([0.1, 1.0, 30.0]) * normal(60, 3)
    moments = Moments(3)
    for part in rows.split(parts):
        moments.update(part)
    seen = rows.numpy()
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.deviation, seen.std(0), rtol=1e-9)
    np.testing.assert_allclose(moments.size, np.sqrt((seen**2).mean(0)), rtol=1e-12)


@pytest.mark.parametrize("parts", [[40], [3, 10, 27]], ids=str)
def test_every_number_has_its_own_count_under_a_mask(parts: list[int]) -> None:
    rows = normal(40, 4)
    mask = (torch.rand(40, 4, generator=seeded(1)) < torch.tensor([1.0, 0.5, 0.1, 0.0])).double()
    # Nothing of the last number in the first part, and nothing of the third ever.
    mask[: parts[0] - 1, 2] = 0.0
    mask[20, 2] = 1.0
    moments = Moments(4)
    for part, real in zip(rows.split(parts), mask.split(parts), strict=True):
        moments.update(part, real)
    assert moments.count.tolist() == mask.sum(0).tolist()
    for number in range(3):
        seen = rows[mask[:, number] > 0, number].numpy()
        np.testing.assert_allclose(moments.mean[number], seen.mean(), rtol=1e-12)
        np.testing.assert_allclose(moments.size[number], np.sqrt((seen**2).mean()), rtol=1e-12)
        if len(seen) > 1:
            np.testing.assert_allclose(moments.deviation[number], seen.std(), rtol=1e-9)
    assert (moments.mean[3], moments.deviation[3], moments.size[3]) == (0.0, 1.0, 1.0)


def test_what_never_changes_is_divided_by_one() -> None:
    moments = Moments(3)
    for _ in range(7):
        # A third is no binary fraction: rounding leaves something of the variance.
        moments.update(torch.tensor([[0.0, 1.0 / 3.0, 1e4 / 3.0]]).expand(11, -1))
    assert moments.deviation.tolist() == [1.0] * 3
    np.testing.assert_allclose(moments.size, [1.0, 1.0 / 3.0, 1e4 / 3.0], rtol=1e-6)


def test_single_precision_and_gradients_are_left_behind() -> None:
    rows = (normal(50, 2) + 100.0).float().requires_grad_()
    moments = Moments(2)
    moments.update(rows)
    assert not moments.mean.requires_grad
    np.testing.assert_allclose(moments.deviation, rows.detach().double().numpy().std(0), rtol=1e-9)


def test_restored_moments_go_on_the_same() -> None:
    first, second = normal(9, 2), normal(4, 2, seed=1)
    moments, other = Moments(2), Moments(2)
    moments.update(first)
    state = moments.state_dict()
    moments.update(second)
    other.load_state_dict(state)
    np.testing.assert_allclose(other.mean, first.mean(0), rtol=1e-12)
    other.update(second)
    for name, value in moments.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    with pytest.raises(ValueError, match="3 numbers, these 2"):
        other.load_state_dict(Moments(3).state_dict())
