"""Projects of a user's: a folder with a file that registers a family, and runs that were trained on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium

import metarl
from metarl.api.runs import Run
from metarl.envs import registry
from tests.helpers.tiny_trainings import SMALL

FAMILY = """\
from metarl.envs import register
from metarl.envs.families.point_nav import PointNav

register(PointNav(name="own-point", variant="mine", horizon=7))
"""
"""A family of a file's own, whose worlds need no processes."""


def project(folder: Path, text: str = FAMILY) -> Path:
    """Write a project, and return the file of its family."""
    folder.mkdir(parents=True)
    file = folder / "point_of_mine.py"
    file.write_text(text)
    return file


def trained_in(file: Path, folder: Path, **settings: Any) -> Run:
    """Train on the family of a file, then be a session that does not know it."""
    run = metarl.train("maml-trpo", f"{file}:own-point", out=folder, **{**SMALL, "iterations": 1, **settings})
    forget()
    return run


def forget() -> None:
    """Be a session that has imported nothing of the projects."""
    for module in ("point_of_mine", "points_of_mine", "points_of_mine.families"):
        sys.modules.pop(module, None)
    registry._FAMILIES.pop("own-point", None)
    registry._ORIGINS.clear()
    registry._MODIFIED.clear()
    gymnasium.registry.pop("metarl/OwnPoint-v0", None)
