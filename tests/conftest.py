"""Set-up shared by all tests: shapes checked, one thread a process, no network, GPU tests only with a GPU."""

from __future__ import annotations

import atexit
import importlib.util
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests.helpers import shapes

# Must stand before the first import of metarl: only modules imported later are checked.
shapes.install()

# Tests never see the user's own key; the processes that they start see that of the tests.
STATE = tempfile.mkdtemp(prefix="metarl-state-")
os.environ["XDG_STATE_HOME"] = STATE
atexit.register(shutil.rmtree, STATE, ignore_errors=True)

settings.register_profile("repeatable", derandomize=True, deadline=None)


def pytest_configure() -> None:
    # Tests run in several processes; torch would give every one of them a thread per core.
    torch.set_num_threads(1)
    settings.load_profile("repeatable")


def pytest_runtest_setup() -> None:
    shapes.next_test()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {} if torch.cuda.is_available() else {"gpu": "needs a CUDA device"}
    if not warp_compiles_for_cpu():
        missing["warp_cpu"] = "needs Warp's compiler for the CPU, warp-clang, which is not there"
    for item in items:
        for mark, reason in missing.items():
            if mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def warp_compiles_for_cpu() -> bool:
    """Say whether Warp can compile for its CPU device: its wheels have the compiler as a file of its own."""
    found = importlib.util.find_spec("warp")
    return found is None or any(Path(str(found.origin)).parent.glob("bin/*warp-clang.*"))


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the families that a test registers: other tests go through all that there are."""
    import gymnasium

    from metarl.envs import registry

    copied = {name: dict(variants) for name, variants in registry._FAMILIES.items()}
    monkeypatch.setattr(registry, "_FAMILIES", copied)
    for name in ("_ORIGINS", "_MODIFIED"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    ids = set(gymnasium.registry)
    yield
    for name in set(gymnasium.registry) - ids:
        del gymnasium.registry[name]


@pytest.fixture(autouse=True)
def own_bytecode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep bytecode where it was: a run that was moved has it kept elsewhere."""
    monkeypatch.setattr(sys, "pycache_prefix", sys.pycache_prefix)
    before = os.environ.pop("PYTHONPYCACHEPREFIX", None)
    yield
    os.environ.pop("PYTHONPYCACHEPREFIX", None)
    if before is not None:
        os.environ["PYTHONPYCACHEPREFIX"] = before


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the shared data sets: $METARL_DATA, else `shared/data` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("METARL_DATA") or default)
    if not root.is_dir():
        pytest.skip(f"no data sets at {root}; set METARL_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def opengl() -> bool:
    """Whether this machine can draw MuJoCo worlds."""
    from metarl.envs import FamilyEnv
    from metarl.errors import UserError

    env = FamilyEnv("half-cheetah-vel", render_mode="rgb_array")
    env.reset(seed=0)
    try:
        env.render()
    except UserError:
        return False
    env.close()
    return True


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave this machine: a test that needs one would fail elsewhere."""

    def guarded(connect: Any) -> Any:
        def checked(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not is_local(address[0]):
                raise RuntimeError(f"got a connection to {address!r}: tests may only use this machine")
            return connect(self, address)

        return checked

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))


def is_local(host: str) -> bool:
    """Say whether `host` names this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
