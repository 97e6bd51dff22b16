from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.devices import resolve_device, resolve_threads
from metarl.errors import UserError
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig, by_settings
from tests.helpers.run_folders import CONFIG, quiet
from tests.helpers.tiny_run import RUN, Follower, start


def test_bad_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any]
    for fields in ({"seed": -1}, {"threads": -1}, {"checkpoint_every": 0}):
        with pytest.raises(UserError, match="Correct the option"):
            RunConfig(agent="follower", **fields)
    with pytest.raises(UserError, match="Ask for 0"):
        start(tmp_path / "run", CONFIG, iterations=-1)
    start(tmp_path / "whole", CONFIG, iterations=1, console=quiet())
    with pytest.raises(UserError, match="Unknown checkpoint 'lst'"):
        RunFolder(tmp_path / "whole").restore(RUN, "lst", Follower(CONFIG))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="finds no CUDA device here"):
        start(tmp_path / "run", CONFIG, run=replace(RUN, device="cuda"))
    assert not (tmp_path / "run").exists()


def test_threads_default_to_the_cores_that_the_process_may_use() -> None:
    assert resolve_threads(3) == 3
    assert resolve_threads(0) == len(os.sched_getaffinity(0))


def test_settings_tell_groups_of_one_name_apart() -> None:
    things = [
        ("a", {"rate": 1, "steps": 2}, "first"),
        ("b", {"rate": 1}, "second"),
        ("a", {"rate": 2, "steps": 2}, "third"),
        ("a", {"rate": 1, "steps": 2}, "fourth"),
    ]
    assert by_settings(things) == [("a rate=1", ["first", "fourth"]), ("b", ["second"]), ("a rate=2", ["third"])]
