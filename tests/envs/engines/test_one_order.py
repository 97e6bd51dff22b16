"""Contacts and constraint rows come in one order, whatever order a GPU's threads had: they are shuffled here."""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.devices import repeatable
from metarl.envs import get
from metarl.envs.family import MujocoFamily, random_actions

if importlib.util.find_spec("mujoco_warp") is None:
    pytest.skip("mujoco_warp is not installed (the extra `gpu`)", allow_module_level=True)

import mujoco_warp as mjw
import warp as wp
from mujoco_warp._src import collision_driver, constraint, forward, solver

from metarl.envs.engines import one_order, one_sum
from metarl.envs.engines.compiling import replaced
from metarl.envs.engines.gpu import WarpPhysics
from metarl.envs.engines.warp_model import gpu_model
from metarl.envs.physics import CPU

WORLDS, STEPS = 3, 6
HEIGHT = {"half-cheetah-vel": (1, -0.15), "ant-dir": (2, 0.4)}
"""Family -> the number of its height in qpos, and one at which its feet touch the ground."""
STUBS = {
    name: getattr(room, name)
    for room, name in ((collision_driver, "_sort_contacts"), (constraint, "_sort_constraints"))
}
"""What the installed mujoco_warp has in these two places."""


def shuffled_contacts(d: Any, generator: np.random.Generator) -> None:
    count = min(int(d.nacon.numpy()[0]), d.naconmax)
    order = generator.permutation(count)
    for name in one_order.CONTACT_FIELDS:
        array = getattr(d.contact, name)
        if array.size:
            values = array.numpy()
            values[:count] = values[order]
            array.assign(values)


def shuffled_rows(m: Any, d: Any, generator: np.random.Generator) -> None:
    """Shuffle what each object has: its rows stay together, as a thread takes them in one go."""
    kinds, things, counts = d.efc.type.numpy(), d.efc.id.numpy(), d.nefc.numpy()
    order = np.tile(np.arange(d.njmax), (d.nworld, 1))
    for world, count in enumerate(counts):
        groups: dict[tuple[int, int], list[int]] = {}
        for row in range(count):
            groups.setdefault((kinds[world, row], things[world, row]), []).append(row)
        parts = list(groups.values())
        order[world, :count] = np.concatenate([parts[i] for i in generator.permutation(len(parts))] or [[]])
    place = np.argsort(order, axis=1)
    for name in (*one_order.ROW_FIELDS, *(("J_rownnz", "J_rowadr") if m.is_sparse else ("J",))):
        array = getattr(d.efc, name)
        values = array.numpy()
        values[:, : d.njmax] = np.stack([values[world, order[world]] for world in range(d.nworld)])
        array.assign(values)
    address, worlds = d.contact.efc_address.numpy(), d.contact.worldid.numpy()
    for contact in range(int(d.nacon.numpy()[0])):
        mine = address[contact] >= 0
        address[contact][mine] = place[worlds[contact]][address[contact][mine]]
    d.contact.efc_address.assign(address)
    if m.is_sparse:
        first = d.efc.jtdaj_adr.numpy()
        for world, count in enumerate(d.efc.jtdaj_nblock.numpy()):
            first[world, :count] = place[world][first[world, :count]]
        d.efc.jtdaj_adr.assign(first)


def played(monkeypatch: pytest.MonkeyPatch, name: str, *, shuffle: bool, sort: bool) -> list[torch.Tensor]:
    """Return the states of worlds with random actions."""
    family = get(name)
    assert isinstance(family, MujocoFamily)
    generator = np.random.default_rng(0)
    with repeatable(on=sort):
        physics = WarpPhysics(family, WORLDS, CPU, contacts=24, constraints=120)
    physics._model.opt.deterministic = physics._mjw.DeterminismType.ALL
    # With the order, these stand in for `mujoco_warp`'s own while it steps.
    owner = (one_order, one_order) if sort else (collision_driver, constraint)
    names = ("_left", "sort_rows") if sort else tuple(STUBS)
    after = [getattr(room, name) for room, name in zip(owner, names, strict=True)]
    order = physics._in_order
    if isinstance(order, one_order.OneOrder) and order.contacts:
        names, after[0] = ("sort_contacts", names[1]), one_order.sort_contacts

    def contacts(m: Any, d: Any) -> None:
        if shuffle:
            shuffled_contacts(d, generator)
        after[0](m, d)

    def rows(m: Any, d: Any) -> None:
        if shuffle:
            shuffled_rows(m, d, generator)
        after[1](m, d)

    monkeypatch.setattr(owner[0], names[0], contacts)
    monkeypatch.setattr(owner[1], names[1], rows)
    drawing = torch.Generator().manual_seed(0)
    tasks = family.space.sample(WORLDS, "train", drawing)
    physics.apply(tasks, None)
    start = family.reset_state(drawing, tasks)
    # On the ground, at once.
    start["qpos"][:, HEIGHT[name][0]] = HEIGHT[name][1]
    physics.write(start, None)
    found = []
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (family.action_low, family.action_high))
    touching = 0
    for _ in range(STEPS):
        physics.advance(low + (random_actions(family, WORLDS, drawing) + 1.0) * 0.5 * (high - low), None)
        found.append(
            torch.cat([physics.state[field].reshape(WORLDS, -1).clone() for field in sorted(physics.state)], 1)
        )
        touching += int(physics._data.nacon.numpy()[0])
    assert touching > STEPS
    return found


@pytest.mark.warp_cpu
@pytest.mark.parametrize("name", ["half-cheetah-vel", pytest.param("ant-dir", marks=pytest.mark.slow)])
def test_the_order_of_threads_does_not_matter(name: str) -> None:
    def found(*, shuffle: bool, sort: bool) -> list[torch.Tensor]:
        with pytest.MonkeyPatch.context() as patch:
            return played(patch, name, shuffle=shuffle, sort=sort)

    plain, sorted_, unsorted = (
        found(shuffle=shuffle, sort=sort) for shuffle, sort in ((False, True), (True, True), (True, False))
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, sorted_, strict=True))
    # Without the sorting the shuffling is seen.
    assert not all(torch.equal(a, b) for a, b in zip(plain, unsorted, strict=True))
    torch.testing.assert_close(plain[1], unsorted[1], rtol=1e-3, atol=1e-3)


def test_mujoco_warp_still_leaves_it_to_us() -> None:
    for stub in STUBS.values():
        assert "TODO" in inspect.getsource(stub)
    kinds = constraint.types.ConstraintType
    assert one_order.FIRST_CONTACT == kinds.CONTACT_FRICTIONLESS
    assert {kind for kind in kinds if kind > one_order.FIRST_CONTACT} == {
        kinds.CONTACT_PYRAMIDAL,
        kinds.CONTACT_ELLIPTIC,
    }
    assert wp.config.version.startswith("1.")


# -- sums -------------------------------------------------------------------------------------------------------------


def launched(kernel: Any, shape: tuple[int, ...], inputs: list[Any], outputs: list[np.ndarray[Any, Any]]) -> list[Any]:
    arrays = [wp.array(output, device="cpu") for output in outputs]
    on_device = [wp.array(x, device="cpu") if isinstance(x, np.ndarray) else x for x in inputs]
    wp.launch(kernel, dim=shape, inputs=on_device, outputs=arrays, device="cpu")
    return [array.numpy() for array in arrays]


@pytest.mark.warp_cpu
@pytest.mark.parametrize("stable_fast", [False, True])
def test_the_length_of_a_gradient_is_that_of_mujoco_warp(*, stable_fast: bool) -> None:
    draw, nv = np.random.default_rng(0), 5
    changed, done = np.array([0, 2, 1], dtype=np.int32), np.array([False, False, True])
    inputs = [*(draw.normal(size=(3, nv)).astype(np.float32) for _ in range(3)), changed, done]
    outputs = [np.full((3, nv), 9, dtype=np.float32), np.zeros(3, dtype=np.float32)]
    theirs = launched(solver._update_gradient_grad(stable_fast, False), (3, nv), inputs, outputs)
    ours = launched(one_sum.gradient(stable_fast, nv), (3, nv), inputs, outputs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert (theirs[1] > 0).tolist() == [not stable_fast, True, False]


@pytest.mark.warp_cpu
def test_the_force_of_actuators_is_that_of_mujoco_warp() -> None:
    draw, length = np.random.default_rng(0), np.array([[2, 1, 3]] * 2, dtype=np.int32)
    address = np.array([[4, 3, 0], [0, 2, 3]], dtype=np.int32)
    column = draw.integers(0, 4, size=(2, 6)).astype(np.int32)
    inputs = [length, address, column, *(draw.normal(size=(2, n)).astype(np.float32) for n in (6, 3))]
    outputs = [np.zeros((2, 4), dtype=np.float32)]
    theirs = launched(forward._qfrc_actuator(0, False), (2, 3), inputs, outputs)[0]
    ours = launched(one_sum.actuator_force(3, 4), (2, 3), inputs, outputs)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert (theirs != 0).any()


@pytest.mark.warp_cpu
def test_changed_rows_are_listed_in_their_order() -> None:
    listed = np.array([[5, 1, 3, 0, 9], [7, 2, 1, 1, 1], [4, 3, 2, 1, 0]], dtype=np.int32)
    found = launched(one_sum._sorted, (3,), [np.array([4, 1, 0], dtype=np.int32)], [listed])[0]
    assert found.tolist() == [[0, 1, 3, 5, 9], [7, 2, 1, 1, 1], [4, 3, 2, 1, 0]]


HELD = """
<mujoco><worldbody><body gravcomp="1"><joint type="hinge" axis="0 1 0"/><geom size=".1" pos=".3 0 0"/>
<body pos=".5 0 0" gravcomp=".5"><joint type="hinge" axis="0 1 0"/><geom size=".1" pos=".2 0 0"/></body>
<body gravcomp="2"><joint type="slide" axis="0 0 1"/><geom size=".1"/></body></body></worldbody></mujoco>
"""


@pytest.mark.warp_cpu
def test_bodies_are_held_up_as_by_mujoco() -> None:
    model = mujoco.MjModel.from_xml_string(HELD)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with wp.ScopedDevice("cpu"):
        m, d = mjw.put_model(model), mjw.make_data(model, nworld=2)
        order = one_order.one_order(model, m)
        with order():
            mjw.forward(m, d)
    for found in d.qfrc_gravcomp.numpy():
        np.testing.assert_allclose(found, data.qfrc_gravcomp, rtol=1e-5)
    assert np.abs(data.qfrc_gravcomp).min() > 1.0


@pytest.mark.parametrize(
    ("name", "slow"),
    [("half-cheetah-vel", set()), ("ant-dir", {"_cfrc_ext_contact"}), ("humanoid-dir", {"_cfrc_ext_contact"})],
)
def test_robots_launch_next_to_nothing_in_the_mode_of_warp(name: str, slow: set[str]) -> None:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    found = set()

    def launch(kernel: Any, dim: Any, *_: Any, **__: Any) -> None:
        if kernel.module.options.get("deterministic") and np.prod(dim):
            found.add(kernel.key.split("__locals__")[0])

    with wp.ScopedDevice("cpu"):
        model = gpu_model(family)
        m, d = mjw.put_model(model), mjw.make_data(model, nworld=2)
        order = one_order.one_order(model, m)
        once = lambda _, while_body, **arguments: while_body(**arguments)  # noqa: E731
        with replaced(wp, launch=launch, launch_tiled=launch, capture_while=once), order():
            mjw.step(m, d)
    assert found == slow
