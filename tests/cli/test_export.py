"""`metarl export`: its lines, its JSON and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metarl.cli.main import main
from tests.helpers.commands import contents, refused, remember


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return remember(tmp_path_factory.mktemp("runs") / "run")


def test_it_writes_a_folder_and_measures_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    out = tmp_path / "policy"
    assert main(["export", str(run), "--out", str(out), "--onnx", "no"]) == 0
    assert capsys.readouterr().out.startswith(f"Policy    {out}: weights.safetensors, policy.py, manifest")
    before = contents(out)
    assert main(["export", str(out), "--bench", "--count", "20"]) == 0
    shown = capsys.readouterr().out
    assert "One action of 20 on one core, ms" in shown
    for text in ("p50", "p99", "worst", "processor", "policy.py", "First action after", "No onnxruntime beside it"):
        assert text in shown
    assert main(["export", str(out), "--bench", "--count", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["latency"]["count"] == 20
    assert contents(out) == before


def test_bad_input_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    assert main(["export", str(run), "--out", str(made), "--onnx", "no"]) == 0
    before = contents(tmp_path)
    for line, says in {
        f"{run}": "needs a folder to write to",
        f"{run} --bench": "needs a folder to write to",
        f"{run} --out {made}": "made exists already",
        f"{made} --bench --out {tmp_path / 'x'}": "which is exported already. Leave it out",
        f"{made} --bench --checkpoint best": "a run folder, and this one is exported already",
        f"{run} --out {tmp_path / 'x'} --count 5": "needs --bench",
        f"{run} --out {tmp_path / 'x'} --bench --count 0": "at least 1",
        f"{run} --out {tmp_path / 'x'} --onnx perhaps": "perhaps",
        f"nowhere --out {tmp_path / 'x'}": "no run in nowhere",
        f"{run} --out {tmp_path / 'x'} --source f.py": "metarl's own",
    }.items():
        assert says in refused(["export", *line.split()], capsys), line
    assert contents(tmp_path) == before
    # What a stranger's folder has for a runtime is not run, and no pipe is waited for.
    (made / "model.onnx").mkdir()
    assert "model.onnx is a folder" in refused(["export", str(made), "--bench"], capsys)
    (made / "model.onnx").rmdir()
    (made / "policy.py").write_text("")
    assert "policy.py was altered" in refused(["export", str(made), "--bench"], capsys)
