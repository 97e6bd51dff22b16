"""Gittins indices against published and exact values."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch

from metarl.agents.players.gittins import gittins_indices
from tests.helpers.toys import DOUBLE


def test_discounted_indices_are_those_of_gittins_table() -> None:
    # Discount 0.9: successes a and failures b, prior included, from 1 to 4 (Gittins 1989, table 8.1).
    known = torch.tensor(
        [
            [0.7029, 0.5001, 0.3796, 0.3021],
            [0.8001, 0.6346, 0.5163, 0.4342],
            [0.8452, 0.7072, 0.6010, 0.5184],
            [0.8723, 0.7539, 0.6579, 0.5809],
        ],
        dtype=DOUBLE,
    )
    table = gittins_indices(86, 0.9)[80]
    torch.testing.assert_close(table[:4, :4], known, rtol=0.0, atol=2e-4)


def test_indices_of_the_last_pulls_by_hand() -> None:
    tables = gittins_indices(20)
    for successes, failures in itertools.product(range(4), range(4)):
        mean = (successes + 1.0) / (successes + failures + 2.0)
        assert tables[1][successes, failures].item() == pytest.approx(mean, abs=1e-9)
    # Two pulls of a fresh arm: 2 λ = 1/2 (1 + 2/3) + 1/2 λ, since after a failure its mean 1/3 is below λ.
    assert tables[2][0, 0].item() == pytest.approx(5.0 / 9.0, abs=1e-4)
    # After a failure, mean 1/3: 2 λ = 1/3 (1 + 1/2) + 2/3 λ.
    assert tables[2][0, 1].item() == pytest.approx(3.0 / 8.0, abs=1e-4)


@pytest.mark.parametrize(("successes", "failures", "left"), [(0, 0, 5), (1, 0, 6), (0, 2, 7), (3, 2, 6), (2, 5, 4)])
def test_indices_are_where_giving_up_is_as_good(successes: int, failures: int, left: int) -> None:
    known = gittins_indices(15)[left][successes, failures].item()

    @cache
    def value(a: int, b: int, pulls: int) -> float:
        return 0.0 if pulls == 0 else max(pulls * known, go_on(a, b, pulls))

    def go_on(a: int, b: int, pulls: int) -> float:
        p = (a + 1.0) / (a + b + 2.0)
        return p * (1.0 + value(a + 1, b, pulls - 1)) + (1.0 - p) * value(a, b + 1, pulls - 1)

    assert go_on(successes, failures, left) == pytest.approx(left * known, abs=2e-3)


def test_a_longer_rest_is_worth_more_exploration() -> None:
    tables = gittins_indices(30)
    fresh = [tables[left][0, 0].item() for left in range(1, 31)]
    assert fresh == sorted(fresh)
    assert fresh[0] == pytest.approx(0.5)
    assert fresh[-1] > 0.7


def test_gittins_play_is_nearly_the_best_possible() -> None:
    # Exactly, by recursion over all beliefs about two arms.
    tables = gittins_indices(8)

    @cache
    def value(a: int, b: int, c: int, d: int, left: int, rule: str) -> float:
        if left == 0:
            return 0.0
        first, second = (a + 1.0) / (a + b + 2.0), (c + 1.0) / (c + d + 2.0)
        gains = (
            first * (1.0 + value(a + 1, b, c, d, left - 1, rule))
            + (1.0 - first) * value(a, b + 1, c, d, left - 1, rule),
            second * (1.0 + value(a, b, c + 1, d, left - 1, rule))
            + (1.0 - second) * value(a, b, c, d + 1, left - 1, rule),
        )
        if rule == "optimal":
            return max(gains)
        horizon = left if rule == "gittins" else 1
        return gains[int(tables[horizon][c, d] > tables[horizon][a, b] + 1e-9)]

    optimal, index, greedy = (value(0, 0, 0, 0, 8, rule) for rule in ("optimal", "gittins", "greedy"))
    assert optimal >= index > 0.999 * optimal
    assert greedy < index
