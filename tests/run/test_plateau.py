from __future__ import annotations

import pytest

from metarl.run.plateau import at_plateau, end_said, plateau_said, training_said
from metarl.run.standing import Standing


def standing(waited: int, iteration: int = 40, rises: int = 1) -> Standing:
    return Standing(iteration=iteration, reference=[1.0, 2.0], waited=waited, rises=rises)


@pytest.mark.parametrize(("waited", "patience", "at"), [(0, 0, False), (9, 0, False), (2, 3, False), (3, 3, True)])
def test_a_plateau_is_as_many_checkpoints_as_the_patience(waited: int, patience: int, at: bool) -> None:
    assert at_plateau(standing(waited), patience) == at


def test_what_is_said_of_a_plateau_names_what_lets_it_go_on() -> None:
    said = plateau_said(standing(3), 100, "runs/a")
    assert said == (
        "runs/a is at its plateau after 40 iterations: 3 checkpoints in a row did not raise its validation. Go on all "
        "the same with: metarl train --resume runs/a --patience 6 (0: never end by it)"
    )
    # At its last iteration it needs more of these too.
    assert "--resume runs/a --patience 2 --iterations 80 (0" in plateau_said(standing(1), 40, "runs/a")


def test_a_run_that_never_rose_is_at_no_plateau() -> None:
    assert plateau_said(standing(3, rises=0), 100, "runs/a") == (
        "runs/a has ended after 40 iterations: 3 checkpoints did not raise its validation above that of the first "
        "one. Where learning begins late this is no plateau. Go on with: metarl train --resume runs/a --patience 6 (0: "
        "never end by it)"
    )
    assert training_said([(standing(3, rises=0), 3)]) == "stopped before its validation ever rose, after 40 iterations"


def test_a_run_that_ends_before_its_plateau_says_when_it_rose() -> None:
    more = "it may rise further. Go on with: metarl train --resume runs/a --iterations 80"
    assert end_said(standing(0), 3, "runs/a") == f"Its validation rose at its last checkpoint: {more}"
    assert end_said(standing(2), 3, "runs/a") == f"Its validation rose 2 checkpoints before its last: {more}"
    assert end_said(standing(0), 0, "runs/a") == f"Its validation rose at its last checkpoint: {more}"
    # Nothing is known where nobody waits, or nothing was validated.
    assert end_said(standing(1), 0, "runs/a") == ""
    assert end_said(Standing(iteration=40), 0, "runs/a") == ""


def test_trainings_are_told_by_how_they_ended() -> None:
    assert training_said([(standing(3), 3)]) == "stopped at its plateau after 40 iterations"
    assert training_said([(standing(2), 3)]) == "not yet at its plateau after 40 iterations"
    assert training_said([(standing(2), 0)]) == "trained without a stopping rule, for 40 iterations"
    assert training_said([(standing(0, 1), 0)]) == "trained without a stopping rule, for 1 iteration"
    several = [(standing(3), 3), (standing(0), 3), (standing(4, 90), 3)]
    assert training_said(several) == (
        "stopped at its plateau after 40, 90 iterations; not yet at its plateau after 40 iterations"
    )
