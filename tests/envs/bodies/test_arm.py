"""The arm: its model and observation against MuJoCo's own, worlds against models of one shape alone."""

from __future__ import annotations

import dataclasses
import itertools

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs import get
from metarl.envs.bodies.arm import FIRST_PART, LIFT, OBJECT, OBJECT_BODY, TABLE_GEOM, hand_of, joints_of
from metarl.envs.bodies.shapes import PARTS, USED
from tests.helpers.arm_worlds import GRIP, NAMES, arm, begin, hand_towards, tasks_of_kinds
from tests.helpers.toys import seeded as generator


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
