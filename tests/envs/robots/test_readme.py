"""What stands in the room's README runs as it is written."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metarl.cli.main import main
from metarl.envs.robots.robot_family import robot_family
from tests.helpers.readme import ROOT, block, commands
from tests.helpers.robot_files import EXAMPLE, example, forget, small

README = "envs/robots/README.md"
SMALL = {
    "check --schema": "",
    "check ": " --episodes 2 --horizon 3 --threads 1",
    "train rl2": " --tasks 2 --episodes 2 --width 8 --minibatches 1 --iterations 1 --threads 1",
    "list": "",
    "evaluate": " --tasks 2 --episodes 1 --probe-tasks 10 --no-film",
    "render go1": " --rows 1 --columns 1 --width 64 --height 64",
    "render runs": " --width 64 --height 64",
    "export": " --count 10 --onnx no",
}
"""What makes a command take seconds: its first words, and what is added to it."""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    forget()


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example(tmp_path, ("name: quadruped", "name: go1"), ("horizon: 200", "horizon: 5")).rename(tmp_path / "go1.yaml")
    there = tmp_path / EXAMPLE.parent.relative_to(ROOT)
    there.mkdir(parents=True)
    example(there, ("horizon: 200", "horizon: 5"))
    monkeypatch.chdir(tmp_path)
    for line in commands(README):
        more = next(added for words, added in SMALL.items() if line.startswith(f"metarl {words}"))
        less = line.partition(" >")[0].replace("--horizon 500", "--horizon 4")
        less = less.replace("--tasks 128 --minibatches 4 ", "")
        assert main(shlex.split(less + more)[1:]) == 0, line
    assert (tmp_path / "go1-grid.png").is_file()
    assert (tmp_path / "walks-policy" / "policy.py").is_file()


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLE.parent, tmp_path / EXAMPLE.parent.relative_to(ROOT))
    monkeypatch.chdir(tmp_path)
    names = {}
    code = block(README, "FamilyEnv").replace("tasks=10, horizon=20", "tasks=2, minibatches=1, width=4, horizon=4")
    exec(compile(code, README, "exec"), names)
    assert names["run"].family.name == "quadruped"
    assert names["info"]["task"] == {"speed": 0.5, "payload": 2.0}
    assert names["observation"].shape == (names["env"].observation_space.shape)


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "terms_of_leg.py").write_text(block(README, "def clearance"))
    term = "clearance: {term: own, weight: 2, function: 'terms_of_leg.py:clearance', fields: [site_xpos]}"
    family = robot_family(small(tmp_path, ("{alive: 1}", f"{{{term}}}")))
    state = {"qpos": torch.zeros(1, 2), "site_xpos": torch.tensor([[[0.1, 0.2, 0.7]]], dtype=torch.float64)}
    tasks = family.space.sample(1, "train", torch.Generator().manual_seed(0))
    terms = family.reward_terms({}, state, torch.zeros(1, 2, dtype=torch.float64), tasks)
    assert float(terms["clearance"]) == 1.4
