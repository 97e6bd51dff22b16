"""The README's Python examples run as they are written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
import torch

from metarl.agents import make
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.envs import get, make_worlds
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.seeding import Streams

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(words: str) -> str:
    found = [code for code in BLOCKS if words in code]
    assert len(found) == 1, f"the README has {len(found)} Python examples with {words!r}"
    return found[0]


def test_gymnasium_example():
    names: dict = {}
    exec(compile(block("gymnasium.make_vec"), "README.md", "exec"), names)
    assert 0.0 <= names["info"]["task"]["velocity"] <= 2.0
    assert names["worlds"].num_envs == 64
    names["env"].close()
    names["worlds"].close()


def test_own_family_example_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A dataclass looks its module up by name, so the example is run as a module.
    (tmp_path / "heavy_hopper_example.py").write_text(block("class HeavyHopper"))
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("heavy_hopper_example")
    family = get("heavy-hopper")
    assert gymnasium.make("Hopper-v5").observation_space.shape == (family.observation_size,)
    config = MamlTrpoConfig(tasks=2, episodes=2, hidden=(8,))
    agent = make("maml-trpo", config, family.spec(), Streams(0), torch.device("cpu"))
    env = make_worlds(family, 4)
    metrics = agent.train_iteration(env, family.space.sample, Streams(0))
    assert metrics["env/steps"] > 0
    physics = env.physics
    assert isinstance(physics, MujocoPhysics)
    masses = physics.batch.expanded("body_mass")
    assert masses is not None
    assert (masses[0] == masses[1]).all()
    assert (masses[0, 1:] != masses[2, 1:]).all()


def test_own_gymnasium_environment_trains_and_improves(tmp_path: Path):
    (tmp_path / "reach_env.py").write_text(block("class Reach("))
    (tmp_path / "reach_family.py").write_text(block("GymnasiumFamily("))
    (line,) = re.findall(r"^metarl (train .*reach_family.py:reach.*)$", README, flags=re.MULTILINE)
    words = [*line.replace("--iterations 30", "--iterations 4").split(), "--tasks", "10", "--threads", "1", "--json"]
    # A process of its own: a registered family stays in the process that imports it.
    done = subprocess.run(
        [sys.executable, "-m", "metarl", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(row) for row in done.stdout.splitlines() if '"return/post"' in row]
    # An adaptation step helps from the first iteration on: the point learns where its goal is.
    assert len(rows) == 4
    assert sum(row["return/post"] - row["return/pre"] for row in rows) > 0.0
    assert all(0.0 <= row["episode/success"] <= 1.0 for row in rows)
