"""The rule that finds a plateau, by hand, and what is measured at a checkpoint."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metarl.envs import make_worlds
from metarl.errors import NotFiniteError
from metarl.evaluation.curve import adaptation_curve, parallel_episodes, steps_at_test
from metarl.evaluation.validation import VALIDATION_SEED, Validation, count, rises, trained_steps
from metarl.run.standing import Standing
from metarl.seeding import Streams
from tests.helpers.curves import FAMILY, TASKS, remembering, untrained


@pytest.mark.parametrize(
    ("difference", "higher"),
    [
        # All alike: the interval is that number.
        ([0.0] * 8, False),
        ([0.01] * 8, True),
        ([-0.01] * 8, False),
        # Resamples of two tasks are both the lower one in a quarter of the cases: that is the lower end.
        ([0.5, 3.0], True),
        ([-0.5, 3.0], False),
        # Mean 0.1, standard error 1 / sqrt(40) = 0.16: 0.1 - 1.96 * 0.16 < 0; with a mean of 0.5 it is above.
        ([1.1, -0.9] * 20, False),
        ([1.5, -0.5] * 20, True),
    ],
)
def test_a_rise_is_a_mean_difference_whose_interval_is_above_nothing(difference: list[float], higher: bool) -> None:
    reference = [100.0 * number for number in range(len(difference))]
    assert rises([a + b for a, b in zip(reference, difference, strict=True)], reference) == higher


def test_a_slow_creep_counts_once_it_has_added_up() -> None:
    standing, waits = Standing(), []
    for number in range(8):
        # Every checkpoint is 0.09 better, in the noise of ±1 over 40 tasks: up to 0.27 that is less than 1.96 * 0.16.
        noise = [0.0] * 40 if number == 0 else [1.0, -1.0] * 20
        count(standing, [0.09 * number + part for part in noise])
        waits.append(standing.waited)
    # The fourth step is above the first; after it what is compared has the same noise, and each step is a rise.
    assert waits == [0, 1, 2, 3, 0, 0, 0, 0]
    assert standing.rises == 4
    assert standing.reference == pytest.approx([1.63, -0.37] * 20)


def test_what_is_worse_or_the_same_waits_and_leaves_the_reference() -> None:
    standing = Standing()
    for returns in ([1.0, 2.0], [1.0, 2.0], [0.0, 5.0], [-9.0, -9.0]):
        count(standing, returns)
    # The first one is there to be risen above.
    assert (standing.reference, standing.waited, standing.rises) == ([1.0, 2.0], 3, 0)
    count(standing, [1.5, 2.5])
    assert (standing.reference, standing.waited, standing.rises) == ([1.5, 2.5], 0, 1)


def agent(*, pools: bool, trial: int = 1, **config: Any) -> Any:
    made: Any = untrained()
    made.pools, made.trial, made.config = pools, trial, SimpleNamespace(episodes=5, **config)
    return made


def test_an_agent_is_measured_where_its_training_leads() -> None:
    assert trained_steps(agent(pools=True)) == 0
    assert trained_steps(agent(pools=True, inner_steps=2)) == 2
    assert trained_steps(agent(pools=False, trial=3, inner_steps=2)) == 2
    assert trained_steps(agent(pools=False)) == 0
    # An evaluation goes on where no number is given.
    assert [steps_at_test(agent(pools=pools, trial=3)) for pools in (True, False)] == [3, 2]
    assert [parallel_episodes([agent(pools=pools)], 100) for pools in (True, False)] == [5, 4]


@pytest.mark.parametrize("memory", [True, False])
def test_the_same_is_measured_at_every_checkpoint(memory: bool) -> None:
    measured = remembering(2) if memory else untrained()
    episodes = parallel_episodes([measured], len(TASKS))
    validation = Validation(measured, TASKS, make_worlds(FAMILY, len(TASKS) * episodes, threads=1))
    standing = Standing()
    first = validation(standing, True)
    curve = adaptation_curve(
        measured,
        make_worlds(FAMILY, len(TASKS) * episodes, threads=1),
        TASKS,
        steps=trained_steps(measured),
        episodes=episodes,
        generator=Streams(VALIDATION_SEED)["validation"],
    )
    assert first == {
        "validation/return": float(curve.returns[-1].mean()),
        "validation/failures": 0.0,
        "validation/waited": 0.0,
    }
    assert standing.reference == curve.returns[-1].tolist()
    assert validation(standing, False) == first
    assert validation(standing, True) == {**first, "validation/waited": 1.0}


def test_nothing_is_measured_of_what_is_not_trained_yet() -> None:
    later: Any = untrained()
    later.begun = False
    standing = Standing()
    assert Validation(later, TASKS, None)(standing, True) == {}
    assert standing == Standing()


def test_returns_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(returns=torch.full((1, len(TASKS)), math.inf), success=None, failures=0)

    monkeypatch.setattr("metarl.evaluation.validation.adaptation_curve", lost)
    worlds = make_worlds(FAMILY, 2 * len(TASKS), threads=1)
    with pytest.raises(NotFiniteError, match="validation/return is inf"):
        Validation(untrained(), TASKS, worlds)(Standing(), True)
