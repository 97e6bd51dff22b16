"""MuJoCo's warnings are counted and told in one line; nothing is printed, and nothing written to the present folder."""

from __future__ import annotations

from pathlib import Path

import mujoco
import pytest
import torch

from metarl.cli.main import main
from metarl.envs import make_worlds, mujoco_log
from metarl.envs.engines.cpu import MujocoPhysics
from tests.helpers.commands import SMALL
from tests.helpers.toys import seeded as generator

QACC = "Nan, Inf or huge value in QACC. The simulation is unstable."


def break_worlds(count: int, broken: int) -> None:
    worlds = make_worlds("half-cheetah-vel", count, threads=2)
    worlds.set_tasks(worlds.family.space.sample(count, "train", generator(1)))
    worlds.reset(generator(2))
    assert isinstance(worlds.physics, MujocoPhysics)
    worlds.physics.state["qvel"][:broken] = 1e9
    worlds.step(torch.zeros(count, worlds.action_size))
    assert worlds.failures == broken


def test_warnings_of_all_threads_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mujoco_log.counts.clear()
    break_worlds(16, 12)
    assert mujoco_log.counts[QACC] == 12
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []

    total = mujoco_log.counts.total()
    mujoco_log.report(tmp_path / "run")
    said = capfd.readouterr().err
    assert said.startswith(f"metarl: MuJoCo warned {total} times, ")
    assert said.endswith(f"; all kinds are in {tmp_path / 'run' / 'mujoco.log'}\n")
    assert f"12 x {QACC}\n" in (tmp_path / "run" / "mujoco.log").read_text()
    mujoco_log.report(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_training_leaves_them_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    step = MujocoPhysics.advance

    def broken(self: MujocoPhysics, action: torch.Tensor, worlds: torch.Tensor | None) -> torch.Tensor | None:
        self.state["qvel"][0] = 1e9
        return step(self, action, worlds)

    monkeypatch.setattr(MujocoPhysics, "advance", broken)
    family = ["--family", "half-cheetah-vel", "--horizon", "3", "--iterations", "1", "--hidden", "4"]
    assert main(["train", "maml-trpo", *family, *SMALL, "--out", "run"]) == 0
    assert QACC in (tmp_path / "run" / "mujoco.log").read_text()
    assert "metarl: MuJoCo warned" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert main(["evaluate", "run", "--tasks", "2", "--episodes", "1", "--steps", "0", "--no-film"]) == 0
    assert QACC in (tmp_path / "run" / "evaluation" / "test" / "mujoco.log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_function_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mujoco.get_mju_user_warning()
    try:
        mujoco.set_mju_user_warning(print)
        mujoco_log.listen()
        assert mujoco.get_mju_user_warning() is print
    finally:
        mujoco.set_mju_user_warning(before)
