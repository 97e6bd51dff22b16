"""What stands in the room's README runs as it is written."""

from __future__ import annotations

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
    "check go1": " --episodes 2 --horizon 3 --threads 1",
    "check --schema": "",
    "train rl2": " --tasks 2 --episodes 2 --width 8 --minibatches 1 --iterations 1 --threads 1",
    "list": "",
    "render": " --rows 1 --columns 1 --width 64 --height 64",
}
"""What makes a command take seconds: its first words, and what is added to it."""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    forget()


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example(tmp_path, ("name: quadruped", "name: go1"), ("horizon: 200", "horizon: 5")).rename(tmp_path / "go1.yaml")
    monkeypatch.chdir(tmp_path)
    for line in commands(README):
        (more,) = (added for words, added in SMALL.items() if line.startswith(f"metarl {words}"))
        arguments = f"{line.partition(' >')[0]}{more}".replace("--horizon 500", "--horizon 4").split()[1:]
        assert main(arguments) == 0, line
    assert (tmp_path / "go1-grid.png").is_file()


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
