"""When a training is at its plateau, and what is said of it.

A run with a validation counts the checkpoints in a row that did not raise it (metarl/evaluation/validation.py says what
raises it). When these are as many as its patience, it is at its plateau, and ends. The count, and what it is counted
against, are in every checkpoint. Only checkpoints after a full interval count, so that a run which is made longer piece
by piece comes to the same end as one in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence

from metarl.run.standing import Standing


def at_plateau(standing: Standing, patience: int) -> bool:
    """Tell whether a run has waited for as many checkpoints as it is to."""
    return 0 < patience <= standing.waited


def plateau_said(standing: Standing, iterations: int, where: str) -> str:
    """Return in words that a run is at its plateau, and how it can go on all the same.

    Args:
        standing: where it stands.
        iterations: that it was asked for.
        where: the run folder.
    """
    more = f" --iterations {2 * iterations}" if standing.iteration >= iterations else ""
    go_on = f"metarl train --resume {where} --patience {2 * standing.waited}{more} (0: never end by it)"
    if not standing.rises:
        return (
            f"{where} has ended after {standing.iteration} iterations: {_checkpoints(standing.waited)} did not raise "
            "its validation above that of the first one. Where learning begins late this is no plateau. Go on with: "
            f"{go_on}"
        )
    return (
        f"{where} is at its plateau after {standing.iteration} iterations: {_checkpoints(standing.waited)} in a row "
        f"did not raise its validation. Go on all the same with: {go_on}"
    )


def end_said(standing: Standing, patience: int, where: str) -> str:
    """Return in words that a run with a validation has ended before its plateau; nothing where that cannot be said.

    Args:
        standing: where it stands.
        patience: of the run; 0 for none.
        where: the run folder.
    """
    if not standing.reference or standing.waited >= max(patience, 1):
        return ""
    last = f"{_checkpoints(standing.waited)} before its last" if standing.waited else "at its last checkpoint"
    return (
        f"Its validation rose {last}: it may rise further. Go on with: metarl train --resume {where} --iterations "
        f"{2 * standing.iteration}"
    )


def training_said(endings: Sequence[tuple[Standing, int]]) -> str:
    """Return in some words whether trainings came to their plateau.

    Args:
        endings: where each stood in the end, and its patience.
    """
    by_kind: dict[str, list[str]] = {}
    for standing, patience in endings:
        if patience == 0:
            kind = "trained without a stopping rule, for"
        elif not at_plateau(standing, patience):
            kind = "not yet at its plateau after"
        elif standing.rises:
            kind = "stopped at its plateau after"
        else:
            kind = "stopped before its validation ever rose, after"
        by_kind.setdefault(kind, []).append(str(standing.iteration))
    return "; ".join(
        f"{kind} {', '.join(found)} iteration{'' if found == ['1'] else 's'}" for kind, found in by_kind.items()
    )


def _checkpoints(count: int) -> str:
    return f"{count} checkpoint{'' if count == 1 else 's'}"
