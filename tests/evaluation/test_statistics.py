from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from metarl.errors import UserError
from metarl.evaluation.statistics import Interval, bootstrap_interval, iqm, mean, ratio_gap
from tests.helpers.toys import seeded as generator


def skewed(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(9), dtype=torch.float64).log().neg() * 10.0


def test_iqm_by_hand() -> None:
    assert iqm(torch.tensor([100.0, 1.0, 2.0, -50.0])) == 1.5
    assert iqm(torch.tensor([3.0])) == 3.0
    # Five values: one is cut at each end.
    assert iqm(torch.tensor([9.0, 1.0, 2.0, 3.0, -9.0])) == 2.0


def test_iqm_is_scipys_trimmed_mean() -> None:
    values = skewed(3, 30)
    expected = scipy_stats.trim_mean(values.numpy(), 0.25, axis=-1)
    np.testing.assert_allclose(iqm(values).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["mean", "iqm"])
def test_the_interval_is_scipys(name: str) -> None:
    values = skewed(40)
    ours = bootstrap_interval(values, {"mean": mean, "iqm": iqm}[name], generator(), resamples=40_000)

    def statistic(x: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(x, axis=axis) if name == "mean" else scipy_stats.trim_mean(x, 0.25, axis=axis)

    theirs = scipy_stats.bootstrap(
        (values.numpy(),), statistic, n_resamples=40_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # A percentile of 40,000 draws is known to about 2% of the interval's width.
    width = theirs.high - theirs.low
    assert ours.estimate == pytest.approx(float(statistic(values.numpy(), -1)))
    assert ours.lower == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.upper == pytest.approx(theirs.high, abs=0.02 * width)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    samples = torch.randn(300, 40, generator=generator(3), dtype=torch.float64)
    inside = [
        interval.lower <= 0.0 <= interval.upper
        for interval in (bootstrap_interval(row, mean, generator(i), resamples=500) for i, row in enumerate(samples))
    ]
    assert 0.90 <= sum(inside) / len(inside) <= 0.98


def test_seeds_are_strata() -> None:
    # All spread is between the seeds: resampling within them changes nothing, mixing them up would.
    values = torch.tensor([[0.0] * 10, [100.0] * 10])
    assert bootstrap_interval(values, mean, generator()) == Interval(estimate=50.0, lower=50.0, upper=50.0)


def test_the_interval_comes_from_the_passed_generator_only() -> None:
    before = torch.get_rng_state()
    first, second = (bootstrap_interval(skewed(2, 20), iqm, generator(4)) for _ in range(2))
    assert first == second
    assert bootstrap_interval(skewed(2, 20), iqm, generator(5)) != first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.tensor([1.0, float("nan")]), torch.zeros(2, 0)])
def test_values_without_a_meaning_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="needs finite numbers"):
        bootstrap_interval(bad, mean, generator())


def test_the_gap_closed_by_hand() -> None:
    gap = ratio_gap(
        torch.tensor([-11.0, -12.0]),
        torch.tensor([-82.0, -83.0]),
        torch.tensor([-2.0, -3.0]),
        generator(),
        paired=True,
    )
    assert gap.estimate == pytest.approx(71.0 / 80.0)
    # Each pair of tasks has a gap of 71/80, so no choice of tasks changes it.
    assert (gap.lower, gap.upper) == (pytest.approx(71.0 / 80.0), pytest.approx(71.0 / 80.0))


def test_pairing_removes_the_spread_that_tasks_share() -> None:
    difficulty = skewed(40)
    random0, oracle = difficulty - 50.0, difficulty + 50.0
    agent = difficulty + 30.0 + torch.randn(40, generator=generator(1), dtype=torch.float64)
    paired = ratio_gap(agent, random0, oracle, generator(), paired=True)
    independent = ratio_gap(agent, random0, oracle, generator(), paired=False)
    assert paired.estimate == independent.estimate == pytest.approx(0.8, abs=0.01)
    assert paired.lower < paired.estimate < paired.upper
    assert (paired.upper - paired.lower) * 5.0 < independent.upper - independent.lower


def test_the_gap_takes_different_seeds_and_tasks() -> None:
    agent, random0, oracle = skewed(3, 40) + 5.0, skewed(20) - 100.0, skewed(2, 30) + 50.0
    gap = ratio_gap(agent, random0, oracle, generator(), paired=False)
    numbers = [float(x.mean()) for x in (agent, random0, oracle)]
    assert gap.estimate == pytest.approx((numbers[0] - numbers[1]) / (numbers[2] - numbers[1]))
    assert gap.lower < gap.estimate < gap.upper
    with pytest.raises(ValueError, match="paired runs have the same tasks"):
        ratio_gap(agent, random0, oracle, generator(), paired=True)


def test_the_references_uncertainty_widens_the_interval() -> None:
    agent, oracle = torch.full((30,), 5.0), torch.full((30,), 10.0)
    sure = ratio_gap(agent, torch.zeros(30), oracle, generator(), paired=False)
    unsure = ratio_gap(agent, torch.randn(30, generator=generator(2)) * 3.0, oracle, generator(), paired=False)
    assert sure.upper - sure.lower == pytest.approx(0.0, abs=1e-12)
    assert unsure.upper - unsure.lower > 0.05


def test_an_oracle_below_random_leaves_no_gap() -> None:
    with pytest.raises(UserError, match="gap closed is not defined"):
        ratio_gap(torch.ones(4), torch.ones(4) * 2.0, torch.ones(4), generator(), paired=True)
