"""Importing a user's module: what it changes of this process, for all that comes after it, is brought back.

Brought back are
    of Python   the present folder, built-in names, standard streams, hooks for errors, what signals do, the limits of
                recursion and of what the system gives to a process, the mask of new files
    of torch    whether gradients are kept, the default type and device, whether randomness is refused
    of numpy    what happens when numbers go beyond what they can be

What is left as the module made it: the environment, sys.path, warnings, threads that it starts, what it changes in
other modules, and what runs at the end. Where the system does not give a limit back, the module is refused.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metarl.system import limits_given_back

_OF_SYS = ("stdin", "stdout", "stderr", "excepthook", "unraisablehook", "displayhook")
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE") if hasattr(signal, name)]


@contextmanager
def process_kept() -> Iterator[None]:
    """Be in the same process after it as before (see the module).

    Raises:
        RuntimeError: a limit of the process has become lower for good.
    """
    given_back = [keep() for keep in (_folder, _names, _signals, _mask, _of_torch, _of_numpy)]
    limits = limits_given_back()
    try:
        yield
    finally:
        lost = limits()
        for give_back in given_back:
            give_back()
        if lost:
            raise RuntimeError(f"it lowers a limit of this process for good ({', '.join(lost)})")


def _folder() -> Callable[[], None]:
    here = Path.cwd()
    return lambda: os.chdir(here)


def _names() -> Callable[[], None]:
    known, of_sys = dict(vars(builtins)), {name: getattr(sys, name) for name in _OF_SYS}
    depth, threads_hook = sys.getrecursionlimit(), threading.excepthook

    def give_back() -> None:
        builtins.__dict__.update(known)
        sys.__dict__.update(of_sys)
        threading.excepthook = threads_hook
        if sys.getrecursionlimit() != depth:
            sys.setrecursionlimit(depth)

    return give_back


def _signals() -> Callable[[], None]:
    known = {number: signal.getsignal(number) for number in _SIGNALS}

    def give_back() -> None:
        for number, handler in known.items():
            # Only the main thread may, and then only it could have changed them; None is what Python did not set.
            if handler is not None and signal.getsignal(number) is not handler:
                with suppress(ValueError):
                    signal.signal(number, handler)

    return give_back


def _mask() -> Callable[[], None]:
    mask = os.umask(0o077)
    os.umask(mask)
    return lambda: _done(os.umask(mask))


def _of_torch() -> Callable[[], None]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    gradients = torch.is_grad_enabled()
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def give_back() -> None:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            # Without one of its own torch is fast, and uses the CPU.
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])

    return give_back


def _of_numpy() -> Callable[[], None]:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return lambda: None
    errors = numpy.geterr()
    return lambda: _done(numpy.seterr(**errors))


def _done(before: object) -> None:
    """Leave out what something returns."""
