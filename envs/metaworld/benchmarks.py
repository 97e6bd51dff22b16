"""Meta-World's classes and benchmarks by name (Meta-World 3.1.1, metaworld/env_dict.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLASSES = _names(
    """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side
    handle-press handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide
    plate-slide-side plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push
    stick-pull push push-wall push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
    """
)
"""Its fifty classes, in the order of the numbers that it gives them."""
GOALS = 50
"""Tasks of a class in a set."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Which classes are for training, and which for tests."""

    train: tuple[str, ...]
    """Classes of the train tasks, in Meta-World's order."""
    test: tuple[str, ...]
    """Classes of the test tasks, in Meta-World's order."""

    @property
    def classes(self) -> tuple[str, ...]:
        """All of them, each once, in the order of their numbers."""
        return tuple(name for name in CLASSES if name in (*self.train, *self.test))


BENCHMARKS = {
    "ml10": Benchmark(
        train=_names(
            """
            reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open
            sweep basketball
            """
        ),
        test=_names("drawer-open door-close shelf-place sweep-into lever-pull"),
    ),
    "ml25": Benchmark(
        train=_names(
            """
            reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side
            window-open window-close coffee-pull pick-out-of-hole disassemble pick-place-wall basketball
            stick-pull button-press-wall faucet-open door-lock lever-pull sweep-into faucet-close
            coffee-button button-press-topdown-wall dial-turn
            """
        ),
        test=_names("basketball door-close shelf-place sweep button-press"),
    ),
    "ml45": Benchmark(
        train=_names(
            """
            assembly basketball button-press-topdown button-press-topdown-wall button-press
            button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close
            door-open drawer-close drawer-open faucet-open faucet-close hammer handle-press-side
            handle-press handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole
            push-back pick-place plate-slide plate-slide-side plate-slide-back plate-slide-back-side
            peg-insert-side peg-unplug-side soccer stick-push stick-pull push-wall push reach-wall reach
            shelf-place sweep-into sweep window-open window-close
            """
        ),
        test=_names("bin-picking box-close hand-insert door-lock door-unlock"),
    ),
}
"""Those of several classes; ml1 has one class for both."""

RECOMBINED = _names("reach push pick-place reach-wall push-wall pick-place-wall push-back")
"""Classes whose vector is three numbers of the object's start and three of the goal, which lie `APART`."""
APART = 0.15
"""Least distance of start and goal on the table, m: of others Meta-World makes no task."""
GOALS_A_START = 20
"""Goals that every start has where they are recombined."""


def recombined(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return every start with its own goal and with the next ones that lie far enough from it.

    An object's start is observed, and of fifty tasks it tells which one it is: an agent can learn by heart where the
    goal of each start lies. Recombined, a start leaves twenty goals possible, and both are still those of the fifty.

    Args:
        vectors: start and goal of each task, 3 + 3 numbers, m.

    Returns:
        `GOALS_A_START` vectors for each, or fewer where no more lie far enough.
    """
    found: list[list[float]] = []
    for number, start in enumerate(vectors):
        goals = [vector[3:] for vector in (*vectors[number:], *vectors[:number])]
        far = (goal for goal in goals if math.dist(start[:2], goal[:2]) >= APART)
        found += [[*start[:3], *goal] for goal in islice(far, GOALS_A_START)]
    return found
