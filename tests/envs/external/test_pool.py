"""Worker processes: any number of them does the same, every way that one can fail, and nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metarl.envs import GymnasiumFamily, make_worlds
from metarl.envs.external import child
from metarl.envs.external import pool as pool_module
from metarl.envs.external.adapter import WorkerPhysics
from metarl.errors import UserError
from metarl.types import Tasks
from tests.helpers.adapted import FILE, actions, begin, gone, own_envs, processes, reach, same, trouble
from tests.helpers.toys import seeded as generator

pytestmark = pytest.mark.usefixtures("own_registry")


def test_one_seed_gives_one_result_with_any_number_of_workers() -> None:
    (one, start), (three, same_start) = begin(reach(), 5, 1), begin(reach(), 5, 3)
    assert torch.equal(start, same_start)
    for action in actions(5):
        same(one.step(action), three.step(action))
    assert not torch.equal(one.reset(generator(4)), three.reset(generator(5)))


def test_an_interpreter_that_cannot_run_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no interpreter nowhere/python"):
        make_worlds(reach(python="nowhere/python"), 1)
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'numpy'\" >&2\nexit 1\n")
    bare.chmod(0o700)
    with pytest.raises(UserError, match=r"ended with exit code 1; it last said: ModuleNotFoundError.*numpy"):
        make_worlds(reach(python=str(bare)), 1)


def test_another_interpreter_gets_nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # Has what its environment imports beside it: a module that is called like one of ours beside the worker.
    (tmp_path / "vector.py").write_text("from own_envs import Imports\n")
    (tmp_path / "family_of_mine.py").write_text("from vector import Imports\n")
    (tmp_path / "own_envs.py").write_text(Path(FILE).read_text())
    family = reach(make=f"{tmp_path}/family_of_mine.py:Imports", python=sys.executable)
    assert begin(family, 1)[1].tolist() == [[0.0, 0.0]]
    # In this one, the environment is found where this process would find it.
    monkeypatch.syspath_prepend(str(tmp_path))
    assert begin(reach(make="family_of_mine:Imports"), 1)[1].tolist() == [[0.0, 1.0]]


def test_another_version_of_the_message_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "child.py"
    old.write_text(Path(child.__file__).read_text().replace(f"VERSION = {child.VERSION}\n", "VERSION = 0\n"))
    with monkeypatch.context() as patch:
        patch.setattr(child, "__file__", str(old))
        with pytest.raises(UserError, match=rf"speaks version 0 of the message format, not {child.VERSION}"):
            make_worlds(reach(), 1)
    # One so old that it does not look.
    old.write_text(old.read_text().replace('hello.get("version") != VERSION', "False"))
    monkeypatch.setattr(child, "__file__", str(old))
    with pytest.raises(UserError, match=r"'version': 0.*not metarl's worker of this version"):
        make_worlds(reach(), 1)


def test_a_script_that_makes_worlds_when_a_worker_imports_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, _ = begin(reach(), 1)
    assert b"\0METARL_WORKER=" in Path(f"/proc/{processes(worlds)[0]}/environ").read_bytes()
    monkeypatch.setenv("METARL_WORKER", "1")
    with pytest.raises(UserError, match="in a worker process, which only imports its environment: put that in a mod"):
        make_worlds(reach(), 1)


def fails(family: GymnasiumFamily, tasks: Tasks | None = None, threads: int = 1) -> str:
    """Return what a first step says; the workers are all gone after it, and say so."""
    worlds, _ = begin(family, 4, threads)
    pids = processes(worlds)
    assert len(pids) == threads
    if tasks is not None:
        worlds.set_tasks(tasks)
        worlds.reset(generator())
    with pytest.raises(UserError) as error:
        worlds.step(torch.zeros(4, 2))
    assert all(gone(pid) for pid in pids)
    for use in (lambda: worlds.step(torch.zeros(4, 2)), lambda: worlds.reset(generator())):
        with pytest.raises(UserError, match="Make new worlds"):
            use()
    return str(error.value)


def test_an_exception_in_the_environment() -> None:
    family = reach(make=own_envs.Trouble, kwargs={"what": "raise", "right": 0.0})
    tasks = family.space.from_records([{"goal": [x, 0.25]} for x in (-0.5, -0.5, -0.5, 0.5)])
    message = fails(family, tasks, threads=2)
    assert "world 3, step, with the task {'goal': [0.5, 0.25]}: ZeroDivisionError: the arm\nhas no length" in message
    assert "own_envs.py, line" in message
    assert "in step" in message


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("exit", ["worker 1 of 2 (worlds 0 to 1, process", "ended with exit code 3", "last said:", "my last words"]),
        ("leave", ["world 0, step", "SystemExit: good bye"]),
        ("SIGKILL", ["was ended by SIGKILL", "memory runs out"]),
        ("SIGSEGV", ["was ended by SIGSEGV", "own_envs.py", "in step"]),
        ("shape", ["observation has the shape (1,) where its space has (2,)"]),
        ("key", ["no 'success', but []", "correct success_key"]),
    ],
)
def test_a_worker_that_dies(what: str, says: list[str]) -> None:
    family = trouble(what, success_key="success" if what == "key" else None)
    message = fails(family, threads=2 if what == "exit" else 1)
    for text in ("reach@v1 with ", "own_envs.py:Trouble", *says):
        assert text in message


def test_a_worker_that_hangs_says_where() -> None:
    message = fails(trouble("sleep", timeout=1.0))
    assert "was in one call for more than 1 s" in message
    assert 'own_envs.py", line' in message
    assert "in step" in message
    assert "longer timeout" in message


def test_a_worker_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "GRACE", 0.0)
    monkeypatch.setattr(pool_module, "TO_CLOSE", 0.2)
    message = fails(trouble("SIGSTOP", timeout=1.0))
    assert "gave no sign of life for 2 s" in message


def test_a_slow_group_is_not_a_hanging_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "slow_env.py"
    source.write_text(
        "import time\nimport own_envs\n\nclass Slow(own_envs.Reach):\n"
        "    def step(self, action):\n        time.sleep(0.5)\n        return super().step(action)\n"
    )
    monkeypatch.setattr(pool_module, "GRACE", -1.0)
    # Five calls of 0.5 s each: more in all than one may take, and than this side waits in silence.
    worlds, _ = begin(reach(make=f"{source}:Slow", timeout=2.0), 5, 1)
    assert worlds.step(torch.zeros(5, 2)).reward.isfinite().all()


def test_ctrl_c_in_the_middle_of_a_step_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, _ = begin(reach(), 5, 2)
    pids = processes(worlds)

    def interrupted(self: child.Channel) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(child.Channel, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worlds.step(torch.zeros(5, 2))
    assert all(gone(pid) for pid in pids)
    with pytest.raises(UserError, match="have ended: KeyboardInterrupt"):
        worlds.reset(generator())


def test_worlds_that_are_dropped_leave_nothing() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    worlds, _ = begin(reach(), 5, 2)
    assert isinstance(worlds.physics, WorkerPhysics)
    # The shared memory has no name that could stay behind.
    assert os.fstat(worlds.physics.pool._memory.fileno()).st_nlink == 0
    pids = processes(worlds)
    del worlds
    assert all(gone(pid) for pid in pids)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_killed_process_leaves_no_workers() -> None:
    """One waits for a message and one for a step that takes too long, when their metarl is killed."""
    script = f"""
import sys, torch
sys.path[:0] = [{str(Path(FILE).parent)!r}, {str(Path(FILE).parents[2])!r}]
from tests.helpers import adapted
pairs = [adapted.begin(adapted.trouble(what, timeout=2.0), 1, 1) for what in ("", "sleep")]
print(*(pid for worlds, _ in pairs for pid in adapted.processes(worlds)), flush=True)
for worlds, _ in pairs:
    worlds.step(torch.zeros(1, 2))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    until = time.monotonic() + 20.0
    # Orphans are waited for by the system's first process, where it does so at all.
    while not all(gone(pid) or is_zombie(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_talkative_environment_fills_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LARGEST_LOG", 10)
    worlds, _ = begin(reach(), 1, 1)
    assert isinstance(worlds.physics, WorkerPhysics)
    (member,) = worlds.physics.pool._members
    for seed in range(3):
        worlds.reset(generator(seed))
    # What Python holds back, it writes in blocks.
    assert os.fstat(member.log.fileno()).st_size < 20_000


def test_mujocos_warnings_in_a_worker_are_no_file_in_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    worlds, _ = begin(reach(make=own_envs.Warns), 1)
    worlds.step(torch.zeros(1, 2))
    assert isinstance(worlds.physics, WorkerPhysics)
    (member,) = worlds.physics.pool._members
    assert list(tmp_path.iterdir()) == []
    member.log.seek(0)
    assert b"Nan, Inf or huge value" in member.log.read()


def test_workers_import_from_the_present_folder_only_where_they_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "present_envs_of_mine.py").write_text(Path(FILE).read_text())
    family = reach(make="present_envs_of_mine:Reach")
    assert begin(family, 1)[1].shape == (1, 2)
    monkeypatch.setattr(child, "AVOIDED", {str(tmp_path)})
    with pytest.raises(UserError, match="No module named 'present_envs_of_mine'"):
        begin(reach(make="present_envs_of_mine:Reach"), 1)
