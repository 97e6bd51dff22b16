from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.errors import NotFiniteError, WorldNotFiniteError
from metarl.learning import baseline
from metarl.learning.baseline import explained_variance, features, fit_values

DOUBLE = torch.float64


@pytest.fixture(autouse=True, params=["at once", "by triangles"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for both ways to solve."""
    assert not baseline.by_triangles(torch.zeros(1))
    monkeypatch.setattr(baseline, "by_triangles", lambda _: request.param == "by triangles")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def lengths_mask(lengths: list[list[int]], steps: int) -> torch.Tensor:
    return (torch.arange(steps) < torch.tensor(lengths).unsqueeze(-1)).to(DOUBLE)


def test_features_by_hand() -> None:
    observations = torch.tensor([[[[3.0, -20.0], [0.5, 1.0]]]])
    # An observation is clipped to 10; step 1 is the time 1/100.
    expected = torch.tensor(
        [[[[3.0, -10.0, 9.0, 100.0, 0.0, 0.0, 0.0, 1.0], [0.5, 1.0, 0.25, 1.0, 1e-2, 1e-4, 1e-6, 1.0]]]],
        dtype=DOUBLE,
    )
    torch.testing.assert_close(features(observations), expected, rtol=1e-14, atol=0.0)


def test_a_function_in_the_span_is_recovered() -> None:
    observations = normal(2, 5, 30, 3)
    time = torch.arange(30, dtype=DOUBLE)
    slopes = torch.tensor([2.0, -1.0], dtype=DOUBLE)[:, None, None]
    targets = slopes * observations[..., 0] - observations[..., 2].square() + 3.0 + 0.2 * time - 1e-3 * time.square()
    mask = torch.ones(2, 5, 30, dtype=DOUBLE)
    values = fit_values(observations, targets, mask, regularisation=1e-10)
    torch.testing.assert_close(values, targets, rtol=0.0, atol=1e-6)
    assert bool((explained_variance(values, targets, mask) > 1.0 - 1e-12).all())


@pytest.mark.parametrize("regularisation", [1e-5, 1.0])
def test_fit_is_ridge_least_squares_of_the_real_steps(regularisation: float) -> None:
    observations, targets = normal(2, 4, 20, 3), normal(2, 4, 20, seed=1)
    mask = lengths_mask([[20, 3, 11, 7], [1, 20, 20, 4]], 20)
    values = fit_values(observations, targets, mask, regularisation)
    for task in range(2):
        real = mask[task].flatten().bool()
        design = features(observations)[task].flatten(0, 1)[real].numpy()
        wanted = targets[task].flatten()[real].numpy()
        # Ridge regression is least squares with one more row, sqrt(ridge), for every weight.
        padded = np.vstack((design, regularisation**0.5 * np.eye(design.shape[1])))
        weights = np.linalg.lstsq(padded, np.concatenate((wanted, np.zeros(design.shape[1]))), rcond=None)[0]
        np.testing.assert_allclose(values[task].flatten()[real].numpy(), design @ weights, atol=1e-8)
    assert bool((values[mask == 0] == 0.0).all())


def test_padding_has_no_influence() -> None:
    observations, targets = normal(2, 3, 12, 2), normal(2, 3, 12, seed=1)
    mask = lengths_mask([[5, 12, 8], [12, 2, 3]], 12)
    expected = fit_values(observations, targets, mask)
    filled = fit_values(
        torch.where(mask.unsqueeze(-1) > 0, observations, 7.0), torch.where(mask > 0, targets, -50.0), mask
    )
    assert torch.equal(filled, expected)


def test_a_singular_system_is_solved() -> None:
    # One observation, always the same: every feature is a multiple of every other. With 1e-14 the ridge must grow.
    observations = torch.full((1, 4, 1, 2), 10.0, dtype=DOUBLE)
    targets = torch.tensor([[[1.0], [2.0], [3.0], [6.0]]], dtype=DOUBLE)
    mask = torch.ones(1, 4, 1, dtype=DOUBLE)
    for regularisation in (1e-5, 1e-14):
        values = fit_values(observations, targets, mask, regularisation)
        torch.testing.assert_close(values, torch.full_like(values, 3.0), rtol=1e-3, atol=0.0)


def test_tasks_are_fitted_apart() -> None:
    observations, targets = normal(3, 4, 10, 2), normal(3, 4, 10, seed=1)
    mask = torch.ones(3, 4, 10, dtype=DOUBLE)
    together = fit_values(observations, targets, mask)
    for task in range(3):
        row = slice(task, task + 1)
        alone = fit_values(observations[row], targets[row], mask[row])
        torch.testing.assert_close(together[row], alone, rtol=0.0, atol=1e-10)


def test_values_have_the_type_of_the_returns() -> None:
    values = fit_values(normal(1, 2, 8, 2).float(), normal(1, 2, 8).float(), torch.ones(1, 2, 8))
    assert values.dtype == torch.float32


def test_what_is_not_finite_is_an_error() -> None:
    observations, targets = normal(2, 3, 8, 2), normal(2, 3, 8, seed=1)
    mask = torch.ones(2, 3, 8, dtype=DOUBLE)
    broken = observations.clone()
    broken[1, 2, 3, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="observations are, or are shown as, NaN"):
        fit_values(broken, targets, mask)
    for value in (torch.nan, torch.inf):
        broken = targets.clone()
        broken[0, 1, 2] = value
        with pytest.raises(WorldNotFiniteError, match="the returns are not finite"):
            fit_values(observations, broken, mask)


def test_explained_variance_by_hand() -> None:
    # Returns 0, 4 (variance 4), errors 1, -1 (variance 1); the padding is far off. Task 1: a constant explains nothing.
    returns = torch.tensor([[[0.0, 4.0, 99.0]], [[1.0, 2.0, 3.0]]], dtype=DOUBLE)
    values = torch.tensor([[[-1.0, 5.0, 0.0]], [[7.0, 7.0, 7.0]]], dtype=DOUBLE)
    mask = torch.tensor([[[1.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]], dtype=DOUBLE)
    expected = torch.tensor([0.75, 0.0], dtype=DOUBLE)
    torch.testing.assert_close(explained_variance(values, returns, mask), expected, rtol=0.0, atol=1e-14)
