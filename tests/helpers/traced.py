"""The command with a note of what it does at every moment: `python -m tests.helpers.traced NOTE ARGUMENTS`.

NOTE is a file of one page that this process maps: its first byte says what is done now, as in PHASES, and after it
stand four counts of how often each of them has begun. Nothing else is changed, so that results are the command's own.
"""

from __future__ import annotations

import functools
import mmap
import struct
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

PHASES = ("starting", "collecting", "updating", "writing")
"""Begin and end, or other work; episodes are played or drawn; from them is learned; files are written."""


class Note:
    """What a process does now, as another process reads it too, also when the first has been killed.

    Args:
        path: of the file, which is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @property
    def phase(self) -> str:
        return PHASES[self._page[0]]

    def count(self, phase: str) -> int:
        """Return how often a phase has begun."""
        return struct.unpack_from("<I", self._page, 4 + 4 * PHASES.index(phase))[0]

    def during(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that notes that it runs."""
        number = PHASES.index(phase)

        @functools.wraps(function)
        def noted(*arguments: Any, **options: Any) -> Any:
            before = self._page[0]
            struct.pack_into("<I", self._page, 4 + 4 * number, self.count(phase) + 1)
            self._page[0] = number
            try:
                return function(*arguments, **options)
            finally:
                self._page[0] = before

        return noted


FIRST = (
    ("metarl.learning.rollout", "collect", "collecting"),
    *(("metarl.run.folder", f"OpenFolder.{name}", "writing") for name in ("begin", "log", "save", "close")),
)
"""What is noted: module, name, phase."""
AGENTS = (
    ("metarl.evaluation.curve", "adaptation_curve", "updating"),
    ("metarl.evaluation.report", "write", "writing"),
)
FEWSHOT = (
    ("metarl.fewshot.data.functions", "FunctionData.episodes", "collecting"),
    ("metarl.fewshot.measure", "measure", "updating"),
    ("metarl.fewshot.report", "write", "writing"),
)


def watch(note: Note, places: Sequence[tuple[str, str, str]]) -> None:
    """Have what the command does noted."""
    driver: Any = import_module("metarl.run.driver")
    train = driver.train

    def traced(run_dir: Any, run: Any, agent: Any, step: Any, *others: Any, **options: Any) -> Any:
        return train(run_dir, run, agent, note.during("updating", step), *others, **options)

    _replace(train, traced)
    for module, name, phase in places:
        owner: Any = import_module(module)
        *classes, last = name.split(".")
        for part in classes:
            owner = getattr(owner, part)
        function = getattr(owner, last)
        noted = note.during(phase, function)
        setattr(owner, last, noted)
        _replace(function, noted)


def _replace(old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Replace a function in all modules that have imported its name."""
    for label, module in list(sys.modules.items()):
        if label.partition(".")[0] == "metarl":
            for name, value in list(vars(module).items()):
                if value is old:
                    setattr(module, name, new)


if __name__ == "__main__":
    watch(Note(Path(sys.argv.pop(1))), (*FIRST, *(FEWSHOT if sys.argv[1] == "fewshot" else AGENTS)))
    from metarl.cli.main import main

    main()
