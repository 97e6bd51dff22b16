"""scripts/gpu_check: its limits, its archive, and what it makes of tests that fail or never end."""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests import conftest

ROOT = Path(__file__).resolve().parents[1]
MARKS = ("gpu", "warp_cpu", "slow")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("gpu_check", str(ROOT / "scripts" / "gpu_check"))
    spec = importlib.util.spec_from_loader("gpu_check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    loader.exec_module(module)
    return module


def started(script: ModuleType, folder: Path, budget: float = 60.0, jobs: int = 2) -> Any:
    logs = folder / "logs"
    logs.mkdir()
    plan = script.Plan(families=("a", "b"), figures={}, budget=budget)
    return script.Check(plan=plan, out=folder / "out" / "check.tar.gz", logs=logs, jobs=jobs)


def contents(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as packed:
        files = [member for member in packed.getmembers() if member.isfile()]
        return {Path(file.name).name: packed.extractfile(file).read().decode() for file in files}  # pyright: ignore[reportOptionalMemberAccess]


def test_what_overruns_the_budget_is_killed_and_its_log_kept(script: ModuleType, tmp_path: Path) -> None:
    check = started(script, tmp_path, budget=script.RESERVE + 2.0)
    hangs = "import time; print('began', flush=True); time.sleep(60)"
    began = time.monotonic()
    codes = check.run({"quick": [sys.executable, "-c", "print(1)"], "hangs": [sys.executable, "-c", hangs]})
    assert time.monotonic() - began < 10.0
    assert codes == {"quick": 0, "hangs": -9}
    assert (check.log("quick"), check.log("hangs")) == ("1\n", "began\n")
    assert check.run({"late": [sys.executable, "-c", hangs]}, limit=0.1) == {"late": -9}
    assert script.ended(-9, check.log("hangs")) == "killed when the budget was used up: began"
    with pytest.raises(script.CannotRunError, match="the budget of 7 s is used up"):
        check.part("more", lambda: "never")


def test_the_first_part_that_cannot_run_ends_it(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kernels(check: Any) -> str:
        (check.logs / "kernels.log").write_text("what was printed")
        check.failures.append("kernels of ant-dir: too long")
        raise script.CannotRunError("no compiler")

    monkeypatch.setattr(script.Check, "starts", lambda check: "fine")
    monkeypatch.setattr(script.Check, "kernels", kernels)
    monkeypatch.setattr(script.Check, "tests", lambda check: pytest.fail("runs after the end"))
    out = tmp_path / "here" / "gpu_check.tar.gz"
    assert script.main(["--quick", "--out", str(out)]) == 2
    files = contents(out)
    assert files["kernels.log"] == "what was printed"
    report = json.loads(files["report.json"])
    assert report["stopped"] == "no compiler"
    assert report["failures"] == ["kernels of ant-dir: too long"]
    assert list(report["seconds"]) == ["starts", "kernels"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "== starts, 0 s: fine"
    assert shown[1] == "== kernels, 0 s: cannot run: no compiler"
    assert shown[-2:] == ["kernels of ant-dir: too long", "1 failures. Stopped: no compiler"]


def test_parts_can_be_left_out_and_failures_tell(script: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(script.Check, "starts", lambda check: "fine")
    monkeypatch.setattr(script.Check, "figures", lambda check: check.failures.append("one") or "done")
    out = str(tmp_path / "c.tar.gz")
    assert script.main(["--only", "starts", "--out", out]) == 0
    assert script.main(["--only", "starts", "figures", "--out", out]) == 1


def test_kernels_go_on_with_the_robots_that_compile(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = started(script, tmp_path)
    lines = ['{"family": "a", "seconds": 21.0}', '{"family": "b", "error": "no room"}']

    def run(commands: dict[str, Any]) -> dict[str, int]:
        assert commands["kernels"][3:] == ["warm", "a", "b", "--device", "cuda", "--json"]
        (check.logs / "kernels.log").write_text("\n".join(lines))
        return {"kernels": 2}

    monkeypatch.setattr(check, "run", run)
    assert check.kernels() == "a 21 s"
    assert check.failures == ["kernels of b: no room"]
    del lines[0]
    with pytest.raises(script.CannotRunError, match="exit code 2"):
        check.kernels()


def test_the_longest_tests_begin_first(script: ModuleType) -> None:
    names = [f"tests/test_{name}.py::test" for name in ("a", "gpu", "b", "deterministic")]
    first = sorted(names, key=script.longest_first)
    assert first == [names[3], names[1], names[0], names[2]]
    assert script.dealt(first, 3) == [[names[3], names[2]], [names[1]], [names[0]]]
    assert script.dealt(first[:1], 3) == [[names[3]]]
    # Whoever renames them is to change their places too.
    tests = "\n".join(f"{path.name} {path.read_text()}" for path in (ROOT / "tests").rglob("test_*.py"))
    assert all(part in tests for part in script.LONG)


def test_what_has_no_compiler_here_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU machine whose Warp came without it."""
    skipped: list[str] = []
    items: Any = [
        SimpleNamespace(keywords={mark}, add_marker=lambda m: skipped.append(m.kwargs["reason"])) for mark in MARKS
    ]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (tmp_path / "bin").mkdir()
    here = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: here)
    conftest.pytest_collection_modifyitems(items)
    assert skipped == ["needs Warp's compiler for the CPU, warp-clang, which is not there"]
    (tmp_path / "bin" / "warp-clang.so").touch()
    conftest.pytest_collection_modifyitems(items)
    assert len(skipped) == 1


def test_tests_run_in_several_processes_and_failures_are_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = tmp_path / "tests" / "envs" / "engines"
    engines.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = ["-ra", "-m", "not slow"]\nmarkers = ["gpu: a", "slow: b"]\n'
    )
    (engines / "test_one.py").write_text(
        "import time, pytest\n"
        "def test_passes(): pass\n"
        "@pytest.mark.parametrize('word', ['a b', 'c'])\ndef test_fails(word): assert word == 'c'\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
    )
    (tmp_path / "tests" / "test_two.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.gpu\ndef test_crashes(): os._exit(3)\n"
        "@pytest.mark.gpu\ndef test_after(): pass\ndef test_other(): pass\n"
    )
    (tmp_path / "tests" / "test_broken.py").write_text("import nothing_of_this_name\n@pytest.mark.gpu\ndef test(): 0\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p pytest_timeout")
    check = started(script, tmp_path, jobs=1)
    assert check.tests() == "1 failed, 1 not ended, 3 passed, in 1 processes; 2 were run again"
    assert check.failures == [
        "ERROR tests/test_broken.py",
        "FAILED: tests/envs/engines/test_one.py::test_fails[a b]",
        "NOT ENDED: tests/test_two.py::test_crashes",
    ]
    assert "tests/envs/engines/test_one.py::test_slow" not in check.report["tests"]
