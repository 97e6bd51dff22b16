"""Runs a command, and ends everything that it started when it ends, or when the process that asked for it has gone.

It is run by path, `python -I -S keeper.py PARENT COMMAND...`, with the standard library alone; PARENT is the process
that asks. The files that it is given are the command's; of them it keeps only what the command prints to.

On Linux every process below it that loses its parent becomes its child (a subreaper, prctl(2)), so that sessions and
double forks of a simulator do not get away; the command itself is killed by the system if the keeper is. Elsewhere the
keeper ends the process group of the command: what has left that group lives on.

It ends as the command ended, with its exit code or by its signal. By SIGTERM it is told to end everything at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import select
import signal
import sys
import time
from types import FrameType

LINUX = sys.platform.startswith("linux")
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
"""Of prctl, as in Linux's sys/prctl.h."""
POLL = 0.25
"""Time between two looks at whether PARENT is still there, s."""
TO_CLOSE = 1.0
"""How long the command may take to end by itself once PARENT has gone, s."""
TO_DIE = 5.0
"""How long is waited for processes that were killed, s: one that waits for a device does not die before."""


def prctl(option: int, value: int) -> None:
    """Set what Linux does with this process or those below it; elsewhere nothing."""
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def run(command: list[str]) -> int:
    """Start a command and return its process id; the files that it got are its own."""
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        prctl(SET_PDEATHSIG, signal.SIGKILL)
        # It went before the system was told to watch.
        if os.getppid() != keeper:
            os._exit(1)
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be run, {error}", file=sys.stderr, flush=True)
    os._exit(127)


def below() -> list[int]:
    """Return the processes below this one: read from Linux's lists of children, which is quicker than they can fork."""
    found, pids = [os.getpid()], []
    while found:
        pid = found.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                with open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                    children = [int(child) for child in file.read().split()]
                pids += children
                found += children
    return pids


def send(pids: list[int], number: int) -> None:
    """Send a signal to processes, as far as they are still there and this user's."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_all(group: int) -> None:
    """Kill every process below this one: first all of them are stopped, so that none starts another meanwhile.

    Args:
        group: the process group of the command.
    """
    send([-group], signal.SIGKILL)
    until = time.monotonic() + TO_DIE
    # Whoever is below has an ancestor that is a child of this process.
    while has_children() and time.monotonic() < until:
        alive, stopped = below(), []
        while set(alive) - set(stopped):
            send(alive, signal.SIGSTOP)
            stopped, alive = alive, below()
        send(stopped, signal.SIGKILL)
        time.sleep(0.001)


def has_children() -> bool:
    """Take note of the processes that have ended, and tell whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def reap(wanted: int = 0) -> int | None:
    """Take note of the processes that have ended; return how the wanted one did (a wait status), None if it did not."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == wanted:
                status = ended[1]
    return status


def end_as(status: int) -> None:
    """End this process as another one ended."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # The other one has left its memory on the disk, if any is to be left there.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) % 256)


def main(parent: int, command: list[str]) -> None:
    """Run a command until it ends, or until `parent` has gone."""
    prctl(SET_CHILD_SUBREAPER, 1)
    child = run(command)
    # Else nobody would see by these files that the command has ended.
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        # One of them was the folder itself.
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.close(int(name))
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    late = math.inf
    while (status := reap(child)) is None and not told and time.monotonic() < late:
        if late == math.inf and os.getppid() != parent:
            late = time.monotonic() + TO_CLOSE
        if select.select([woken], [], [], POLL)[0]:
            os.read(woken, 4096)
    end_all(child)
    end_as(signal.SIGTERM if status is None else status)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
