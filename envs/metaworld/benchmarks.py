"""Meta-World's classes and benchmarks by name (Meta-World 3.1.1, metaworld/env_dict.py)."""

from __future__ import annotations

from dataclasses import dataclass


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
