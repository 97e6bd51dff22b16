"""Room in the GPU engine's buffers, and what becomes of episodes for which there was too little.

What steps worlds here does it on Warp's CPU device where there is no GPU, as in test_gpu.py.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import metarl
from metarl.envs import families, get
from metarl.envs.engines import buffers
from metarl.envs.engines.buffers import (
    Room,
    bound,
    close_pairs,
    extreme_tasks,
    measure_buffers,
    pairs,
    room_for,
    trying_actions,
)
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.engines.warp_model import gpu_model
from metarl.envs.family import MujocoFamily
from metarl.envs.horizon import with_horizon
from metarl.envs.physics import CPU
from metarl.envs.worlds import Worlds
from metarl.learning.rollout import collect
from metarl.run.checkpoint import load as load_checkpoint
from metarl.types import Trajectories
from tests.helpers.same import assert_same

if importlib.util.find_spec("mujoco_warp") is None:
    pytest.skip("mujoco_warp is not installed (the extra `gpu`)", allow_module_level=True)

from metarl.envs.engines.gpu import WarpPhysics
from metarl.envs.engines.loading import load

DEVICE = torch.device("cuda") if torch.cuda.is_available() else CPU
CHEETAH = "half-cheetah-vel@v5"


def on_mujoco(name: str, horizon: int | None = None) -> MujocoFamily:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    return family if horizon is None else with_horizon(family, horizon)


ROBOTS = [variants[0].full_name for variants in families().values() if isinstance(variants[0], MujocoFamily)]


# --- bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROBOTS)
def test_the_pairs_are_those_that_mujoco_warp_looks_at(name: str) -> None:
    wp, mjw = load()
    model = gpu_model(on_mujoco(name))
    with wp.ScopedDevice("cpu"):
        theirs = mjw.put_model(model).nxn_geom_pair_filtered.numpy()
    assert np.array_equal(pairs(model), theirs.reshape(-1, 2))


@pytest.mark.parametrize(
    ("name", "contacts", "rows", "convex"),
    [
        # 8 capsules on a plane, each with 2 contacts of 4 rows; 6 limits.
        (CHEETAH, 16, 16 * 4 + 6, 0),
        # A sphere and 12 capsules; 8 limits.
        ("ant-dir@v5", 1 + 24, 25 * 4 + 8, 0),
        # Nothing touches; at least 1 and 8.
        ("swimmer-vel@v5", 1, 8, 0),
        # 12 capsules and a sphere on a height field, 4 contacts each.
        ("ant-terrain@v1", 13 * 4, 13 * 4 * 4 + 8, 12),
    ],
)
def test_the_bound_by_hand(name: str, contacts: int, rows: int, convex: int) -> None:
    assert bound(gpu_model(on_mujoco(name))) == Room(contacts=contacts, constraints=rows, convex=convex)


SCENE = """
<mujoco>
  <option {option}/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <body name="one"><freejoint/><geom name="a" type="box" size=".1 .1 .1" condim="{condim}"/></body>
    <body name="two" pos="0 0 1"><joint name="j" type="hinge" range="-1 1" frictionloss="{loss}"/>
      <geom name="b" type="box" size=".1 .1 .1"/></body>
    <body name="three" pos="1 0 1"><joint name="k" type="hinge"/><geom name="c" type="sphere" size=".1"/></body>
  </worldbody>
  {more}
</mujoco>
"""


def scene(option: str = "", condim: int = 3, loss: float = 0.0, more: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(SCENE.format(option=option, condim=condim, loss=loss, more=more))


# Pairs: floor-a 8 contacts, floor-b 8, floor-c 1, a-b 4, a-c 1, b-c 1; one limit.
PLAIN = Room(contacts=23, constraints=23 * 4 + 1, convex=1)


@pytest.mark.parametrize(
    ("options", "varied", "expected"),
    [
        ({}, (), PLAIN),
        ({"option": 'cone="elliptic"'}, (), Room(contacts=23, constraints=23 * 3 + 1, convex=1)),
        # 13 contacts of `a` have 6 rows in place of 4.
        ({"condim": 4}, (), Room(contacts=23, constraints=13 * 6 + 10 * 4 + 1, convex=1)),
        ({"loss": 0.1}, (), Room(contacts=23, constraints=94, convex=1)),
        # Every world has its own losses: all 8 degrees of freedom may have one.
        ({}, ("dof_frictionloss",), Room(contacts=23, constraints=93 + 8, convex=1)),
        ({"option": '><flag nativeccd="disable"/></option><option '}, (), Room(contacts=27, constraints=109, convex=1)),
        ({"option": '><flag contact="disable"/></option><option '}, (), Room(contacts=1, constraints=8, convex=0)),
        (
            {"more": '<contact><exclude body1="one" body2="two"/></contact>'},
            (),
            Room(contacts=19, constraints=19 * 4 + 1, convex=0),
        ),
        # A pair that is named: one row a contact in place of none of its own would be less than its geoms have.
        (
            {"more": '<contact><pair geom1="a" geom2="b" condim="6"/></contact>'},
            (),
            Room(contacts=23, constraints=19 * 4 + 4 * 10 + 1, convex=1),
        ),
        (
            {"more": '<equality><connect body1="one" body2="two" anchor="0 0 0"/><joint joint1="j"/></equality>'},
            (),
            Room(contacts=23, constraints=93 + 3 + 1, convex=1),
        ),
        # What makes contacts or rows in a way that is not known has no bound.
        ({"more": '<sensor><distance geom1="a" geom2="c" cutoff="1"/></sensor>'}, (), None),
    ],
)
def test_the_bound_of_a_scene(options: dict[str, Any], varied: tuple[str, ...], expected: Room | None) -> None:
    assert bound(scene(**options), varied) == expected


def test_a_kind_of_geom_without_a_bound_has_none() -> None:
    model = scene()
    model.geom_type[model.geom("c").id] = mujoco.mjtGeom.mjGEOM_SDF
    assert bound(model) is None


# --- room --------------------------------------------------------------------------------------------------------


def test_more_room_is_all_that_can_be_needed_or_twice_as_much() -> None:
    small, most = Room(contacts=2, constraints=8, convex=0), Room(contacts=20, constraints=90, convex=4)
    assert small.widened({"constraints"}, most) == Room(contacts=2, constraints=90, convex=0)
    assert small.widened({"contacts", "constraints"}, None) == Room(contacts=4, constraints=16, convex=0)
    # What is there already did not suffice, whatever the bound says.
    assert most.widened({"contacts"}, most) == Room(contacts=40, constraints=90, convex=4)
    # EPA's pairs are among those that came close.
    assert small.widened({"convex"}, most) == Room(contacts=4, constraints=8, convex=4)
    assert small.widened({"convex"}, None) == Room(contacts=2, constraints=8, convex=2)
    assert small.at_least({"contacts": 7, "convex": 1}) == Room(contacts=7, constraints=8, convex=1)
    assert str(small) == "2 contacts and 8 constraint rows"
    assert str(most) == "20 contacts (4 pairs in EPA's hands) and 90 constraint rows"


def test_where_the_bound_is_too_large_room_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    family = on_mujoco(CHEETAH)
    model = gpu_model(family)
    most = bound(model)
    assert room_for(family, model) == (most, most)
    assert room_for(family, model, kept={"contacts": 30})[0].plain() == {"contacts": 30, "constraints": 70, "convex": 0}
    monkeypatch.setattr(buffers, "MOST_BYTES", 100)
    seen = {"contacts": 3, "constraints": 11, "convex": 0}
    monkeypatch.setattr(buffers, "measure_buffers", lambda *given: Room(**seen))
    assert room_for(family, model)[0] == Room(contacts=8, constraints=24, convex=0)
    seen |= {"constraints": 1, "convex": 2}
    assert room_for(family, model)[0] == Room(contacts=8, constraints=8, convex=0)
    seen["contacts"] = 100
    assert room_for(family, model)[0].contacts == 16, "more than can be needed"
    monkeypatch.delattr(buffers, "measure_buffers")
    kept = Room(contacts=5, constraints=9, convex=0)
    assert room_for(family, model, kept=kept.plain()) == (kept, most)


def test_what_was_measured_is_at_least_what_was_seen_and_below_the_bound() -> None:
    family = on_mujoco(CHEETAH)
    most = bound(gpu_model(family))
    seen = measure_buffers(family, steps=40)
    assert most is not None
    assert 4 <= seen.contacts <= most.contacts
    # Uniform actions of training tasks need 12.
    assert 14 <= seen.constraints <= most.constraints


def test_measured_tasks_are_of_all_splits_and_ends_of_ranges() -> None:
    family = on_mujoco("half-cheetah-vel+mass+switch")
    tasks = extreme_tasks(family, torch.Generator().manual_seed(0))
    space = get("half-cheetah-vel+mass").space
    for split in ("train", "test", "ood"):
        assert space.contains(tasks, split).sum() >= 8
    train = tasks["velocity"][space.contains(tasks, "train")]
    low, high = space.parameters[0].bounds
    assert train.min() < low + 0.03 * (high - low)
    assert train.max() > high - 0.03 * (high - low)


def test_measured_actions_are_of_six_kinds() -> None:
    family, generator = on_mujoco(CHEETAH), torch.Generator().manual_seed(0)
    action, history = torch.zeros(600, 6, dtype=torch.float64), []
    for step in range(25):
        action = trying_actions(family, 600, step, action, generator)
        history.append(action)
    played = torch.stack(history).reshape(25, 100, 6, 6)
    assert played.abs().max() == 1.0
    at_bounds = (played.abs() == 1.0).double().mean((0, 1, 3))
    # Of a normal distribution with a deviation of 1 32% lie beyond, of 2 62%, of .5 5%.
    torch.testing.assert_close(
        at_bounds, torch.tensor([0.0, 0.046, 0.317, 0.617, 1.0, 1.0]).double(), rtol=0, atol=0.02
    )
    changes = (played[1:] != played[:-1]).any(3).any(1)
    assert changes[:, 4].all()
    assert changes[:, 5].nonzero().squeeze(1).tolist() == [19]


@pytest.mark.parametrize("name", ["humanoid-dir@v5", "push-shape@v1", "half-cheetah-terrain@v1"])
def test_whatever_touches_came_close(name: str) -> None:
    family, generator = on_mujoco(name), torch.Generator().manual_seed(0)
    tasks = family.space.sample(2, "train", generator)
    physics = MujocoPhysics(family, 2, threads=1)
    physics.apply(tasks, None)
    physics.write(family.reset_state(generator, tasks), None)
    tested, action, touched = pairs(family.model), torch.zeros(2, family.action_size, dtype=torch.float64), 0
    for step in range(40):
        action = trying_actions(family, 2, step, action, generator)
        physics.advance(action, None)
        for world in range(2):
            model, data = physics.snapshot(world)
            close = {tuple(sorted(pair)) for pair in close_pairs(model, data, tested).tolist()}
            touching = {tuple(sorted(pair)) for pair in data.contact.geom.tolist()}
            assert touching <= close
            touched += len(touching)
    assert touched > 20


@pytest.mark.parametrize("name", ["half-cheetah-terrain@v1", "push-shape@v1"])
def test_the_cpu_engine_has_room_for_far_more(name: str) -> None:
    # Gymnasium's environments stand on it. MuJoCo's arena is all the room that contacts and rows have there.
    family, generator = on_mujoco(name), torch.Generator().manual_seed(0)
    tasks = extreme_tasks(family, generator, each=2)
    physics = MujocoPhysics(family, len(tasks), threads=1)
    physics.apply(tasks, None)
    physics.write(family.reset_state(generator, tasks), None)
    action, used = torch.zeros(len(tasks), family.action_size, dtype=torch.float64), []
    for step in range(30):
        action = trying_actions(family, len(tasks), step, action, generator)
        physics.advance(action, None)
        data = physics.snapshot(step % len(tasks))[1]
        used.append(data.maxuse_arena / data.narena)
    assert 0.0 < max(used) < 0.02


# --- too little room ---------------------------------------------------------------------------------------------


class Wild:
    """Acts at random, at the bounds for the most part."""

    def __init__(self, size: int) -> None:
        self.size = size

    def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(len(observation), self.size, generator=generator, device=observation.device)
        return 2.0 * drawn


def episodes(**options: Any) -> tuple[list[Trajectories], Worlds, list[str]]:
    """Return two collections in a row, the worlds, and what was warned of."""
    family = on_mujoco(CHEETAH, 12)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        worlds = Worlds(family, 4, WarpPhysics(family, 4, DEVICE, **options))
        tasks = family.space.sample(2, "train", torch.Generator().manual_seed(0))
        generator, policy = torch.Generator().manual_seed(1), Wild(family.action_size)
        played = [collect(worlds, policy, tasks, 2, generator, new_trial=number == 0) for number in range(2)]
    return played, worlds, [str(warning.message) for warning in caught if warning.category is RuntimeWarning]


@pytest.fixture(scope="module")
def enough() -> list[Trajectories]:
    played, worlds, said = episodes()
    assert worlds.room == {"contacts": 16, "constraints": 70, "convex": 0}
    assert said == []
    return played


@pytest.mark.parametrize(
    ("look", "consequence"),
    [
        pytest.param(True, "where the step is taken again", marks=pytest.mark.slow),
        (False, "whose episodes are played again"),
    ],
)
def test_too_little_room_changes_nothing(enough: list[Trajectories], look: bool, consequence: str) -> None:
    played, worlds, said = episodes(contacts=1, constraints=2, look=look)
    for here, there in zip(played, enough, strict=True):
        for name in ("observations", "actions", "rewards", "mask", "terminated", "final_observations"):
            # On CUDA, rounding depends on the order in which contacts are found.
            relative, absolute = (0.0, 0.0) if DEVICE.type == "cpu" else (1e-2, 1e-1)
            torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=relative, atol=absolute)
    assert worlds.failures == 0
    assert worlds.room == {"contacts": 16, "constraints": 70, "convex": 0}
    assert 1 <= len(said) <= 3
    assert all(text.startswith("half-cheetah-vel@v5+horizon=12: room for 1 contacts and ") for text in said)
    assert consequence in said[-1]
    assert said[-1].endswith("Now there is room for 16 contacts and 70 constraint rows")


def test_too_little_room_for_a_start_is_found_at_once() -> None:
    family = on_mujoco(CHEETAH)
    physics = WarpPhysics(family, 2, DEVICE, contacts=16, constraints=2, look=False)
    low = torch.zeros(2, 9, dtype=torch.float64)
    low[:, 1] = -0.1
    with pytest.warns(RuntimeWarning, match="2 of 2 worlds, at the start of episodes, which is computed again"):
        physics.write({"qpos": low, "qvel": torch.zeros_like(low)}, None)
    assert not physics.widen()
    assert physics.room["constraints"] == 70


def test_who_steps_worlds_himself_is_told_at_the_reset() -> None:
    family = on_mujoco(CHEETAH)
    worlds = Worlds(family, 4, WarpPhysics(family, 4, DEVICE, contacts=1, look=False))
    worlds.set_tasks(family.space.sample(4, "train", torch.Generator().manual_seed(0)))
    worlds.reset(torch.Generator().manual_seed(0))
    for _ in range(15):
        worlds.step(torch.ones(4, 6, device=DEVICE))
    assert worlds.failures > 0
    with pytest.warns(RuntimeWarning, match=r"whose episodes ended there as failures \(`Worlds.outgrown`"):
        worlds.reset(torch.Generator().manual_seed(0))
    assert not worlds.outgrown()
    assert worlds.room["contacts"] == 16


def test_a_loss_that_no_room_mends_ends_no_episode() -> None:
    physics = WarpPhysics(on_mujoco(CHEETAH), 4, DEVICE)
    kind = physics._mjw.OverflowType
    physics._losses.flags.fill_(int(kind.EPA_HORIZON | kind.HFIELD | kind.ITERATIONS))
    action = torch.zeros(4, 6, dtype=torch.float64, device=DEVICE)
    assert not physics.advance(action, None).any()
    assert not physics.widen()


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.warp_cpu
def test_room_is_kept_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, int]] = []
    plain = WarpPhysics.__init__

    def noted(self: WarpPhysics, *given: Any, **options: Any) -> None:
        # What a start measured is too little, as it may be.
        plain(self, *given, **options, **({} if options["kept"] else {"constraints": 1}))
        begun.append(self.room)

    monkeypatch.setattr(WarpPhysics, "__init__", noted)
    folder, enough = tmp_path / "run", {"contacts": 16, "constraints": 70, "convex": 0}
    there: dict[str, Any] = {"device": DEVICE.type, "engine": "gpu"}
    settings: dict[str, Any] = {"tasks": 2, "episodes": 1, "iterations": 1, "threads": 1, **there}
    with pytest.warns(RuntimeWarning, match="room for 16 contacts and 1 constraint rows"):
        run = metarl.train("multitask", CHEETAH, horizon=3, out=folder, **settings)
    assert begun == [{"contacts": 16, "constraints": 1, "convex": 0}]
    assert run.room == metarl.load(folder).room == enough
    assert load_checkpoint(folder / "checkpoints" / "last.pt", {})["room"] == enough
    metarl.resume(folder, 2)
    assert begun[1:] == [enough]
    curve = metarl.evaluate(folder, tasks=1, steps=0, episodes=1, threads=1, **there)
    assert begun[2:] == [enough]
    assert curve.evaluation.entries[0].curves[0].failures == 0
    # On another engine it is not forgotten.
    assert_same(metarl.load(folder).room, enough)


# --- every family ------------------------------------------------------------------------------------------------


def hold_out(name: str, worlds: int, steps: int, device: torch.device) -> tuple[int, Worlds]:
    """Play with all kinds of actions and tasks, and return the steps taken."""
    family = on_mujoco(name)
    generator = torch.Generator().manual_seed(0)
    physics = WarpPhysics(family, worlds, device, look=False)
    env = Worlds(family, worlds, physics)
    action = torch.zeros(worlds, family.action_size, dtype=torch.float64)
    taken = 0
    while taken < steps:
        every = extreme_tasks(family, generator)
        env.set_tasks(every.select(torch.randint(len(every), (worlds,), generator=generator)))
        env.reset(generator)
        for step in range(min(family.horizon, 200)):
            action = trying_actions(family, worlds, step, action, generator)
            env.step(action.to(device))
            taken += worlds
        # A warning, too, is an error here.
        assert not env.outgrown()
    return taken, env


@pytest.mark.slow
@pytest.mark.parametrize("name", ROBOTS)
def test_no_episode_is_lost(name: str) -> None:
    _, env = hold_out(name, worlds=24, steps=3_000, device=CPU)
    assert env.failures == 0


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ROBOTS)
def test_no_episode_is_lost_on_a_gpu(name: str) -> None:
    taken, env = hold_out(name, worlds=5_000, steps=1_000_000, device=torch.device("cuda"))
    assert taken >= 1_000_000
    assert env.failures == 0


@pytest.mark.gpu
def test_beginners_lose_no_episode_on_a_gpu() -> None:
    family = on_mujoco("half-cheetah-dir@maml17")
    worlds = Worlds(family, 800, WarpPhysics(family, 800, torch.device("cuda"), look=False))
    tasks = family.space.sample(40, "train", torch.Generator().manual_seed(0))
    generator, policy = torch.Generator().manual_seed(1), Wild(family.action_size)
    for _ in range(2):
        played = collect(worlds, policy, tasks, 20, generator)
        assert played.steps == 800 * family.horizon
    assert worlds.failures == 0
