"""Families with modifiers: all but their name, tasks and model is the base's."""

from __future__ import annotations

import inspect

import gymnasium
import pytest
import torch

from metarl.envs import FamilyEnv, families, get, make_worlds
from metarl.envs.family import Family, MujocoFamily, TorchFamily
from metarl.envs.horizon import with_horizon
from metarl.envs.modifiers.apply import Modified, ModifiedMujoco, ModifiedTorch, modify, with_damage, with_dynamics
from metarl.envs.modifiers.dynamics import Factor
from metarl.envs.registry import resolve
from metarl.errors import UserError
from tests.helpers.plain_mujoco import WORLDS, mujoco_family
from tests.helpers.toys import seeded as generator


def test_in_python_as_by_name() -> None:
    base = get("half-cheetah-vel")
    family = with_damage(with_dynamics(base, Factor(quantity="gain", per="each"), Factor(quantity="mass")))
    assert family.full_name == "half-cheetah-vel@v5+mass+gain=each+damage"
    assert family.space == get(family.full_name).space
    assert modify(base) is base
    with pytest.raises(UserError, match=r"\+mass\+gain\+gain"):
        with_dynamics(base, Factor(quantity="gain"), Factor(quantity="mass"), Factor(quantity="gain"))


def test_as_a_gymnasium_environment() -> None:
    env = gymnasium.make("metarl/HalfCheetahVel-v0", variant="v5+mass")
    _, info = env.reset(seed=0)
    assert set(info["task"]) == {"velocity", "mass_factor"}
    by_name = FamilyEnv("half-cheetah-vel+mass")
    assert by_name.reset(seed=0)[1] == info
    envs = gymnasium.make_vec("metarl/HalfCheetahVel-v0", num_envs=2, variant="v5+mass", threads=1)
    _, infos = envs.reset(seed=0)
    assert infos["task"]["mass_factor"].shape == (2,)
    assert resolve("half-cheetah-vel+mass", "maml17") is get("half-cheetah-vel@maml17+mass")
    for each in (env, envs):
        each.close()


def test_everything_else_is_the_bases() -> None:
    """A method that families gain must be passed on, too."""
    # What is best is not known any more, where a modifier changes what is seen or what an action does.
    derived = {"observation_size", "action_size", "spec", "full_name", "optimal_action"}
    for kind, ours in ((Family, Modified), (MujocoFamily, ModifiedMujoco), (TorchFamily, ModifiedTorch)):
        methods = {name for name in vars(kind) if not name.startswith("_")} - set(kind.__annotations__) - derived
        assert methods
        kept = {name for name in methods if inspect.getattr_static(ours, name) is vars(kind)[name]}
        assert not kept, f"{ours.__name__} does not pass on {kept}"
    for name in ("ant-dir@maml17+mass", "point-nav+switch"):
        family = get(name)
        assert isinstance(family, ModifiedMujoco | ModifiedTorch)
        kind = MujocoFamily if isinstance(family, MujocoFamily) else TorchFamily
        for attribute in {*Family.__annotations__, *kind.__annotations__} - {"space", "summary", "source"}:
            assert getattr(family, attribute) == getattr(family.base, attribute), attribute
    assert get("point-nav").spec().optimal_action is not None
    assert get("point-nav+switch").spec().optimal_action is None


def test_with_another_horizon() -> None:
    family = with_horizon(get("half-cheetah-vel+mass+switch"), 40)
    assert isinstance(family, ModifiedMujoco)
    assert (family.horizon, family.base.horizon) == (40, 40)
    assert family.space.parameters[-1].bounds == (10.0, 30.0)


@pytest.mark.parametrize("name", [name for name in families() if isinstance(get(name), MujocoFamily)])
def test_fits_every_robot(name: str) -> None:
    family = mujoco_family(f"{name}+mass+inertia=each+gain+damage")
    worlds = make_worlds(family, WORLDS, threads=1, dtype=torch.float64)
    worlds.set_tasks(family.space.sample(WORLDS, "train", generator()))
    first = worlds.reset(generator())
    assert first.shape == (WORLDS, family.observation_size)
    for action in torch.rand(3, WORLDS, family.action_size, generator=generator(1)) * 2.0 - 1.0:
        assert worlds.step(action).observation.isfinite().all()
    assert worlds.failures == 0


@pytest.mark.parametrize(
    "name", ["half-cheetah-vel+mass+friction=each", "ant-dir+gravity", "half-cheetah-vel@pearl19+gain"]
)
def test_splits_do_not_overlap(name: str) -> None:
    space = get(name).space
    assert space.family == get(name).full_name
    assert not space.coincide
    for split in ("train", "test", "ood"):
        tasks = space.sample(300, split, generator())
        assert space.contains(tasks, split).all()
        assert not any(space.contains(tasks, other).any() for other in ("train", "test", "ood") if other != split)
        assert space.from_records(tasks.records()).records() == tasks.records()


def test_fixed_sets_stay_fixed() -> None:
    space = get("half-cheetah-vel@pearl19+mass").space
    train = space.sample(100, "train", generator(1))
    assert torch.equal(train["mass_factor"], space.sample(100, "train", generator(2))["mass_factor"])
    assert len(train["mass_factor"].unique()) == len(train["velocity"].unique()) == 100
