"""Trainings of an iteration or two on point-nav, for the tests of what is done with runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import metarl
from metarl.api.runs import Run

FAMILY = "point-nav"
SMALL: dict[str, Any] = {"tasks": 2, "episodes": 2, "hidden": (8,), "iterations": 2, "threads": 1}
"""Of an agent that takes gradient steps."""
TRIALS: dict[str, Any] = {"tasks": 4, "minibatches": 1, "width": 4, "iterations": 1, "threads": 1}
"""Of rl2."""
FEW: dict[str, Any] = {"tasks": 3, "episodes": 2, "threads": 1}
"""Of an evaluation."""


def trained(folder: Path, agent: str = "maml-trpo", **settings: Any) -> Run:
    return metarl.train(agent, FAMILY, out=folder, **{**(TRIALS if agent == "rl2" else SMALL), **settings})


def options(settings: dict[str, Any]) -> list[str]:
    """Return settings as options of the command."""
    words = []
    for name, value in settings.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words
