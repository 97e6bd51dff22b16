"""Every robot: equal to Gymnasium's v5, and what it says of itself: sizes, tables, ranges, starts, goals."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from metarl.envs import make_worlds
from metarl.errors import UserError
from metarl.types import Record
from tests.helpers.by_hand import robot, state, unscaled
from tests.helpers.toys import seeded as generator

VARIANTS = {
    # name: horizon, observation size, physics steps
    "ant-dir@v5": (200, 27, 5),
    "ant-dir@maml17": (200, 29, 5),
    "ant-dir-2d@v5": (200, 27, 5),
    "ant-dir-2d@promp18": (200, 27, 5),
    "ant-vel@v5": (200, 27, 5),
    "ant-vel@maml17": (200, 29, 5),
    "ant-goal@v5": (200, 29, 5),
    "ant-goal@promp18": (200, 29, 5),
    "ant-goal@pearl19": (200, 29, 5),
    "humanoid-dir@v5": (200, 45, 5),
    "humanoid-dir@pearl19": (200, 45, 5),
    "walker2d-vel@v5": (200, 17, 4),
    "walker2d-vel@promp18": (200, 17, 8),
    "walker2d-rand-params@v5": (200, 17, 4),
    "walker2d-rand-params@pearl19": (200, 17, 5),
    "walker2d-rand-params@varibad20": (200, 17, 4),
    "hopper-rand-params@v5": (200, 11, 4),
    "hopper-rand-params@pearl19": (200, 11, 4),
    "swimmer-vel@v5": (200, 8, 4),
    "reacher-goal@v5": (50, 8, 2),
}
PAIRS = {
    # name: Gymnasium's id and options, and its names of those of our terms that are its own
    "ant-vel": ("Ant-v5", {"include_cfrc_ext_in_observation": False}, {"survive": "survive", "control": "ctrl"}),
    "ant-dir-2d": (
        "Ant-v5",
        {"include_cfrc_ext_in_observation": False},
        {"forward": "forward", "survive": "survive", "control": "ctrl"},
    ),
    "ant-goal": (
        "Ant-v5",
        {"include_cfrc_ext_in_observation": False, "exclude_current_positions_from_observation": False},
        {"survive": "survive", "control": "ctrl"},
    ),
    "humanoid-dir": (
        "Humanoid-v5",
        {f"include_{part}_in_observation": False for part in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")},
        {"forward": "forward", "survive": "survive", "control": "ctrl"},
    ),
    "walker2d-vel": ("Walker2d-v5", {}, {"survive": "survive", "control": "ctrl"}),
    "walker2d-rand-params": ("Walker2d-v5", {}, {"forward": "forward", "survive": "survive", "control": "ctrl"}),
    "hopper-rand-params": ("Hopper-v5", {}, {"forward": "forward", "survive": "survive", "control": "ctrl"}),
    "swimmer-vel": ("Swimmer-v5", {}, {"control": "ctrl"}),
    "reacher-goal": ("Reacher-v5", {}, {"distance": "dist", "control": "ctrl"}),
}
TASKS: dict[str, Record] = {
    "ant-vel": {"velocity": 1.0},
    "ant-dir-2d": {"heading": [1.0, 0.0]},
    "ant-goal": {"goal": [1.0, 2.0]},
    "humanoid-dir": {"heading": [1.0, 0.0]},
    "walker2d-vel": {"velocity": 1.0},
    "swimmer-vel": {"velocity": 0.15},
    "reacher-goal": {"goal": [0.1, -0.05]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_default_variants_equal_gymnasiums(name: str) -> None:
    reference, options, renamed = PAIRS[name]
    theirs: Any = gymnasium.make(reference, **options).unwrapped
    family = robot(name)
    assert family.variant == "v5"
    assert family.step_seconds == pytest.approx(theirs.dt)
    assert theirs.action_space.high.tolist() == pytest.approx(family.action_high)
    worlds = make_worlds(family, 1, threads=1, unit_actions=False, dtype=torch.float64)
    task = TASKS.get(name) or unscaled(family)
    worlds.set_tasks(family.space.from_records([task]))
    random, ended, contact = np.random.default_rng(0), 0, []
    for episode in range(4):
        worlds.reset(generator(episode))
        theirs.reset(seed=episode)
        start = {field: value[0].numpy().copy() for field, value in worlds.physics.state.items()}
        if name == "reacher-goal":
            # Theirs is a body, ours a task.
            start["qpos"][2:] = task["goal"]
        theirs.set_state(start["qpos"], start["qvel"])
        for _ in range(40):
            action = random.uniform(family.action_low, family.action_high)
            observation, _, terminated, _, info = theirs.step(action)
            step = worlds.step(torch.from_numpy(action)[None])
            if name == "reacher-goal":
                # The goal is seen there: numbers 4 and 5, and in the last two.
                parts = (observation[[0, 1, 2, 3, 6, 7]], observation[8:] + observation[4:6])
                np.testing.assert_allclose(step.observation[0], np.concatenate(parts), rtol=1e-15, atol=1e-15)
                np.testing.assert_array_equal(worlds.physics.state["qpos"][0, :2], theirs.data.qpos[:2])
                np.testing.assert_array_equal(worlds.physics.state["qvel"][0], theirs.data.qvel)
            else:
                np.testing.assert_array_equal(step.observation[0].numpy(), observation)
            for ours, other in renamed.items():
                # The centre of mass is summed in another order.
                close = 1e-11 if name == "humanoid-dir" else 1e-14
                assert step.terms[ours].item() == pytest.approx(info[f"reward_{other}"], rel=1e-14, abs=close)
            if "contact" in step.terms:
                contact.append((step.terms["contact"].item(), info["reward_contact"]))
            if name == "ant-goal":
                # It ends there; here the ant lies on.
                assert not step.terminated.item()
                continue
            assert step.terminated.item() == terminated
            if terminated:
                ended += 1
                break
    assert (ended > 0) == (family.terminated(worlds.physics.state, family.space.from_records([task])) is not None)
    if contact:
        # The one term that is only close (see ant.py, humanoid.py).
        ours, others = np.array(contact).T
        assert np.abs(others).max() > 1e-3
        assert ours.mean() == pytest.approx(others.mean(), rel=0.25)


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_and_times(name: str) -> None:
    horizon, size, steps = VARIANTS[name]
    family = robot(name)
    assert (family.horizon, family.observation_size, family.frame_skip) == (horizon, size, steps)
    assert family.step_seconds == pytest.approx(steps * family.model.opt.timestep)
    np.testing.assert_array_equal(family.model.actuator_ctrlrange[:, 0], family.action_low)
    np.testing.assert_array_equal(family.model.actuator_ctrlrange[:, 1], family.action_high)


@pytest.mark.parametrize("name", VARIANTS)
def test_observation_tables_name_the_joints_in_the_models_order(name: str) -> None:
    family = robot(name)
    worlds = make_worlds(family, 1, threads=1, dtype=torch.float64)
    worlds.set_tasks(family.space.sample(1, "train", generator()))
    worlds.reset(generator())
    seen, qpos, qvel = worlds.reset(generator())[0], worlds.physics.state["qpos"][0], worlds.physics.state["qvel"][0]
    checked = 0
    for value, row in zip(seen, family.observables, strict=True):
        joint = mujoco.mj_name2id(family.model, mujoco.mjtObj.mjOBJ_JOINT, row.name)
        if joint < 0 or row.unit == "1" or family.model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            continue
        angle, speed = qpos[family.model.jnt_qposadr[joint]], qvel[family.model.jnt_dofadr[joint]]
        assert value == (speed if row.unit.endswith("/s") else angle)
        checked += 1
    assert checked >= family.action_size


@pytest.mark.parametrize(
    ("name", "low", "high", "ood"),
    [
        ("ant-vel@v5", 0.0, 3.0, (3.0, 4.0)),
        ("ant-vel@maml17", 0.0, 3.0, (3.0, 4.0)),
        ("ant-goal@v5", 0.0, 3.0, (3.0, 4.0)),
        ("ant-goal@promp18", 0.0, 3.0, (3.0, 4.0)),
        ("ant-goal@pearl19", 0.0, 3.0, (3.0, 4.0)),
        ("walker2d-vel@v5", 0.0, 2.0, (2.0, 3.0)),
        ("walker2d-vel@promp18", 0.0, 10.0, (10.0, 11.0)),
        ("swimmer-vel@v5", 0.1, 0.2, (0.2, 0.3)),
        ("reacher-goal@v5", 0.0, 0.2, (0.2, 0.21)),
    ],
)
def test_ranges_of_tasks(name: str, low: float, high: float, ood: tuple[float, float]) -> None:
    (parameter,) = robot(name).space.parameters
    assert parameter.bounds == (low, high)
    assert parameter.ood_intervals == (pytest.approx(ood),)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.split("@")[0] in ("ant-dir-2d", "humanoid-dir")])
def test_headings_are_unit_vectors_all_round(name: str) -> None:
    space = robot(name).space
    heading = space.sample(100, "train", generator())["heading"]
    torch.testing.assert_close(heading.norm(dim=1), torch.ones(100, dtype=torch.float64))
    assert len({(x > 0, y > 0) for x, y in heading.tolist()}) == 4
    with pytest.raises(UserError, match="no out-of-distribution part"):
        space.sample(1, "ood", generator())


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("ant-goal@pearl19", 150, 30),
        ("humanoid-dir@pearl19", 100, 30),
        ("walker2d-rand-params@pearl19", 40, 10),
        ("hopper-rand-params@pearl19", 40, 10),
    ],
)
def test_pearl_tasks_are_fixed(name: str, train: int, test: int) -> None:
    space = robot(name).space
    key = space.parameters[0].name
    sets = {split: space.sample(count, split, generator(7))[key] for split, count in (("train", train), ("test", test))}
    assert torch.equal(sets["train"], space.sample(train, "train", generator(8))[key])
    assert len(torch.cat([sets["train"], sets["test"]]).unique(dim=0)) == train + test
    assert len(space.sample(3 * train, "train", generator(9))[key].unique(dim=0)) == train


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("@v5") and not name.startswith("ant")])
def test_starts_are_as_noisy_as_gymnasiums(name: str) -> None:
    noise = {"humanoid": 0.01, "walker2d": 0.005, "hopper": 0.005, "swimmer": 0.1, "reacher": 0.1}[name.split("-")[0]]
    family = robot(name)
    tasks = family.space.sample(500, "train", generator())
    start = family.reset_state(generator(), tasks)
    moved = start["qpos"] - torch.from_numpy(family.model.qpos0)
    if name.startswith("reacher"):
        moved, start["qvel"] = moved[:, :2], start["qvel"][:, :2] * 20.0
    for values in (moved, start["qvel"]):
        assert values.abs().max() <= noise
        # Uniform: half of the largest deviation is the mean one.
        assert values.abs().mean().item() == pytest.approx(noise / 2, rel=0.1)
        assert (values.min(0).values < -0.9 * noise).all()
        assert (values.max(0).values > 0.9 * noise).all()


@pytest.mark.parametrize(("name", "height"), [("ant-goal", 0.0), ("reacher-goal", 0.01)])
def test_pictures_show_the_goal(name: str, height: float) -> None:
    family = robot(name)
    (marker,) = family.markers(state(family), family.space.from_records([{"goal": [0.1, -0.15]}]))
    assert marker.tip is None
    assert marker.position.tolist() == [[0.1, -0.15, height]]
