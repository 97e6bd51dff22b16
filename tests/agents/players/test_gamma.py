"""Draws from gamma distributions."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from metarl.agents.players.gamma import draw_gamma
from tests.helpers.toys import DOUBLE
from tests.helpers.toys import seeded as generator


@pytest.mark.parametrize("shape", [1.0, 1.5, 4.0, 120.0])
def test_gamma_draws(shape: float) -> None:
    drawn = draw_gamma(torch.full((100, 200), shape, dtype=DOUBLE), generator())
    assert drawn.shape == (100, 200)
    assert stats.kstest(drawn.flatten().numpy(), stats.gamma(shape).cdf).pvalue > 1e-3
