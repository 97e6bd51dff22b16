"""The folder: whole or not there, the same every time, in the formats that it says, and it needs NumPy alone."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.deployment import safetensors, writing
from metarl.deployment.graph import available
from metarl.deployment.latency import latency
from metarl.deployment.policy import read_tensors
from metarl.envs import get
from metarl.errors import UserError
from metarl.files import Folder
from tests.helpers.commands import contents
from tests.helpers.exported import LEVERS, runtime, short, trained, written
from tests.helpers.trials import Ragged


def test_arrays_come_back_and_others_can_read_them() -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b.c": np.array(2.5),
        "d": np.zeros((0, 3), np.float32),
    }
    content = safetensors.encode(arrays)
    found = read_tensors(content, "here")
    assert [*found] == [*arrays]
    for name, array in found.items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])
    numpy = pytest.importorskip("safetensors.numpy", reason="needs the safetensors package")
    for name, array in numpy.load(content).items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.shape == arrays[name].shape


def test_the_manifest_tells_all_of_a_robot(tmp_path: Path) -> None:
    family = short(get("half-cheetah-vel+mass"), 5)
    folder = written(trained("maml-trpo", family), family, tmp_path / "policy")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert [*manifest] == [
        *("format", "what", "versions", "agent", "family", "control", "trial", "observation", "action", "tasks"),
        *("network", "adaptation", "files"),
    ]
    assert manifest["control"] == {"rate_hz": pytest.approx(20.0), "step_seconds": 0.05}
    assert manifest["observation"][0] == {"index": 0, "meaning": "z of the torso", "name": "rootz", "unit": "m"}
    assert len(manifest["observation"]) == manifest["network"]["inputs"][0]["size"] == 17
    assert manifest["action"]["kind"] == "continuous"
    assert manifest["action"]["components"][5] == {"index": 5, "low": -1.0, "high": 1.0}
    assert [task["name"] for task in manifest["tasks"]] == [parameter.name for parameter in family.space.parameters]
    velocity = manifest["tasks"][0]
    assert (velocity["low"], velocity["high"], velocity["unit"]) == (0.0, 2.0, "m/s")
    assert manifest["trial"] == {
        "adapts_by": "gradient",
        "horizon": 5,
        "episodes": 3,
        "between_episodes": manifest["trial"]["between_episodes"],
    }
    assert manifest["agent"]["settings"]["hidden"] == [8, 8]
    assert manifest["adaptation"]["rates"]["layers.0.weight"] == 0.1
    # All that `sha256sum -c` needs.
    stated = (folder / "manifest.sha256").read_text()
    assert stated == f"{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}  manifest.json\n"
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in folder.iterdir()} == {*manifest["files"], "manifest.json", "manifest.sha256"}


def test_choices_are_told_and_the_same_agent_gives_the_same_folder(tmp_path: Path) -> None:
    agent: Any = trained("rl2", LEVERS)
    folders = [written(agent, LEVERS, tmp_path / name, onnx=available()) for name in ("one", "two")]
    first, second = ({path.name: content for path, content in contents(folder).items()} for folder in folders)
    assert first == second
    policy = runtime(folders[0])
    assert policy.manifest["action"] == {"kind": "choices", "unit": "the arm pulled", "choices": [2, 3]}
    assert policy.manifest["trial"]["adapts_by"] == "memory"
    assert policy.manifest["adaptation"] is None
    assert policy.parameters == {}
    # Drawn by a seed, or always the likeliest.
    seen = [[runtime(folders[0], seed=seed).act([0.0]).tolist() for _ in range(2)] for seed in range(6)]
    assert all(first == second for first, second in seen)
    assert len({str(pair) for pair in seen}) > 1
    likeliest = {str(runtime(folders[0], seed=seed, deterministic=True).act([0.0])) for seed in range(6)}
    assert len(likeliest) == 1


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dead link"])
def test_what_is_there_is_not_touched(kind: str, stepping: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
        (out / "policy.py").write_text("mine")
    else:
        (tmp_path / "empty").mkdir()
        out.symlink_to("empty" if kind == "link" else "nowhere")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="out exists already"):
        written(trained("multitask", Ragged()), Ragged(), out)
    assert contents(tmp_path) == before


def test_an_empty_folder_is_taken_and_missing_ones_are_made(tmp_path: Path) -> None:
    agent = trained("multitask", Ragged())
    (tmp_path / "empty").mkdir()
    assert runtime(written(agent, Ragged(), tmp_path / "empty")).act([0.0, 0.0]).shape == (2,)
    assert runtime(written(agent, Ragged(), tmp_path / "a" / "b")).act([0.0, 0.0]).shape == (2,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty"]


@pytest.mark.parametrize("last", [0, 3])
def test_what_is_interrupted_leaves_nothing(last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, write, written_files = trained("multitask", Ragged()), Folder.write, []

    def interrupted(self: Folder, name: str, content: bytes) -> Path:
        if len(written_files) == last:
            raise KeyboardInterrupt
        written_files.append(name)
        return write(self, name, content)

    monkeypatch.setattr(writing.Folder, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(agent, Ragged(), tmp_path / "out")
    assert len(written_files) == last
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_needs_numpy_alone_and_an_old_python() -> None:
    tree = ast.parse(writing.RUNTIME.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"numpy"}


def test_latency_is_measured_in_a_process_of_its_own(remembering: Path, tmp_path: Path) -> None:
    report = latency(remembering, 40)
    assert report["count"] == 40
    assert "onnxruntime" not in report
    assert report["start_seconds"] > 0.0
    times = report["policy.py"]
    assert 0.0 < times["p50"] <= times["p99"] <= times["worst"]
    assert times["processor"] > 0.0
    if available():
        folder = written(trained("oracle", LEVERS), LEVERS, tmp_path / "policy", onnx=True)
        assert latency(folder, 5).keys() >= {"policy.py", "onnxruntime"}


def test_what_a_student_cannot_do_elsewhere_is_refused_and_a_policy_of_no_task_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'rma', whose student looks at a window of steps.*Export a run of rl2"):
        written(trained("rma", Ragged()), Ragged(), tmp_path / "student")
    assert not (tmp_path / "student").exists()
    policy = runtime(written(trained("ppo", Ragged()), Ragged(), tmp_path / "ppo"))
    assert policy.manifest["trial"]["adapts_by"] == "nothing"
    with pytest.raises(policy_error(policy), match="is the same in every task, and takes no gradient steps"):
        policy.adapt([{}])


def policy_error(policy: Any) -> type[Exception]:
    return vars(sys.modules[type(policy).__module__])["PolicyError"]
