"""Contacts and constraint rows come in one order, whatever order a GPU's threads had: they are shuffled here."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from metarl.devices import repeatable
from metarl.envs import get
from metarl.envs.family import MujocoFamily, random_actions

if importlib.util.find_spec("mujoco_warp") is None:
    pytest.skip("mujoco_warp is not installed (the extra `gpu`)", allow_module_level=True)

import warp as wp
from mujoco_warp._src import collision_driver, constraint

from metarl.envs.engines import one_order
from metarl.envs.engines.gpu import WarpPhysics
from metarl.envs.physics import CPU

WORLDS, STEPS = 3, 6
HEIGHT = {"half-cheetah-vel": (1, -0.15), "ant-dir": (2, 0.4)}
"""Family -> the number of its height in qpos, and one at which its feet touch the ground."""
STUBS = {
    name: getattr(room, name)
    for room, name in ((collision_driver, "_sort_contacts"), (constraint, "_sort_constraints"))
}
"""What the installed mujoco_warp has in these two places."""


def as_delivered() -> None:
    collision_driver._sort_contacts = STUBS["_sort_contacts"]
    constraint._sort_constraints = STUBS["_sort_constraints"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    as_delivered()


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


def played(name: str, *, shuffle: bool, sort: bool) -> list[torch.Tensor]:
    """Return the states of worlds with random actions."""
    family = get(name)
    assert isinstance(family, MujocoFamily)
    generator = np.random.default_rng(0)
    as_delivered()
    with repeatable(on=sort):
        physics = WarpPhysics(family, WORLDS, CPU, contacts=24, constraints=120)
    physics._model.opt.deterministic = physics._mjw.DeterminismType.ALL
    after = collision_driver._sort_contacts, constraint._sort_constraints

    def contacts(m: Any, d: Any) -> None:
        if shuffle:
            shuffled_contacts(d, generator)
        after[0](m, d)

    def rows(m: Any, d: Any) -> None:
        if shuffle:
            shuffled_rows(m, d, generator)
        after[1](m, d)

    collision_driver._sort_contacts, constraint._sort_constraints = contacts, rows
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
    plain, sorted_, unsorted = (
        played(name, shuffle=shuffle, sort=sort) for shuffle, sort in ((False, True), (True, True), (True, False))
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
