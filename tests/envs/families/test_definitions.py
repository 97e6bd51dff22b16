"""What the first families are, by numbers worked out by hand; the registry; what worlds refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.envs import get, make_worlds, register
from metarl.errors import UserError
from tests.helpers.toys import seeded as generator


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
