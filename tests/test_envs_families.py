"""One sweep over every family and variant; then each variant's definition, by numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.envs import families, get, make_worlds, register
from metarl.envs.family import LARGEST_VALID, Family
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.types import Step

ALL = [family for variants in families().values() for family in variants]
WORLDS = 4


@pytest.fixture(params=ALL, ids=lambda family: family.full_name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begin(family: Family, seed: int = 0, **options: Any) -> tuple[Worlds, Tensor]:
    worlds = make_worlds(family, WORLDS, threads=1, **options)
    worlds.set_tasks(family.space.sample(WORLDS, "train", generator(seed)))
    return worlds, worlds.reset(generator(seed))


def play(worlds: Worlds, steps: int, seed: int = 0) -> list[Step]:
    """Take random actions until `steps` are done or every episode has ended."""
    random, played, alive = generator(seed), [], torch.ones(WORLDS, dtype=torch.bool)
    for _ in range(steps):
        played.append(worlds.step(torch.rand(WORLDS, worlds.action_size, generator=random) * 2.0 - 1.0))
        alive &= ~(played[-1].terminated | played[-1].truncated)
        if not alive.any():
            break
    return played


def test_describes_itself(family: Family) -> None:
    assert family.full_name == f"{family.name}@{family.variant}"
    assert get(family.full_name) is family
    assert family.summary
    assert family.source
    assert len(family.action_low) == len(family.action_high) == family.action_size
    assert all(row.meaning and row.name and row.unit for row in family.observables)
    assert len({row.meaning for row in family.observables}) == family.observation_size
    assert family.space.family == family.full_name


def test_conforms_to_its_spaces(family: Family) -> None:
    worlds, observation = begin(family)
    assert observation.shape == (WORLDS, family.observation_size)
    assert observation.dtype == torch.float32
    for step in play(worlds, 30):
        assert step.observation.shape == (WORLDS, family.observation_size)
        assert step.observation.dtype == step.reward.dtype == torch.float32
        assert (step.observation.abs() < LARGEST_VALID).all()
        assert step.reward.shape == step.terminated.shape == step.truncated.shape == (WORLDS,)
        assert step.terminated.dtype == step.truncated.dtype == torch.bool
        assert step.reward.isfinite().all()
        torch.testing.assert_close(step.reward, sum(step.terms.values()), check_dtype=False)
    assert worlds.failures == 0


def test_is_deterministic_under_a_seed(family: Family) -> None:
    (first, start), (second, same_start) = begin(family), begin(family)
    assert torch.equal(start, same_start)
    for a, b in zip(play(first, 20), play(second, 20), strict=True):
        assert torch.equal(a.observation, b.observation)
        assert torch.equal(a.reward, b.reward)


def test_what_it_returns_is_the_callers_own(family: Family) -> None:
    (touched, start), (alone, _) = begin(family, dtype=torch.float64), begin(family, dtype=torch.float64)
    start.fill_(5.0)
    for a, b in zip(range(5), play(alone, 5), strict=True):
        step = touched.step(torch.zeros(WORLDS, family.action_size)) if a else play(touched, 1)[0]
        if a == 0:
            assert torch.equal(step.observation, b.observation)
        step.observation.fill_(5.0)
        step.reward.fill_(5.0)
    assert (touched.step(torch.zeros(WORLDS, family.action_size)).observation != 5.0).any(1).all()


def test_no_observation_is_constant(family: Family) -> None:
    worlds, start = begin(family)
    seen = torch.stack([start, *(step.observation for step in play(worlds, 40))])
    assert (seen.reshape(-1, family.observation_size).std(0) > 0.0).all()


def test_starts_are_randomised(family: Family) -> None:
    worlds, start = begin(family)
    if family.name == "point-nav":
        assert torch.equal(start, torch.zeros(WORLDS, 2))
        return
    assert len(start.unique(dim=0)) == WORLDS
    assert not torch.equal(worlds.reset(generator(1)), start)


def test_truncates_at_the_horizon_and_then_stands_still(family: Family) -> None:
    worlds, _ = begin(family)
    # Standing ants do not fall.
    steps = [worlds.step(torch.zeros(WORLDS, family.action_size)) for _ in range(family.horizon)]
    assert not torch.stack([step.terminated | step.truncated for step in steps[:-1]]).any()
    assert steps[-1].truncated.all()
    assert not steps[-1].terminated.any()
    with pytest.raises(UserError, match="call reset before step"):
        worlds.step(torch.zeros(WORLDS, family.action_size))
    worlds.reset(generator(1), torch.tensor([2]))
    step = worlds.step(torch.ones(WORLDS, family.action_size))
    still = torch.tensor([0, 1, 3])
    assert torch.equal(step.observation[still], steps[-1].observation[still])
    assert not torch.equal(step.observation[2], steps[-1].observation[2])
    assert not step.reward[still].any()
    assert all(not value[still].any() for value in step.terms.values())
    assert not (step.terminated | step.truncated).any()


# --- definitions -------------------------------------------------------------------------------------------------


def terms(name: str, before: dict[str, Tensor], after: dict[str, Tensor], action: float, **task: float | list[float]):
    """Reward terms of one world whose actions are all `action`."""
    family = get(name)
    tasks = family.space.from_records([dict(task)])
    actions = torch.full((1, family.action_size), action, dtype=torch.float64)
    values = family.reward_terms(before, after, actions, tasks)
    return {key: pytest.approx(value.item()) for key, value in values.items()}


def cheetah(x: float) -> dict[str, Tensor]:
    qpos = torch.zeros(1, 9, dtype=torch.float64)
    qpos[0, 0] = x
    return {"qpos": qpos, "qvel": torch.zeros(1, 9, dtype=torch.float64)}


def ant(x: float, z: float = 0.5) -> dict[str, Tensor]:
    qpos = torch.zeros(1, 15, dtype=torch.float64)
    xpos = torch.zeros(1, 14, 3, dtype=torch.float64)
    forces = torch.zeros(1, 14, 6, dtype=torch.float64)
    qpos[0, 2], xpos[0, 1, 0] = z, x
    # The squares of the clipped forces sum to 0.25 + 1 + 1.
    forces[0, 3, 0], forces[0, 5, 2], forces[0, 13, 5] = 0.5, 2.0, -7.0
    return {"qpos": qpos, "qvel": torch.zeros(1, 14, dtype=torch.float64), "xpos": xpos, "cfrc_ext": forces}


def test_point_nav_reward() -> None:
    state = {"position": torch.tensor([[0.3, 0.1]], dtype=torch.float64)}
    assert terms("point-nav@maml17", {}, state, 0.0, goal=[0.0, 0.5]) == {"distance": -0.5}


@pytest.mark.parametrize(("variant", "control"), [("v5", -0.15), ("maml17", -0.075)])
def test_half_cheetah_dir_reward(variant: str, control: float) -> None:
    # 0.1 m in 0.05 s; six actions of 0.5.
    got = terms(f"half-cheetah-dir@{variant}", cheetah(0.2), cheetah(0.3), 0.5, direction=-1.0)
    assert got == {"forward": -2.0, "control": control}


@pytest.mark.parametrize(
    ("variant", "control"),
    [("v5", -0.15), ("maml17", -0.075), ("promp18", -0.075), ("pearl19", -0.075), ("varibad20", -0.075)],
)
def test_half_cheetah_vel_reward(variant: str, control: float) -> None:
    got = terms(f"half-cheetah-vel@{variant}", cheetah(0.2), cheetah(0.3), -0.5, velocity=0.5)
    assert got == {"velocity": -1.5, "control": control}


@pytest.mark.parametrize(
    ("variant", "control", "survive", "fallen"), [("v5", -1.0, 1.0, 0.0), ("maml17", -0.01, 0.05, 0.05)]
)
def test_ant_dir_reward(variant: str, control: float, survive: float, fallen: float) -> None:
    # 0.1 m in 0.05 s; eight actions of 0.5.
    name = f"ant-dir@{variant}"
    expected = {"forward": -2.0, "survive": survive, "control": control, "contact": -5e-4 * 2.25}
    assert terms(name, ant(0.2), ant(0.3), 0.5, direction=-1.0) == expected
    assert terms(name, ant(0.2), ant(0.3, z=0.1), 0.5, direction=-1.0) == {**expected, "survive": fallen}


@pytest.mark.parametrize(
    ("height", "ended"), [(0.19, True), (0.2, False), (1.0, False), (1.01, True), (float("nan"), True)]
)
def test_ant_ends_outside_its_heights(height: float, ended: bool) -> None:
    for variant in ("v5", "maml17"):
        family = get(f"ant-dir@{variant}")
        tasks = family.space.from_records([{"direction": 1.0}])
        assert family.terminated(ant(0.0, z=height), tasks) == torch.tensor([ended])


def test_half_cheetah_never_ends_early() -> None:
    family = get("half-cheetah-vel")
    assert family.terminated(cheetah(0.0), family.space.from_records([{"velocity": 1.0}])) is None


@pytest.mark.parametrize(
    ("name", "horizon", "size", "top_speed"),
    [
        ("point-nav@maml17", 100, 2, None),
        ("half-cheetah-dir@v5", 200, 17, None),
        ("half-cheetah-dir@maml17", 200, 18, None),
        ("half-cheetah-vel@v5", 200, 17, 2.0),
        ("half-cheetah-vel@maml17", 200, 18, 2.0),
        ("half-cheetah-vel@promp18", 100, 17, 3.0),
        ("half-cheetah-vel@pearl19", 200, 17, 3.0),
        ("half-cheetah-vel@varibad20", 200, 17, 3.0),
        ("ant-dir@v5", 200, 27, None),
        ("ant-dir@maml17", 200, 29, None),
    ],
)
def test_sizes_and_ranges(name: str, horizon: int, size: int, top_speed: float | None) -> None:
    family = get(name)
    assert family.horizon == horizon
    assert family.observation_size == size
    if top_speed is not None:
        assert family.space.parameters[0].bounds == (0.0, top_speed)


def test_every_variant_has_a_definition_test() -> None:
    marks = getattr(test_sizes_and_ranges, "pytestmark", [])
    assert {case[0] for case in marks[0].args[1]} == {family.full_name for family in ALL}


def test_pearl_tasks_are_fixed() -> None:
    space = get("half-cheetah-vel@pearl19").space
    speeds = {
        split: space.sample(count, split, generator(7))["velocity"] for split, count in (("train", 100), ("test", 30))
    }
    again = get("half-cheetah-vel@pearl19").space.sample(100, "train", generator(8))["velocity"]
    assert torch.equal(speeds["train"], again)
    assert len(speeds["train"].unique()) == 100
    assert not torch.isin(speeds["test"], speeds["train"]).any()


def test_point_nav_ends_at_its_goal_and_clips_its_moves() -> None:
    family = get("point-nav")
    worlds = make_worlds(family, 3, unit_actions=False, dtype=torch.float64)
    worlds.set_tasks(family.space.from_records([{"goal": goal} for goal in ([0.1, 0.0], [0.1, 0.2], [0.2, 0.0])]))
    worlds.reset(generator())
    step = worlds.step(torch.tensor([[0.7, 0.0]] * 3))
    assert step.observation.tolist() == [[0.1, 0.0]] * 3
    assert step.terminated.tolist() == [True, False, False]
    assert not step.truncated.any()
    assert step.reward.tolist() == pytest.approx([0.0, -0.2, -0.1])
    # Within 0.01 on both axes, not only on one.
    step = worlds.step(torch.tensor([[0.0, 0.0], [0.0, 0.1], [0.0, 0.0]]))
    step = worlds.step(torch.tensor([[0.0, 0.0], [0.0, 0.091], [0.091, 0.009]]))
    assert step.terminated.tolist() == [False, True, True]


def test_agents_actions_are_scaled_to_the_bounds() -> None:
    family = get("point-nav")
    worlds = make_worlds(family, 1, dtype=torch.float64)
    worlds.set_tasks(family.space.from_records([{"goal": [0.5, 0.5]}]))
    worlds.reset(generator())
    observation = worlds.step(torch.tensor([[-0.5, 3.0]])).observation
    assert observation.tolist() == [pytest.approx([-0.05, 0.1])]


def test_reaching_the_goal_in_the_last_step_is_no_truncation() -> None:
    family = get("point-nav")
    worlds = make_worlds(family, 1, unit_actions=False)
    worlds.set_tasks(family.space.from_records([{"goal": [0.1, 0.0]}]))
    worlds.reset(generator())
    for _ in range(family.horizon - 1):
        assert not worlds.step(torch.zeros(1, 2)).terminated
    step = worlds.step(torch.tensor([[0.1, 0.0]]))
    assert step.terminated.item()
    assert not step.truncated.item()


# --- the registry ------------------------------------------------------------------------------------------------


def test_first_variant_is_the_default() -> None:
    assert get("half-cheetah-vel").full_name == "half-cheetah-vel@v5"
    assert get("half-cheetah-dir").full_name == "half-cheetah-dir@v5"
    assert get("ant-dir").full_name == "ant-dir@v5"
    assert get("point-nav").full_name == "point-nav@maml17"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half-cheeta-vel", r"unknown family 'half-cheeta-vel'.*Did you mean 'half-cheetah-vel'\?.*point-nav"),
        ("ant-dir@maml18", r"ant-dir has no variant 'maml18'.*Did you mean 'maml17'\? Choose from: v5, maml17"),
    ],
)
def test_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get(name)


def test_refuses_a_second_family_of_a_name() -> None:
    with pytest.raises(UserError, match="got a second family ant-dir@v5"):
        register(get("ant-dir"))


@pytest.mark.parametrize("name", ["half-cheetah-vel", "point-nav"])
def test_worlds_refuse_what_does_not_fit(name: str) -> None:
    family = get(name)
    with pytest.raises(UserError, match="got 0 worlds"):
        make_worlds(family, 0)
    worlds = make_worlds(family, 2, threads=1)
    action = torch.zeros(2, family.action_size)
    with pytest.raises(UserError, match="call set_tasks before reset"):
        worlds.reset(generator())
    with pytest.raises(UserError, match="call reset before step"):
        worlds.step(action)
    with pytest.raises(UserError, match=r"got 3 tasks for 2 worlds"):
        worlds.set_tasks(family.space.sample(3, "train", generator()))
    with pytest.raises(UserError, match="got tasks of ant-dir@v5, these worlds are"):
        worlds.set_tasks(get("ant-dir").space.sample(2, "train", generator()))
    worlds.set_tasks(family.space.sample(2, "train", generator()))
    worlds.reset(generator())
    with pytest.raises(UserError, match=r"got an action of shape \(2, 9\)"):
        worlds.step(torch.zeros(2, 9))
    for value in (float("nan"), float("inf")):
        action[1, 0] = value
        with pytest.raises(UserError, match="not finite in world 1"):
            worlds.step(action)
