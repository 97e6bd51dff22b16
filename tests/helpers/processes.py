"""Processes of their own that need not import everything anew: forked from one that has.

What runs in them is what `python -m MODULE ARGUMENTS` or `python FILE ARGUMENTS` runs. A start takes milliseconds in
place of the seconds that importing torch takes. The one they are forked from never computes anything, so that they have
no state of the tests. How `python -m metarl` itself starts is tested in tests/cli/test_main.py.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import TimeoutExpired

import torch

SERVED = multiprocessing.get_context("forkserver")
"""Forks processes from one that has imported all that commands need."""
SERVED.set_forkserver_preload(["tests.helpers.loaded"])


class Started:
    """A process that was started, with the interface of `subprocess.Popen` that tests need.

    Args:
        program: a module, or a file that ends in .py.
        arguments: of the command line.
        folder: where it runs; the present folder if not given.
        environment: variables beside those of this process.
    """

    def __init__(
        self, program: str, *arguments: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.pipes = Path(tempfile.mkdtemp())
        variables = {**os.environ, **(environment or {})}
        self._process = SERVED.Process(
            target=_run, args=(program, arguments, str(folder or Path.cwd()), variables, str(self.pipes))
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code.

        Raises:
            TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutExpired("a process of a test", timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it wrote to standard output and standard error."""
        self.wait(timeout)
        output, errors = ((self.pipes / name).read_text() for name in ("out", "err"))
        shutil.rmtree(self.pipes)
        return output, errors


def _run(program: str, arguments: tuple[str, ...], folder: str, variables: dict[str, str], pipes: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(pipes) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
