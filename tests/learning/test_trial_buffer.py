"""The buffer of trials: the oldest go, and a checkpoint holds all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metarl.learning.trial_buffer import TrialBuffer
from metarl.learning.trials import Trials
from metarl.ranks import ALONE
from tests.helpers.trials import CPU, SCRIPT


def trials(*numbers: float, steps: int = 4) -> tuple[Trials, torch.Tensor]:
    """Return trials in which everything is their number, with the last observations of their three episodes."""
    rows = torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, steps)
    made = Trials(
        observations=rows[..., None],
        actions=-rows[..., None],
        rewards=10.0 * rows,
        ended=torch.zeros_like(rows),
        mask=torch.ones_like(rows),
        final=rows[:, :1],
        cut=torch.ones(len(rows), dtype=torch.bool),
    )
    return made, rows[:, :1, None].expand(-1, 3, -1)


def inside(buffer: TrialBuffer) -> list[float]:
    return buffer.take(torch.arange(buffer.count), 4)[0].rewards[:, 0].tolist()


def test_the_oldest_make_room() -> None:
    buffer = TrialBuffer(4, SCRIPT, 3, CPU)
    buffer.add(*trials(1, 2, 3), ALONE)
    assert (buffer.count, inside(buffer)) == (3, [10, 20, 30])
    buffer.add(*trials(4, 5, 6, steps=2), ALONE)
    assert (buffer.count, inside(buffer)) == (4, [50, 60, 30, 40])
    assert buffer.lengths.tolist() == [2, 2, 4, 2]
    buffer.add(*trials(*range(7, 13)), ALONE)
    assert sorted(inside(buffer)) == [90, 100, 110, 120]
    found, finals = buffer.take(torch.tensor([2]), 3)
    assert found.observations.shape == (1, 3, 1)
    assert found.final.tolist() == finals[:, -1].tolist()


def test_it_goes_round_and_on() -> None:
    buffer, other = (TrialBuffer(4, SCRIPT, 3, CPU) for _ in range(2))
    other.load_state_dict(buffer.state_dict())
    for first in (1.0, 4.0):
        buffer.add(*trials(first, first + 1, first + 2), ALONE)
        other.load_state_dict(buffer.state_dict())
        assert inside(other) == inside(buffer)
        assert torch.equal(other.lengths, buffer.lengths)
    for one in (buffer, other):
        one.add(*trials(7), ALONE)
    assert inside(other) == inside(buffer)


def test_what_does_not_fit_is_refused() -> None:
    buffer = TrialBuffer(4, SCRIPT, 3, CPU)
    buffer.add(*trials(1, 2, 3), ALONE)
    state = buffer.state_dict()
    misfits = [
        TrialBuffer(2, SCRIPT, 3, CPU),
        TrialBuffer(4, SCRIPT, 2, CPU),
        TrialBuffer(4, replace(SCRIPT, action_size=2), 3, CPU),
    ]
    for other in misfits:
        with pytest.raises(ValueError, match="stored trials"):
            other.load_state_dict(state)
    for place in (4, 2, -1, 1.5):
        with pytest.raises(ValueError, match=f"place {place}"):
            buffer.load_state_dict({**state, "place": place})
