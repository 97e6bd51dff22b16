"""What metarl does on a system without fcntl, fork, process groups and files that are handed on, such as Windows.

In a process of its own: `python -m tests.helpers.other_system FOLDER`. What Windows has in their place stands here on
what this system has.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

HIDDEN = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix")
"""Modules that Windows lacks."""
LACKING = {
    os: ("fork", "forkpty", "killpg", "setsid", "getuid", "getpgid", "sched_getaffinity", "mkfifo"),
    signal: ("SIGKILL", "SIGSTOP", "SIGHUP", "pthread_kill"),
    socket: ("AF_UNIX", "send_fds", "recv_fds"),
}
"""Functions and constants that it lacks."""


def become_another() -> None:
    """Take from this process what Windows lacks; other packages have been imported."""
    flock = import_module("fcntl")
    msvcrt: Any = types.ModuleType("msvcrt")
    msvcrt.LK_NBLCK = 2
    msvcrt.locking = lambda number, mode, count: flock.flock(number, flock.LOCK_EX | flock.LOCK_NB)
    sys.modules["msvcrt"] = msvcrt
    for name in HIDDEN:
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]
    for module, names in LACKING.items():
        for name in names:
            delattr(module, name)
    opened, popen = os.open, subprocess.Popen

    def no_folders(path: Any, *arguments: Any, **options: Any) -> int:
        if isinstance(path, str | os.PathLike) and os.path.isdir(path):  # noqa: PTH112
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    class Windows(popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            refused = {"pass_fds", "start_new_session", "preexec_fn"} & set(options)
            assert not refused, f"Windows has no {refused}"
            options.pop("creationflags")
            super().__init__(*arguments, **options)

    os.open = no_folders
    subprocess.Popen = Windows


def use(folder: Path) -> None:
    """Train, resume, find the run in use, evaluate, and step environments in worker processes."""
    import metarl
    from metarl import system
    from metarl.errors import UserError
    from metarl.run.folder import RunFolder

    assert not system.POSIX
    small: dict[str, Any] = {"tasks": 2, "episodes": 2, "hidden": (4,), "threads": 1}
    run = metarl.train("maml-trpo", "point-nav", out=folder / "run", iterations=1, **small)
    with RunFolder(run.folder)._lock(), pytest.raises(UserError, match="Another process is training"):
        metarl.resume(run.folder, 2)
    assert metarl.resume(run.folder, 2).iteration == 2
    curve = metarl.evaluate(run.folder, tasks=2, steps=1, threads=1, out=folder / "curve")
    assert curve.arrays()["returns"].shape == (2, 1, 2)

    import torch

    from tests.helpers.adapted import begin, processes, reach, trouble

    worlds, observation = begin(reach(make=lambda: import_module("own_envs").Reach()), 3, 2)
    assert observation.shape == (3, 2)
    assert len(set(processes(worlds))) == 2
    assert worlds.step(torch.zeros(3, 2)).reward.isfinite().all()
    shared: Any = worlds.physics
    memory = Path(shared.pool._memory.name)
    assert memory.is_file()
    shared.pool.close()
    assert not memory.exists()
    worlds, _ = begin(trouble("sleep", timeout=1.0), 1)
    with pytest.raises(UserError, match="was in one call for more than 1 s"):
        worlds.step(torch.zeros(1, 2))


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))
    for name in ("gymnasium", "matplotlib.pyplot", "mujoco", "torch.utils.tensorboard", "tyro", "cloudpickle"):
        import_module(name)
    become_another()
    use(Path(sys.argv[1]))
    print("all of it works")
