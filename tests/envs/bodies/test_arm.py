"""The arm and the objects of many shapes: geometry against MuJoCo's own, rewards by hand, and that it can be done."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.envs import get, make_worlds
from metarl.envs.bodies.arm import (
    FIRST_PART,
    FORE,
    LEFT,
    LIFT,
    OBJECT,
    OBJECT_BODY,
    TABLE_GEOM,
    UPPER,
    Arm,
    hand_of,
    joints_of,
)
from metarl.envs.bodies.shapes import KINDS, PARTS, SPECK, USED, VOLUME, Compound, clearance, compound
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.families.push_shape import goal_of
from metarl.envs.families.reach_over import CENTRE, PLACE
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.types import Tasks
from tests.helpers.toys import seeded as generator

NAMES = ("push-shape", "grasp-shape", "reach-over")
TYPES = (mujoco.mjtGeom.mjGEOM_BOX,) * 3 + (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_ELLIPSOID)
GRIP = np.array([0.0, 0.0, 0.015])
"""The grip point above the finger tips, m."""
LEVEL = [1.0, 0.0, 0.0, 0.0]
"""Quaternion of no turn."""


def arm(name: str) -> Arm:
    family = get(name)
    assert isinstance(family, Arm)
    return family


def tasks_of_kinds(name: str, each: int = 1, seed: int = 0) -> Tasks:
    """Return training tasks, `each` of every kind, those kept for the ood split among them."""
    family = get(name)
    values = family.space.sample(each * len(KINDS), "train", generator(seed)).values
    kind = torch.arange(len(KINDS), dtype=torch.float64).repeat_interleave(each)
    return Tasks(family.full_name, {**values, "kind": kind})


def begin(family: Arm | str, tasks: Tasks, seed: int = 0) -> tuple[Worlds, MujocoPhysics]:
    worlds = make_worlds(family, len(tasks), threads=1, dtype=torch.float64)
    worlds.set_tasks(tasks)
    worlds.reset(generator(seed))
    assert isinstance(worlds.physics, MujocoPhysics)
    return worlds, worlds.physics


def one(**changes: float) -> Compound:
    """Return one object, an L if not said otherwise."""
    values = {"kind": 1.0, "length": 0.1, "width": 0.3, "branch": 0.2, "height": 0.05, "mass": 0.2} | changes
    return compound(**{name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()})


def matrix(quaternion: np.ndarray) -> np.ndarray:
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, np.asarray(quaternion, dtype=np.float64))
    return flat.reshape(3, 3)


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_mass_and_inertia_are_mujocos_own(kind: int) -> None:
    tasks = tasks_of_kinds("push-shape", each=5).select(torch.arange(5) + 5 * kind)
    shape = arm("push-shape").object_of(tasks)
    used = USED[kind].bool()
    for world in range(5):
        spec = mujoco.MjSpec()
        body = spec.worldbody.add_body()
        body.add_freejoint()
        volume = (VOLUME * shape.half[world].prod(1))[used].sum().item()
        for part in used.nonzero().squeeze(1).tolist():
            body.add_geom(
                type=TYPES[part],
                size=shape.geom_size[world, part].numpy(),
                pos=shape.centre[world, part].numpy(),
                density=tasks["mass"][world].item() / volume,
            )
        model = spec.compile()
        theirs = matrix(model.body_iquat[1]) @ np.diag(model.body_inertia[1]) @ matrix(model.body_iquat[1]).T
        axes = matrix(shape.quaternion[world].numpy())
        ours = axes @ np.diag(shape.inertia[world].numpy()) @ axes.T
        assert model.body_mass[1] == pytest.approx(shape.mass[world].item())
        np.testing.assert_allclose(model.body_ipos[1], 0.0, atol=1e-12)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * theirs.max())


def test_inertia_of_an_l_by_hand() -> None:
    # A bar of 0.1 x 0.03 and a branch of 0.03 x 0.04 at its end: areas 3 and 1.2 of 4.2.
    shape = one()
    bar, branch = shape.centre[0, 0], shape.centre[0, 1]
    assert (branch - bar).tolist() == pytest.approx([0.05 - 0.015, 0.015 + 0.02, 0.0])
    assert (3.0 * bar + 1.2 * branch).tolist() == pytest.approx([0.0, 0.0, 0.0])
    upright = (
        0.2
        / 4.2
        * (
            3.0 * ((0.1**2 + 0.03**2) / 12 + bar.square().sum())
            + 1.2 * ((0.03**2 + 0.04**2) / 12 + branch.square().sum())
        )
    )
    assert shape.inertia[0, 2].item() == pytest.approx(upright.item())


@pytest.mark.parametrize("name", NAMES)
def test_parts_do_not_overlap_and_specks_lie_inside(name: str) -> None:
    tasks = tasks_of_kinds(name, each=20)
    shape = arm(name).object_of(tasks)
    for world in range(len(tasks)):
        used = USED[int(tasks["kind"][world])].bool()
        half, centre = shape.half[world], shape.centre[world]
        for a, b in itertools.combinations(used.nonzero().squeeze(1).tolist(), 2):
            gap = (centre[a] - centre[b]).abs() - half[a] - half[b]
            assert gap.max() > -1e-12
        main = int(used.nonzero()[-1]) if not used[0] else 0
        for speck in (~used).nonzero().squeeze(1).tolist():
            assert half[speck].tolist() == [SPECK] * 3
            # The longest way out of a speck is its diagonal, the shortest into a part half its least extent.
            assert (centre[speck] - centre[main]).norm() + math.sqrt(3.0) * SPECK < half[main].min()


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_shape(name: str) -> None:
    """Every kind's size along x is a multiple of its length, and those of two splits are never equal."""
    family = arm(name)
    multiple = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 1.0, 2.0 / 3.0], dtype=torch.float64)
    lengths: dict[str, Tensor] = {}
    for split in ("train", "test", "ood"):
        tasks = family.space.sample(600, split, generator())
        assert family.space.contains(tasks, split).all()
        size = family.apply(tasks)["geom_size"][:, FIRST_PART : FIRST_PART + len(PARTS)]
        kind = tasks["kind"].long()
        main = torch.tensor([0, 0, 0, 0, 0, 3, 0, 4])[kind]
        extent = 2.0 * size[torch.arange(600), main, 0]
        lengths[split] = extent / multiple[kind]
        torch.testing.assert_close(lengths[split], tasks["length"])
        assert set(kind.tolist()) == ({6, 7} if split == "ood" else set(range(6)))
    low, high = next(p for p in family.space.parameters if p.name == "length").bounds
    strip = {split: (lengths[split] - low) / (high - low) * 40.0 % 1.0 for split in ("train", "test")}
    assert (strip["train"] < 0.8).all()
    assert (strip["test"] >= 0.8).all()
    assert (lengths["ood"] > high).all()


def test_clearance_is_that_of_the_lowest_corner() -> None:
    tasks = tasks_of_kinds("grasp-shape", each=10)
    shape = arm("grasp-shape").object_of(tasks)
    quaternion = torch.nn.functional.normalize(torch.randn(len(tasks), 4, generator=generator(), dtype=torch.float64))
    place = torch.rand(len(tasks), 3, generator=generator(1), dtype=torch.float64)
    got = clearance(tasks, place, quaternion)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    for world in range(len(tasks)):
        used, turn = USED[int(tasks["kind"][world])].bool(), matrix(quaternion[world].numpy())
        corners = shape.centre[world, used][:, None].numpy() + signs * shape.half[world, used][:, None].numpy()
        lowest = place[world, 2].item() + (corners @ turn.T)[..., 2].min()
        if KINDS[int(tasks["kind"][world])] in ("L", "T", "cross"):
            assert got[world].item() <= lowest + 1e-12
        else:
            assert got[world].item() == pytest.approx(lowest)
    flat = clearance(tasks, place, torch.tensor([LEVEL] * len(tasks), dtype=torch.float64))
    torch.testing.assert_close(flat, place[:, 2] - shape.rest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": 8.0}, r"got the kinds \[8.0\] of objects: there are 0 bar, 1 L"),
        ({"kind": 0.5}, r"got the kinds \[0.5\]"),
        ({"width": 1.0}, r"0.1 m long, 0.1 m wide.*the width below the length"),
        ({"length": -0.1}, "all must be positive"),
        ({"mass": 0.0}, "and 0 kg: all must be positive"),
        ({"height": 0.007}, "no part thinner than 0.008 m"),
        ({"branch": 0.02}, "branches of 0.002 m.*no part thinner"),
        ({"length": math.nan}, "nan m long"),
    ],
)
def test_refuses_impossible_objects(change: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        one(**change)


def test_refuses_tasks_out_of_range() -> None:
    record = get("push-shape").space.sample(1, "train", generator()).records()[0]
    for field, value in (("length", 0.5), ("kind", 9.0), ("width", 1.5)):
        with pytest.raises(UserError, match=f"{field} got {value}, out of range"):
            get("push-shape").space.from_records([{**record, field: value}])


# --- the model ---------------------------------------------------------------------------------------------------


def test_model_takes_no_shortcuts() -> None:
    """What the compiler finds equal in the base model (frames, inertia) would stay equal for every shape."""
    model = arm("push-shape").model
    assert [model.geom(FIRST_PART + i).name for i in range(len(PARTS))] == list(PARTS)
    assert model.body(OBJECT_BODY).name == "object"
    assert model.geom(TABLE_GEOM).name == "table"
    assert model.jnt_qposadr[model.joint("object").id] == model.jnt_dofadr[model.joint("object").id] == OBJECT
    assert model.body_simple[OBJECT_BODY] == 0
    assert model.body_sameframe[OBJECT_BODY] == mujoco.mjtSameFrame.mjSAMEFRAME_NONE
    assert set(model.geom_sameframe[FIRST_PART:]) == {int(mujoco.mjtSameFrame.mjSAMEFRAME_BODYROT)}


def test_only_hand_object_and_table_touch() -> None:
    model = arm("push-shape").model
    pairs = {
        frozenset((model.geom(a).name, model.geom(b).name))
        for a, b in itertools.combinations(range(model.ngeom), 2)
        if (model.geom_contype[a] & model.geom_conaffinity[b]) | (model.geom_contype[b] & model.geom_conaffinity[a])
        if model.geom_bodyid[a] != model.geom_bodyid[b]
    }
    others = ("table", "palm", "left finger", "right finger")
    assert pairs == {frozenset((part, other)) for part in PARTS for other in others}


def test_hand_is_where_mujoco_has_it() -> None:
    tasks = tasks_of_kinds("push-shape")
    worlds, physics = begin("push-shape", tasks)
    random = generator()
    for _ in range(10):
        worlds.step(torch.rand(len(tasks), 5, generator=random) * 2.0 - 1.0)
    grip, facing = hand_of(physics.state["qpos"])
    for world in range(len(tasks)):
        _, data = physics.snapshot(world)
        fingers = (data.body("left finger").xpos + data.body("right finger").xpos) / 2.0
        np.testing.assert_allclose(grip[world, :2], fingers[:2], atol=0.003)
        np.testing.assert_allclose(grip[world], data.body("hand").xpos + GRIP, atol=1e-12)
        x_axis = data.body("hand").xmat.reshape(3, 3)[:, 0]
        np.testing.assert_allclose(facing[world], x_axis[:2], atol=1e-12)
    shoulder, elbow = joints_of(grip[:, 0], grip[:, 1])
    torch.testing.assert_close(shoulder, physics.state["qpos"][:, 0])
    torch.testing.assert_close(elbow, physics.state["qpos"][:, 1])


def test_observation_describes_hand_and_object() -> None:
    family, tasks = arm("push-shape"), tasks_of_kinds("push-shape")
    worlds, physics = begin("push-shape", tasks)
    step = worlds.step(torch.rand(len(tasks), 5, generator=generator()) * 2.0 - 1.0)
    row = {observable.meaning: i for i, observable in enumerate(family.observables)}
    for world in range(len(tasks)):
        _, data = physics.snapshot(world)
        seen, turn = step.observation[world], data.body("object").xmat.reshape(3, 3)
        hand = data.body("hand").xmat.reshape(3, 3)
        away = hand.T @ (data.body("object").xpos - data.body("hand").xpos - GRIP)
        assert seen[row["x of the object"]].item() == pytest.approx(10.0 * (data.body("object").xpos[0] - 0.45))
        assert seen[row["height of the finger tips"]].item() == pytest.approx(10.0 * data.joint("lift").qpos[0])
        assert seen[row["velocity of a finger"]].item() == pytest.approx(10.0 * data.joint("left finger").qvel[0])
        assert seen[row["z velocity of the object"]].item() == pytest.approx(10.0 * data.joint("object").qvel[2])
        first = row["way from the grip point to the object, ahead"]
        np.testing.assert_allclose(seen[first : first + 3], 10.0 * away, atol=1e-9)
        first = row["x of the object's x axis"]
        np.testing.assert_allclose(seen[first : first + 5], [*turn[:, 0], *turn[:2, 2]], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_world_is_the_model_of_its_shape(name: str) -> None:
    """Every kind moves as in a model compiled for it alone, with bounds and masses of the compiler's own."""
    family, tasks = dataclasses.replace(arm(name)), tasks_of_kinds(name, seed=3)
    # The order of rows differs; a solver that stops early would make differences of it.
    family.model.opt.tolerance = 1e-12
    worlds, physics = begin(family, tasks)
    shape, fields = family.object_of(tasks), family.apply(tasks)
    start = physics.state["qpos"].clone()
    random, actions = generator(1), []
    for _ in range(20):
        # Towards the object, and closing.
        actions.append((torch.rand(len(tasks), 5, generator=random) - torch.tensor([0.5, 0.9, 0.8, 0.5, 0.7])).double())
        worlds.step(actions[-1])
    touched = 0
    for world, kind in enumerate(tasks["kind"].long().tolist()):
        spec = family.model_spec()
        body = spec.body("object")
        body.mass, body.inertia = shape.mass[world].item(), shape.inertia[world].numpy()
        body.ipos, body.iquat = np.zeros(3), shape.quaternion[world].numpy()
        body.explicitinertial = True
        for part, geom in enumerate(PARTS):
            spec.geom(geom).size = shape.geom_size[world, part].numpy()
            spec.geom(geom).pos = shape.centre[world, part].numpy()
            spec.geom(geom).friction = fields["geom_friction"][world, FIRST_PART + part].numpy()
            if not USED[kind, part]:
                spec.delete(spec.geom(geom))
        model = spec.compile()
        model.opt.tolerance = family.model.opt.tolerance
        ours, _ = physics.snapshot(world)
        for part, geom in enumerate(PARTS):
            if USED[kind, part]:
                assert ours.geom_rbound[FIRST_PART + part] == pytest.approx(model.geom(geom).rbound[0])
                np.testing.assert_allclose(ours.geom_aabb[FIRST_PART + part], model.geom_aabb[model.geom(geom).id])
        np.testing.assert_allclose(ours.body_invweight0, model.body_invweight0, rtol=1e-9)
        np.testing.assert_allclose(ours.dof_invweight0, model.dof_invweight0, rtol=1e-9)
        data = mujoco.MjData(model)
        data.qpos[:] = start[world].numpy()
        for action in actions:
            data.ctrl[:] = action[world].clamp(-1.0, 1.0).numpy()
            mujoco.mj_step(model, data, nstep=family.frame_skip)
            pairs = [{model.geom(i).name for i in contact.geom} for contact in data.contact]
            touched += any(pair & {"left finger", "right finger", "palm"} for pair in pairs)
        np.testing.assert_allclose(physics.state["qpos"][world].numpy(), data.qpos, atol=1e-6)
    assert touched > 0


@pytest.mark.parametrize("name", NAMES)
def test_objects_lie_where_they_start(name: str) -> None:
    tasks = tasks_of_kinds(name, each=4)
    worlds, physics = begin(name, tasks)
    start = physics.state["qpos"].clone()
    for _ in range(20):
        worlds.step(torch.zeros(len(tasks), 5))
    end = physics.state["qpos"]
    torch.testing.assert_close(end[:, OBJECT : OBJECT + 3], start[:, OBJECT : OBJECT + 3], atol=2e-3, rtol=0.0)
    torch.testing.assert_close(end[:, OBJECT + 3 :], start[:, OBJECT + 3 :], atol=2e-2, rtol=0.0)
    torch.testing.assert_close(end[:, :OBJECT], start[:, :OBJECT], atol=1e-6, rtol=0.0)
    for world, kind in enumerate(tasks["kind"].long().tolist()):
        _, data = physics.snapshot(world)
        # The one that lies on the table: not a speck, not the hand.
        parts = {int(geom) - FIRST_PART for contact in data.contact for geom in contact.geom if geom != TABLE_GEOM}
        assert parts
        assert USED[kind, list(parts)].all()


def test_shapes_slide_differently() -> None:
    """The same push moves objects of other shape, mass or friction elsewhere."""
    record = get("push-shape").space.sample(1, "train", generator()).records()[0]
    base = {**record, "kind": 0.0, "length": 0.1, "friction": 0.3, "mass": 0.2}
    changes = ({}, {}, {"kind": 5.0}, {"length": 0.13}, {"friction": 0.7}, {"mass": 0.45})
    tasks = get("push-shape").space.from_records([{**base, **change} for change in changes])
    worlds, physics = begin("push-shape", tasks)
    physics.write({name: value[:1].expand(len(tasks), -1).clone() for name, value in physics.state.items()}, None)
    for _ in range(20):
        worlds.step(hand_towards(physics.state["qpos"], torch.tensor([[0.45, 0.0, 0.01]]).double()))
    place = physics.state["qpos"][:, OBJECT : OBJECT + 2]
    assert torch.equal(place[0], place[1])
    for world in range(2, len(tasks)):
        assert (place[world] - place[0]).norm() > 1e-4


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_survives_wild_actions(name: str, saturated: bool) -> None:
    tasks = tasks_of_kinds(name, each=4)
    worlds, physics = begin(name, tasks)
    random, action = generator(1), torch.ones(len(tasks), 5)
    for _ in range(get(name).horizon):
        if saturated:
            action = torch.where(torch.rand(action.shape, generator=random) < 0.1, -action, action)
        else:
            action = torch.randn(action.shape, generator=random)
        worlds.step(action)
        height = physics.state["qpos"][:, OBJECT + 2]
        assert (height > 0.0).all()
        assert (height < 0.35).all()
        assert (physics.state["qpos"][:, LIFT] > -0.002).all()
    assert worlds.failures == 0


# --- rewards -----------------------------------------------------------------------------------------------------


def state(grip: list[float], place: list[float], quaternion: list[float], finger: float = 0.03) -> dict[str, Tensor]:
    """Return one world's state with the hand and the object in given places, m."""
    shoulder, elbow = joints_of(*(torch.tensor([value], dtype=torch.float64) for value in grip[:2]))
    robot = [shoulder.item(), elbow.item(), grip[2] - 0.015, 0.2, finger, finger]
    qpos = torch.tensor([[*robot, *place, *quaternion]], dtype=torch.float64)
    return {"qpos": qpos, "qvel": torch.zeros(1, 12, dtype=torch.float64)}


def reward(name: str, after: dict[str, Tensor], **task: float | list[float]) -> tuple[dict[str, Any], bool]:
    """Return the terms of one world and whether the task is met."""
    family = get(name)
    record = {"kind": 0.0, "length": 0.14, "width": 0.3, "branch": 0.2, "height": 0.06, "mass": 0.3, "friction": 0.6}
    tasks = family.space.from_records([record | task])
    terms = family.reward_terms({}, after, torch.zeros(1, 5, dtype=torch.float64), tasks)
    met = family.success(after, tasks)
    assert met is not None
    return {key: pytest.approx(value.item(), abs=1e-12) for key, value in terms.items()}, bool(met)


def test_push_reward() -> None:
    # Goal at (0.54, 0.06); object 0.1 m short, to be pushed from (0.39, 0.06, 0.03); grip point 0.05 m from there.
    terms, met = reward("push-shape", state([0.39, 0.03, 0.07], [0.44, 0.06, 0.03], LEVEL), goal=[0.0, 0.06])
    assert terms == {"goal": -1.0, "reach": -0.25, "success": 0.0}
    assert not met
    # Near the goal the place to push from comes nearer too: 0.05 * 0.039 / 0.04 m; farther away it is 0.05 m.
    for x, expected, reach in ((0.501, 1.0, -0.24375), (0.499, 0.0, -0.25)):
        terms, met = reward("push-shape", state([x, 0.06, 0.03], [x, 0.06, 0.03], LEVEL), goal=[0.0, 0.06])
        assert terms == {"goal": -10.0 * (0.54 - x), "reach": reach, "success": expected}
        assert met == (expected == 1.0)


def test_grasp_reward() -> None:
    # A level bar 0.06 m high whose middle is at 0.079 or 0.081 m: clearance 0.049 or 0.051 m.
    for height, expected in ((0.079, 0.0), (0.081, 1.0)):
        terms, met = reward("grasp-shape", state([0.45, 0.0, height - 0.02], [0.45, 0.0, height], LEVEL, finger=0.015))
        clear = height - 0.03
        assert terms == {"reach": -0.2, "close": 0.75 * 0.5, "lift": 40.0 * clear, "success": expected}
        assert met == (expected == 1.0)
    # Lying on the table, far off.
    terms, met = reward("grasp-shape", state([0.45, 0.0, 0.03], [0.45, 0.1, 0.029], LEVEL))
    assert terms == {"reach": -10.0 * math.hypot(0.1, 0.001), "close": 0.0, "lift": 0.0, "success": 0.0}
    # A bar on its end is no lifted one, nor is one thrown out of the hand.
    on_end = [math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]
    assert not reward("grasp-shape", state([0.45, 0.0, 0.08], [0.45, 0.0, 0.08], on_end))[1]
    assert reward("grasp-shape", state([0.45, 0.0, 0.13], [0.45, 0.0, 0.13], on_end))[1]
    assert not reward("grasp-shape", state([0.45, 0.0, 0.03], [0.45, 0.0, 0.13], LEVEL))[1]


def test_reach_over_reward() -> None:
    obstacle = [0.39, 0.0, 0.05]
    task = {"length": 0.15, "height": 0.1, "goal": [0.03, 0.0]}
    # 0.06 m before the goal, 0.1 m above it.
    terms, met = reward("reach-over", state([0.57, 0.0, 0.13], obstacle, LEVEL), **task)
    assert terms == {"reach": -0.6, "lower": -0.5 * math.exp(-1.0), "knock": 0.0, "success": 0.0}
    assert not met
    for x, expected in ((0.601, True), (0.599, False)):
        assert reward("reach-over", state([x, 0.0, 0.03], obstacle, LEVEL), **task)[1] == expected
    # At the goal, but the obstacle was moved by 0.04 m, or leans by 30 degrees.
    terms, met = reward("reach-over", state([0.63, 0.0, 0.03], [0.39, 0.04, 0.05], LEVEL), **task)
    assert terms == {"reach": 0.0, "lower": 0.0, "knock": -1.2, "success": 0.0}
    assert not met
    leaning = [math.cos(math.radians(15.0)), math.sin(math.radians(15.0)), 0.0, 0.0]
    terms, met = reward("reach-over", state([0.63, 0.0, 0.03], obstacle, leaning), **task)
    assert terms["knock"] == -(1.0 - math.cos(math.radians(30.0)))
    assert not met


# --- it can be done ----------------------------------------------------------------------------------------------

TOP = torch.tensor([0.8, 1.2, 0.3, 2.0, 0.2], dtype=torch.float64)
"""Top speeds of the servos, rad/s and m/s (both fingers)."""


def servo(qpos: Tensor, velocity: Tensor, turn: Tensor, fingers: Tensor) -> Tensor:
    """Return the action that moves the hand at a velocity, m/s, and a turning speed, rad/s."""
    first, second = qpos[:, 0], qpos[:, 0] + qpos[:, 1]
    a, b = -UPPER * first.sin() - FORE * second.sin(), -FORE * second.sin()
    c, d = UPPER * first.cos() + FORE * second.cos(), FORE * second.cos()
    x, y, z = velocity.unbind(1)
    shoulder, elbow = (d * x - b * y) / (a * d - b * c), (a * y - c * x) / (a * d - b * c)
    return (torch.stack([shoulder, elbow, z, turn - shoulder - elbow, fingers], dim=1) / TOP).clamp(-1.0, 1.0)


def hand_towards(qpos: Tensor, place: Tensor) -> Tensor:
    """Return the action that brings the finger tips to a place, with its heading and fingers kept."""
    grip, _ = hand_of(qpos)
    tips = grip - torch.tensor([0.0, 0.0, 0.015], dtype=torch.float64)
    zero = torch.zeros(len(qpos), dtype=torch.float64)
    return servo(qpos, 6.0 * (place - tips), zero, zero)


def heading_of(qpos: Tensor) -> Tensor:
    w, x, y, z = qpos[:, OBJECT + 3 :].unbind(1)
    return torch.atan2(2.0 * (x * y + w * z), 1.0 - 2.0 * (y * y + z * z))


class Grasper:
    """Turns the hand across the object, goes down, closes for 15 steps, lifts."""

    def __init__(self, tasks: Tasks) -> None:
        self.closed = torch.zeros(len(tasks))

    def __call__(self, qpos: Tensor) -> Tensor:
        grip, facing = hand_of(qpos)
        heading = torch.atan2(facing[:, 1], facing[:, 0])
        off = qpos[:, OBJECT : OBJECT + 2] - grip[:, :2]
        turn = (heading_of(qpos) - heading + math.pi / 2.0) % math.pi - math.pi / 2.0
        lined_up = (off.norm(dim=1) < 0.012) & (turn.abs() < 0.12)
        closing = (self.closed > 0) | (lined_up & (qpos[:, LIFT] < 0.009))
        self.closed += closing
        height = torch.where(lined_up | closing, 0.006, 0.08)
        up = torch.where(self.closed > 15, 0.15, height) - qpos[:, LIFT]
        velocity = torch.cat([6.0 * off * ~closing[:, None], 8.0 * up[:, None]], dim=1)
        return servo(qpos, velocity, 5.0 * turn * ~closing, torch.where(closing, -1.0, 1.0).double())


class Pusher:
    """Goes to where object and goal are in line, with a closed hand, and pushes along that line."""

    def __init__(self, tasks: Tasks) -> None:
        self.goal = goal_of(tasks)
        self.gap = 0.5 * tasks["length"][:, None] + 0.03

    def __call__(self, qpos: Tensor) -> Tensor:
        grip, facing = hand_of(qpos)
        heading = torch.atan2(facing[:, 1], facing[:, 0])
        thing = qpos[:, OBJECT : OBJECT + 2]
        distance = (self.goal - thing).norm(dim=1, keepdim=True)
        ahead = (self.goal - thing) / distance
        behind = grip[:, :2] - thing
        along = (behind * ahead).sum(1, keepdim=True)
        aside = behind - along * ahead
        pushing = (aside.norm(dim=1, keepdim=True) < 0.015) & (along < 0.0)
        push = ahead * (3.0 * distance).clamp_max(0.25) - 6.0 * aside
        velocity = torch.where(pushing, push, 6.0 * (thing - ahead * self.gap - grip[:, :2])) * (distance > 0.02)
        velocity = velocity * (0.3 / velocity.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1.0)
        turn = (torch.atan2(ahead[:, 1], ahead[:, 0]) - heading + math.pi) % (2.0 * math.pi) - math.pi
        down = 8.0 * (0.008 - qpos[:, LIFT])
        return servo(qpos, torch.cat([velocity, down[:, None]], dim=1), 4.0 * turn, -10.0 * qpos[:, LEFT])


class Crosser:
    """Rises over the obstacle, crosses it and goes down."""

    def __init__(self, tasks: Tasks) -> None:
        self.goal = tasks["goal"] + CENTRE
        self.over = tasks["height"] + 0.03

    def __call__(self, qpos: Tensor) -> Tensor:
        grip, _ = hand_of(qpos)
        off = self.goal - grip[:, :2]
        near = off.norm(dim=1) < 0.03
        up = torch.where(near, 0.015, self.over) - qpos[:, LIFT]
        high = (up < 0.02) | near
        forward = 4.0 * off * high[:, None]
        zero = torch.zeros_like(up)
        return servo(qpos, torch.cat([forward, 6.0 * up[:, None]], dim=1), zero, -10.0 * qpos[:, LEFT])


@pytest.mark.parametrize(
    ("name", "player", "rate"),
    [("push-shape", Pusher, 0.8), ("grasp-shape", Grasper, 0.95), ("reach-over", Crosser, 0.95)],
)
def test_can_be_done(name: str, player: Callable[[Tasks], Callable[[Tensor], Tensor]], rate: float) -> None:
    """A few lines of script solve tasks of every kind, whatever the mass and the friction: the family is feasible."""
    tasks = tasks_of_kinds(name, each=5)
    worlds, physics = begin(name, tasks)
    act = player(tasks)
    met = torch.zeros(len(tasks), dtype=torch.bool)
    for _ in range(get(name).horizon):
        step = worlds.step(act(physics.state["qpos"].clone()))
        assert step.success is not None
        met = (met | step.success) if name == "push-shape" else step.success
    assert met.double().mean() >= rate
    # Doing nothing does not.
    worlds.reset(generator(1))
    for _ in range(10):
        step = worlds.step(torch.zeros(len(tasks), 5))
        assert step.success is not None
        assert step.success.double().mean() < 0.2


def test_obstacle_stands_in_its_place() -> None:
    _, physics = begin("reach-over", tasks_of_kinds("reach-over"))
    assert torch.equal(physics.state["qpos"][:, OBJECT : OBJECT + 2], PLACE.expand(len(KINDS), 2))
