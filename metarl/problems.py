"""What a user is told of an error that is not a `UserError`: what went out, and whose code failed.

Three things beside a user's input end a command: code of the user's own (an environment, a family, a backbone), which
may raise anything; memory, disks and devices; and our own mistakes. The first two are one line. What is left is ours,
and keeps its traceback.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType, TracebackType

from metarl.errors import UserError

_OURS = tuple(str((Path(__file__).parent / room).resolve()) + os.sep for room in (".", "envs", "agents"))
_INSTALLED = tuple(sysconfig.get_path(kind) + os.sep for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
_RELIED_ON = ("torch", "numpy", "gymnasium", "mujoco")
"""Packages that every command's errors come by: what is named in them, such as `torch.nn:Linear`, is no user's own."""
_THEIRS: set[str] = set()
"""Folders of what a user has named to be imported, or its packages; files, where such a folder has other things."""


def note_users_module(module: ModuleType) -> None:
    """Remember that a module, with its package or its neighbours, is a user's own."""
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    if top.__name__ not in _RELIED_ON and getattr(top, "__file__", None):
        file = Path(str(top.__file__)).resolve()
        folder = str(file.parent) + os.sep
        # Among what is installed, a module of one file has all the others beside it.
        _THEIRS.add(str(file) if folder in _INSTALLED else folder)


def problem_of(error: BaseException) -> str | None:
    """Return in one line what a user can know and do about an error; None where it is our own mistake, or no error.

    An interruption and the end of what is printed to are no errors.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return None
    said = in_words(error)
    place = place_in_users_code(error)
    if place is not None:
        return f"{place}: {said}. Mend it there."
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in said or "can't start new thread" in said:
        return (
            f"Memory has run out, or threads ({said}). Ask for less: fewer tasks, episodes, worlds or threads, smaller "
            "networks; or end what else runs here."
        )
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return _of_the_system(error)
    if isinstance(error, RuntimeError) and "torch" in sys.modules:
        from metarl.devices import device_problem

        problem = device_problem(error)
        return problem and f"{problem[:1].upper()}{problem[1:]}"
    return None


def in_words(error: BaseException) -> str:
    """Return an error's type and text in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return (
        f"{type(error).__name__}: {text if len(text) <= 300 else f'{text[:300]} ...'}" if text else type(error).__name__
    )


def _of_the_system(error: OSError) -> str:
    try:
        Path.cwd()
    except OSError:
        return "The present folder has been removed. Go to one that is there (cd), and run it again."
    return f"{error}. Check the path, its permissions and the free space."


def place_in_users_code(error: BaseException) -> str | None:
    """Return the innermost place of a user's own code that an error came by, None where it came by none."""
    if isinstance(error, SyntaxError) and error.filename and _is_theirs(error.filename):
        return f"{error.filename}, line {error.lineno}"
    found, deeper = _innermost(error.__traceback__)
    # A generator turns a StopIteration into an error of its own.
    if found is None and error.__cause__ is not None:
        found, deeper = _innermost(error.__cause__.__traceback__)
    return None if found is None else f"{found}{f' (raised at {deeper})' if deeper else ''}"


def _innermost(trace: TracebackType | None) -> tuple[str | None, str | None]:
    """Return the innermost place of a user's code, and that of ours where it is further in."""
    found = deeper = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        place = f"{file}, line {trace.tb_lineno}, in {trace.tb_frame.f_code.co_name}"
        if _is_theirs(file):
            found, deeper = place, None
        elif found is not None and file.startswith(_OURS):
            deeper = place
        trace = trace.tb_next
    return found, deeper


def _is_theirs(file: str) -> bool:
    folders = [folder for folder in _THEIRS if file.startswith(folder)]
    installed = file.startswith(_INSTALLED) and not any(folder.startswith(_INSTALLED) for folder in folders)
    return bool(folders) and not installed and not file.startswith(_OURS)
