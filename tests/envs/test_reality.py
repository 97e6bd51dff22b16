"""Another reality: what a file changes, against plain MuJoCo, and what is refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs import get
from metarl.envs.elsewhere import RealMujoco, in_reality, worlds_there
from metarl.envs.family import MujocoFamily
from metarl.envs.reality import KEYS, REALITIES, Reality, find_realities
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.types import Tasks
from tests.helpers.modified import actions_for, by_hand, stepped
from tests.helpers.plain_mujoco import mujoco_family
from tests.helpers.toys import seeded

CPU = torch.device("cpu")


def begun(name: str, reality: Reality, count: int = 2, episodes: int = 1) -> tuple[Worlds, Tasks]:
    """Return worlds in a reality after a reset, and the tasks of home that they were given."""
    family = get(name)
    tasks = family.space.sample(count, "test", seeded())
    worlds = worlds_there(family, reality, tasks, episodes, seeded(1), engine="cpu", device=CPU, threads=1)
    worlds.set_tasks(tasks.repeat(episodes))
    worlds.reset(seeded(2))
    return worlds, tasks


def test_everything_at_once_is_that_of_plain_mujoco() -> None:
    reality = Reality(
        time_step=0.005,
        integrator="implicitfast",
        solver="cg",
        iterations=30,
        cone="elliptic",
        impratio=5.0,
        solref=(0.03, 0.9),
        solimp=(0.8, 0.9, 0.002, 0.5, 2.0),
        lag=0.04,
        strength=0.9,
        saturation=0.5,
    )
    worlds, tasks = begun("half-cheetah-vel", reality)
    family = worlds.family
    assert isinstance(family, RealMujoco)
    assert (family.frame_skip, family.step_seconds) == (10, 0.05)
    model = copy.copy(mujoco_family("half-cheetah-vel").model)
    option = model.opt
    option.timestep, option.iterations, option.impratio = 0.005, 30, 5.0
    option.integrator, option.solver = mujoco.mjtIntegrator.mjINT_IMPLICITFAST, mujoco.mjtSolver.mjSOL_CG
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model.geom_solref[:], model.geom_solimp[:] = (0.03, 0.9), (0.8, 0.9, 0.002, 0.5, 2.0)
    model.actuator_ctrllimited[:] = False
    actions, wanted = actions_for(worlds), []
    for world in range(2):
        motors, controls = torch.zeros(6, dtype=torch.float64), []
        for action in actions[:, world]:
            motors = motors + (1.0 - math.exp(-0.05 / 0.04)) * (action - motors)
            controls.append((0.9 * motors).clamp(-0.5, 0.5))
        wanted.append(by_hand(worlds, world, model, torch.stack(controls)))
    positions, velocities, seen = stepped(worlds, actions)
    for world in range(2):
        np.testing.assert_allclose(positions[:, world], wanted[world][0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(velocities[:, world], wanted[world][1], rtol=0, atol=1e-8)
    assert torch.equal(worlds.tasks["velocity"], tasks["velocity"]) if worlds.tasks else False
    np.testing.assert_allclose(seen[-1, 0, :8].numpy(), positions[-1, 0, 1:], rtol=0, atol=1e-6)


def test_what_it_adds_to_tasks_is_hidden_stays_and_has_a_stream_of_its_own() -> None:
    worlds, tasks = begun("half-cheetah-vel+mass", REALITIES["slow"], count=3, episodes=2)
    assert worlds.family_name == "half-cheetah-vel@v5+mass"
    assert worlds.tasks is not None
    assert worlds.tasks["mass_factor"].tolist() == tasks.repeat(2)["mass_factor"].tolist()
    delays = worlds.tasks["action_delay"]
    assert set(delays.tolist()) <= {1.0, 2.0}
    assert torch.equal(delays[::2], delays[1::2])
    worlds.set_tasks(tasks.repeat(2))
    worlds.reset(seeded(5))
    assert torch.equal(worlds.tasks["action_delay"], delays)
    # Starts of the first episodes are those of home.
    home, _ = begun("half-cheetah-vel+mass", Reality(solver="newton"), count=3, episodes=2)
    there, _ = begun("half-cheetah-vel+mass", REALITIES["worn"], count=3, episodes=2)
    assert torch.equal(home.physics.state["qpos"], there.physics.state["qpos"])


def test_a_delay_in_front_of_a_lag() -> None:
    worlds, _ = begun("half-cheetah-vel", Reality(lag=0.05, modifiers=("delay=2..2,action",)), count=1)
    worlds.drive.carried["+delay.late"].fill_(1.0)
    share = 1.0 - math.exp(-1.0)
    sent = [0.8, -0.4, 0.0, 0.0]
    motors, found = 0.0, []
    for step, action in enumerate(sent):
        worlds.step(torch.full((1, 6), action, dtype=torch.float64))
        worlds.drive.carried["+delay.late"].fill_(1.0)
        motors += share * ((sent[step - 2] if step >= 2 else 0.0) - motors)
        found.append((worlds.state["+motors"][0, 0].item(), motors))
    for one, other in found:
        assert one == pytest.approx(other)


@pytest.mark.parametrize("name", REALITIES, ids=[f"in {name}" for name in REALITIES])
def test_those_with_a_name_suit_robots(name: str) -> None:
    reality = REALITIES[name]
    for family in ("ant-dir", "half-cheetah-vel+noise" if name != "worn" else "half-cheetah-vel+delay"):
        if name == "slow" and "delay" in family:
            continue
        there = in_reality(get(family), reality)
        assert there.step_seconds == get(family).step_seconds
        assert len(there.space.parameters) >= len(get(family).space.parameters)


def test_families_in_torch_have_sensors_and_messages() -> None:
    worlds, _ = begun("point-nav", Reality(modifiers=("+noise", "+delay")))
    assert worlds.step(torch.zeros(2, 2)).observation.isfinite().all()
    half = Reality(lag=1.0 / math.log(2.0))
    worlds, _ = begun("point-nav", half)
    seen = [worlds.step(torch.full((2, 2), 1.0)).observation[0, 0].item() for _ in range(2)]
    # Steps of 1 s: half the way to the largest move, then half of what is left.
    assert seen == [pytest.approx(0.05), pytest.approx(0.125)]
    with pytest.raises(UserError, match="lag: actions of bandit@bernoulli-5 are choices, which do not lag"):
        in_reality(get("bandit"), half)
    with pytest.raises(UserError, match="solver: point-nav@maml17 has no MuJoCo model that it would change"):
        in_reality(get("point-nav"), Reality(solver="cg"))
    with pytest.raises(UserError, match="push: point-nav@maml17 has no MuJoCo model"):
        in_reality(get("point-nav"), Reality(modifiers=("push",)))


def test_what_a_family_does_not_allow() -> None:
    with pytest.raises(UserError, match=r"time_step: got 0.03 s, .*half-cheetah-vel@v5, 0.05 s, is no whole .* 0.025"):
        in_reality(get("half-cheetah-vel"), Reality(time_step=0.03))
    with pytest.raises(UserError, match=r"no whole number. Give for instance 0.007142857143\.$"):
        in_reality(get("half-cheetah-vel"), Reality(time_step=0.007))
    seven = in_reality(get("half-cheetah-vel"), Reality(time_step=0.007142857143))
    assert isinstance(seven, MujocoFamily)
    assert seven.frame_skip == 7
    for many in (Reality(time_step=1e-9), Reality(time_step=1e-320), Reality(substeps=10_000)):
        with pytest.raises(UserError, match="a control step of half-cheetah-vel@v5 has more than 10,000"):
            in_reality(get("half-cheetah-vel"), many)
    with pytest.raises(UserError, match="has parameters of the same name as those of noise: leave out what"):
        in_reality(get("half-cheetah-vel+noise"), Reality(modifiers=("noise",)))
    with pytest.raises(UserError, match=r"modifiers: got \['noise'\], but tasks of .* change within a trial"):
        in_reality(get("half-cheetah-vel+switch"), Reality(modifiers=("noise",)))
    with pytest.raises(UserError, match="engine: got cpu, which steps the worlds at home too"):
        begun("half-cheetah-vel", REALITIES["cpu"])


WRONG: dict[str, tuple[str, str]] = {
    "unknown": ("solvr: cg", "unknown key 'solvr'. Did you mean 'solver'"),
    "choice": ("solver: fast", "solver: got 'fast'. .*pgs, cg, newton"),
    "type": ("iterations: many", r"iterations: got 'many' \(str\) where"),
    "range": ("time_step: -0.01", "time_step: got -0.01. Give a number above 0."),
    "whole": ("substeps: 0", "substeps: got 0. Give a whole number from 1 to 10000."),
    "both": ("substeps: 2\ntime_step: 0.01", "time_step and substeps: got both."),
    "solref": ("solref: [0.01]", "solref"),
    "negative": ("solref: [-1000.0, -20.0]", "solref: got .* Give a time constant and a damping ratio above 0."),
    "solimp": ("solimp: [0.9, 0.5, 0.001, 0.5, 2.0]", "solimp: got .* Give 0 < LOW <= HIGH < 1"),
    "modifier": ("modifiers: [nois]", r"unknown modifier '\+nois'. Did you mean 'noise'"),
    "switch": ("modifiers: [switch]", "modifiers: got 'switch': a reality is the same during a trial"),
    "horizon": ("modifiers: [horizon=5]", "modifiers: got 'horizon=5': episodes are as long as at home. Leave it out."),
    "summary": ('summary: "a\\nb"\nlag: 0.1', "summary: got .* Give a few words in a line, at most 200 letters."),
    "nothing": ("summary: the same", "it changes nothing. Give at least one of: time_step, substeps"),
    "empty": ("", "got no `key: value` lines. Keys are summary, time_step"),
    "list": ("- solver", "got no `key: value` lines"),
    "twice": ("solver: cg\nsolver: pgs", "the entry 'solver' stands twice"),
    "tag": ("solver: !!python/name:os.system x", "tag"),
    "text": ("\x00", "not valid YAML"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    text, said = WRONG[kind]
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as found:
        find_realities(file)
    assert "\n" not in str(found.value)
    assert str(file) in str(found.value)


def test_names_and_files(tmp_path: Path) -> None:
    file = tmp_path / "my-robot.yaml"
    file.write_text("summary: ours\nsolref: [0.01, 1]\nmodifiers: [delay=1..1, noise]\nlag: 1e-2\n")
    slow, mine = find_realities(["slow", file])
    assert (slow.name, mine.name) == ("slow", "my-robot")
    changes: dict[str, Any] = {"solref": [0.01, 1.0], "lag": 0.01, "modifiers": ["delay=1..1", "noise"]}
    assert mine.plain() == {"name": "my-robot", "summary": "ours", "changes": changes}
    assert set(changes) < set(KEYS)
    assert [there.name for there in find_realities("soft")] == ["soft"]
    for given, said in (
        ("slwo", "unknown reality 'slwo'. Did you mean 'slow'.* Or give a YAML file."),
        (tmp_path / "none.yaml", "cannot read the reality .*none.yaml"),
        (["slow", "slow"], "got two realities called 'slow'"),
        (_copy(file, "slow.yaml"), "slow.yaml, whose name is taken"),
        (_copy(file, "a b.yaml"), "a b.yaml: its file's name must be letters"),
    ):
        with pytest.raises(UserError, match=said):
            find_realities(given)
    binary = tmp_path / "bytes.yaml"
    binary.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"bytes.yaml is no text in UTF-8"):
        find_realities(binary)


def _copy(file: Path, name: str) -> Path:
    other = file.with_name(name)
    other.write_text(file.read_text())
    return other
