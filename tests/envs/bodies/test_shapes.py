"""Objects of many shapes: their geometry, mass and inertia against MuJoCo's own."""

from __future__ import annotations

import itertools
import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.envs import get
from metarl.envs.bodies.arm import FIRST_PART
from metarl.envs.bodies.shapes import KINDS, PARTS, SPECK, USED, VOLUME, Compound, clearance, compound
from metarl.errors import UserError
from tests.helpers.arm_worlds import LEVEL, NAMES, arm, matrix, tasks_of_kinds
from tests.helpers.toys import seeded as generator

TYPES = (mujoco.mjtGeom.mjGEOM_BOX,) * 3 + (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_ELLIPSOID)


def one(**changes: float) -> Compound:
    """Return one object, an L if not said otherwise."""
    values = {"kind": 1.0, "length": 0.1, "width": 0.3, "branch": 0.2, "height": 0.05, "mass": 0.2} | changes
    return compound(**{name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()})


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
