from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.errors import UserError
from metarl.run.glossary import GLOSSARY, look_up
from metarl.run.tracking import Tracker, read_progress


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_every_metric_is_explained() -> None:
    for tag, metric in GLOSSARY.items():
        assert metric.meaning, tag
        assert look_up(tag) is metric


def test_reward_terms_are_known_by_their_prefix_only() -> None:
    assert look_up("reward/velocity") is GLOSSARY["reward/<term>"]
    for tag in ("reward/", "reward/a/b", "return/velocity", "reward"):
        with pytest.raises(ValueError, match=r"not in glossary\.GLOSSARY"):
            look_up(tag)


def test_metrics_reach_tensorboard_and_the_csv(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"return/post": -1.5})
        tracker.log(2, {"return/post": -0.1, "reward/goal": float("nan")})
        tracker.log(3, {"return/post": 0.5})
    assert scalars(tmp_path, "return/post") == [(1, -1.5), (2, pytest.approx(-0.1)), (3, 0.5)]
    assert (tmp_path / "progress.csv").read_text() == "step,return/post,reward/goal\n1,-1.5,\n2,-0.1,nan\n3,0.5,\n"
    assert [row["return/post"] for row in read_progress(tmp_path)] == [-1.5, -0.1, 0.5]


def test_an_unknown_metric_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        with pytest.raises(ValueError, match="Did you mean 'return/post'"):
            tracker.log(1, {"return/pre": 0.0, "return/pots": 1.0})
        tracker.log(1, {"return/pre": 2.0})
    assert scalars(tmp_path, "return/pre") == [(1, 2.0)]
    assert read_progress(tmp_path) == [{"step": 1.0, "return/pre": 2.0}]


def test_resuming_drops_what_came_after_the_step(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        for step in range(1, 6):
            tracker.log(step, {"return/post": float(step)})
    with (tmp_path / "progress.csv").open("a") as file:
        file.write("6,6")  # as a killed process leaves it
    with Tracker(tmp_path, resume_step=3) as tracker:
        tracker.log(4, {"return/post": 40.0, "update/kl": 0.01})
    assert scalars(tmp_path, "return/post") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert [row["return/post"] for row in read_progress(tmp_path)] == [1.0, 2.0, 3.0, 40.0]


def test_resuming_before_the_first_step_starts_again(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"return/post": 1.0})
    with Tracker(tmp_path, resume_step=0) as tracker:
        tracker.log(1, {"return/post": 2.0})
    assert scalars(tmp_path, "return/post") == [(1, 2.0)]
    assert [row["return/post"] for row in read_progress(tmp_path)] == [2.0]


def test_what_was_flushed_can_be_read_while_the_tracker_is_open(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"return/post": 1.0})
        tracker.flush()
        assert scalars(tmp_path, "return/post") == [(1, 1.0)]


@pytest.mark.parametrize("begin", ["\n", "1,2\n"])
def test_a_first_line_that_names_no_columns_is_said(begin: str, tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_text(begin + "step,return/post\n1,2.0\n")
    with pytest.raises(UserError, match=r"is damaged \(its first line does not name the column 'step'\)"):
        read_progress(tmp_path)
