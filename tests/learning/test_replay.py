"""What is kept of what was played, and what can be drawn of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.learning.replay import Replay, row_size, steps_of
from tests.helpers.kept import episodes
from tests.helpers.toys import DOUBLE, seeded

CPU = torch.device("cpu")


def replay(tasks: int = 2, capacity: int = 10) -> Replay:
    return Replay(tasks, capacity, 1, 1, CPU, DOUBLE)


def rewards(kept: Replay, task: int, *, context: bool = False) -> list[float]:
    """Return the rewards that can be drawn of a task, the oldest first."""
    windows = kept.windows(context=context)
    count = int(windows[1][task])
    chances = ((torch.arange(count, dtype=DOUBLE) + 0.5) / max(count, 1))[None]
    return kept.take(torch.tensor([task]), chances, windows).reward.flatten().tolist()


def test_steps_end_with_the_final_observation_and_a_time_limit_is_no_terminal_state() -> None:
    for terminated in (False, True):
        found = steps_of(episodes([[3, 2]], terminated=terminated))
        assert found.next_observation[0, 0].flatten().tolist() == [1.0, 2.0, 3.0]
        assert found.next_observation[0, 1, :2].flatten().tolist() == [101.0, 102.0]
        assert found.terminal[0, 0].flatten().tolist() == [0.0, 0.0, float(terminated)]
        assert found.terminal[0, 1].flatten().tolist() == [0.0, float(terminated), 0.0]


def test_what_was_done_is_kept_not_what_was_asked_for() -> None:
    played = episodes([[2]])
    played.actions[0, 0, 1] = -7.0
    assert steps_of(played).action.flatten().tolist() == [0.0, -1.0]


def test_real_steps_are_kept_with_their_task_and_the_oldest_go_first() -> None:
    kept = replay()
    kept.add([1, 0], episodes([[3, 2], [1, 3]]), context=False)
    assert rewards(kept, 1) == [0.0, 1.0, 2.0, 100.0, 101.0]
    assert rewards(kept, 0) == [200.0, 300.0, 301.0, 302.0]
    kept.add([1, 1], episodes([[4], [3]], first=500.0), context=False)
    assert rewards(kept, 1) == [2.0, 100.0, 101.0, 500.0, 501.0, 502.0, 503.0, 600.0, 601.0, 602.0]
    assert kept.held.tolist() == [4, 10]
    taken = kept.take(torch.tensor([1]), torch.tensor([[0.0, 0.35]], dtype=DOUBLE), kept.windows(context=False))
    assert taken.observation.flatten().tolist() == [2.0, 500.0]
    assert taken.next_observation.flatten().tolist() == [3.0, 501.0]


def test_context_is_what_was_added_as_such_since_it_was_forgotten() -> None:
    kept = replay()
    kept.add([0, 1], episodes([[3], [2]]), context=True)
    assert rewards(kept, 0, context=True) == [0.0, 1.0, 2.0]
    kept.add([0], episodes([[2]], first=300.0), context=False)
    assert rewards(kept, 0, context=True) == [0.0, 1.0, 2.0]
    kept.forget_context([0])
    kept.add([0], episodes([[2]], first=400.0), context=True)
    kept.add([0], episodes([[2]], first=500.0), context=True)
    kept.add([0], episodes([[4]], first=600.0), context=False)
    # Around the end of the ring.
    assert rewards(kept, 0, context=True) == [400.0, 401.0, 500.0, 501.0]
    assert rewards(kept, 0) == [300.0, 301.0, 400.0, 401.0, 500.0, 501.0, 600.0, 601.0, 602.0, 603.0]
    assert rewards(kept, 1, context=True) == [100.0, 101.0]


def test_what_would_be_lost_is_refused() -> None:
    with pytest.raises(ValueError, match="11 steps more than a replay of 10"):
        replay().add([0], episodes([[6, 5]]), context=False)
    kept = replay()
    kept.add([0], episodes([[6]]), context=True)
    with pytest.raises(ValueError, match="beside its context"):
        kept.add([0], episodes([[5]]), context=False)


def test_steps_are_drawn_evenly_and_a_chance_of_almost_1_is_one_of_them() -> None:
    kept = replay()
    kept.add([0], episodes([[5]]), context=False)
    chances = torch.rand(1, 5000, generator=seeded(), dtype=DOUBLE)
    drawn = kept.take(torch.tensor([0]), chances, kept.windows(context=False)).reward
    assert all(900 < int((drawn == value).sum()) < 1100 for value in range(5))
    almost = torch.tensor([[1.0]], dtype=DOUBLE)
    assert float(kept.take(torch.tensor([0]), almost, kept.windows(context=False)).reward) == 4.0


def test_it_comes_back_from_its_state_and_goes_on_the_same() -> None:
    first, second = replay(), replay()
    for begin in (0.0, 700.0):
        first.forget_context([0])
        first.add([0, 1], episodes([[4], [3]], first=begin), context=True)
    state = first.state_dict()
    # As much as is there.
    assert state["rows"].shape == (2, 8, row_size(1, 1))
    second.load_state_dict(state)
    for kept in (first, second):
        kept.add([0], episodes([[5]], first=900.0), context=False)
    for task in range(2):
        for context in (False, True):
            assert rewards(first, task, context=context) == rewards(second, task, context=context)
    # A copy, which does not change any more.
    assert float(state["rows"][0, 0, 2]) == 0.0


def changed(**entries: Any) -> dict[str, Any]:
    kept = replay()
    kept.add([0, 1], episodes([[4], [3]]), context=True)
    return {**kept.state_dict(), **entries}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "other entries"),
        (changed(more=1), "other entries"),
        (changed(added=torch.tensor([4.0, 3.0])), "no added of 2 tasks"),
        (changed(context=torch.tensor([4])), "no context of 2 tasks"),
        (changed(first=[0, 0]), "no first of 2 tasks"),
        (changed(rows=torch.zeros(2, 5, 5, dtype=DOUBLE)), "no 4 steps of 2 tasks with 5 numbers"),
        (changed(added=torch.tensor([9, 3])), "no 9 steps"),
        (changed(added=torch.tensor([-4, 4])), "a context outside"),
        (changed(rows=torch.zeros(2, 4, 5)), "no torch.float64"),
        (changed(rows=torch.full((2, 4, 5), torch.inf, dtype=DOUBLE)), "not finite"),
        (changed(context=torch.tensor([5, 3])), "a context outside"),
        (changed(context=torch.tensor([-1, 3])), "a context outside"),
        (changed(first=torch.tensor([1, 0])), "a context outside"),
        (changed(first=torch.tensor([-1, 0])), "a context outside"),
    ],
)
def test_what_is_no_state_of_it_is_refused(state: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replay().load_state_dict(state)
