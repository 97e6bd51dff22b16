"""What operating systems do differently stands in one file, and metarl trains where what Linux has is missing."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metarl import system
from metarl.system import file_name, lines_left_out, locked, peak_kib, sync_folder
from tests.helpers.other_system import HIDDEN, LACKING
from tests.helpers.readme import ROOT


@pytest.mark.slow
def test_it_trains_where_windows_lacks_what_linux_has(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.other_system", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("all of it works\n")
    assert (tmp_path / "run" / system.LOCK).is_file()


def test_only_one_file_names_what_windows_lacks() -> None:
    attributes = {(module.__name__, name) for module, names in LACKING.items() for name in names}
    # These are asked for, not taken for granted.
    asked = {(f"metarl/{file}.py", "sched_getaffinity") for file in ("devices", "deployment/latency")}
    found = set()
    for room in ("metarl", "envs", "agents"):
        for file in (ROOT / room).rglob("*.py"):
            name = file.relative_to(ROOT).as_posix()
            # The keeper is run by path, and only where there is what it needs.
            alone = ("metarl/system.py", "envs/external/keeper.py")
            if name in alone or name.startswith(("metarl/envs/", "metarl/agents/")):
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
                    found |= {(name, module) for module in names if module in HIDDEN}
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    found |= {(name, node.attr)} if (node.value.id, node.attr) in attributes else set()
    assert found == asked


def test_a_lock_is_held_by_one_and_waited_for(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "file.lock"):
        with locked(path) as held:
            assert held
            with locked(path, wait=False) as other:
                assert not other
        with locked(path, wait=False) as held:
            assert held
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.lock"]
    order = []

    def late() -> None:
        with locked(tmp_path):
            order.append("second")

    thread = threading.Thread(target=late)
    with locked(tmp_path):
        thread.start()
        time.sleep(1.5 * system.POLL)
        order.append("first")
    thread.join(5.0)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rl2 width=8", "rl2 width=8"),
        ("maml optimiser={'a': 1}", "maml optimiser={'a'- 1}"),
        ('a/b\\c:d*e?f"g<h>i|j', "a-b-c-d-e-f-g-h-i-j"),
        ("ends with a dot. ", "ends with a dot"),
        ("...", "-"),
        ("", "-"),
    ],
)
def test_names_of_files_suit_every_system(text: str, name: str) -> None:
    assert file_name(text) == name


def test_peak_memory_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10_000 < peak_kib() < 2**30
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert 10_000 < peak_kib() < 2**30
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_kib() == 0


def test_a_folder_is_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    sync_folder(tmp_path)
    assert synced == [tmp_path.stat().st_ino]


def test_a_stranger_at_the_port_is_not_taken_for_the_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stranger = socket.create_connection(server.getsockname())
        stranger.sendall(b"x" * 32)
        worker = socket.create_connection(server.getsockname())
        worker.sendall(b"t" * 32)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            met = system._met(server, process, b"t" * 32, 5.0)
            assert met.getpeername() == worker.getsockname()
            assert stranger.recv(1) == b""
            # Nobody comes: what is given is closed at its other end.
            with system._met(server, process, b"t" * 32, 0.3) as nobody:
                assert nobody.recv(1) == b""
            process.kill()
        for connection in (stranger, worker, met):
            connection.close()


def test_only_lines_with_the_text_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(InterruptedError), lines_left_out("deprecated"):
        os.write(2, b"WARNING: 'settotalmass' is deprecated\nsomething else\n")
        raise InterruptedError
    assert capfd.readouterr().err == "something else\n"
