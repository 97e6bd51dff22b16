"""What stands in the READMEs of envs and of its folders runs as it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from metarl.agents import make
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.bench import engines
from metarl.cli import warm as cli_warm
from metarl.cli.main import main
from metarl.envs import families, get, make_worlds
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.fingerprint import read
from metarl.run.tracking import read_progress
from metarl.seeding import Streams
from tests.helpers.processes import Started
from tests.helpers.readme import ROOT, block, commands

README = "envs/README.md"
SMALL = {
    "train maml-trpo": " --tasks 2 --episodes 2 --hidden 8 --iterations 1 --threads 1",
    "train rl2": " --tasks 2 --episodes 2 --width 8 --minibatches 1 --iterations 1 --threads 1",
    "evaluate": " --tasks 2 --episodes 2 --steps 1 --threads 1 --no-film",
    "render": " --rows 1 --columns 1 --width 64 --height 64",
    "bench engines": " --rounds 1 --env-steps 40 --threads 1",
    "fingerprint": " point-nav",
    "list": "",
    "warm": "",
}
"""What makes a command take seconds: its first words, and what is added to it."""

pytestmark = pytest.mark.usefixtures("own_registry")


def run(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {} if names is None else names
    exec(compile(code, "README.md", "exec"), names)
    return names


def run_commands(lines: list[str]) -> None:
    for line in lines:
        (more,) = (added for words, added in SMALL.items() if line.startswith(f"metarl {words}"))
        small = line.replace("--device cuda", "--device cpu").replace("--worlds 32 256 1024", "--worlds 2")
        assert main(f"{small}{more}".split()[1:]) == 0, line


# --- envs --------------------------------------------------------------------------------------------------------


def test_gymnasium_example() -> None:
    names = run(block(README, "gymnasium.make_vec"))
    assert 0.0 <= names["info"]["task"]["velocity"] <= 2.0
    assert names["worlds"].num_envs == 64
    names["env"].close()
    names["worlds"].close()


def test_own_family_example_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A dataclass looks its module up by name, so the example is run as a module.
    (tmp_path / "heavy_hopper_example.py").write_text(block(README, "class HeavyHopper"))
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
    del sys.modules["heavy_hopper_example"]


def test_own_gymnasium_environment_trains_and_improves(tmp_path: Path) -> None:
    (tmp_path / "reach_env.py").write_text(block(README, "class Reach("))
    (tmp_path / "reach_family.py").write_text(block(README, "GymnasiumFamily("))
    train, evaluate = commands(README, "metarl train") + commands(README, "metarl evaluate")
    # Processes of their own: a registered family stays in the process that imports it.
    for line in (
        train.replace("--iterations 30", "--iterations 4") + " --tasks 10 --threads 1",
        evaluate + SMALL["evaluate"],
    ):
        process = Started(*line.split(), folder=tmp_path)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    rows = read_progress(tmp_path / "runs" / "reach")
    # An adaptation step helps from the first iteration on: the point learns where its goal is.
    assert len(rows) == 4
    assert sum(row["return/post"] - row["return/pre"] for row in rows) > 0.0
    assert all(0.0 <= row["episode/success"] <= 1.0 for row in rows)


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opengl: bool) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for start in ("list", "fingerprint", "render") for line in commands(README, f"metarl {start}")]
    assert len(lines) == 5
    run_commands([line for line in lines if opengl or "render" not in line])
    assert (tmp_path / "push-shape-grid.png").is_file() == opengl


# --- its folders -------------------------------------------------------------------------------------------------


def test_fingerprints_of_a_new_family_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    lines = commands("envs/families/README.md")
    assert len(lines) == 1
    run_commands(lines)
    assert read(tmp_path / "tests" / "fingerprints.json") == {
        "point-nav@maml17": read(ROOT / "tests" / "fingerprints.json")["point-nav@maml17"]
    }


def test_commands_of_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = {name: families()[name] for name in ("half-cheetah-vel", "swimmer-vel", "point-nav")}
    monkeypatch.setattr(engines, "families", lambda: few)
    # Compiling takes minutes, and has tests of its own.
    compiled = []

    def warm(name: str, *_: Any, **__: Any) -> dict[str, Any]:
        compiled.append(name)
        return {"family": name, "seconds": 0.0}

    monkeypatch.setattr(cli_warm, "warm", warm)
    monkeypatch.setattr(cli_warm, "_in_a_process", warm)
    lines = commands("envs/engines/README.md")
    assert len(lines) == 7
    run_commands(lines)
    assert compiled[:3].count("half-cheetah-vel") == 2
    assert len(compiled) > 10


def test_modifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(block("envs/modifiers/README.md", "get("))
    assert names["family"].full_name == "ant-dir@v5+damage+switch"
    names["env"].close()
    lines = commands("envs/modifiers/README.md")
    assert len(lines) == 5
    run_commands(lines)


def test_gym_example() -> None:
    names = run(block("envs/gym/README.md", "FamilyVectorEnv("))
    assert names["infos"]["task"]["velocity"].tolist() == [0.25 * world for world in range(8)]
    run(block("envs/gym/README.md", "copy.deepcopy("), names)
    assert names["imagined"].get_state()["worlds"]["_elapsed"] == 0
    assert len(set(names["rewards"].values())) == 3
    names["env"].close()
    names["envs"].close()


def test_external_example() -> None:
    names = run(block("envs/external/README.md", "GymnasiumFamily("))
    assert names["worlds"].num_worlds == 4
    assert names["pendulum"].action_high == (2.0,)


def test_bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opengl: bool) -> None:
    if not opengl:
        pytest.skip("no off-screen OpenGL here")
    monkeypatch.chdir(tmp_path)
    run_commands(commands("envs/bodies/README.md"))
    assert (tmp_path / "reach-over-grid.png").is_file()
