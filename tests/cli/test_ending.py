"""Every end of the command is an exit code and at most one line: interruptions, full disks, closed terminals."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metarl.cli import ending
from metarl.cli.main import main
from metarl.errors import tell
from metarl.run.tracking import read_progress
from tests.helpers.commands import TINY, refused, train
from tests.helpers.processes import Started

LONG = ["train", "maml-trpo", *TINY, "--iterations", "100000", "--checkpoint-every", "1000", "--out"]
GONE = "metarl: error: The present folder has been removed. Go to one that is there (cd), and run it again.\n"


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal: the command for SIGTERM, from its first line on."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("after", [0.0, 0.2, 0.8])
def test_an_interruption_while_it_starts_is_one_line(after: float, tmp_path: Path) -> None:
    number = signal.SIGTERM if after == 0.2 else signal.SIGINT
    command = [sys.executable, "-m", "metarl", *LONG, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
        time.sleep(after)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, "", "metarl: interrupted\n")
    assert not (tmp_path / "run").exists()


def when_training(
    folder: Path, then: Callable[[Started], None], program: str = "metarl"
) -> tuple[int | None, str, str]:
    """Start a long training, do something once it has two rows, and return how it ended."""
    process = Started(program, *LONG, str(folder))
    until = time.monotonic() + 60.0
    while len(read_progress(folder)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    then(process)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


def test_a_training_finishes_its_iteration_and_goes_on(tmp_path: Path) -> None:
    code, output, errors = when_training(tmp_path / "run", lambda process: process.send_signal(signal.SIGHUP))
    assert (code, errors) == (130, "")
    assert "Stopped by SIGHUP after iteration" in output
    done = len(read_progress(tmp_path / "run"))
    assert main(["train", "--resume", str(tmp_path / "run"), "--iterations", str(done + 1)]) == 0
    assert len(read_progress(tmp_path / "run")) == done + 1


def interrupt(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    # Python looks for signals between two of its instructions.
    time.sleep(1.0)


PLACES = {
    "options": "import metarl.cli.train as m; m.parse = interrupt",
    "writing": "import metarl.files as m; m.os.fsync = interrupt",
    "settings": "import metarl.run.folder as m; m.dump = interrupt",
    "checkpoint": "import torch; save = torch.save; torch.save = lambda *all: (interrupt(), save(*all))",
    "exit": "import atexit; atexit.register(interrupt)",
    "finaliser": "import metarl.seeding as m; m.Streams.__del__ = interrupt",
    "swallowed": "import metarl.files as m; m.os.fsync = swallow",
}
"""Where an interruption comes: what is done before the command."""


@pytest.mark.parametrize("place", PLACES)
def test_an_interruption_at_every_place_is_one_line(place: str, tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "import os, signal, time\n"
        "def interrupt(*_, **__):\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(1.0)\n"
        "def swallow(*_, **__):\n    try:\n        interrupt()\n    except BaseException:\n        interrupt()\n"
        f"{PLACES[place]}\nfrom metarl.cli.main import main\nmain()\n"
    )
    arguments = ["train", "maml-trpo", *TINY, "--iterations", "1", "--out", str(tmp_path / "run")]
    process = Started(str(script), *arguments)
    _, errors = process.communicate(timeout=60)
    if place in ("exit", "checkpoint"):
        # All has been done.
        assert (process.returncode, errors) == (0, "")
    else:
        assert (process.returncode, errors) == (130, "metarl: interrupted\n")
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")] == [] or place == "swallowed"
    again = ["train", "--resume", str(tmp_path / "run")] if (tmp_path / "run" / "config.yaml").exists() else arguments
    assert main(again) == 0


def limited(kib: int, *arguments: str, folder: Path) -> tuple[int | None, str, str]:
    """Run the command with files that can have so many KiB, as on a disk that is full then, and return how it ended."""
    script = folder / "limited.py"
    script.write_text(
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({kib * 1024}, {kib * 1024}))\n"
        "from metarl.cli.main import main\nmain()\n"
    )
    process = Started(str(script), *arguments)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


@pytest.mark.parametrize("kib", [1, 6])
def test_a_full_disk_is_one_line_and_the_run_goes_on(kib: int, tmp_path: Path) -> None:
    arguments = ["train", "maml-trpo", *TINY, "--iterations", "40", "--checkpoint-every", "40", "--out"]
    code, _, errors = limited(kib, *arguments, str(tmp_path / "run"), folder=tmp_path)
    assert code == 2
    assert errors.startswith("metarl: error: ")
    assert "File too large. Check the path, its permissions and the free space." in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.rglob("*.partial"))
    assert main(["train", "--resume", str(tmp_path / "run"), "--iterations", "2"]) == 0


def test_a_disk_that_is_full_while_an_evaluation_is_written(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    code, _, errors = limited(2, "evaluate", str(run), "--tasks", "2", "--threads", "1", "--no-film", folder=tmp_path)
    assert code == 2
    assert errors.count("\n") == 1
    assert "File too large" in errors
    assert not list(tmp_path.rglob("*.partial"))
    assert main(["evaluate", str(run), "--tasks", "2", "--threads", "1", "--no-film"]) == 0


def test_a_present_folder_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for arguments in (["list"], ["train", "maml-trpo", *TINY], ["fewshot", "list"]):
        assert refused(arguments, capsys) == GONE
    assert main(["--version"]) == 0


def test_a_present_folder_that_goes_while_a_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def remove(process: Started) -> None:
        (tmp_path / "here").rmdir()
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)

    # What is trained elsewhere does not need it.
    code, _, errors = when_training(tmp_path / "run", remove)
    assert (code, errors) == (130, "")


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_it_works_without_standard_streams(closed: tuple[int, ...], tmp_path: Path) -> None:
    script = tmp_path / "closed.py"
    script.write_text(
        "import os, sys\nfrom metarl.cli.main import main\n"
        f"for number in {closed}:\n    os.close(number)\n"
        f"    setattr(sys, ('stdin', 'stdout', 'stderr')[number], None)\n"
        "main()\n"
    )
    process = Started(str(script), "train", "maml-trpo", *TINY, "--out", str(tmp_path / "run"))
    assert process.wait(60.0) == 0
    assert len(read_progress(tmp_path / "run")) == 2
    assert main(["train", "--resume", str(tmp_path / "run"), "--iterations", "3"]) == 0


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    script = tmp_path / "full.py"
    script.write_text(
        "import os\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nfrom metarl.cli.main import main\nmain()\n"
    )
    process = Started(str(script), "list")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors == (
        "metarl: error: [Errno 28] No space left on device. Check the path, its permissions and the free space.\n"
    )
    process = Started(str(script), *LONG, str(tmp_path / "run"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == (
        "metarl: what the training shows cannot be written any more, [Errno 28] No space left on device: it stops\n"
    )
    # A checkpoint was written.
    assert main(["train", "--resume", str(tmp_path / "run"), "--iterations", "2"]) == 0


def test_a_terminal_that_goes_stops_a_training_with_a_checkpoint(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = tmp_path / "terminal.py"
    script.write_text(
        f"import os\nfor number in (0, 1, 2):\n    os.dup2(os.open({os.ttyname(theirs)!r}, os.O_RDWR), number)\n"
        "import sys\nsys.stdout, sys.stderr = open(1, 'w'), open(2, 'w')\n"
        "from metarl.cli.main import main\nmain()\n"
    )

    def close(process: Started) -> None:
        os.close(theirs)
        os.close(ours)
        # Of the processes of a session that is theirs.
        process.send_signal(signal.SIGHUP)

    code, _, _ = when_training(tmp_path / "run", close, str(script))
    assert code == 130
    assert (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def test_a_pipe_that_nobody_reads_any_more_is_no_error(tmp_path: Path) -> None:
    script = tmp_path / "pipe.py"
    script.write_text(
        "import os, sys\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)\nsys.stdout = open(1, 'w')\n"
        "from metarl.cli.main import main\nmain()\n"
    )
    for arguments in (["list"], ["--help"], [*LONG, str(tmp_path / "run")]):
        process = Started(str(script), *arguments)
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 130


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "Memory has run out, or threads (MemoryError). Ask for less: fewer tasks"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "Memory has run out"),
        (RuntimeError("can't start new thread"), "Memory has run out, or threads"),
        (OSError(28, "No space left on device"), "No space left on device. Check the path, its permissions and the"),
        (PermissionError(13, "Permission denied", "x"), "Permission denied: 'x'. Check the path"),
    ],
)
def test_what_runs_out_is_one_line(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr("metarl.cli.list.list_command", fails)
    assert says in refused(["list"], capsys)


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("metarl.cli.list.list_command", fails)
    with pytest.raises(KeyError, match="ours"):
        main(["list"])


def test_lines_are_said_also_where_nobody_hears_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with (Path(os.devnull)).open() as unwritable:
        monkeypatch.setattr(sys, "stderr", unwritable)
        with contextlib.suppress(SystemExit):
            ending.say("a line")
            assert main(["lst"]) == 2


def test_a_full_disk_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(arguments: list[str]) -> None:
        error = OSError(28, f"No space left on device {os.getpid()}")
        if arguments == ["train"]:
            tell(f"what the training shows cannot be written any more, {error}: it stops")
        raise error

    monkeypatch.setattr("metarl.cli.main._dispatch", full)
    for command in ("list", "train"):
        assert main([command]) == 2
        assert capsys.readouterr().err.count("\n") == 1
