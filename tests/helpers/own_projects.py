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

PACKAGED = """\
from metarl.envs import GymnasiumFamily, register
from metarl.space import Parameter

goal = Parameter(name="goal", unit="m", description="where to go", scale="disc", radius=1.0)
register(GymnasiumFamily(name="own-point", make="points_of_mine.reach:Reach", parameters=(goal,), horizon=6))
"""
"""A family in a package, whose worker processes import from it too."""


def project(folder: Path, text: str = FAMILY) -> Path:
    """Write a project, and return the file of its family."""
    folder.mkdir(parents=True)
    file = folder / "point_of_mine.py"
    file.write_text(text)
    return file


def package(folder: Path) -> Path:
    """Write a project whose family, and its environment, are in a package; return the file of the family."""
    inside = folder / "points_of_mine"
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text("")
    (inside / "reach.py").write_text(Path(__file__).with_name("own_envs.py").read_text())
    (inside / "families.py").write_text(PACKAGED)
    return inside / "families.py"


def trained_in(file: Path, folder: Path, **settings: Any) -> Run:
    """Train on the family of a file, then be a session that does not know it."""
    run = metarl.train("maml-trpo", f"{file}:own-point", out=folder, **{**SMALL, "iterations": 1, **settings})
    forget()
    return run


def forget() -> None:
    """Be a session that has imported nothing of the projects."""
    for module in ("point_of_mine", "points_of_mine", "points_of_mine.families", "families"):
        sys.modules.pop(module, None)
    registry._FAMILIES.pop("own-point", None)
    registry._ORIGINS.clear()
    registry._MODIFIED.clear()
    gymnasium.registry.pop("metarl/OwnPoint-v0", None)
