"""The evidence's lower bound by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from metarl.learning.elbo import Bound, Chance, at, draw, kl_to_previous, spread_out
from metarl.nets.policy import Normal
from metarl.ranks import Ranks
from tests.helpers.toys import DOUBLE, seeded

# q_0 = N(0, 1), q_1 = N(1, .25), q_2 = q_1, of one number.
MEAN = torch.tensor([0.0, 1.0, 1.0], dtype=DOUBLE)[None, :, None]
LOG_STD = torch.tensor([1.0, 0.5, 0.5], dtype=DOUBLE).log()[None, :, None]
NOWHERE = Normal(MEAN[:, :1], LOG_STD[:, :1])


def test_varibad_kls_to_the_belief_before() -> None:
    kls = kl_to_previous(Normal(MEAN, LOG_STD))
    assert kls.tolist() == [pytest.approx([0.0, 0.8181, 0.0], abs=5e-5)]


def test_varibad_elbo_of_the_exact_posterior_of_two_coins_is_the_log_evidence() -> None:
    # A task's coin gives 1 in .9 or in .1 of throws; it gave 1. The posterior is .9 to .1, from .5 each.
    logits = torch.tensor([9.0, 1.0 / 9.0], dtype=DOUBLE).log()
    posterior = torch.tensor([0.9, 0.1], dtype=DOUBLE)
    error = posterior @ binary_cross_entropy_with_logits(logits, torch.ones(2, dtype=DOUBLE), reduction="none")
    kl = posterior @ (posterior / 0.5).log()
    bound = Bound(errors={"reward": error[None]}, kl=kl[None], last=NOWHERE)
    assert float(-bound.loss(1.0)) == pytest.approx(math.log(0.5))


def test_all_places_are_taken_where_there_are_no_more() -> None:
    places, weights = spread_out(torch.rand(2, 4, generator=seeded()), torch.tensor([3, 1]), 3)
    assert places.tolist() == [[0, 1, 2]] * 2
    assert weights.tolist() == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]


def test_some_places_stand_for_all_on_average() -> None:
    lengths = torch.tensor([7, 3, 1, 10])
    values = torch.arange(10, dtype=DOUBLE).square()[None].expand(4, -1)
    chance = torch.rand(4, 4000 * 3, generator=seeded(), dtype=DOUBLE).view(4, 4000, 3)
    totals = torch.zeros(4, dtype=DOUBLE)
    for one in chance.unbind(1):
        places, weights = spread_out(one, lengths, 10)
        assert bool((places < lengths[:, None]).all())
        # One in each third.
        assert bool((places[3] * 3 // 10 <= torch.arange(3)).all())
        totals += (values.gather(1, places) * weights).sum(1) / 4000
    torch.testing.assert_close(totals, torch.tensor([91.0, 5.0, 0.0, 285.0], dtype=DOUBLE), rtol=0.02, atol=0.0)
    # The largest chance there is stays within the trial.
    places, _ = spread_out(torch.ones(1, 3), torch.tensor([10]), 10)
    assert places[0, -1] == 9


def test_rows_are_found_at_their_places() -> None:
    rows = torch.arange(12.0).view(2, 3, 2)
    assert at(rows, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_a_rank_takes_its_own_trials_and_counts_none_where_none_are_left() -> None:
    chance = draw(5, trials=2, moments=3, steps=4, latent=1, generator=seeded())
    assert [part.shape for part in chance] == [(2,), (2, 3), (2, 4), (2, 3, 1)]
    found = [chance.of(Ranks(rank=rank, size=3)) for rank in range(3)]
    assert [counted for _, counted in found] == [1.0, 1.0, 0.0]
    assert [own.rows.tolist() for own, _ in found] == [[int(row)] for row in (*chance.rows, chance.rows[0])]
    assert torch.equal(found[1][0].noise, chance.noise[1:])
    assert isinstance(found[2][0], Chance)
    # No trial stands in a batch twice, and no more are drawn than there are.
    assert sorted(draw(3, trials=9, moments=1, steps=1, latent=1, generator=seeded()).rows.tolist()) == [0, 1, 2]
