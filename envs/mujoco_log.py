"""MuJoCo's warnings, counted: left alone it prints each, and writes it to MUJOCO_LOG.TXT in the present folder.

A world that becomes invalid gives some of them and ends its own episode, which is counted as env/failures. What MuJoCo
said of it is kept here by kind, until somebody tells it in one line and writes the kinds to a run folder.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import mujoco

from metarl.errors import tell
from metarl.files import Folder

FILE = "mujoco.log"
"""In a run folder or a folder of results: how often MuJoCo has warned of what in the last start."""

counts: Counter[str] = Counter()
"""Warnings so far, by their texts without time and number."""


def listen() -> None:
    """Count MuJoCo's warnings from here on, in all threads, unless the user has a function of their own for them."""
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(count)


def count(text: str) -> None:
    """Count a warning."""
    counts[re.sub(r",? at DOF \d+|\s*Time = [-+.\w]+", "", text).strip()] += 1


def report(folder: Folder | Path | str | None = None) -> None:
    """Tell in one line how often MuJoCo has warned, if it has, and begin to count anew.

    Args:
        folder: where the kinds are written to, if anywhere.
    """
    if not counts:
        return
    often = counts.most_common()
    counts.clear()
    where = ""
    if folder is not None:
        # Where that fails, what was to be written beside it has failed too, and is told.
        with suppress(OSError):
            text = "".join(f"{times} x {kind}\n" for kind, times in often)
            where = f"; all kinds are in {Folder.of(folder).write(FILE, text.encode())}"
    total, (kind, times) = sum(times for _, times in often), often[0]
    tell(f"MuJoCo warned {total} times, {times} times: {kind.rstrip('.')}{where}")
