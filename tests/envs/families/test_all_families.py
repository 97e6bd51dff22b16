"""One sweep over every family and variant, and so one file: each check of it holds for all of them.

What a family is rewarded for is checked by hand-computed cases elsewhere, and pinned by tests/fingerprints.json.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from metarl.envs import FamilyEnv, FamilyVectorEnv, families, get, gymnasium_id, make_worlds
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.family import LARGEST_VALID, Family, MujocoFamily, random_actions
from metarl.envs.gym.task_choice import generators
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.space.parameter_space import SPLITS
from metarl.types import Step, Tasks
from tests.helpers.toys import seeded as generator

MODIFIED = [
    "half-cheetah-vel+mass+inertia+damping+friction+gravity+gain+range+damage+switch=3..5",
    "ant-goal@pearl19+mass=each+gain=each",
    "push-shape+mass",
    "point-nav+switch=3..5",
]
"""What a name with modifiers makes is a family too; the switches come early enough to be seen here."""
ALL = [family.full_name for variants in families().values() for family in variants] + MODIFIED
WORLDS, STEPS = 4, 40

SAME_START = {"point-nav": "the origin", "bandit": "there is no state", "tabular-mdp": "state 0, as published"}
"""Families whose episodes all start with the same observation, and what it is."""
CONSTANT = {"bandit": "there is nothing to see but rewards"}
"""Families with observations that never change."""
UNITS = {"", "1", "m", "dm", "dm/s", "rad", "s", "m/s", "rad/s", "N", "N m", "kg", "steps"}


@pytest.fixture(params=ALL)
def family(request: pytest.FixtureRequest) -> Family:
    return get(request.param)


def sampled(family: Family, seed: int = 0, split: str = "train") -> Tasks:
    return family.space.sample(WORLDS, split, generator(seed))


def begin(family: Family, tasks: Tasks | None = None, **options: Any) -> tuple[Worlds, Tensor]:
    worlds = make_worlds(family, WORLDS, threads=1, **{"dtype": torch.float64, **options})
    worlds.set_tasks(tasks or sampled(family))
    return worlds, worlds.reset(generator())


def play(worlds: Worlds, steps: int = STEPS) -> Iterator[Step]:
    """Take random actions; begin again where every episode has ended."""
    random, starts = generator(1), generator(2)
    playing = torch.ones(worlds.num_worlds, dtype=torch.bool)
    for _ in range(steps):
        if not playing.any():
            worlds.reset(starts)
            playing = torch.ones_like(playing)
        step = worlds.step(random_actions(worlds.family, worlds.num_worlds, random))
        playing &= ~(step.terminated | step.truncated)
        yield step


@functools.cache
def played(name: str) -> tuple[Tensor, list[Step], int]:
    """Return the first observation of a family, random steps, and how many simulations failed."""
    worlds, start = begin(get(name))
    return start, list(play(worlds)), worlds.failures


# --- what a family says of itself --------------------------------------------------------------------------------


def test_describes_itself(family: Family) -> None:
    assert family.full_name.startswith(f"{family.name}@{family.variant}")
    assert get(family.full_name) is family
    assert family.summary
    assert family.source
    assert family.horizon > 0
    assert family.step_seconds > 0.0
    assert len(family.action_low) == len(family.action_high) == family.action_size
    assert all(low < high for low, high in zip(family.action_low, family.action_high, strict=True))
    assert family.action_unit
    spec = family.spec()
    assert (spec.observation_size, spec.action_size) == (family.observation_size, family.action_size)
    assert (spec.horizon, spec.discrete) == (family.horizon, family.discrete)


def test_observations_and_parameters_have_names_and_units(family: Family) -> None:
    assert all(row.meaning and row.name and row.unit for row in family.observables)
    assert {row.unit for row in family.observables} <= UNITS - {""}
    assert len({row.meaning for row in family.observables}) == family.observation_size
    assert all(parameter.name and parameter.description for parameter in family.space.parameters)
    assert {parameter.unit for parameter in family.space.parameters} <= UNITS
    assert family.space.family == family.full_name
    assert family.space.describe()


# --- tasks -------------------------------------------------------------------------------------------------------


def test_splits_do_not_overlap(family: Family) -> None:
    space, names = family.space, [split for split in SPLITS if split != "ood" or family.space.has_ood]
    drawn = {split: space.sample(40, split, generator()) for split in names}
    for split in names:
        for other in names:
            if split == other or (space.coincide and {split, other} == {"train", "test"}):
                assert space.contains(drawn[split], other).all()
            else:
                assert not space.contains(drawn[split], other).any()
    if not space.has_ood:
        with pytest.raises(UserError, match="no out-of-distribution part"):
            space.sample(1, "ood", generator())


def test_records_come_back_as_the_same_tasks(family: Family) -> None:
    tasks = sampled(family)
    for split in SPLITS[: 3 if family.space.has_ood else 2]:
        tasks = sampled(family, split=split)
        again = family.space.from_records(json.loads(json.dumps(tasks.records())))
        assert again.family == tasks.family == family.full_name
        assert all(torch.equal(again[name], value) for name, value in tasks.values.items())
    features = family.space.features(tasks)
    assert features.shape == (WORLDS, family.space.feature_size)
    assert features.isfinite().all()


def test_every_parameter_changes_something(family: Family) -> None:
    tasks = sampled(family)
    before = traces(family, tasks)
    for parameter in family.space.parameters:
        values = tasks[parameter.name]
        other = next(turned for turned in (values.roll(1, 0), values.roll(2, 0)) if not torch.equal(turned, values))
        changed = Tasks(tasks.family, {**tasks.values, parameter.name: other})
        after = traces(family, changed)
        assert any(not torch.equal(before[key], after[key]) for key in before), parameter.name


def traces(family: Family, tasks: Tasks) -> dict[str, Tensor]:
    """Return what a task may change: the model, the start, what is observed and rewarded."""
    worlds, start = begin(family, tasks)
    steps = list(play(worlds, 12))
    found = {"start": start, "observation": torch.stack([step.observation for step in steps])}
    for name in steps[0].terms:
        found[f"reward/{name}"] = torch.stack([step.terms[name] for step in steps])
    for name, value in worlds.physics.state.items():
        found[f"state/{name}"] = value.clone()
    if isinstance(family, MujocoFamily):
        found.update((f"model/{name}", value) for name, value in family.apply(tasks).items())
    return found


# --- worlds ------------------------------------------------------------------------------------------------------


def test_conforms_to_its_spaces(family: Family) -> None:
    start, steps, failures = played(family.full_name)
    assert start.shape == (WORLDS, family.observation_size)
    assert start.isfinite().all()
    for step in steps:
        assert step.observation.shape == start.shape
        assert step.observation.dtype == step.reward.dtype == start.dtype == torch.float64
        assert (step.observation.abs() < LARGEST_VALID).all()
        assert step.reward.shape == step.terminated.shape == step.truncated.shape == (WORLDS,)
        assert step.terminated.dtype == step.truncated.dtype == torch.bool
        assert not (step.terminated & step.truncated).any()
        assert step.reward.isfinite().all()
        assert list(step.terms) == list(steps[0].terms)
        torch.testing.assert_close(step.reward, torch.stack(list(step.terms.values())).sum(0))
    assert failures == 0


def test_success_is_told_always_or_never(family: Family) -> None:
    _, steps, _ = played(family.full_name)
    for step in steps:
        assert (step.success is None) == (steps[0].success is None)
        if step.success is not None:
            assert step.success.shape == (WORLDS,)
            assert step.success.dtype == torch.bool


def test_is_deterministic_under_a_seed(family: Family) -> None:
    start, steps, _ = played(family.full_name)
    # Single precision is double precision, rounded at the end.
    worlds, again = begin(family, dtype=torch.float32)
    assert torch.equal(again, start.float())
    for a, b in zip(steps[:20], play(worlds, 20), strict=True):
        assert torch.equal(a.observation.float(), b.observation)
        assert torch.equal(a.reward.float(), b.reward)
        assert torch.equal(a.terminated, b.terminated)
        assert torch.equal(a.truncated, b.truncated)


def test_stays_finite_under_the_largest_actions(family: Family) -> None:
    worlds, _ = begin(family)
    random, starts = generator(3), generator(4)
    for _ in range(STEPS):
        action = random_actions(family, WORLDS, random)
        step = worlds.step(action if family.discrete else action.sign() * 1e6)
        assert step.observation.isfinite().all()
        assert step.reward.isfinite().all()
        ended = (step.terminated | step.truncated).nonzero().squeeze(1)
        if len(ended) > 0:
            worlds.reset(starts, ended)
    assert worlds.failures == 0


def test_what_it_returns_is_the_callers_own(family: Family) -> None:
    start, steps, _ = played(family.full_name)
    worlds, touched = begin(family)
    assert torch.equal(touched, start)
    touched.fill_(5.0)
    for a, b in zip(steps[:5], play(worlds, 5), strict=True):
        assert torch.equal(a.observation, b.observation)
        assert torch.equal(a.reward, b.reward)
        for value in (b.observation, b.reward, *b.terms.values()):
            value.fill_(5.0)
        for flags in (b.terminated, b.truncated, b.success):
            if flags is not None and not (a.terminated | a.truncated).any():
                flags.fill_(False)


def test_no_observation_is_constant(family: Family) -> None:
    start, steps, _ = played(family.full_name)
    seen = torch.cat([start, *(step.observation for step in steps)])
    constant = [family.observables[i].meaning for i in (seen == seen[0]).all(0).nonzero().flatten().tolist()]
    assert bool(constant) == (family.name in CONSTANT), constant


def test_starts_are_randomised(family: Family) -> None:
    worlds, start = begin(family)
    other = worlds.reset(generator(1))
    if family.name in SAME_START:
        assert (start == start[0]).all()
        assert torch.equal(other, start)
    else:
        assert len(start.unique(dim=0)) == WORLDS
        assert (other != start).any(1).all()


def test_ends_at_the_horizon_and_then_stands_still(family: Family) -> None:
    worlds, _ = begin(family)
    worlds.horizon = min(5, family.horizon)
    action = torch.zeros(WORLDS, family.action_size)
    if family.discrete:
        action[:, 0] = 1.0
    steps = [worlds.step(action) for _ in range(worlds.horizon)]
    for step in steps[:-1]:
        assert not (step.terminated | step.truncated).any()
    last = steps[-1]
    assert (last.truncated | last.terminated).all()
    with pytest.raises(UserError, match="call reset before step"):
        worlds.step(action)
    worlds.horizon = family.horizon
    worlds.reset(generator(1), torch.tensor([2]))
    step = worlds.step(random_actions(family, WORLDS, generator()))
    still = torch.tensor([0, 1, 3])
    assert torch.equal(step.observation[still], last.observation[still])
    assert not step.reward[still].any()
    assert all(not value[still].any() for value in step.terms.values())
    assert not (step.terminated | step.truncated)[still].any()


# --- engines -----------------------------------------------------------------------------------------------------


def test_a_world_alone_does_the_same(family: Family) -> None:
    """What a world does depends on its own task, start and actions only."""
    tasks = sampled(family)
    start = family.reset_state(generator(), tasks)
    together = steps_from(family, tasks, start, range(WORLDS))
    for world in (0, WORLDS - 1):
        for a, b in zip(together, steps_from(family, tasks, start, [world]), strict=True):
            for key, value in b.items():
                assert torch.equal(a[key][world], value[0]), key


def steps_from(
    family: Family, tasks: Tasks, start: dict[str, Tensor], chosen: Sequence[int]
) -> list[dict[str, Tensor]]:
    """Return what some of the worlds do that have these tasks and starts, and are given the same actions as ever."""
    rows = torch.tensor(list(chosen))
    begun = copy.copy(family)
    # Families are frozen.
    object.__setattr__(begun, "reset_state", lambda generator, tasks: {k: v[rows] for k, v in start.items()})
    worlds = make_worlds(begun, len(rows), threads=1, dtype=torch.float64)
    worlds.set_tasks(tasks.select(rows))
    found = [{"observation": worlds.reset(generator())}]
    playing = torch.ones(len(rows), dtype=torch.bool)
    for seed in range(6):
        step = worlds.step(random_actions(family, WORLDS, generator(seed))[rows])
        playing &= ~(step.terminated | step.truncated)
        found.append({"observation": step.observation, "reward": step.reward, **step.terms})
        if not playing.any():
            break
    return found


@pytest.mark.parametrize("name", [name for name in ALL if isinstance(get(name), MujocoFamily)])
def test_engine_steps_as_mujoco_does(name: str) -> None:
    """One model and data a world, of the family's fields, stepped by themselves: the same bits."""
    family = get(name)
    assert isinstance(family, MujocoFamily)
    worlds, _ = begin(family)
    physics = worlds.physics
    assert isinstance(physics, MujocoPhysics)
    assert worlds.present is not None
    fields, own = family.apply(worlds.present), []
    for world in range(WORLDS):
        model = copy.copy(family.model)
        for field, values in fields.items():
            holder, leaf = (model.opt, field.removeprefix("opt.")) if field.startswith("opt.") else (model, field)
            getattr(holder, leaf)[:] = values[world].numpy()
        data = mujoco.MjData(model)
        if fields:
            mujoco.mj_setConst(model, data)
        mujoco.mj_resetData(model, data)
        for field in ("qpos", "qvel", *(() if model.na == 0 else ("act",))):
            getattr(data, field)[:] = physics.batch.bind(field)[world]
        if model.nmocap:
            data.mocap_pos[:] = physics.batch.bind("mocap_pos")[world]
        mujoco.mj_forward(model, data)
        own.append((model, data))
    # Before a switch.
    for seed in range(2):
        action = random_actions(family, WORLDS, generator(seed))
        worlds.step(action)
        low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (family.action_low, family.action_high))
        control = (low + (action + 1.0) * 0.5 * (high - low)).numpy()
        for world, (model, data) in enumerate(own):
            data.ctrl[:] = control[world]
            mujoco.mj_step(model, data, nstep=family.frame_skip)
            for field, values in physics.state.items():
                np.testing.assert_array_equal(values[world].numpy(), getattr(data, field), err_msg=field)


def test_gymnasium_environments_are_the_same_world(family: Family) -> None:
    """Single and vector environment, and the worlds that agents train in, under one seed."""
    task = sampled(family).records()[0]
    variant = family.full_name.removeprefix(f"{family.name}@")
    single = gymnasium.make(gymnasium_id(family.name), variant=variant, task=task, disable_env_checker=False)
    vector = FamilyVectorEnv(1, family, task=task, threads=1)
    worlds = make_worlds(family, 1, threads=1, unit_actions=False, dtype=torch.float64)
    worlds.set_tasks(family.space.from_records([task]))
    seed = 7
    first, info = single.reset(seed=seed)
    firsts, _ = vector.reset(seed=seed)
    start = worlds.reset(generators(seeding.np_random(seed)[0])[1])
    # Of a task that switches, only the part in force is told.
    assert all(task[name] == value for name, value in info["task"].items())
    np.testing.assert_array_equal(first, firsts[0])
    np.testing.assert_array_equal(first, start[0].numpy())
    single.action_space.seed(0)
    for _ in range(8):
        action = single.action_space.sample()
        observation, reward, terminated, truncated, info = single.step(action)
        observations, rewards, ends, cuts, infos = vector.step(np.asarray(action)[None])
        chosen = torch.as_tensor(action)
        step = worlds.step(
            (torch.nn.functional.one_hot(chosen, family.action_size).double() if family.discrete else chosen)[None]
        )
        assert observation in single.observation_space
        np.testing.assert_array_equal(observation, observations[0])
        assert (reward, terminated, truncated) == (rewards[0], ends[0], cuts[0])
        np.testing.assert_array_equal(observation, step.observation[0].numpy())
        assert (reward, terminated, truncated) == (step.reward.item(), bool(step.terminated), bool(step.truncated))
        assert {name: info[f"reward/{name}"] for name in step.terms} == {k: v.item() for k, v in step.terms.items()}
        assert ("success" in info) == (step.success is not None)
        if step.success is not None:
            assert info["success"] == bool(step.success) == infos["success"][0]
        if terminated or truncated:
            break
    single.close()
    vector.close()


def test_gymnasiums_checker_is_content(family: Family) -> None:
    # Warnings are errors here. Pictures are tested apart.
    check_env(FamilyEnv(family), skip_render_check=True)


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ALL if isinstance(get(name), MujocoFamily)])
def test_markers_stand_somewhere(name: str) -> None:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    worlds, _ = begin(family)
    assert worlds.present is not None
    for marker in family.markers(worlds.physics.state, worlds.present):
        for point in (marker.position, marker.tip):
            assert point is None or (point.shape == (WORLDS, 3) and point.isfinite().all())
