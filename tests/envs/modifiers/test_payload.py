"""+payload: mass, centre and inertia of body and ball, against a ball that is fixed to the body in plain MuJoCo."""

from __future__ import annotations

import copy
import math

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs.family import MujocoFamily
from metarl.envs.modifiers.payload import Payload, quaternion, rotation
from metarl.errors import UserError
from tests.helpers.modified import actions_for, begun, by_hand, modified, stepped
from tests.helpers.plain_mujoco import mujoco_family
from tests.helpers.toys import normal, seeded


def with_ball(family: MujocoFamily, body: str, load: float, place: list[float]) -> mujoco.MjModel:
    """Return the family's model with a ball as one more geom that touches nothing: MuJoCo's compiler adds it up."""
    spec, model = family.model_spec(), family.model
    index = model.body(body).id
    radius = (3.0 * load / (4.0 * math.pi * 1000.0)) ** (1.0 / 3.0)
    spec.body(body).add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[radius, 0.0, 0.0],
        pos=model.body_ipos[index] + np.array(place),
        mass=load,
        contype=0,
        conaffinity=0,
    )
    return spec.compile()


@pytest.mark.parametrize(
    ("name", "body"), [("ant-dir+payload=0..1", "torso"), ("humanoid-dir+payload=0..3,right_thigh", "right_thigh")]
)
def test_it_moves_as_with_a_ball(name: str, body: str) -> None:
    family = modified(name)
    tasks = family.space.sample(2, "train", seeded())
    worlds = begun(name, tasks.records())
    plain = mujoco_family(name.partition("+")[0])
    actions, wanted = actions_for(worlds, 5), []
    for world in range(2):
        place, load = tasks["payload_place"][world].tolist(), tasks["payload_mass"][world].item()
        model = with_ball(plain, body, load, place)
        index = model.body(body).id
        mine = family.apply(tasks) if isinstance(family, MujocoFamily) else {}
        for field in ("body_mass", "body_ipos"):
            np.testing.assert_allclose(mine[field][world, index], getattr(model, field)[index], rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            mine["body_inertia"][world, index].sort().values, np.sort(model.body_inertia[index]), rtol=1e-9
        )
        wanted.append(by_hand(worlds, world, model, actions[:, world]))
    positions, velocities, _ = stepped(worlds, actions)
    for world in range(2):
        np.testing.assert_allclose(positions[:, world], wanted[world][0], rtol=0, atol=1e-7)
        np.testing.assert_allclose(velocities[:, world], wanted[world][1], rtol=0, atol=1e-5)


def test_the_numbers_of_two_point_like_bodies() -> None:
    family = modified("ant-dir+payload=0..1")
    assert isinstance(family, MujocoFamily)
    index = family.model.body("torso").id
    record = {"direction": 1.0, "payload_mass": 0.5, "payload_place": [0.05, 0.0, -0.02]}
    fields = family.apply(family.space.from_records([record]))
    own, moments = family.model.body_mass[index], family.model.body_inertia[index]
    assert fields["body_mass"][0, index].item() == pytest.approx(own + 0.5)
    shift = 0.5 / (own + 0.5) * np.array([0.05, 0.0, -0.02])
    np.testing.assert_allclose(fields["body_ipos"][0, index], family.model.body_ipos[index] + shift, atol=1e-15)
    # The trace of an inertia is twice the sum of m r², which adds up about the common centre.
    radius = (3.0 * 0.5 / (4.0 * math.pi * 1000.0)) ** (1.0 / 3.0)
    ball = 3.0 * 0.4 * 0.5 * radius**2
    apart = 2.0 * (own * 0.5 / (own + 0.5)) * (0.05**2 + 0.02**2)
    assert fields["body_inertia"][0, index].sum().item() == pytest.approx(moments.sum() + ball + apart)
    others = [other for other in range(family.model.nbody) if other != index]
    for name, values in fields.items():
        np.testing.assert_array_equal(values[0, others], getattr(family.model, name)[others])


def test_no_load_changes_nothing_but_the_order_of_axes() -> None:
    family = modified("ant-dir+payload")
    assert isinstance(family, MujocoFamily)
    fields = family.apply(
        family.space.from_records([{"direction": 1.0, "payload_mass": 0.0, "payload_place": [0.0] * 3}])
    )
    index = family.model.body("torso").id
    turn = rotation(fields["body_iquat"][:, index])[0]
    together = turn @ torch.diag(fields["body_inertia"][0, index]) @ turn.T
    np.testing.assert_allclose(together, np.diag(family.model.body_inertia[index]), atol=1e-12)


def test_matrices_and_quaternions_agree() -> None:
    turns = torch.nn.functional.normalize(normal(50, 4), dim=1)
    found = quaternion(rotation(turns))
    torch.testing.assert_close(found * (found * turns).sum(1, keepdim=True).sign(), turns)
    assert torch.linalg.det(rotation(turns)).tolist() == [pytest.approx(1.0)] * 50


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ant-dir+payload=torsoo", r"got \+payload for the body 'torsoo' of ant-dir@v5. Did you mean 'torso'"),
        ("ant-dir+payload=2..1", r"got masses of \+payload from 2.0 to 1.0: give 0 <= LOW < HIGH"),
        ("ant-dir+payload=-1..1", r"got masses of \+payload from -1.0 to 1.0: give 0 <= LOW < HIGH"),
        ("ant-dir+payload=1..2,3..4", r"got \+payload for the body '3..4' of ant-dir@v5"),
    ],
)
def test_says_what_is_wrong(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        modified(name)


def test_bodies_that_cannot_carry_are_refused() -> None:
    def robot(xml: str) -> MujocoFamily:
        family = copy.copy(mujoco_family("half-cheetah-vel"))
        vars(family)["model"] = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{xml}</worldbody></mujoco>")
        return family

    with pytest.raises(UserError, match=r"\+payload for half-cheetah-vel@v5: 'box' floats alone"):
        Payload().effect(robot("<body name='box'><freejoint/><geom type='box' size='1 1 1'/></body>"))
    with pytest.raises(UserError, match="no body of this robot moves and has a mass"):
        Payload().effect(robot("<body name='box'><geom type='box' size='1 1 1'/></body>"))
