"""Adapted Gymnasium environments: families that do, in workers, what the environment does in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.cli.main import main
from metarl.envs import GymnasiumFamily, get, make_worlds, register
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.gym.vector import FamilyVectorEnv
from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.space.parameter_space import Parameter
from tests.helpers.adapted import FILE, actions, begin, clock, named, own_envs, processes, reach
from tests.helpers.toys import seeded as generator

pytestmark = pytest.mark.usefixtures("own_registry")


def test_workers_do_what_the_environment_does_here() -> None:
    family = reach(success_key="success")
    worlds, observation = begin(family, 5, 2)
    assert len(processes(worlds)) == 2
    tasks = family.space.sample(5, "train", generator(1))
    seeds = family.reset_state(generator(2), tasks)["seed"].long().tolist()
    envs = [own_envs.Reach() for _ in range(5)]
    for env, seed, task, row in zip(envs, seeds, tasks.records(), observation, strict=True):
        start, _ = env.reset(seed=seed, options={"task": task})
        np.testing.assert_array_equal(row.numpy(), start)
    for number, action in enumerate(actions(20), start=1):
        step = worlds.step(action)
        for world, env in enumerate(envs):
            seen, reward, _, _, info = env.step(action[world].clamp(-1.0, 1.0).numpy().astype(np.float32))
            np.testing.assert_array_equal(step.observation[world].numpy(), seen)
            assert step.reward[world].item() == reward
            assert step.success is not None
            assert bool(step.success[world]) == info["success"]
        assert torch.equal(step.truncated, torch.full((5,), number == 20))
        assert not step.terminated.any()


@pytest.mark.parametrize(
    "fields",
    [
        {"make": f"{FILE}:Reach"},
        {"make": "own_envs:Reach", "set_task": "set_goal"},
        {"make": "own_envs:wrapped", "set_task": "set_goal"},
        {"set_task": own_envs.set_goal},
        {"set_task": "own_envs:set_goal"},
        {"set_task": "attributes"},
    ],
    ids=named,
)
def test_every_way_of_making_it_and_of_setting_its_task(fields: dict[str, Any]) -> None:
    family = reach(**fields)
    worlds, start = begin(family, 1, 1)
    tasks, here = family.space.sample(1, "train", generator(1)), own_envs.Reach()
    seen, _ = here.reset(
        seed=int(family.reset_state(generator(2), tasks)["seed"]), options={"task": tasks.records()[0]}
    )
    assert start[0].tolist() == seen.tolist()
    step, (seen, reward, _, _, _) = worlds.step(torch.ones(1, 2)), here.step(np.ones(2, np.float32))
    assert step.observation[0].tolist() == seen.tolist()
    assert step.reward.item() == reward


def test_a_gymnasium_id_with_attributes() -> None:
    mass = Parameter(name="m", unit="kg", description="mass", scale="uniform", low=0.5, high=2.0)
    family = GymnasiumFamily(
        name="pendulum", make="Pendulum-v1", set_task="attributes", parameters=(mass,), horizon=200, kwargs={"g": 9.0}
    )
    worlds, start = begin(family, 2, 1)
    assert (family.action_low, family.action_high) == ((-2.0,), (2.0,))
    ends = worlds.step(torch.ones(2, 1)).observation[:, 2]
    for world, mass_here in enumerate(family.space.sample(2, "train", generator(1))["m"].tolist()):
        sine, speed = start[world, 1].item(), start[world, 2].item()
        assert ends[world].item() == pytest.approx(speed + (1.5 * 9.0 * sine + 3.0 / mass_here * 2.0) * 0.05, abs=1e-5)


def test_ends_apart_and_no_autoreset() -> None:
    worlds, start = begin(clock(), 4, 2)
    ends = worlds.tasks
    assert ends is not None
    assert start.tolist() == [[0.0]] * 4
    # A terminal state, the environment's own limit and the family's, of 5 steps.
    first = {2.0: (2, True), 4.0: (4, True), -3.0: (3, False), 9.0: (5, False)}
    middle = torch.tensor([[0.0, 1.0, 0.0]]).repeat(4, 1)
    for number in range(1, 6):
        step = worlds.step(middle)
        for world, task in enumerate(ends["ends"].tolist()):
            last, terminal = first[task]
            assert bool(step.terminated[world]) == (number == last and terminal)
            assert bool(step.truncated[world]) == (number == last and not terminal)
            assert step.observation[world].item() == min(number, last)
            # The second of three alternatives, which begin at 5.
            assert step.reward[world].item() == (6.0 if number <= last else 0.0)
    with pytest.raises(UserError, match="call reset before step"):
        worlds.step(middle)
    again = worlds.reset(generator(6), torch.tensor([2, 1]))
    assert again[1:3].tolist() == [[0.0]] * 2
    assert worlds.step(middle).observation[1:3].tolist() == [[1.0]] * 2


def test_a_task_changes_at_a_reset_only() -> None:
    family = reach()
    worlds, _ = begin(family, 2, 1)
    still = torch.zeros(2, 2)
    before = worlds.step(still).reward
    worlds.set_tasks(family.space.from_records([{"goal": [1.0, 1.0]}, {"goal": [1.0, 1.0]}]))
    assert (worlds.step(still).reward - before).abs().max() < 0.2
    worlds.reset(generator())
    step = worlds.step(still)
    torch.testing.assert_close(step.reward, -(step.observation - 1.0).norm(dim=1))


def test_works_with_collection_and_as_gymnasium_environments() -> None:
    family = reach(success_key="success")
    register(family)

    class Still:
        def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
            return torch.zeros(len(observation), 2)

    episodes = collect(make_worlds(family, 6), Still(), family.space.sample(3, "test", generator()), 2, generator())
    assert episodes.observations.shape == (3, 2, 20, 2)
    assert episodes.success is not None
    assert episodes.success.any()
    env = gymnasium.make("metarl/Reach-v0", task={"goal": [0.5, 0.5]})
    assert isinstance(env.unwrapped, FamilyEnv)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[4]["task"] == {"goal": [0.5, 0.5]}
    discrete = FamilyVectorEnv(3, clock())
    discrete.reset(seed=0, options={"task": {"ends": 2.0}})
    assert [discrete.step(np.array([0, 1, 2]))[1].tolist() for _ in range(3)] == [[5.0, 6.0, 7.0]] * 2 + [[0.0] * 3]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kwargs": {"noise": own_envs.FREE}}, ["plain data only"]),
        ({"horizon": 0}, ["horizon 0"]),
        ({"timeout": 0.0}, ["timeout 0.0"]),
        ({"vector": True, "set_task": "attributes"}, ["vector environment", "name a function"]),
    ],
    ids=named,
)
def test_fields_that_do_not_fit_are_refused_at_once(fields: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        reach(**fields)
    for text in says:
        assert text in str(error.value)


def test_there_is_no_switch() -> None:
    register(reach())
    with pytest.raises(UserError, match="takes no modifiers"):
        get("reach+switch")


def test_a_file_is_found_from_the_one_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text("from own_envs import Reach")
    (tmp_path / "names_it.py").write_text(
        "from metarl.envs import GymnasiumFamily, register\n"
        "from metarl.space import Parameter\n"
        "goal = Parameter(name='goal', unit='m', description='', scale='uniform', low=-1.0, high=1.0, size=2)\n"
        "register(GymnasiumFamily(name='beside', make='beside.py:Reach', parameters=(goal,), horizon=3))\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    family = get("../names_it.py:beside")
    assert isinstance(family, GymnasiumFamily)
    assert family.make == f"{tmp_path / 'beside.py'}:Reach"


def test_an_invalid_number_ends_its_own_episode_only() -> None:
    family = reach(make=own_envs.Trouble, kwargs={"what": "nan", "right": 0.0})
    worlds, start = begin(family)
    tasks = worlds.tasks
    assert tasks is not None
    bad = tasks["goal"][:, 0] > 0.0
    assert 0 < bad.sum() < 5
    step = worlds.step(torch.zeros(5, 2))
    assert torch.equal(step.truncated, bad)
    assert worlds.failures == int(bad.sum())
    assert torch.equal(step.observation[bad], start[bad])
    assert worlds.step(torch.zeros(5, 2)).observation.isfinite().all()
    assert worlds.failures == int(bad.sum())


def test_an_agent_learns_in_it(tmp_path: Path) -> None:
    """Goals are a metre away: without learning the return stays below -17 on average, whatever the steps."""
    register(reach(kwargs={"noise": 0.0}))
    options = ["--tasks", "10", "--episodes", "10", "--threads", "1", "--inner-rate", "0.3", "--hidden", "16"]
    assert (
        main(["train", "maml-trpo", "--family", "reach", *options, "--iterations", "10", "--out", f"{tmp_path}/r"]) == 0
    )
    rows = [line.split(",") for line in (tmp_path / "r" / "progress.csv").read_text().splitlines()]
    column = rows[0].index("return/post")
    returns = [float(row[column]) for row in rows[1:]]
    assert np.mean(returns[-3:]) > np.mean(returns[:3]) + 3.0


def test_a_reward_that_is_no_number_is_no_failed_simulation() -> None:
    family = reach(make=own_envs.Trouble, kwargs={"what": "nan reward", "right": 0.0})
    worlds, _ = begin(family)
    assert worlds.tasks is not None
    bad = worlds.tasks["goal"][:, 0] > 0.0
    step = worlds.step(torch.zeros(5, 2))
    assert torch.equal(step.reward.isnan(), bad)
    assert worlds.failures == 0
