"""The benchmarks run at tiny sizes, and what they compare is what they say."""

import os

import numpy as np
import pytest
import torch

from metarl.bench import EnginesConfig, MamlConfig, known_warning_left_out, run_engines, run_maml, vary_masses
from metarl.envs import make_worlds
from metarl.envs.cpu import MujocoPhysics
from metarl.errors import UserError


def test_engines_reports_every_contender(capsys: pytest.CaptureFixture[str]):
    before = torch.get_num_threads()
    report = run_engines(EnginesConfig(family=("ant-dir",), worlds=(2,), rounds=2, env_steps=40, threads=1))
    (row,) = report["results"]
    assert row["worlds"] == 2
    assert row["steps"] == 20
    assert {"metarl", "open loop", "SyncVectorEnv", "AsyncVectorEnv"} <= set(row["env_steps_per_second"])
    assert all(speed > 0 for speed in row["env_steps_per_second"].values())
    assert set(row["metarl_over"]) == set(row["env_steps_per_second"]) - {"metarl"}
    assert "open loop" in capsys.readouterr().out
    assert torch.get_num_threads() == before


def test_engines_needs_a_robot():
    with pytest.raises(UserError, match="no MuJoCo model"):
        run_engines(EnginesConfig(family=("point-nav",), worlds=(2,), rounds=1))


def test_worlds_of_the_benchmark_differ():
    physics = make_worlds("half-cheetah-vel", 3, threads=1).physics
    assert isinstance(physics, MujocoPhysics)
    vary_masses(physics)
    masses = physics.batch.expanded("body_mass")
    assert masses is not None
    assert len(np.unique(masses[:, 1:].round(9), axis=0)) == 3


def test_maml_compares_executors(capsys: pytest.CaptureFixture[str]):
    report = run_maml(MamlConfig(family="point-nav", tasks=2, episodes=2, steps=5, rounds=1, threads=1))
    assert list(report["executors"]) == ["folded", "vmap", "loop"]
    assert report["executors"]["loop"]["speedup"] == 1.0
    assert all(row["time/update"] > 0 for row in report["executors"].values())
    assert "of adapt and update, on loop" in " ".join(capsys.readouterr().out.split())


def test_only_the_known_warning_is_left_out(capfd: pytest.CaptureFixture[str]):
    with known_warning_left_out():
        os.write(2, b"WARNING: compiler attribute 'settotalmass' is deprecated\nsomething else\n")
    assert capfd.readouterr().err == "something else\n"
