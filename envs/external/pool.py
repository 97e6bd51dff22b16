"""The processes that hold adapted environments: starting them, stepping them, and what happens when one fails.

Each worker process (`child.py`, which tells the message format) has a group of the B worlds. The arrays stand in
one piece of memory that has no name, so that nothing is left of it however the processes end.
"""

from __future__ import annotations

import base64
import contextlib
import mmap
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from metarl import system
from metarl.envs.external import child
from metarl.errors import UserError
from metarl.types import Record

TO_START = 120.0
"""How long an interpreter may take to start, s."""
GRACE = 3.0
"""How much longer than the worker itself this side waits before it calls a call too long, s."""
TO_CLOSE = 2.0
"""How long workers may take to end when they are told to, s."""
LARGEST_LOG = 1_000_000
"""A worker's output is forgotten from here on, bytes."""
KEEPER = Path(__file__).with_name("keeper.py").resolve()
"""Runs a worker, and ends what it started with it."""
NO_GL = (
    "If it draws with MuJoCo: pictures need off-screen OpenGL, libegl1 and MUJOCO_GL=egl (Debian, Ubuntu: apt-get "
    "install libegl1 libgl1), or libosmesa6 and MUJOCO_GL=osmesa"
)
"""What may help where a picture cannot be drawn."""
DRAWING = ("import", "make", "render")
"""Where a worker may fail for want of OpenGL."""
INSIDE = "METARL_WORKER"
"""Environment variable that tells a worker process, and what it starts, from others."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Set to 1 for workers where the user has not set them: the worlds are what runs in parallel."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What worker processes are to run.

    Attributes:
        family: full name, for error texts.
        hello: the fields `make`, `kwargs`, `vector`, `set_task`, `success_key`, `carried` and `pictures`
            of that message.
        folder: what a family imports from first: that of the file that defines it.
        python: interpreter to run them; None for this one.
        timeout: longest call of the environment, s.
    """

    family: str
    hello: dict[str, Any]
    folder: str
    python: str | None
    timeout: float


@dataclass(frozen=True, kw_only=True)
class Member:
    """One worker process, with worlds `first` to `first + count - 1`."""

    index: int
    first: int
    count: int
    process: subprocess.Popen[bytes]
    channel: child.Channel
    mark: str
    """Value of the environment variable INSIDE, by which its processes are known."""
    log: IO[bytes]
    """What it prints: stdout and stderr."""


class Pool:
    """B worlds in worker processes.

    Args:
        job: what they run.
        num_worlds: B.
        processes: how many; never more than worlds.

    Attributes:
        observation: name of every number of an observation.
        pictures: which of these numbers are pixels (`pictures` of the message `spaces`).
        action: `low` and `high`, or `choices`.
        arrays: the shared arrays by name, B rows each.

    Raises:
        UserError: the environment cannot be made, or its spaces are not supported.
    """

    def __init__(self, job: Job, num_worlds: int, processes: int) -> None:
        self.job = job
        self._ended: str | None = None
        self._members: list[Member] = []
        self._records: dict[int, Record] = {}
        self._memory = system.shared_memory()
        self._finalizer = weakref.finalize(self, _end, os.getpid(), self._members, self._memory)
        with self._all_or_nothing():
            processes = min(processes, num_worlds)
            edges = [num_worlds * i // processes for i in range(processes + 1)]
            for index, (first, after) in enumerate(pairwise(edges)):
                self._members.append(_start(job, index, first, after - first, self._memory))
            hello = {
                "type": "hello",
                "version": child.VERSION,
                **_folders(job),
                "timeout": job.timeout,
                **job.hello,
            }
            answers = self._ask([(member, {**hello, "worlds": member.count}) for member in self._members])
            for member, answer in zip(self._members, answers, strict=True):
                if not isinstance(answer, dict) or answer["type"] != "spaces" or answer["version"] != child.VERSION:
                    self._fail(f"{self._who(member)} answered {answer!r}: it is not metarl's worker of this version")
            self.observation: list[str] = answers[0]["observation"]
            self.pictures: list[dict[str, Any]] = answers[0]["pictures"]
            self.action: dict[str, Any] = answers[0]["action"]
            self.arrays = self._share(num_worlds)

    def _share(self, worlds: int) -> dict[str, np.ndarray]:
        """Map the arrays, here and in the workers."""
        sizes = {
            "observation": (np.float64, (worlds, len(self.observation))),
            "action": (np.float64, (worlds, len(self.action.get("choices") or self.action["low"]))),
            "reward": (np.float64, (worlds,)),
            **dict.fromkeys(("active", "terminated", "truncated", "success"), (np.uint8, (worlds,))),
        }
        places: dict[str, dict[str, Any]] = {}
        size = 0
        for name, (kind, shape) in sizes.items():
            places[name] = {"dtype": np.dtype(kind).str, "shape": shape, "offset": size}
            # Whole cache lines.
            size += -(-np.dtype(kind).itemsize * int(np.prod(shape)) // 64) * 64
        os.ftruncate(self._memory.fileno(), size)
        message = {"type": "memory", "size": size, "arrays": places}
        self._ask([(member, {**message, "first": member.first}) for member in self._members])
        whole = mmap.mmap(self._memory.fileno(), size)
        return {
            name: np.frombuffer(whole, kind, int(np.prod(shape)), places[name]["offset"]).reshape(shape)
            for name, (kind, shape) in sizes.items()
        }

    def reset(self, worlds: Sequence[int], seeds: Sequence[int], records: Sequence[Record]) -> None:
        """Begin an episode in each of the worlds, which are in ascending order."""
        messages: list[tuple[Member, dict[str, Any]]] = []
        for member in self._members:
            if os.fstat(member.log.fileno()).st_size > LARGEST_LOG:
                os.ftruncate(member.log.fileno(), 0)
            its = [i for i, world in enumerate(worlds) if member.first <= world < member.first + member.count]
            if its:
                message = {
                    "type": "reset",
                    "worlds": [worlds[i] - member.first for i in its],
                    "seeds": [seeds[i] for i in its],
                    "tasks": [records[i] for i in its],
                }
                messages.append((member, message))
        self._records.update(zip(worlds, records, strict=True))
        with self._all_or_nothing():
            self._ask(messages)

    def step(self) -> None:
        """Take one step in every world that is `active`."""
        with self._all_or_nothing():
            self._ask([(member, child.STEP) for member in self._members])

    def draw(self, world: int) -> np.ndarray:
        """Return the picture of a world, [height, width, 3] bytes.

        Raises:
            UserError: the environment draws none here.
        """
        (member,) = (one for one in self._members if one.first <= world < one.first + one.count)
        with self._all_or_nothing():
            (found,) = self._ask([(member, {"type": "draw", "world": world - member.first})])
        pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
        return pixels.reshape(found["height"], found["width"], 3)

    def loop(self, steps: int) -> list[float]:
        """Have every worker step its worlds by itself, by random actions, after a reset; return the seconds of each.

        Raises:
            UserError: the family is a vector environment.
        """
        with self._all_or_nothing():
            answers = self._ask([(member, {"type": "loop", "steps": steps}) for member in self._members])
        return [answer["seconds"] for answer in answers]

    def close(self) -> None:
        """End the processes."""
        self._ended = self._ended or "they were closed"
        self._finalizer()

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """End everything when something fails, Ctrl-C included: an answer that nobody read would be the next one's."""
        if self._ended is not None:
            raise UserError(f"the workers of {self.job.family} have ended: {self._ended}. Make new worlds")
        try:
            yield
        except BaseException as error:
            self._ended = str(error) or type(error).__name__
            self._finalizer()
            raise

    def _ask(self, messages: Sequence[tuple[Member, bytes | dict[str, Any]]]) -> list[Any]:
        """Send each worker its message, then wait for everyone's answer."""
        for member, message in messages:
            try:
                member.channel.send(message)
            # Its answer says why.
            except ConnectionError:
                pass
            except TimeoutError:
                self._hangs(member)
        return [self._answer(member) for member, _ in messages]

    def _answer(self, member: Member) -> bytes | dict[str, Any]:
        try:
            answer = member.channel.receive()
            member.channel.connection.settimeout(_patience(self.job))
            while answer == child.BUSY:
                answer = member.channel.receive()
        except TimeoutError:
            self._hangs(member)
        except (EOFError, ConnectionError):
            self._died(member)
        if isinstance(answer, dict) and answer["type"] == "error":
            self._raised(member, answer)
        return answer

    def _raised(self, member: Member, answer: dict[str, Any]) -> NoReturn:
        """Say what the environment did not like, or what metarl does not like about it."""
        world = answer["world"]
        which, task = self._worlds(member), ""
        if world is not None:
            record = self._records.get(member.first + world)
            which = f"world {member.first + world}"
            task = "" if record is None else f", with the task {record}"
        place = f" ({answer['place']})" if answer["place"] else ""
        drawing = self.job.hello["pictures"] and answer["where"] in DRAWING
        hint = f". {NO_GL}" if place and drawing else ""
        self._fail(f"{which}, {answer['where']}{task}: {answer['error']}{place}{hint}")

    def _died(self, member: Member) -> NoReturn:
        """Say how a process ended."""
        try:
            code = member.process.wait(TO_CLOSE)
        except subprocess.TimeoutExpired:
            self._fail(f"{self._who(member)} closed its end of the connection{_last_words(member)}")
        late = _where_it_stood(member, r"Timeout \(\d")
        if late:
            self._fail(
                f"{self._who(member)} was in one call for more than {self.job.timeout:g} s{late}. "
                "Look for an endless loop or a lock there, or give the family a longer timeout"
            )
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " (the system does so when memory runs out)" if how.endswith("SIGKILL") else ""
        words = _where_it_stood(member, "Fatal Python error") or _last_words(member)
        self._fail(f"{self._who(member)} {how}{hint}{words}. Mend the environment before it is used again")

    def _hangs(self, member: Member) -> NoReturn:
        """Say that a process neither answers nor ends itself."""
        self._fail(
            f"{self._who(member)} gave no sign of life for {member.channel.connection.gettimeout():g} s"
            f"{_last_words(member)}. "
            "If it only is slow, give the family a longer timeout"
        )

    def _who(self, member: Member) -> str:
        process = f"process {member.process.pid}"
        return f"worker {member.index + 1} of {len(self._members)} ({self._worlds(member)}, {process})"

    def _worlds(self, member: Member) -> str:
        last = member.first + member.count - 1
        return f"world {last}" if member.count == 1 else f"worlds {member.first} to {last}"

    def _fail(self, text: str) -> NoReturn:
        raise UserError(f"{self.job.family} with {self.job.hello['make']}: {text}")


def _start(job: Job, index: int, first: int, count: int, memory: IO[bytes]) -> Member:
    """Start a worker process."""
    if INSIDE in os.environ:
        # Else a script that makes worlds as it is imported would start processes without end.
        raise UserError(
            f"{job.family} was asked for in a worker process, which only imports its environment: put that in a "
            "module of its own, or what makes worlds under `if __name__ == '__main__':`"
        )
    python = sys.executable if job.python is None else shutil.which(Path(job.python).expanduser())
    if python is None:
        raise UserError(f"{job.family}: there is no interpreter {job.python}. Give the path of a python with gymnasium")
    # Warnings and paths of this interpreter are not another's.
    left_out = () if job.python is None else ("PYTHONPATH", "PYTHONHOME")
    mark = secrets.token_hex(8)
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | {INSIDE: mark}
    if not job.hello["vector"]:
        for name in ONE_THREAD:
            environment.setdefault(name, "1")
    log = tempfile.TemporaryFile(mode="ab+")  # noqa: SIM115
    # Until it first speaks.
    patience = TO_START + _patience(job)
    command = [str(python), str(Path(child.__file__).resolve())]
    if system.POSIX:
        command = [sys.executable, "-I", "-S", str(KEEPER), str(os.getpid()), *command]
    try:
        process, ours = system.start_worker(command, memory, log=log, environment=environment, patience=patience)
    except OSError as error:
        log.close()
        raise UserError(f"{job.family}: {python} cannot be run, {error}. Give the path of a python") from error
    ours.settimeout(patience)
    channel = child.Channel(ours)
    return Member(index=index, first=first, count=count, process=process, channel=channel, mark=mark, log=log)


def _folders(job: Job) -> dict[str, list[str]]:
    """Return where workers import from, before all else and after it: the present folder is anybody's."""
    present = str(Path.cwd())
    # Another interpreter has packages of its own.
    first = [job.folder, *child.FOLDERS, *(sys.path if job.python is None else [])]
    # Where one's own files are in it, it stands before all else as their folder.
    mine = present in child.FOLDERS
    last = [] if present in child.AVOIDED else [present]
    return {"path": [folder for folder in first if mine or folder != present], "last": last}


def _patience(job: Job) -> float:
    """Return how long a worker may stay silent: it says that it is alive once a second, and ends itself when late."""
    return job.timeout + 1.0 + GRACE


def _end(owner: int, members: list[Member], memory: IO[bytes]) -> None:
    """End the processes and free what they held."""
    if os.getpid() != owner:
        # A fork of the process that has the workers.
        return
    for member in members:
        member.channel.connection.close()
    until = time.monotonic() + TO_CLOSE
    for member in members:
        try:
            member.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            system.kill_worker(member.process)
        if member.process.returncode < 0:
            # Its keeper may have been killed, and could end nothing.
            system.kill_marked(INSIDE, member.mark)
        member.log.close()
    members.clear()
    system.free(memory)


def _printed(member: Member) -> list[str]:
    member.log.seek(0, os.SEEK_END)
    member.log.seek(max(0, member.log.tell() - 20_000))
    return [line.rstrip() for line in member.log.read().decode(errors="replace").splitlines() if line.strip()]


def _last_words(member: Member) -> str:
    """Return the last lines that a worker printed."""
    lines = [line.strip() for line in _printed(member)[-3:]]
    return f"; it last said: {' | '.join(lines)}" if lines else ""


def _where_it_stood(member: Member, headline: str) -> str:
    """Return the innermost calls that Python printed under a headline (a pattern) when it ended the worker."""
    lines = _printed(member)
    found = [number for number, line in enumerate(lines) if re.match(headline, line)]
    if not found:
        return ""
    calls = [line.strip() for line in lines[found[-1] :] if line.startswith("  File ")]
    its_own = [call for call in calls if Path(child.__file__).name not in call]
    return f", at {' < '.join((its_own or calls)[:3])}"
