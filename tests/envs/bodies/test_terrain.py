"""Ground of tiles: unseen in the test split, without gaps, flat at the start; and the robots that walk on it."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.envs import get, make_worlds
from metarl.envs.bodies.terrain import DIFFICULTY, KINDS, LEVELS, TILES, TRAIN_LEVELS, Ground, scan_observables
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.families import ant_terrain, half_cheetah_terrain
from metarl.envs.family import Family, MujocoFamily
from metarl.envs.models import compiled
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.space.parameter_space import CELLS
from metarl.types import Tasks
from tests.helpers.toys import seeded as generator

ROBOTS = {"ant-terrain": ant_terrain, "half-cheetah-terrain": half_cheetah_terrain}
STEEPEST = 2.5
"""Largest slope between neighbouring samples, rise over run: 0.24 m from one block to the next, 0.1 m away."""


@pytest.fixture(params=ROBOTS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def module(name: str) -> ModuleType:
    return ROBOTS[name]


@pytest.fixture
def ground(module: ModuleType) -> Ground:
    return module.GROUND


def some_tasks(family: Family, count: int, split: str = "train") -> Tasks:
    return family.space.sample(count, split, generator())


def every_kind(family: Family, difficulty: float) -> Tasks:
    goal = {"goal": [2.5, 2.0]} if family.name == "ant-terrain" else {"distance": 7.0}
    return family.space.from_records([{"difficulty": difficulty, "kind": float(k), **goal} for k in range(len(KINDS))])


def begin(family: Family, tasks: Tasks) -> Worlds:
    worlds = make_worlds(family, len(tasks), threads=1, dtype=torch.float64)
    worlds.set_tasks(tasks)
    worlds.reset(generator())
    return worlds


def torso(name: str, qpos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Its x, y and z, m."""
    if name == "ant-terrain":
        return qpos[:, 0], qpos[:, 1], qpos[:, 2]
    return qpos[:, 0], torch.zeros_like(qpos[:, 0]), qpos[:, 1] + 0.7


def height_at(ground: Ground, tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Height of the ground at one point of every tile."""
    return ground.height(tile, x[:, None], y[:, None])[:, 0]


# --- tiles -------------------------------------------------------------------------------------------------------


def test_splits_share_no_tile(name: str, ground: Ground) -> None:
    family = get(name)
    seen = {split: ground.tile(some_tasks(family, 20_000, split)).unique() for split in ("train", "test", "ood")}
    known = len(KINDS) - 1
    assert len(seen["train"]) == known * CELLS * TRAIN_LEVELS
    assert len(seen["test"]) == known * CELLS
    assert len(seen["ood"]) == LEVELS
    assert len(torch.cat(tuple(seen.values())).unique()) == TILES
    for split, tiles in seen.items():
        level = tiles % LEVELS % (TRAIN_LEVELS + 1)
        assert ((level == TRAIN_LEVELS) == (split == "test")).all() or split == "ood"
        assert ((tiles // LEVELS == known) == (split == "ood")).all()


def test_no_two_tiles_are_alike(ground: Ground) -> None:
    flat = ground.tiles.flatten(1)
    assert flat.shape[0] == TILES
    assert len(flat.unique(dim=0)) == TILES
    # Not even as shapes of different heights.
    shapes = torch.nn.functional.normalize(
        ground.tiles[:, ::4, ::4].flatten(1) if ground.across else ground.tiles[:, 1]
    )
    likeness = shapes @ shapes.T - torch.eye(TILES, dtype=torch.float64)
    assert likeness.abs().max() < 0.95


def test_tile_follows_kind_and_difficulty(name: str, ground: Ground) -> None:
    family = get(name)
    low, high = DIFFICULTY.bounds
    # The cells of difficulty have 3 tiles each: up to 0.4, to 0.8 and to 1 of the cell.
    for part, level in ((0.01, 0), (0.39, 0), (0.41, 1), (0.79, 1), (0.81, 2), (0.99, 2)):
        difficulty = low + (high - low) * (7 + part) / CELLS
        assert ground.tile(every_kind(family, difficulty)).tolist() == [k * LEVELS + 21 + level for k in range(5)]
    assert ground.tile(every_kind(family, high)).tolist() == [k * LEVELS + LEVELS - 1 for k in range(5)]


def test_difficulty_is_height(ground: Ground) -> None:
    low, high = DIFFICULTY.bounds
    difficulty = low + (high - low) * (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    highest = ground.tiles.abs().amax((1, 2)).unflatten(0, (len(KINDS), LEVELS))
    for kind, heights in zip(KINDS, highest, strict=True):
        assert (heights <= kind.height * difficulty + 1e-3).all()
        assert (heights >= 0.3 * kind.height * difficulty).all()


def test_field_has_no_cliff_and_joins_at_its_borders(ground: Ground) -> None:
    for border in (ground.tiles[:, 0], ground.tiles[:, -1], ground.tiles[:, :, 0], ground.tiles[:, :, -1]):
        assert not border.any()
    field = ground.field()
    assert field.shape == (ground.rows * ground.cells[1] + 1, ground.columns * ground.cells[0] + 1)
    steepest = [field.diff(dim=1 - axis).abs().max().item() / ground.spacing[axis] for axis in (0, 1)]
    assert max(steepest) < STEEPEST
    # Something is there to walk over.
    assert steepest[0] > 0.5


def test_start_is_flat(name: str, module: ModuleType, ground: Ground) -> None:
    turn = torch.linspace(0.0, 6.2, 60, dtype=torch.float64)
    # A cell that the rim of the start goes through is not level.
    radius = ground.start - 1.5 * ground.spacing[0]
    tiles = torch.arange(TILES)
    x, y = ((radius * axis).expand(TILES, -1) for axis in (turn.cos(), turn.sin() * ground.across))
    for part in (0.0, 0.5, 1.0):
        assert not ground.height(tiles, part * x, part * y).any()
    assert ground.height(tiles, 2.5 * x, 2.5 * y).any(1).double().mean() > 0.9


def test_robots_start_as_on_a_plane(name: str, ground: Ground) -> None:
    """No deeper in the ground than on Gymnasium's: the ant not at all, HalfCheetah-v5 is dropped a little into it."""
    family = get(name)
    assert isinstance(family, MujocoFamily)
    plane = get({"ant-terrain": "ant-dir", "half-cheetah-terrain": "half-cheetah-dir"}[name])
    assert isinstance(plane, MujocoFamily)
    worlds = begin(family, some_tasks(family, 24))
    assert isinstance(worlds.physics, MujocoPhysics)
    model, data = worlds.physics.snapshot(0)
    flat = mujoco.MjData(plane.model)
    for world in range(24):
        worlds.physics.snapshot(world, model, data)
        flat.qpos[:] = data.qpos
        mujoco.mj_forward(plane.model, flat)
        deepest, expected = (min([0.0, *(contact.dist for contact in d.contact)]) for d in (data, flat))
        assert deepest == pytest.approx(expected, abs=1e-4)
        assert deepest == 0.0 or name == "half-cheetah-terrain"


def test_tiles_are_the_same_every_time(ground: Ground) -> None:
    again = replace(ground)
    assert again is not ground
    assert torch.equal(again.tiles, ground.tiles)
    # And on every machine: multiples of a power of two, with a checksum.
    assert torch.equal(ground.tiles, (ground.tiles * 4096.0).round() / 4096.0)
    weights = torch.arange(ground.tiles.numel(), dtype=torch.float64).reshape(ground.tiles.shape) % 1009.0
    checksum = {ant_terrain.GROUND: 749391.9604492188, half_cheetah_terrain.GROUND: -308345.4033203125}[ground]
    assert float((ground.tiles * weights).sum()) == checksum


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 10.1}, "whole multiples of the spacing"),
        ({"spacing": (0.0, 0.125)}, "whole multiples of the spacing"),
        ({"spacing": (10.0, 0.125)}, "2 or more whole multiples"),
        ({"border": 0.0}, "must be above 0 m"),
        ({"start": 4.0}, "leave no room in 5.0 m"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(ant_terrain.GROUND, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficulty": 1.2}, r"difficulty got 1.2, out of range. Allowed: 0.1 to 1"),
        ({"kind": 7.0}, r"kind got 7.0, out of range. Allowed: one of 0, 1, 2, 3 \(out of distribution: 4\)"),
        ({"kind": 1.5}, r"kind got 1.5, out of range"),
        ({"goal": [9.0, 0.0]}, r"goal got \[9.0, 0.0\], out of range. Allowed: 2.5 to 3.5 m from the origin"),
    ],
)
def test_invalid_ground_is_refused(change: dict[str, float | list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        get("ant-terrain").space.from_records([{"difficulty": 0.5, "kind": 1.0, "goal": [3.0, 0.0], **change}])


# --- height and scan ---------------------------------------------------------------------------------------------


def test_height_is_that_of_mujocos_rays(name: str, ground: Ground) -> None:
    family = get(name)
    worlds = begin(family, every_kind(family, 0.9))
    assert isinstance(worlds.physics, MujocoPhysics)
    size = 0.999 * torch.tensor([ground.length, ground.width], dtype=torch.float64)
    points = (torch.rand(5, 2, 100, generator=generator(), dtype=torch.float64) - 0.5) * size[:, None]
    heights = ground.height(ground.tile(every_kind(family, 0.9)), points[:, 0], points[:, 1])
    down = np.array([0.0, 0.0, -1.0])
    model, data = worlds.physics.snapshot(0)
    for world in range(5):
        worlds.physics.snapshot(world, model, data)
        for point, height in zip(points[world].T.tolist(), heights[world].tolist(), strict=True):
            distance = mujoco.mj_rayHfield(model, data, model.geom("floor").id, np.array([*point, 5.0]), down, None)
            assert 5.0 - distance == pytest.approx(height, abs=1e-6)


def test_height_of_a_cell_is_worked_out_by_hand() -> None:
    ground = replace(half_cheetah_terrain.GROUND)
    # Row 1 is at y = -0.25, column 100 at x = -2: the corners of a cell from there, 0.1 x 0.5 m.
    heights = torch.zeros_like(ground.tiles)
    heights[3, 1:3, 100:102] = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    ground.__dict__["tiles"] = heights
    tile = torch.tensor([3])
    # Corners; the middle of the diagonal from 0 to 4; a point on either side of it.
    x = torch.tensor([[-2.0, -1.9 - 1e-7, -2.0, -1.95, -1.925, -1.975]], dtype=torch.float64)
    y = torch.tensor([[-0.25, -0.25, 0.25 - 1e-7, 0.0, -0.125, 0.125]], dtype=torch.float64)
    got = ground.height(tile, x, y)[0].tolist()
    assert got == pytest.approx([0.0, 1.0, 2.0, 2.0, 0.75 * 1.0 + 0.25 * 3.0, 0.75 * 2.0 + 0.25 * 2.0], abs=1e-5)
    # Beyond the tile is its border.
    far = torch.tensor([[99.0, -99.0, 0.0]], dtype=torch.float64)
    assert ground.height(tile, far, far.flip(1)).tolist() == [[0.0] * 3]


def test_scan_is_in_the_observation(name: str, module: ModuleType, ground: Ground) -> None:
    blind, seeing = get(name), get(f"{name}@scan")
    extra = len(module.SCAN)
    assert seeing.observables == blind.observables + scan_observables(module.SCAN)
    assert seeing.observation_size == blind.observation_size + extra
    tasks = every_kind(seeing, 1.0)
    worlds = begin(seeing, tasks)
    state = worlds.physics.state
    if name == "ant-terrain":
        state["qpos"][:, :7] = torch.tensor([1.8, 0.4, 0.6, 1.0, 0.0, 0.0, 0.0])
    else:
        state["qpos"][:, :2] = torch.tensor([1.8, -0.1])
    observation = seeing.observe(state, tasks)
    assert torch.equal(observation[:, :-extra], blind.observe(state, Tasks(blind.full_name, tasks.values)))
    start_x, start_y, z = torso(name, state["qpos"])
    for column, (x, y) in enumerate(module.SCAN):
        expected = height_at(ground, ground.tile(tasks), start_x + x, start_y + y) - z
        torch.testing.assert_close(observation[:, column - extra], expected)


# --- in the engine -----------------------------------------------------------------------------------------------


def test_worlds_stand_on_their_own_tile(name: str, ground: Ground) -> None:
    """A world under which the field was moved is, bit for bit, one whose model has it there."""
    family = get(name)
    assert isinstance(family, MujocoFamily)
    tasks = every_kind(family, 0.8)
    worlds = begin(family, tasks)
    assert isinstance(worlds.physics, MujocoPhysics)
    start = {key: worlds.physics.state[key].clone() for key in ("qpos", "qvel")}
    start["qpos"][:, 0] += 2.0
    start["qpos"][:, 1 if name == "half-cheetah-terrain" else 2] += 0.4
    worlds.physics.write(start, None)
    actions = torch.rand(30, 5, family.action_size, generator=generator(), dtype=torch.float64) * 2.0 - 1.0
    for action in actions:
        worlds.physics.advance(action, None)
    for world in (2, 4):
        spec = family.model_spec()
        spec.geom("floor").pos = ground.offset(ground.tile(tasks))[world].tolist()
        model = compiled(spec)
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = start["qpos"][world].numpy(), start["qvel"][world].numpy()
        mujoco.mj_forward(model, data)
        touched = False
        for action in actions:
            data.ctrl[:] = action[world].numpy()
            for _ in range(family.frame_skip):
                mujoco.mj_step(model, data)
                touched |= data.ncon > 0
        assert touched
        np.testing.assert_array_equal(worlds.physics.state["qpos"][world].numpy(), data.qpos)


def test_stays_on_the_ground_under_random_and_saturated_actions(name: str, ground: Ground) -> None:
    family = get(name)
    tasks, random = every_kind(family, 1.0), generator()
    worlds, tile = begin(family, tasks), ground.tile(tasks)
    start = worlds.physics.state["qpos"].clone()
    alive = torch.ones(5, dtype=torch.bool)
    for step in range(60):
        action = torch.rand(5, family.action_size, generator=random) * 2.0 - 1.0
        after = worlds.step(action if step < 30 else action.sign())
        alive &= ~(after.terminated | after.truncated)
        x, y, z = torso(name, worlds.physics.state["qpos"])
        assert (z > height_at(ground, tile, x, y)).all()
        if not alive.any():
            break
    assert worlds.failures == 0
    assert ((worlds.physics.state["qpos"] - start).abs().amax(1) > 0.1).all()


def test_a_failed_world_leaves_the_others_their_scan(name: str) -> None:
    family = get(f"{name}@scan")
    worlds = begin(family, every_kind(family, 0.5))
    worlds.physics.state["qvel"][2] = float("nan")
    step = worlds.step(torch.zeros(5, family.action_size))
    assert worlds.failures == 1
    assert step.truncated.tolist() == [False, False, True, False, False]
    assert step.observation.isfinite().all()


def test_the_ground_may_not_change_under_a_robot(name: str) -> None:
    with pytest.raises(UserError, match="cannot change its task in the middle of a trial: the ground would change"):
        get(f"{name}+switch")


# --- pictures ----------------------------------------------------------------------------------------------------


def test_a_picture_shows_the_own_tile_only(name: str, ground: Ground) -> None:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    tasks = every_kind(family, 0.9)
    worlds = begin(family, tasks)
    assert isinstance(worlds.physics, MujocoPhysics)
    for world, tile in enumerate(ground.tile(tasks).tolist()):
        model, data = worlds.physics.snapshot(world)
        family.crop(model, data)
        rows, columns = model.hfield_nrow[0], model.hfield_ncol[0]
        shown = model.hfield_data[: rows * columns].reshape(rows, columns) * model.hfield_size[0, 2]
        expected = ground.tiles[tile] if ground.across else ground.tiles[tile, 1:-1]
        np.testing.assert_allclose(shown + model.geom("floor").pos[2], expected.numpy(), atol=1e-6)
        spacing = 2.0 * model.hfield_size[0, :2] / (columns - 1, rows - 1)
        np.testing.assert_allclose(spacing, ground.spacing)
        assert data.geom_xpos[model.geom("floor").id, :2].tolist() == [0.0, 0.0]
    (goal,) = family.markers(worlds.physics.state, tasks)
    assert goal.position.shape == (5, 3)
    x, y, _ = goal.position[1].tolist()
    assert (x, y) == ((2.5, 2.0) if name == "ant-terrain" else (7.0, 0.0))
    below = height_at(ground, ground.tile(tasks), goal.position[:, 0], goal.position[:, 1])
    torch.testing.assert_close(goal.position[:, 2], 0.4 + below)
