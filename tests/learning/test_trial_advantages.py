"""Advantages over trials by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.learning.trial_advantages import trial_advantages
from metarl.learning.trials import Trials
from metarl.nets.moments import Moments
from metarl.ranks import ALONE
from tests.helpers.toys import DOUBLE
from tests.helpers.trials import mean_and_deviation

# With γ = λ = 1/2. First trial: two steps, and one more of a second episode; the values are .5, 1, 2, and 8 behind.
# Second trial: one step and one step; the values are 3, 1, and 6 behind.
REWARDS = torch.tensor([[1.0, 2.0, 4.0], [5.0, 1.0, 0.0]], dtype=DOUBLE)
VALUES = torch.tensor([[0.5, 1.0, 2.0, 8.0], [3.0, 1.0, 6.0, 7.0]], dtype=DOUBLE)
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=DOUBLE)
# δ = 1, 2, 4 - 2 + 8 / 2 and 5 - 3 + 1 / 2, 1 - 1 + 6 / 2 where the time limit cut the trial; A = δ + A' / 4.
CUT = ((1.875, 3.5, 6.0), (3.25, 3.0))
# δ = 1, 2, 2 and 2.5, 0 where nothing follows.
ENDED = ((1.625, 2.5, 2.0), (2.5, 0.0))


def trials_by_hand(cut: list[bool]) -> Trials:
    return Trials(
        observations=torch.zeros(2, 3, 1, dtype=DOUBLE),
        actions=torch.zeros(2, 3, 1, dtype=DOUBLE),
        rewards=REWARDS,
        ended=torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=DOUBLE),
        mask=MASK,
        final=torch.zeros(2, 1, dtype=DOUBLE),
        cut=torch.tensor(cut),
    )


@pytest.mark.parametrize(
    ("cut", "finite_horizon", "expected"),
    [
        ([True, True], False, CUT),
        ([False, False], False, ENDED),
        ([True, False], False, (CUT[0], ENDED[1])),
        ([True, True], True, ENDED),
    ],
    ids=["cut", "terminated", "one of each", "finite horizon"],
)
@pytest.mark.parametrize("over", ["batch", "task"])
def test_advantages_run_over_the_episodes_of_a_trial(
    cut: list[bool], finite_horizon: bool, expected: tuple[tuple[float, ...], ...], over: Any
) -> None:
    returns = Moments(9)
    # So far the returns from the first three steps have had mean 3 and deviation 2: values are stored accordingly.
    known = torch.arange(9).expand(2, -1) < 3
    returns.update(torch.tensor([[1.0], [5.0]], dtype=DOUBLE) * known, known.double())
    standardised, targets, explained = trial_advantages(
        trials_by_hand(cut),
        (VALUES - 3.0) / 2.0,
        returns,
        discount=0.5,
        trace=0.5,
        finite_horizon=finite_horizon,
        over=over,
        ranks=ALONE,
    )

    should = torch.tensor([[*expected[0]], [*expected[1], 0.0]], dtype=DOUBLE)
    real = MASK > 0
    wanted = should + VALUES[:, :-1]
    seen = [[1.0, 5.0, *wanted[real[:, t], t].tolist()] for t in range(3)]
    mean, deviation = torch.tensor([mean_and_deviation(of_step) for of_step in seen], dtype=DOUBLE).unbind(1)
    assert returns.count.tolist() == [4.0, 4.0, 3.0, *[0.0] * 6]
    torch.testing.assert_close(returns.mean[:3], mean)
    torch.testing.assert_close(returns.deviation[:3], deviation)
    torch.testing.assert_close(((wanted - mean) / deviation)[real], targets[real])

    about_mean = (wanted - mean)[real].square().sum()
    assert explained == pytest.approx(1.0 - (should[real].square().sum() / about_mean).item())

    rows = [list(row) for row in expected]
    groups = rows if over == "task" else [rows[0] + rows[1]]
    by_hand = []
    for group in groups:
        average, spread = mean_and_deviation(group)
        by_hand += [(a - average) / spread for a in group]
    torch.testing.assert_close(standardised[real], torch.tensor(by_hand, dtype=DOUBLE), rtol=1e-6, atol=1e-9)
    assert not bool(standardised[~real].any())
