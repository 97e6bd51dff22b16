from __future__ import annotations

from dataclasses import replace

import pytest

from metarl.evaluation.curve import Evaluation
from metarl.evaluation.summary import summarise, task_kind
from tests.helpers.curves import FAMILY, entry, made_up


def test_mean_and_iqm_by_hand() -> None:
    points = summarise(made_up())["agents"][0]["points"]
    assert [point["mean"] for point in points] == [-25.0, -15.0, -2.5]
    # Four values: one is cut at each end.
    assert [point["iqm"] for point in points] == [-25.0, -5.5, -2.5]
    assert all(point["lower"] < point["mean"] < point["upper"] for point in points)
    assert [point["gap_closed"] for point in points] == [None, None, None]


def test_gain_is_told_task_by_task() -> None:
    # Tasks that differ by hundreds, each of which gains from 9 to 11: the spread of the tasks is not that of the gain.
    returns = [[-100.0, -200.0, -300.0, -400.0], [-90.0, -191.0, -289.0, -390.0]]
    evaluation = Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(entry("maml-trpo", returns),))
    first, second = summarise(evaluation)["agents"][0]["points"]
    assert first["gain"] is None
    assert second["gain"] == 10.0
    assert 9.0 <= second["gain_lower"] < 10.0 < second["gain_upper"] <= 11.0
    assert second["upper"] - second["lower"] > 100.0


def test_gap_closed_by_hand() -> None:
    random = entry("random", [[-50.0, -50.0, -50.0, -50.0]])
    oracle = entry("oracle", [[-1.0, -1.0, 1.0, 1.0]])
    points = summarise(made_up(random=random, oracle=oracle))["agents"][0]["points"]
    # (agent + 50) / (0 + 50)
    assert [point["gap_closed"] for point in points] == pytest.approx([0.5, 0.7, 0.95])
    assert all(point["gap_lower"] < point["gap_closed"] < point["gap_upper"] for point in points)


def test_gap_from_another_floor_by_hand() -> None:
    random, floor = entry("random", [[-50.0] * 4]), entry("floor", [[-30.0, -30.0, -20.0, -20.0]])
    evaluation = replace(made_up(random=random, oracle=entry("oracle", [[0.0] * 4])), floor=floor)
    summary = summarise(evaluation)
    # (agent + 25) / (0 + 25)
    assert [point["gap_closed"] for point in summary["agents"][0]["points"]] == pytest.approx([0.0, 0.4, 0.9])
    assert (summary["floor"]["agent"], summary["floor"]["points"][0]["mean"]) == ("floor", -25.0)
    assert summary["random"]["points"][0]["mean"] == -50.0
    assert [entry.agent for entry in evaluation.everyone] == ["maml-trpo", "oracle", "floor", "random"]
    # Without an oracle there is no gap.
    assert all(
        point["gap_closed"] is None for point in summarise(replace(evaluation, oracle=None))["agents"][0]["points"]
    )


def test_gap_is_drawn_with_the_same_tasks_for_all() -> None:
    # Every task's gap is closed by half: whichever tasks are drawn, so is their mean's.
    random, oracle = [[-8.0, -40.0, -2.0, -100.0]], [[0.0, 0.0, 0.0, 0.0]]
    agent = entry("maml-trpo", [[-4.0, -20.0, -1.0, -50.0]])
    evaluation = Evaluation(
        family=FAMILY.full_name,
        split="test",
        seed=0,
        entries=(agent,),
        random=entry("random", random),
        oracle=entry("oracle", oracle),
    )
    point = summarise(evaluation)["agents"][0]["points"][0]
    assert [point["gap_lower"], point["gap_closed"], point["gap_upper"]] == pytest.approx([0.5, 0.5, 0.5])


def test_no_gap_without_an_oracle_above_random() -> None:
    same = [[-5.0, -5.0, -5.0, -5.0]]
    summary = summarise(made_up(random=entry("random", same), oracle=entry("oracle", same)))
    assert "not above the floor, -5: the gap closed is not defined" in summary["gap_note"]
    assert all(point["gap_closed"] is None for point in summary["agents"][0]["points"])


def test_seeds_are_pooled() -> None:
    agent = entry("maml-trpo", [[-1.0, -1.0, -1.0, -1.0]], [[-3.0, -3.0, -3.0, -3.0]])
    evaluation = Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(agent,))
    described = summarise(evaluation)["agents"][0]
    assert described["training_seeds"] == [0, 1]
    # Seeds are strata: each has no spread of its own.
    assert [described["points"][0][key] for key in ("lower", "mean", "upper")] == [-2.0, -2.0, -2.0]


def test_tasks_are_called_held_out_only_where_they_are() -> None:
    assert task_kind("test", coincide=False) == "held-out tasks"
    assert "held-out" not in task_kind("test", coincide=True)
    assert "coincide" in task_kind("test", coincide=True)
    assert task_kind("ood", coincide=True) == "out-of-distribution tasks"
