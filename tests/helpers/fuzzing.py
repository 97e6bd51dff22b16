"""Feeding metarl anything: a case, what came of it, and whether that is one of the two ends that are allowed.

A case lays files into a folder and runs one command there, in a process of its own with a limit of memory and time. It
either works, or ends in one line on standard error, with the exit code 2 and nothing changed on disk. All else is a
fault: a traceback, a signal, too long, too much memory, a change outside what it was to write, bad input taken in
silence.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from metarl.cli.codes import BAD_INPUT
from tests.helpers.processes import SERVED

SECONDS = 5.0
"""CPU seconds that a case may take: beside other work a clock on the wall tells nothing."""
WALL = 60.0
"""Seconds after which a case is ended: it waits for something."""
MEMORY = 2 * 2**30
"""Bytes that a case may hold at once."""

WORKS, REFUSED = "works", "refused"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something that metarl is fed."""

    what: str
    """What it is, in words that say how to make it again."""
    arguments: tuple[str, ...]
    """Of `metarl`; paths are from the folder of the case."""
    lay: Callable[[Path], object] = field(default=lambda folder: None, repr=False)
    """Lays what it is fed into the folder."""
    bad: bool = False
    """It must be refused: it cannot be understood."""
    good: bool = False
    """It must work."""
    like: Callable[[Path, str], str] | None = field(default=None, repr=False)
    """Where it works: returns what is wrong with the folder and the output, in a few words; nothing is empty."""
    writes: tuple[str, ...] = ()
    """Names in the folder that the command may make or change where it works."""
    keeps: tuple[str, ...] = ()
    """The same where it is refused: the run of a training that had begun, the cache."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What came of a case."""

    outcome: str
    """WORKS, REFUSED, or what kind of fault it is."""
    seconds: float
    """On the CPU."""
    detail: str = ""
    """Of a fault."""


class Feeding:
    """Runs cases in a folder, and counts what came of them.

    Args:
        folder: each case has its own folder in it for as long as it runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.slowest = 0.0

    def feed(self, case: Case) -> None:
        """Run a case, and note what came of it."""
        ended = run(case, self.folder)
        self.outcomes[ended.outcome] += 1
        self.slowest = max(self.slowest, ended.seconds)
        if ended.outcome not in (WORKS, REFUSED):
            self.faults.append(f"[{ended.outcome}] {case.what}\n    metarl {case.arguments}\n    {ended.detail}")

    def summary(self, kind: str) -> str:
        """Return the counts in a line."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return f"{kind}: {sum(self.outcomes.values())} cases, {counts}; slowest {self.slowest:.1f} s of CPU"


def run(case: Case, folder: Path) -> Ended:
    """Run a case in a folder of its own, which is removed afterwards."""
    whole = Path(tempfile.mkdtemp(dir=folder))
    try:
        place = whole / "deep" / "work"
        place.mkdir(parents=True)
        (whole / "deep" / "canary").write_text("outside")
        case.lay(place)
        before = _seen(whole)
        done = _executed(case.arguments, place, whole.with_name(whole.name + "-pipes"))
        return _judged(case, done, place, before, _seen(whole))
    finally:
        shutil.rmtree(whole, ignore_errors=True)


@dataclass(frozen=True)
class _Done:
    """What a process did."""

    code: int
    output: str
    errors: str
    seconds: float
    memory: int


def _judged(case: Case, done: _Done, place: Path, before: dict[str, str], after: dict[str, str]) -> Ended:
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    outcome, detail = "", done.errors.strip()[-600:]
    if done.seconds > SECONDS or done.code == -signal.SIGALRM:
        outcome, detail = "hang", f"{done.seconds:.1f} s of CPU {detail}"
    elif done.memory > MEMORY:
        outcome, detail = "memory", f"{done.memory / 2**30:.1f} GiB {detail}"
    elif done.code < 0:
        outcome = f"signal {-done.code}"
    elif "Traceback" in done.errors:
        outcome, detail = "traceback", _told(done.errors)
    elif done.code == BAD_INPUT:
        lines = [line for line in done.errors.splitlines() if ": error: " in line]
        if len(lines) != 1 or not done.errors.splitlines()[-1].startswith("metarl: error: "):
            outcome = "not one line"
        elif strange := _others(changed, case.keeps, place):
            outcome, detail = "refused and changed", f"{strange[:6]} {detail}"
        else:
            outcome = "wrongly refused" if case.good else REFUSED
    elif done.code != 0:
        outcome, detail = f"exit code {done.code}", detail
    elif case.bad:
        outcome, detail = "silent", done.output[-300:]
    else:
        strange = _others(changed, case.writes, place)
        wrong = f"changed {strange[:6]}" if strange else case.like(place, done.output) if case.like else ""
        outcome, detail = ("silent", wrong) if wrong else (WORKS, "")
    return Ended(outcome=outcome, seconds=done.seconds, detail=detail)


def _told(errors: str) -> str:
    """Return the last line of a traceback, and where in metarl it began."""
    lines = errors.strip().splitlines()
    places = [line.strip() for line in lines if line.strip().startswith("File ") and "site-packages" not in line]
    return f"{lines[-1][:300]} <- {' <- '.join(reversed(places[-3:]))}"


def _others(changed: list[str], names: tuple[str, ...], place: Path) -> list[str]:
    """Return what was changed apart from some names in the folder of the case."""
    root = f"{place.relative_to(place.parents[1])}/"
    return [name for name in changed if not name.startswith(tuple(root + name for name in names))]


def _seen(folder: Path) -> dict[str, str]:
    """Return what stands below a folder: kind, size and time of the last change of every entry."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        plain = not path.is_dir() or path.is_symlink()
        found[str(path.relative_to(folder))] = (
            f"{status.st_mode} {status.st_size} {status.st_mtime_ns}" if plain else f"{status.st_mode}"
        )
    return found


def _executed(arguments: tuple[str, ...], place: Path, pipes: Path) -> _Done:
    """Run `metarl ARGUMENTS` in a place, measured by the process that it is forked from."""
    pipes.mkdir()
    process = SERVED.Process(target=_measured, args=(arguments, str(place), str(pipes), dict(os.environ)))
    process.start()
    process.join()
    try:
        code, seconds, memory = json.loads((pipes / "done").read_text())
        output, errors = ((pipes / name).read_text(errors="replace") for name in ("out", "err"))
    finally:
        shutil.rmtree(pipes)
    return _Done(code, output, errors, seconds, memory)


def _measured(arguments: tuple[str, ...], place: str, pipes: str, variables: dict[str, str]) -> None:
    child = os.fork()
    if child == 0:
        _become(arguments, place, pipes, variables)
    ends = time.monotonic() + WALL
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            status = signal.SIGALRM
            break
        time.sleep(0.005)
    # What the case started ends with it.
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    seconds = usage.ru_utime + usage.ru_stime
    Path(pipes, "done").write_text(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024]))


def _become(arguments: tuple[str, ...], place: str, pipes: str, variables: dict[str, str]) -> None:
    """Be `metarl ARGUMENTS`, and never return."""
    os.setpgid(0, 0)
    for number, name in ((0, os.devnull), (1, f"{pipes}/out"), (2, f"{pipes}/err")):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(variables, OMP_NUM_THREADS="1", HOME=place, XDG_STATE_HOME=f"{pipes}/state")
    os.chdir(place)
    # Beyond what may be held, so that a fault is seen and the machine is not filled.
    for limit, most in ((resource.RLIMIT_DATA, 3 * MEMORY), (resource.RLIMIT_FSIZE, MEMORY), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    signal.signal(signal.SIGXCPU, _too_long)
    resource.setrlimit(resource.RLIMIT_CPU, (3 * int(SECONDS), 4 * int(SECONDS)))
    sys.argv = ["metarl", *arguments]
    code = 1
    try:
        runpy.run_module("metarl", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _too_long(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
