"""What operating systems do differently, in one place: locks, folders on the disk, worker processes, names of files.

Linux and macOS have `fcntl`, process groups and file descriptors that a process can hand to one that it starts; Windows
has neither of them. All else stands on what every system has.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

POSIX = fcntl is not None
"""Whether a process can hand open files to one that it starts, and end it with all that it started."""
HANGUP = getattr(signal, "SIGHUP", None)
"""Signal of a terminal that goes, where there is one."""
TO_STOP = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)
"""Signals that ask a process to end."""
TOKEN = "METARL_TOKEN"
"""Environment variable with what a worker says first, where it comes by a port that others could come by too."""
LOCK = ".lock"
"""File in a folder that is locked where folders themselves cannot be."""
TO_SAY = 2.0
"""How long somebody who came may take to say the token, s."""
TO_END = 8.0
"""How long a worker's keeper may take to end everything, s; it gives up before."""
POLL = 0.2
"""Time between two looks at whether somebody has come, s."""


# -- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder or a file that no other process holds; the system frees it when the process ends, however it ends.

    Args:
        path: a folder that exists, or a lock file, which is made where it is missing. Both stay.
        wait: until it is free; else yield False where another process has it.
    """
    if POSIX and path.is_dir():
        number = os.open(path, os.O_RDONLY)
    else:
        # Windows cannot open folders as files.
        file = path / LOCK if path.is_dir() else path
        # A link that lies in its place is an error: nothing is made elsewhere.
        number = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        while not (held := _try_lock(number)) and wait:
            time.sleep(POLL)
        yield held
    finally:
        os.close(number)


def _try_lock(number: int) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    try:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where a system does that by itself only later."""
    # Windows cannot open folders as files; NTFS keeps a journal of names.
    if not POSIX:
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def file_name(text: str) -> str:
    """Return a text as a name of a file or folder that every system takes."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", text).rstrip(" .") or "-"


@contextmanager
def lines_left_out(text: str) -> Iterator[None]:
    """Leave lines with a text out of what this process writes on standard error, its C code included."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                if line.strip() and text not in line:
                    print(line, file=sys.stderr)


# -- processes --------------------------------------------------------------------------------------------------------


def peak_kib() -> int:
    """Return the most memory that this process has had, KiB; 0 where the system has no such figure."""
    # Not getrusage's figure alone: a process begins with that of the one that started it.
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def limits_given_back() -> Callable[[], list[str]]:
    """Return what brings the limits of this process back to what they are now, and tells those that it could not."""
    try:
        import resource
    except ImportError:  # Windows
        return list
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    known = {name: resource.getrlimit(getattr(resource, name)) for name in names}

    def give_back() -> list[str]:
        lost = []
        for name, limits in known.items():
            if resource.getrlimit(getattr(resource, name)) == limits:
                continue
            try:
                resource.setrlimit(getattr(resource, name), limits)
            except (OSError, ValueError):
                lost.append(name)
        return lost

    return give_back


def addresses_left() -> Iterator[int]:
    """Yield what is left of this process's limit of memory (`ulimit -v`), bytes; nothing where it has none."""
    try:
        import resource
    except ImportError:  # Windows
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = Path("/proc/self/statm")
    if most != resource.RLIM_INFINITY and used.exists():
        yield most - int(used.read_text().split()[0]) * resource.getpagesize()


def shared_memory() -> IO[bytes]:
    """Return an empty file to be mapped by this process and its workers, of which nothing is left in the end."""
    if POSIX:
        # Unlinked from the start, and in memory where there is such a folder.
        return tempfile.TemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    # A worker opens it by its name, which is removed by `free`.
    return tempfile.NamedTemporaryFile(prefix="metarl-", delete=False)


def free(memory: IO[bytes]) -> None:
    """Close what `shared_memory` gave, once no process maps it any more."""
    memory.close()
    if not POSIX:
        # Windows keeps it while an array of this process shows it; the system's temporary files are cleared some day.
        try:
            Path(memory.name).unlink(missing_ok=True)
        except PermissionError:
            return


def start_worker(
    command: Sequence[str], memory: IO[bytes], *, log: IO[bytes], environment: Mapping[str, str], patience: float
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process with a socket to it. It gets two more arguments, which `envs/external/child.py` understands.

    Args:
        command: what to run.
        memory: from `shared_memory`.
        log: what it prints.
        environment: its environment variables.
        patience: how long it may take to come, s, where it has to.

    Raises:
        OSError: it cannot be run.
    """
    if POSIX:
        ours, theirs = socket.socketpair()
        try:
            files = (theirs.fileno(), memory.fileno())
            process = subprocess.Popen(
                [*command, *map(str, files)],
                pass_fds=files,
                env=environment,
                # Ctrl-C in the terminal is for this process, which then ends its workers.
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours
    token = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = subprocess.Popen(
            [*command, f"port:{server.getsockname()[1]}", memory.name],
            env={**environment, TOKEN: token},
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        return process, _met(server, process, token.encode(), patience)


def _met(server: socket.socket, process: subprocess.Popen[bytes], token: bytes, patience: float) -> socket.socket:
    """Return the connection of a worker; a closed one where it ended or did not come."""
    server.settimeout(POLL)
    until = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < until:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        if _says(connection, token):
            return connection
        connection.close()
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def _says(connection: socket.socket, token: bytes) -> bool:
    """Tell whether the first that comes by a connection is the token."""
    connection.settimeout(TO_SAY)
    said = b""
    try:
        while len(said) < len(token) and (more := connection.recv(len(token) - len(said))):
            said += more
    # Whoever it was came and went, or says nothing.
    except OSError:
        return False
    return secrets.compare_digest(said, token)


def kill_worker(process: subprocess.Popen[bytes]) -> None:
    """End a worker at once; where it has a keeper (envs/external/keeper.py), with all that it started."""
    if not POSIX:
        process.kill()
    elif process.poll() is None:
        # The keeper may have been stopped with the others.
        for number in (signal.SIGTERM, signal.SIGCONT):
            process.send_signal(number)
        try:
            process.wait(TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_marked(name: str, value: str) -> None:
    """Kill the processes that have an environment variable with a value, where the system shows those (Linux)."""
    mark = f"{name}={value}".encode()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        # Others' may not be read, and some end meanwhile.
        with suppress(OSError):
            if mark in entry.read_bytes().split(b"\0"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
