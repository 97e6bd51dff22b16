"""What an environment starts ends with its worker, however that or metarl ends, and however it was started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metarl.envs.external import keeper, pool
from metarl.envs.external.adapter import WorkerPhysics
from metarl.errors import UserError
from tests.helpers.adapted import FILE, begin, own_envs, processes, reach
from tests.helpers.processes import Started

pytestmark = [
    pytest.mark.usefixtures("own_registry"),
    pytest.mark.skipif(not keeper.LINUX, reason="what leaves the process group ends with its worker on Linux only"),
]

STARTED = 6
"""Processes that a Simulator notes, its worker included."""


def noted(file: Path) -> list[int]:
    """Return the processes, once all of them have been noted."""
    until = time.monotonic() + 20.0
    while not file.exists() or len(file.read_text().split()) < STARTED:
        assert time.monotonic() < until, file
        time.sleep(0.01)
    return [int(pid) for pid in file.read_text().split()]


def alive(pids: list[int]) -> list[int]:
    """Return which processes still run."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        # Orphans are waited for by the system's first process, where it does so at all.
        found += [pid] if state not in "ZX" else []
    return found


def left_of(pids: list[int], *, most: int = 0) -> list[int]:
    """Return which processes still run when at most so many do, or after 5 s."""
    until = time.monotonic() + 5.0
    while len(alive(pids)) > most and time.monotonic() < until:
        time.sleep(0.02)
    return alive(pids)


@pytest.mark.parametrize("how", ["close", "dropped", "raise", "exit", "SIGKILL", "SIGSEGV", "SIGSTOP"])
def test_what_an_environment_starts_ends_with_its_worker(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "GRACE", 0.0)
    monkeypatch.setattr(pool, "TO_CLOSE", 0.5)
    notes = tmp_path / "pids"
    kwargs = {"notes": str(notes), "what": "" if how in ("close", "dropped") else how}
    worlds, _ = begin(reach(make=own_envs.Simulator, kwargs=kwargs, timeout=1.0), 1)
    pids = noted(notes)
    assert alive(pids) == pids
    if how == "close":
        assert isinstance(worlds.physics, WorkerPhysics)
        worlds.physics.pool.close()
    elif how == "dropped":
        del worlds
    else:
        with pytest.raises(UserError):
            worlds.step(torch.zeros(1, 2))
    assert left_of(pids) == []


def test_a_keeper_that_is_killed_leaves_what_bears_its_mark_to_metarl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "GRACE", 0.0)
    notes = tmp_path / "pids"
    worlds, _ = begin(reach(make=own_envs.Simulator, kwargs={"notes": str(notes)}, timeout=1.0), 1)
    pids = noted(notes)
    os.kill(processes(worlds)[0], signal.SIGKILL)
    assert isinstance(worlds.physics, WorkerPhysics)
    step = worlds.physics.pool.step
    # The system ends the worker a moment later.
    with pytest.raises(UserError):
        list(iter(step, "an answer"))
    # One has taken the mark from its environment.
    for pid in left_of(pids, most=1):
        os.kill(pid, signal.SIGKILL)
    assert left_of(pids) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_what_an_environment_starts_ends_with_metarl(number: signal.Signals, tmp_path: Path) -> None:
    notes, script = tmp_path / "pids", tmp_path / "steps.py"
    script.write_text(f"""
import sys, torch
sys.path[:0] = [{str(Path(FILE).parent)!r}, {str(Path(FILE).parents[2])!r}]
from tests.helpers import adapted
kwargs = {{"notes": {str(notes)!r}, "what": "sleep"}}
worlds, _ = adapted.begin(adapted.reach(make=adapted.own_envs.Simulator, kwargs=kwargs), 1)
worlds.step(torch.zeros(1, 2))
""")
    process = Started(str(script))
    pids = noted(notes)
    assert alive(pids) == pids
    process.send_signal(number)
    assert left_of(pids) == []
    process.communicate(timeout=10.0)


def test_a_command_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    strange = tmp_path / "python"
    strange.write_bytes(b"\x7fELF of another machine")
    strange.chmod(0o700)
    with pytest.raises(
        UserError, match=r"ended with exit code 127; it last said: .*python cannot be run, .*Exec format"
    ):
        begin(reach(python=str(strange)), 1)


def kept(command: str, *, parent: int | None = None) -> subprocess.Popen[bytes]:
    keep = [sys.executable, "-I", "-S", keeper.__file__, str(os.getpid() if parent is None else parent)]
    return subprocess.Popen([*keep, "/bin/sh", "-c", command], start_new_session=True)


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -11 $$", -11)])
def test_it_ends_as_the_command_ends(command: str, code: int) -> None:
    assert kept(command).wait(5.0) == code


def test_it_ends_when_it_is_told_to_and_when_its_parent_has_gone() -> None:
    told = kept("sleep 300")
    time.sleep(0.1)
    told.terminate()
    assert told.wait(5.0) == -signal.SIGTERM
    assert kept("sleep 300", parent=1).wait(5.0) == -signal.SIGTERM


def test_processes_that_start_others_without_end_do_not_get_away(tmp_path: Path) -> None:
    # Each ends as soon as it has started the next one, in a session of its own.
    script = tmp_path / "chain"
    script.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nsetsid {script} &\n")
    script.chmod(0o700)
    process = kept(f"{script}; sleep 0.3")
    assert process.wait(10.0) == 0
    count = len((tmp_path / "pids").read_text().split())
    assert count > 10
    time.sleep(0.2)
    assert len((tmp_path / "pids").read_text().split()) == count
