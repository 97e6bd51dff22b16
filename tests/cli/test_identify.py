"""The command, from a log to ranges that are trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.cli.main import main
from metarl.envs import FamilyEnv, get
from metarl.identification.recorder import Recorder
from tests.helpers.commands import refused
from tests.helpers.robot_files import small

FEW = ["--segments", "12", "--draws", "200", "--segment-steps", "3", "--threads", "1"]
TRAINED = ["--tasks", "4", "--minibatches", "1", "--width", "4", "--iterations", "1", "--threads", "1"]
MASS = ("  speed: {", "  leg: {body: leg, field: mass, do: multiply, range: [0.5, 2], scale: log}\n  speed: {")


def recorded(path: Path, name: str) -> dict[str, float]:
    """Write a log of random actions by the recorder for one's own loop; return the task."""
    env = FamilyEnv(name, horizon=60)
    task = env.family.space.sample(1, "test", torch.Generator().manual_seed(7)).records()[0]
    recorder = Recorder(get(name).full_name.partition("+")[0], env.family.step_seconds)
    rng = np.random.default_rng(0)
    for episode in range(2):
        recorder.reset(env.reset(seed=episode, options={"task": task})[0])
        for _ in range(60):
            action = rng.uniform(env.family.action_low, env.family.action_high)
            seen, reward, *_ = env.step(action)
            recorder.step(action, seen, float(reward))
    recorder.save(path)
    return task  # pyright: ignore[reportReturnType]


def test_a_robot_of_the_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "half-cheetah-vel+mass"
    path = tmp_path / "log.npz"
    truth = recorded(path, name)
    capsys.readouterr()
    few = [*FEW, "--population", "50"]
    assert main(["identify", str(path), "--family", name, *few, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "generation 2" in shown.err
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"identification.json", "identification.png", "posterior.npz"}
    narrowed = shown.out.partition("Narrowed     ")[2].split()[0]
    assert narrowed == json.loads((tmp_path / "out" / "identification.json").read_text())["narrowed"]
    mass = get(narrowed).space.parameters[1]
    assert mass.bounds[0] <= truth["mass_factor"] <= mass.bounds[1]
    assert mass.bounds[1] / mass.bounds[0] < 1.1
    assert main(["train", "rl2", "--family", narrowed, "--horizon", "5", *TRAINED, "--out", str(tmp_path / "run")]) == 0

    assert "unknown family" in refused(["identify", str(path), "--family", "cheetah"], capsys)
    message = refused(["identify", str(path), "--family", "ant-dir+mass"], capsys)
    assert "Give --family half-cheetah-vel@v5, with modifiers for what is unknown" in message
    assert "Leave +switch out" in refused(["identify", str(path), "--family", "half-cheetah-vel+switch"], capsys)
    assert "whose tasks are not known" in refused(["identify", str(path), "--family", name, "--task", "0"], capsys)
    assert "Got --draws 3. Give 100 or more" in refused(["identify", str(path), "--draws", "3"], capsys)
    path.write_bytes(path.read_bytes()[:2000])
    assert str(path) in refused(["identify", str(path), "--family", name], capsys)


def test_a_robot_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = small(tmp_path, MASS)
    truth = recorded(tmp_path / "log.npz", str(file))
    out = tmp_path / "elsewhere" / "out"
    out.parent.mkdir()
    few = [*FEW, "--population", "24"]
    assert main(["identify", str(tmp_path / "log.npz"), "--family", str(file), *few, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "cannot tell speed" in shown
    assert f"Narrowed     {out / 'narrowed.yaml'}" in shown
    narrowed = get(str(out / "narrowed.yaml"))
    bounds = {parameter.name: parameter.bounds for parameter in narrowed.space.parameters}
    assert bounds["speed"] == (0.0, 1.0)
    assert 0.9 * truth["leg"] < bounds["leg"][0] <= truth["leg"] <= bounds["leg"][1] < 1.1 * truth["leg"]
    assert main(["train", "rl2", "--family", str(out / "narrowed.yaml"), *TRAINED, "--out", str(tmp_path / "run")]) == 0
