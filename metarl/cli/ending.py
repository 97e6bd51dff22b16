"""How the command ends: with an exit code and at most one line about why, whenever it is and for whatever reason.

    interrupted (SIGINT, SIGTERM, SIGHUP)   `metarl: interrupted`, 130. While modules are imported, the process ends at
                                            once: an import that is cut short fails in ways of its own. Else what runs
                                            is cut short, and cleans up; a second signal ends the process at once. A
                                            training (run/driver.py) finishes its iteration first.
    something that a user can mend          one line, 2
    nobody reads what is printed any more   nothing, 130
    a mistake of ours                       Python's traceback, 1

Nothing here needs more than Python itself: it is imported first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys

from metarl.cli.codes import INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from types import FrameType
    from typing import NoReturn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

received: list[int] = []
"""Signals that have interrupted this process."""


def watch() -> None:
    """Let signals, and what goes wrong beside the main thread, end this process as is told above."""
    for number in SIGNALS:
        # `nohup` has the terminal's end ignored.
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    _open_closed_streams()
    sys.unraisablehook = _unraisable

    import threading

    threading.excepthook = _thread_failed


def _interrupt(number: int, frame: FrameType | None) -> None:
    again = bool(received)
    received.append(number)
    if again or _importing(frame):
        end_at_once()
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(problem: sys.UnraisableHookArgs) -> None:
    """Python goes on after an interruption that comes in a finaliser: end all the same."""
    if received and isinstance(problem.exc_value, KeyboardInterrupt):
        end_at_once()
    sys.__unraisablehook__(problem)


def _thread_failed(problem: threading.ExceptHookArgs) -> None:
    """Leave it to the main thread to tell of full disks and closed terminals: it has to do with the same ones."""
    if not isinstance(problem.exc_value, OSError):
        sys.excepthook(problem.exc_type, problem.exc_value or problem.exc_type(), problem.exc_traceback)


def _open_closed_streams() -> None:
    """Give this process the standard streams that it was started without; else other files would get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: PTH123, SIM115


def say(text: str) -> None:
    """Print a line on standard error, if there is still somebody to read it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"metarl{rank()}: {text}", file=sys.stderr, flush=True)


def rank() -> str:
    """Return which of several processes this is; nothing where it is alone."""
    size = os.environ.get("WORLD_SIZE", "1")
    return "" if size == "1" else f" (rank {os.environ.get('RANK', '?')} of {size})"


def end_at_once() -> NoReturn:
    """End this process, interrupted, without the cleaning up of Python."""
    # The cursor that a live line has hidden.
    seen = "\x1b[?25h" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{seen}metarl{rank()}: interrupted\n".encode())
    os._exit(INTERRUPTED)


def end(code: int) -> NoReturn:
    """End this process with what there is to be done at its end, and without what may still interrupt or keep it.

    Python itself would wait for threads that others have started, and print whatever fails then.
    """
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: os._exit(code))
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
