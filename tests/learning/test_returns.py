from __future__ import annotations

import pytest
import torch

from metarl.learning import returns
from metarl.learning.returns import discounted_returns, gae, standardise

DOUBLE = torch.float64


@pytest.fixture(autouse=True, params=["step by step", "in one product"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for both ways to sum."""
    assert not returns.in_one_product(torch.zeros(1))
    monkeypatch.setattr(returns, "in_one_product", lambda _: request.param == "in one product")


def double(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def test_discounted_returns_by_hand() -> None:
    # 3; 2 + 3/2; 1 + 3.5/2. The second episode is one step shorter: its padding stays zero.
    rewards = double([1.0, 2.0, 3.0], [4.0, -2.0, 0.0])
    expected = double([2.75, 3.5, 3.0], [3.0, -2.0, 0.0])
    assert torch.equal(discounted_returns(rewards, 0.5), expected)


def test_discounted_returns_go_on_with_the_bootstrap_value() -> None:
    rewards = double([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    expected = double([3.75, 5.5, 7.0], [1.0, 2.0, 4.0])
    assert torch.equal(discounted_returns(rewards, 0.5, double(8.0, 8.0)), expected)


def test_discounted_returns_keep_leading_axes() -> None:
    rewards = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    together = discounted_returns(rewards, 0.9)
    for task in range(2):
        for episode in range(3):
            alone = discounted_returns(rewards[task, episode], 0.9)
            torch.testing.assert_close(together[task, episode], alone, rtol=1e-14, atol=1e-14)


def test_gae_by_hand() -> None:
    # gamma = 1/2, lambda = 1/2, three real steps, then nothing.
    # delta: 3 - 1 = 2; 2 + 1/2 * 1 - 4 = -1.5; 1 + 1/2 * 4 - 2 = 1
    # A: 2; -1.5 + 2/4 = -1; 1 - 1/4 = .75
    rewards, values = double([1.0, 2.0, 3.0]), double([2.0, 4.0, 1.0])
    advantages = gae(rewards, values, torch.ones_like(rewards), 0.5, 0.5)
    assert torch.equal(advantages, double([0.75, -1.0, 2.0]))


def test_gae_of_padded_episodes_by_hand() -> None:
    # The same episode; the same with the value 8 after its last step (delta_2 = 3 + 4 - 1 = 6, A: 6; 0; 1); and one
    # of a single step, with 8 after it (A = 5 + 4 - 2). What stands in the padding of the values must not matter.
    rewards = double([1.0, 2.0, 3.0, 0.0], [1.0, 2.0, 3.0, 0.0], [5.0, 0.0, 0.0, 0.0])
    values = double([2.0, 4.0, 1.0, 77.0], [2.0, 4.0, 1.0, 77.0], [2.0, 55.0, 77.0, -3.0])
    mask = double([1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0])
    advantages = gae(rewards, values, mask, 0.5, 0.5, double(0.0, 8.0, 8.0))
    expected = double([0.75, -1.0, 2.0, 0.0], [1.0, 0.0, 6.0, 0.0], [7.0, 0.0, 0.0, 0.0])
    assert torch.equal(advantages, expected)


@pytest.fixture
def episodes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values and mask of 2 tasks, 3 episodes of different lengths, 6 steps."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([[6, 1, 4], [3, 6, 2]])
    mask = (torch.arange(6) < lengths.unsqueeze(-1)).to(DOUBLE)
    rewards = torch.randn(2, 3, 6, generator=generator, dtype=DOUBLE) * mask
    return rewards, torch.randn(2, 3, 6, generator=generator, dtype=DOUBLE), mask


def test_gae_with_trace_one_is_return_minus_value(episodes: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    rewards, values, mask = episodes
    expected = (discounted_returns(rewards, 0.9) - values) * mask
    torch.testing.assert_close(gae(rewards, values, mask, 0.9, 1.0), expected, rtol=0.0, atol=1e-14)


def test_gae_with_trace_one_bootstraps_as_the_return_does(
    episodes: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    rewards, values, mask = episodes
    final = torch.arange(6, dtype=DOUBLE).reshape(2, 3)
    last = torch.nn.functional.one_hot(mask.sum(-1).long() - 1, 6).to(DOUBLE)
    with_final = rewards + last * 0.9 * final.unsqueeze(-1)
    expected = (discounted_returns(with_final, 0.9) - values) * mask
    torch.testing.assert_close(gae(rewards, values, mask, 0.9, 1.0, final), expected, rtol=0.0, atol=1e-14)


def test_gae_with_trace_zero_is_the_one_step_error(
    episodes: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    rewards, values, mask = episodes
    following = torch.cat((values[..., 1:] * mask[..., 1:], torch.zeros(2, 3, 1, dtype=DOUBLE)), dim=-1)
    expected = (rewards + 0.9 * following - values) * mask
    torch.testing.assert_close(gae(rewards, values, mask, 0.9, 0.0), expected, rtol=0.0, atol=1e-14)


def test_standardise_by_hand() -> None:
    # Task 0: 1, 3 and 5 are real: mean 3, deviation sqrt(8/3). Task 1: -2 and 2: mean 0, deviation 2.
    values = double([[1.0, 3.0], [5.0, 100.0]], [[-2.0, 9.0], [2.0, 9.0]])
    mask = double([[1.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]])
    unit = 2.0 / (8.0 / 3.0) ** 0.5
    expected = double([[-unit, 0.0], [unit, 0.0]], [[-1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(standardise(values, mask), expected, rtol=1e-7, atol=0.0)


def test_standardise_of_equal_values_is_zero() -> None:
    values = torch.full((1, 2, 3), 4.0, dtype=DOUBLE)
    assert torch.equal(standardise(values, torch.ones_like(values)), torch.zeros_like(values))


def test_standardise_knows_no_unit_but_what_rounding_left() -> None:
    values, mask = double([1.0, 3.0, -0.5]), torch.ones(1, 3, dtype=DOUBLE)
    for unit in (2.0**-60, 2.0**60):
        assert torch.equal(standardise(unit * values, mask), standardise(values, mask))
        assert torch.equal(standardise(unit * values, mask, unit * mask), standardise(values, mask, mask))
    # Advantages that are rounding errors of the returns behind them are no signal.
    assert float(standardise(1e-16 * values, mask, mask).abs().max()) < 1e-5
    assert torch.equal(standardise(0.0 * values, mask), 0.0 * values)


def test_standardise_over_the_axes_that_share_a_mean() -> None:
    values, mask = double([1.0, 3.0, 0.0], [5.0, 5.0, 8.0]), double([1.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    # Each row by itself: mean 2 and deviation 1; mean 6 and deviation √2.
    alone = double([-1.0, 1.0, 0.0], [-(0.5**0.5), -(0.5**0.5), 2.0**0.5])
    torch.testing.assert_close(standardise(values, mask, over=(1,)), alone)
    # All of them: mean 22 / 5, deviation √(124 / 5 - 4.4²).
    centred = double([-3.4, -1.4, 0.0], [0.6, 0.6, 3.6])
    torch.testing.assert_close(standardise(values, mask), centred / (24.8 - 4.4**2) ** 0.5)
