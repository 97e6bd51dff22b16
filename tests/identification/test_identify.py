"""Identification: known parameters are found again, and what a log cannot tell is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import metarl
from metarl.api.identification import Identification
from metarl.envs.family import Family
from metarl.envs.modifiers.apply import modify
from metarl.envs.modifiers.delay import Delay
from metarl.envs.modifiers.sensors import Bias, Noise
from metarl.errors import UserError
from metarl.identification.fitting import check_log
from metarl.identification.log import Log
from tests.helpers.swing import COLOUR, DAMPING, GAIN, STIFFNESS, TARGET, WIRED, Blind, Swing, factor, logged

TRUTH = {"stiffness": 1.4, "damping": 0.7, "gain": 0.8}


def found(log: Log, family: Family, **settings: Any) -> Identification:
    return metarl.identify(
        log, family, **{"progress": False, "draws": 500, "segments": 32, "population": 48} | settings
    )


def one(result: Identification, name: str) -> Any:
    return next(row for row in result.quantities if row.name == name)


def test_known_parameters_are_found_again() -> None:
    family = Swing()
    result = found(logged(family, TRUTH, 1, noise=0.01), family)
    for name, truth in TRUTH.items():
        row = one(result, name)
        assert row.lower <= truth <= row.upper
        assert row.upper / row.lower < 1.2
        assert (row.told, row.truth) == ("yes", pytest.approx(truth))
        assert row.lower >= result.ranges[name][0] >= 0.9 * row.lower
    assert (result.warning, result.modes) == ("", [1.0])
    # So is the sensors' noise.
    assert [row["noise"] for row in result.fit] == pytest.approx([0.01, 0.01], rel=0.25)
    # The same again; in the last bits linear algebra depends on where arrays lie in memory, which is not told.
    again = found(logged(family, TRUTH, 1, noise=0.01), family)
    assert again.as_plain() == result.as_plain()


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 36 true values some 32 are in a 90% interval; 27 or fewer would have a probability of 1%."""
    family = Swing()
    inside = 0
    for seed in range(12):
        truth = family.space.sample(1, "test", torch.Generator().manual_seed(seed)).records()[0]
        result = found(logged(family, truth, seed, noise=0.02), family, seed=seed)  # pyright: ignore[reportArgumentType]
        inside += sum(row.lower <= row.truth <= row.upper for row in result.quantities if row.truth is not None)
    assert inside >= 28


def test_what_a_log_cannot_tell_is_said() -> None:
    family = Swing(parameters=(STIFFNESS, COLOUR, TARGET))
    truth = {"stiffness": 1.4, "colour": 0.5, "target": 0.4}
    blind = found(logged(family, truth), family)
    assert [one(blind, name).told for name in truth] == ["yes", "no", "no"]
    assert set(blind.ranges) == {"stiffness"}
    assert "cannot tell colour, target" in "\n".join(blind.notes())
    # Rewards tell what is wanted.
    paid = found(logged(family, truth, rewards=True), family)
    assert [one(paid, name).told for name in truth] == ["yes", "no", "yes"]
    assert one(paid, "target").lower <= 0.4 <= one(paid, "target").upper


def test_what_is_told_together_only_is_said() -> None:
    family = Swing(parameters=(STIFFNESS, GAIN, factor("mass")))
    result = found(logged(family, {"stiffness": 1.0, "gain": 1.1, "mass": 1.2}, noise=0.01), family)
    assert one(result, "gain").told != "yes"
    (pair,) = result.together
    assert set(pair[:2]) == {"gain", "mass"}
    assert pair[2] > 0.95
    assert "are told together only (correlation" in "\n".join(result.notes())


def test_choices_are_told_too() -> None:
    family = Swing(parameters=(WIRED, DAMPING))
    result = found(logged(family, {"wired": -1.0, "damping": 1.2}), family)
    assert one(result, "wired").probabilities == {"-1": pytest.approx(1.0), "1": pytest.approx(0.0)}
    assert result.ranges["wired"] == (-1.0,)
    assert one(result, "damping").told == "yes"
    alone = found(logged(Swing(parameters=(WIRED,)), {"wired": 1.0}, noise=0.01), Swing(parameters=(WIRED,)))
    assert one(alone, "wired").probabilities == {"-1": 0.0, "1": 1.0}


def test_a_value_outside_of_the_range_is_told_to_be_at_its_end() -> None:
    family = Swing()
    result = found(logged(family, TRUTH | {"gain": 3.0}), family, anyway=True)
    assert "gain is at the upper end of its range: widen it" in "\n".join(result.notes())


def test_messages_that_come_late_are_told() -> None:
    family = modify(Swing(parameters=(GAIN,)), Delay(low=0, high=2, way="action"))
    log = logged(family, {"gain": 1.3, "action_delay": 1.0, "delay_jitter": 0.0}, noise=0.01)
    result = found(log, family)
    assert one(result, "action_delay").probabilities == pytest.approx({"0": 0.0, "1": 1.0, "2": 0.0})
    assert one(result, "gain").lower <= 1.3 <= one(result, "gain").upper
    assert result.ranges["action_delay"] == (1.0,)
    assert "+delay=1..1,action" in result.narrowed


def test_sensors_that_are_off_are_told() -> None:
    family = modify(Swing(parameters=(STIFFNESS,)), Bias())
    truth = {"stiffness": 0.8, "angle_bias": 0.01, "turn_bias": -0.06}
    result = found(logged(family, truth, noise=0.001), family)
    for name, value in truth.items():
        row = one(result, name)
        assert row.told == "yes"
        assert row.lower <= value <= row.upper
    # A level of 1 is 0.02 rad, and 0.1 rad/s: the modifier's range holds 0.5 and -0.6.
    bias = get_modifier(result.narrowed)
    assert -0.75 < bias[0] < -0.6 < 0.5 < bias[1] < 0.75


def get_modifier(name: str) -> tuple[float, float]:
    low, _, high = name.rpartition("+bias=")[2].partition("..")
    return float(low), float(high)


@pytest.mark.parametrize("modifier", [Noise(), Delay(low=0, high=2, way="observation"), Delay(low=0, high=2)])
def test_observations_that_depend_on_more_than_the_state_are_refused(modifier: Noise | Delay) -> None:
    log = logged(Swing(parameters=(GAIN,)), {"gain": 1.0})
    with pytest.raises(UserError, match=r"Leave noise of sensors out .* and take \+delay=action for delays"):
        found(log, modify(Swing(parameters=(GAIN,)), modifier))


def test_states_that_are_not_seen_are_taken_from_the_log() -> None:
    family, truth = Blind(parameters=(STIFFNESS,)), {"stiffness": 1.3}
    for states, how in (("start", "first states of the log's episodes"), ("state", "states of the log")):
        result = found(logged(family, truth, episodes=12, noise=0.002, states=states), family)
        assert result.facts["states"] == how
        assert one(result, "stiffness").told == "yes"
        assert one(result, "stiffness").lower <= 1.3 <= one(result, "stiffness").upper
    with pytest.raises(UserError, match=r"and the log has no state\.pose nor start\.pose\. Record one of them\."):
        found(logged(family, truth), family)


WRONG = {
    "family": (lambda log: replace(log, family="pendulum@v1"), "is of the family pendulum@v1"),
    "sizes": (lambda log: replace(log, actions=np.zeros((180, 2))), "has actions of 2 numbers, and swing@test has 1"),
    "rate": (lambda log: replace(log, step_seconds=0.02), "has a step of 0.02 s, and swing@test of 0.05 s"),
    "bounds": (lambda log: replace(log, actions=30.0 * log.actions), "and swing@test takes -1 to 1 N m"),
    "short": (lambda log: logged_steps(4), "the longest episode has 4 steps, and a segment needs 5. Give longer"),
    "another system": (lambda log: swapped(log), "so it is of another system"),
}  # fmt: skip


def swapped(log: Log) -> Log:
    return replace(log, observations=log.observations[:, ::-1].copy())


def logged_steps(steps: int) -> Log:
    return logged(Swing(parameters=(STIFFNESS, DAMPING), horizon=steps), {"stiffness": 1.0, "damping": 1.0})


@pytest.mark.parametrize("case", WRONG)
def test_a_log_that_does_not_fit_is_refused(case: str) -> None:
    spoil, says = WRONG[case]
    family = Swing(parameters=(STIFFNESS, DAMPING))
    with pytest.raises(UserError) as wrong:
        found(spoil(logged(family, {"stiffness": 1.0, "damping": 1.0})), family)
    assert says in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_log_may_name_its_family_without_the_variant() -> None:
    family = Swing(parameters=(STIFFNESS, DAMPING))
    log = logged(family, {"stiffness": 1.0, "damping": 1.0})
    check_log(replace(log, family="swing"), family)
    cheetah, ant = (replace(log, family=name) for name in ("half-cheetah-vel", "ant-dir"))
    # Its sizes are another matter, and come later.
    with pytest.raises(UserError, match=r"has observations of 2 numbers, and half-cheetah-vel@v5 has 17"):
        check_log(cheetah, metarl.envs.get("half-cheetah-vel"))
    with pytest.raises(UserError, match=r"is of the family ant-dir, .* Give --family ant-dir@.*, with modifiers"):
        check_log(ant, metarl.envs.get("half-cheetah-vel"))
    with pytest.raises(UserError, match=r"which is a file\. Name a folder"):
        found(log, family, out=__file__)


def test_a_log_that_fits_badly_is_warned_of() -> None:
    """Degrees in place of radians."""
    family = Swing(parameters=(STIFFNESS, DAMPING))
    log = logged(family, {"stiffness": 1.0, "damping": 1.0})
    scaled = replace(log, observations=57.3 * log.observations, final_observations=57.3 * log.final_observations)
    result = found(scaled, family, anyway=True)
    assert "something of the system is not in the family, and intervals may be too narrow" in result.warning


def test_what_cannot_be_asked_is_refused() -> None:
    family = Swing()
    log = logged(family, TRUTH)
    many = Swing(parameters=(STIFFNESS, replace(COLOUR, size=8)))
    with pytest.raises(UserError, match=r"Got --population 16, and 12 numbers are fitted to it. Give 24 or more"):
        # Two numbers of a start, nine of a task, and the height of a line.
        found(log, many, population=16)
    with pytest.raises(UserError, match="Give --family, for a robot its file"):
        metarl.identify(log)


def test_one_task_of_several_is_chosen() -> None:
    family = Swing()
    first, second = (logged(family, TRUTH | {"gain": gain}) for gain in (0.8, 1.6))
    both = replace(
        first,
        lengths=np.concatenate((second.lengths, first.lengths)),
        observations=np.concatenate((second.observations, first.observations)),
        actions=np.concatenate((second.actions, first.actions)),
        final_observations=np.concatenate((second.final_observations, first.final_observations)),
        tasks={name: np.concatenate((second.tasks[name], first.tasks[name])) for name in TRUTH},
    )
    with pytest.raises(UserError, match=r"has episodes of 2 tasks. Give --task 0 to 1\."):
        found(both, family)
    with pytest.raises(UserError, match=r"Got --task 2 for the log, which has 2 tasks"):
        found(both, family, task=2)
    assert one(found(both, family, task=1), "gain").truth == pytest.approx(0.8)
