"""What a user's module changes of the process when it is imported is as it was afterwards."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.imports import process_kept
from metarl.system import limits_given_back

CHANGES = {
    "folder": "import os; os.chdir('/')",
    "print": "import builtins; builtins.print = None",
    "open": "import builtins; del builtins.open",
    "stdout": "import sys; sys.stdout = None",
    "hooks": "import sys, threading; sys.excepthook = threading.excepthook = None",
    "recursion": "import sys; sys.setrecursionlimit(5000)",
    "signals": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "mask": "import os; os.umask(0o777)",
    "files": "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, r.getrlimit(r.RLIMIT_NOFILE)[1]))",
    "gradients": "import torch; torch.set_grad_enabled(False)",
    "dtype": "import torch; torch.set_default_dtype(torch.float64)",
    "device": "import torch; torch.set_default_device('meta')",
    "strict": "import torch; torch.use_deterministic_algorithms(True)",
    "numpy": "import numpy; numpy.seterr(all='raise')",
}


def state() -> list[object]:
    mask = os.umask(0)
    os.umask(mask)
    return [
        Path.cwd(),
        print,
        vars(builtins).get("open"),
        sys.stdout,
        sys.excepthook,
        threading.excepthook,
        sys.getrecursionlimit(),
        signal.getsignal(signal.SIGINT),
        mask,
        *_limits(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        np.geterr(),
    ]


def _limits() -> list[object]:
    import resource

    return [resource.getrlimit(resource.RLIMIT_NOFILE)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize("change", CHANGES)
def test_it_is_as_it_was(change: str) -> None:
    before = state()
    with process_kept():
        exec(CHANGES[change], {})
        assert change == "open" or state() != before
    assert state() == before
    with pytest.raises(ZeroDivisionError), process_kept():
        exec(f"{CHANGES[change]}; 1 / 0", {})
    assert state() == before


def test_in_another_thread_than_the_main_one(tmp_path: Path) -> None:
    def importing() -> None:
        with process_kept():
            os.chdir(tmp_path)

    before = Path.cwd()
    thread = threading.Thread(target=importing)
    thread.start()
    thread.join()
    assert Path.cwd() == before


def test_names_that_a_module_adds_stay() -> None:
    with process_kept():
        builtins.__dict__["added_by_a_module"] = 3
    assert builtins.__dict__.pop("added_by_a_module") == 3


def test_a_limit_that_cannot_be_given_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    limits: dict[int, tuple[int, int]] = dict.fromkeys(range(100), (10, 10))
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)

    def refuse(number: int, limit: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    give_back = limits_given_back()
    assert give_back() == []
    limits[resource.RLIMIT_NOFILE] = (3, 3)
    assert "RLIMIT_NOFILE" in give_back()
    limits[resource.RLIMIT_NOFILE] = (10, 10)
    with (
        pytest.raises(RuntimeError, match=r"lowers a limit of this process for good \(.*RLIMIT_NOFILE"),
        process_kept(),
    ):
        limits[resource.RLIMIT_NOFILE] = (3, 3)
