"""Adapted Gymnasium environments: the same as in this process, in workers; and every way that a worker can fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import own_envs
import pytest
import torch
from torch import Tensor

from metarl.cli.main import main
from metarl.envs import GymnasiumFamily, get, make_worlds, register, registry
from metarl.envs.external import child
from metarl.envs.external import pool as pool_module
from metarl.envs.external.adapter import WorkerPhysics
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.gym.vector import FamilyVectorEnv
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.space.parameter_space import Parameter
from metarl.types import Step, Tasks
from tests.helpers.toys import seeded as generator

FILE = str(Path(own_envs.__file__).resolve())
GOAL = Parameter(name="goal", unit="m", description="where to go", scale="uniform", low=-1.0, high=1.0, size=2)
ENDS = Parameter(name="ends", unit="step", description="last step", scale="choice", choices=(-3.0, 2.0, 4.0, 9.0))


def reach(**fields: Any) -> GymnasiumFamily:
    return GymnasiumFamily(**{"name": "reach", "make": own_envs.Reach, "parameters": (GOAL,), "horizon": 20, **fields})


def clock(**fields: Any) -> GymnasiumFamily:
    return GymnasiumFamily(**{"name": "clock", "make": own_envs.Clock, "parameters": (ENDS,), "horizon": 5, **fields})


def trouble(what: str, **fields: Any) -> GymnasiumFamily:
    return reach(make=own_envs.Trouble, kwargs={"what": what}, **fields)


def begin(family: GymnasiumFamily, count: int = 5, threads: int = 1, **options: Any) -> tuple[Worlds, Tensor]:
    worlds = make_worlds(family, count, threads=threads, dtype=torch.float64, **options)
    worlds.set_tasks(family.space.sample(count, "train", generator(1)))
    return worlds, worlds.reset(generator(2))


def actions(steps: int, count: int = 5, size: int = 2) -> Tensor:
    return torch.rand(steps, count, size, generator=generator(3), dtype=torch.float64) * 3.0 - 1.5


def processes(worlds: Worlds) -> list[int]:
    assert isinstance(worlds.physics, WorkerPhysics)
    return [member.process.pid for member in worlds.physics.pool._members]


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for has not, to the system."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def same(left: Step, right: Step) -> None:
    for name in ("observation", "reward", "terminated", "truncated"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name


def named(value: Any) -> str:
    """Return a test's name for a value: a function's without its address, which differs between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the families that a test registers: other tests go through all that there are."""
    copied = {name: dict(variants) for name, variants in registry._FAMILIES.items()}
    monkeypatch.setattr(registry, "_FAMILIES", copied)
    for name in ("_SOURCES", "_MODIFIED"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    ids = set(gymnasium.registry)
    yield
    for name in set(gymnasium.registry) - ids:
        del gymnasium.registry[name]


# -- the same as in this process --------------------------------------------------------------------------------------


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


def test_one_seed_gives_one_result_with_any_number_of_workers() -> None:
    (one, start), (three, same_start) = begin(reach(), 5, 1), begin(reach(), 5, 3)
    assert torch.equal(start, same_start)
    for action in actions(5):
        same(one.step(action), three.step(action))
    assert not torch.equal(one.reset(generator(4)), three.reset(generator(5)))


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


def test_spaces_are_flattened_and_actions_scaled() -> None:
    family = GymnasiumFamily(name="shapes", make=own_envs.Shapes, parameters=(GOAL,), horizon=5)
    assert not family.discrete
    assert [row.meaning for row in family.observables] == [
        *(f"observation.last[{i}]" for i in range(4)),
        *(f"observation.pair.0[{i}]" for i in range(3)),
        "observation.pair.1",
    ]
    worlds, start = begin(family, 2, 1)
    assert start.tolist() == [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5]] * 2
    step = worlds.step(torch.tensor([[0.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 7.0, -7.0]]))
    assert step.observation[:, :4].tolist() == [[0.0, 0.5, 1.0, 2.0], [-3.0, 1.0, 2.0, 0.0]]


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


# -- vector environments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["Disabled", "NextStep"])
def test_a_vector_environment(mode: str) -> None:
    fields = {"make": own_envs.clocks, "kwargs": {"mode": mode}, "vector": True, "set_task": own_envs.set_ends}
    (vector, start), (singles, _) = begin(clock(**fields), 4, 0), begin(clock(), 4, 2)
    assert len(processes(vector)) == 1
    assert start.tolist() == [[0.0]] * 4
    middle = torch.tensor([[0.0, 1.0, 0.0]]).repeat(4, 1)
    for _ in range(5):
        left, right = vector.step(middle), singles.step(middle)
        assert torch.equal(left.observation, right.observation)
        assert torch.equal(left.reward, right.reward)
        assert torch.equal(left.terminated, right.terminated)
        assert torch.equal(left.truncated, right.truncated)
    vector.reset(generator(6), torch.tensor([3, 1]))
    assert vector.step(middle).observation[[1, 3]].tolist() == [[1.0]] * 2


def test_a_vector_environment_is_seeded_and_told_its_tasks() -> None:
    family = reach(
        make=own_envs.worlds, kwargs={"noise": 0.0}, vector=True, set_task=own_envs.set_goals, success_key="success"
    )
    (worlds, start), (again, same_start) = begin(family, 4, 2), begin(family, 4, 2)
    assert len(processes(worlds)) == 2
    assert torch.equal(start, same_start)
    assert len(start.unique(dim=0)) == 4
    step, tasks = worlds.step(torch.zeros(4, 2)), worlds.tasks
    assert tasks is not None
    torch.testing.assert_close(step.reward, -(step.observation - tasks["goal"]).norm(dim=1))
    same(step, again.step(torch.zeros(4, 2)))
    assert step.success is not None
    assert torch.equal(step.success, step.reward > -1.0)


def test_a_vector_environment_that_hides_its_ends_is_refused() -> None:
    with pytest.raises(UserError, match=r"autoreset_mode SameStep.*'Disabled' or 'NextStep'"):
        make_worlds(reach(make=own_envs.worlds, kwargs={"mode": "SameStep"}, vector=True), 2)


# -- another interpreter ----------------------------------------------------------------------------------------------


def test_another_interpreter_gets_nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # Has what its environment imports beside it: a module that is called like one of ours beside the worker.
    (tmp_path / "vector.py").write_text("from own_envs import Imports\n")
    (tmp_path / "family_of_mine.py").write_text("from vector import Imports\n")
    (tmp_path / "own_envs.py").write_text(Path(FILE).read_text())
    family = reach(make=f"{tmp_path}/family_of_mine.py:Imports", python=sys.executable)
    assert begin(family, 1)[1].tolist() == [[0.0, 0.0]]
    # In this one, the environment is found where this process would find it.
    monkeypatch.syspath_prepend(str(tmp_path))
    assert begin(reach(make="family_of_mine:Imports"), 1)[1].tolist() == [[0.0, 1.0]]


def test_an_interpreter_that_cannot_run_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no interpreter nowhere/python"):
        make_worlds(reach(python="nowhere/python"), 1)
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'numpy'\" >&2\nexit 1\n")
    bare.chmod(0o700)
    with pytest.raises(UserError, match=r"ended with exit code 1; it last said: ModuleNotFoundError.*numpy"):
        make_worlds(reach(python=str(bare)), 1)


def test_another_version_of_the_message_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "child.py"
    old.write_text(Path(child.__file__).read_text().replace("VERSION = 1\n", "VERSION = 0\n"))
    with monkeypatch.context() as patch:
        patch.setattr(child, "__file__", str(old))
        with pytest.raises(UserError, match=r"speaks version 0 of the message format, not 1"):
            make_worlds(reach(), 1)
    # One so old that it does not look.
    old.write_text(old.read_text().replace('hello.get("version") != VERSION', "False"))
    monkeypatch.setattr(child, "__file__", str(old))
    with pytest.raises(UserError, match=r"'version': 0.*not metarl's worker of this version"):
        make_worlds(reach(), 1)


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_spaces_that_are_not_supported(tmp_path: Path) -> None:
    source = tmp_path / "odd_spaces.py"
    space = "gymnasium.spaces.Tuple((gymnasium.spaces.Text(4), gymnasium.spaces.Discrete(3)))"
    source.write_text(
        f"import gymnasium, own_envs\n\ndef make():\n    return own_envs.Reach(observation_space={space})\n"
    )
    with pytest.raises(UserError) as error:
        make_worlds(reach(make=f"{source}:make"), 1)
    for text in ("reach@v1 with ", "odd_spaces.py:make", "observation.0 space Text", "allowed are Box, Dis", "Wrap"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.MultiDiscrete([2, 3]),
        gymnasium.spaces.Box(-np.inf, 1.0, (2,)),
        gymnasium.spaces.Box(0, 9, (2,), np.int64),
        gymnasium.spaces.Tuple((own_envs.UNIT, own_envs.UNIT)),
    ],
    ids=named,
)
def test_action_spaces_that_are_not_supported(space: gymnasium.Space) -> None:
    with pytest.raises(child.Unfit) as error:
        child.describe_actions(space)
    for text in (f"got the action space {space}", "a Box of floats with finite bounds, and Discrete", "RescaleAction"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"make": lambda: own_envs.Reach()}, ["cannot find by name", "'module:name'"]),
        ({"set_task": lambda env, task: None}, ["set_task=", "cannot find by name"]),
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


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"make": "own_envs:Raech"}, ["world 0, make: own_envs has no 'Raech'"]),
        ({"make": "no_such_module:Reach"}, ["ModuleNotFoundError: No module named 'no_such_module'"]),
        ({"make": "Raech-v0"}, ["world 0, make: ", "Raech"]),
        ({"make": "builtins:dict"}, ["returned {}", "a gymnasium.Env is needed"]),
        ({"make": "builtins:dict", "vector": True}, ["{'num_envs': 1}", "a VectorEnv of 1 worlds is needed"]),
        ({"kwargs": {"wind": 1.0}}, ["unexpected keyword argument 'wind'"]),
    ],
    ids=named,
)
def test_an_environment_that_cannot_be_made(fields: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make_worlds(reach(**fields), 1)
    for text in ("reach@v1", *says):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"set_task": "set_gaol"}, ["no method 'set_gaol'"]),
        ({"set_task": "attributes", "parameters": (ENDS,)}, ["Reach has no attribute 'ends'"]),
        ({"parameters": (ENDS,)}, ["world 0, reset, with the task {'ends':", "KeyError: 'goal'", "own_envs.py, line"]),
    ],
    ids=named,
)
def test_a_task_that_cannot_be_set(fields: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        begin(reach(**fields), 1)
    for text in says:
        assert text in str(error.value)


def test_a_script_that_makes_worlds_when_a_worker_imports_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, _ = begin(reach(), 1)
    assert b"\0METARL_WORKER=1" in Path(f"/proc/{processes(worlds)[0]}/environ").read_bytes()
    monkeypatch.setenv("METARL_WORKER", "1")
    with pytest.raises(UserError, match="in a worker process, which only imports its environment: put that in a mod"):
        make_worlds(reach(), 1)


def test_there_is_no_switch() -> None:
    register(reach())
    with pytest.raises(UserError, match="takes no modifiers"):
        get("reach+switch")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def fails(family: GymnasiumFamily, tasks: Tasks | None = None, threads: int = 1) -> str:
    """Return what a first step says; the workers are all gone after it, and say so."""
    worlds, _ = begin(family, 4, threads)
    pids = processes(worlds)
    assert len(pids) == threads
    if tasks is not None:
        worlds.set_tasks(tasks)
        worlds.reset(generator())
    with pytest.raises(UserError) as error:
        worlds.step(torch.zeros(4, 2))
    assert all(gone(pid) for pid in pids)
    for use in (lambda: worlds.step(torch.zeros(4, 2)), lambda: worlds.reset(generator())):
        with pytest.raises(UserError, match="Make new worlds"):
            use()
    return str(error.value)


def test_an_exception_in_the_environment() -> None:
    family = reach(make=own_envs.Trouble, kwargs={"what": "raise", "right": 0.0})
    tasks = family.space.from_records([{"goal": [x, 0.25]} for x in (-0.5, -0.5, -0.5, 0.5)])
    message = fails(family, tasks, threads=2)
    assert "world 3, step, with the task {'goal': [0.5, 0.25]}: ZeroDivisionError: the arm\nhas no length" in message
    assert "own_envs.py, line" in message
    assert "in step" in message


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("exit", ["worker 1 of 2 (worlds 0 to 1, process", "ended with exit code 3", "last said:", "my last words"]),
        ("leave", ["world 0, step", "SystemExit: good bye"]),
        ("SIGKILL", ["was ended by SIGKILL", "memory runs out"]),
        ("SIGSEGV", ["was ended by SIGSEGV", "own_envs.py", "in step"]),
        ("shape", ["got an observation of 1 numbers", "has 2"]),
        ("key", ["no 'success', but []", "correct success_key"]),
    ],
)
def test_a_worker_that_dies(what: str, says: list[str]) -> None:
    family = trouble(what, success_key="success" if what == "key" else None)
    message = fails(family, threads=2 if what == "exit" else 1)
    for text in ("reach@v1 with ", "own_envs.py:Trouble", *says):
        assert text in message


def test_a_worker_that_hangs_says_where() -> None:
    message = fails(trouble("sleep", timeout=1.0))
    assert "was in one call for more than 1 s" in message
    assert 'own_envs.py", line' in message
    assert "in step" in message
    assert "longer timeout" in message


def test_a_worker_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "GRACE", 0.0)
    monkeypatch.setattr(pool_module, "TO_CLOSE", 0.2)
    message = fails(trouble("SIGSTOP", timeout=1.0))
    assert "gave no sign of life for 2 s" in message


def test_a_slow_group_is_not_a_hanging_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "slow_env.py"
    source.write_text(
        "import time\nimport own_envs\n\nclass Slow(own_envs.Reach):\n"
        "    def step(self, action):\n        time.sleep(0.5)\n        return super().step(action)\n"
    )
    monkeypatch.setattr(pool_module, "GRACE", -1.0)
    # Five calls of 0.5 s each: more in all than one may take, and than this side waits in silence.
    worlds, _ = begin(reach(make=f"{source}:Slow", timeout=2.0), 5, 1)
    assert worlds.step(torch.zeros(5, 2)).reward.isfinite().all()


def test_what_goes_wrong_before_the_first_step() -> None:
    with pytest.raises(UserError, match="world 0, make: RuntimeError: no such robot here"):
        make_worlds(trouble("make"), 1)
    with pytest.raises(UserError, match=r"world 0, reset, .*KeyError: 'goal in the wall'"):
        begin(trouble("reset"), 2, 1)
    with pytest.raises(UserError, match=r"world 0 began with the observation \[nan, nan\].*mend its reset"):
        begin(trouble("nan at reset"), 2, 1)


def test_a_reward_that_is_no_number_is_refused() -> None:
    worlds, _ = begin(reach(make=own_envs.Trouble, kwargs={"what": "no reward", "right": 0.0}))
    with pytest.raises(UserError, match="step returned the reward None: return one number"):
        worlds.step(torch.zeros(5, 2))


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


def test_ctrl_c_in_the_middle_of_a_step_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, _ = begin(reach(), 5, 2)
    pids = processes(worlds)

    def interrupted(self: child.Channel) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(child.Channel, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worlds.step(torch.zeros(5, 2))
    assert all(gone(pid) for pid in pids)
    with pytest.raises(UserError, match="have ended: KeyboardInterrupt"):
        worlds.reset(generator())


# -- nothing is left --------------------------------------------------------------------------------------------------


def test_worlds_that_are_dropped_leave_nothing() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    worlds, _ = begin(reach(), 5, 2)
    assert isinstance(worlds.physics, WorkerPhysics)
    # The shared memory has no name that could stay behind.
    assert os.fstat(worlds.physics.pool._memory.fileno()).st_nlink == 0
    pids = processes(worlds)
    del worlds
    assert all(gone(pid) for pid in pids)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_killed_process_leaves_no_workers() -> None:
    """One waits for a message and one for a step that takes too long, when their metarl is killed."""
    script = f"""
import sys, torch
sys.path.insert(0, {str(Path(FILE).parent)!r})
import test_adapter
pairs = [test_adapter.begin(test_adapter.trouble(what, timeout=2.0), 1, 1) for what in ("", "sleep")]
print(*(pid for worlds, _ in pairs for pid in test_adapter.processes(worlds)), flush=True)
for worlds, _ in pairs:
    worlds.step(torch.zeros(1, 2))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    until = time.monotonic() + 20.0
    # Orphans are waited for by the system's first process, where it does so at all.
    while not all(gone(pid) or is_zombie(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_talkative_environment_fills_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LARGEST_LOG", 10)
    worlds, _ = begin(reach(), 1, 1)
    assert isinstance(worlds.physics, WorkerPhysics)
    (member,) = worlds.physics.pool._members
    for seed in range(3):
        worlds.reset(generator(seed))
    # What Python holds back, it writes in blocks.
    assert os.fstat(member.log.fileno()).st_size < 20_000


# -- on the command line ----------------------------------------------------------------------------------------------

FAMILY_FILE = """\
from metarl.envs import GymnasiumFamily, register
from metarl.space import Parameter

goal = Parameter(name="goal", unit="m", description="where to go", scale="disc", radius=1.0)
for variant in ("plain", "success"):
    register(
        GymnasiumFamily(
            name="own-reach",
            variant=variant,
            make="reach_of_mine:Reach",
            parameters=(goal,),
            horizon=6,
            success_key="success" if variant == "success" else None,
        )
    )
"""
SMALL = ["--tasks", "3", "--episodes", "2", "--threads", "1"]


@pytest.fixture
def family_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A family file with its environment beside it, as a user has them; nothing of them stays imported."""
    (tmp_path / "reach_of_mine.py").write_text(Path(FILE).read_text())
    file = tmp_path / "families_of_mine.py"
    file.write_text(FAMILY_FILE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(child, "FOLDERS", [])
    yield file
    sys.modules.pop(file.stem, None)


def forget(file: Path) -> None:
    """Be a process that has not imported the file yet."""
    sys.modules.pop(file.stem)
    registry._FAMILIES.pop("own-reach")
    registry._SOURCES.clear()
    del gymnasium.registry["metarl/OwnReach-v0"]


def test_train_resume_and_evaluate_from_anywhere(
    family_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", "maml-trpo", "--family", f"{family_file.name}:own-reach@success", *SMALL, "--hidden", "8"]
    assert main([*train, "--iterations", "1", "--out", "run"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    forget(family_file)
    assert main(["train", "--resume", "../run", "--iterations", "2"]) == 0
    forget(family_file)
    capsys.readouterr()
    assert main(["evaluate", "../run", "--tasks", "3", "--episodes", "2", "--threads", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["family"] == "own-reach@success"
    assert len(summary["agents"][0]["points"]) == 4


def test_own_variants_of_a_family_that_exists_are_found_again(tmp_path: Path) -> None:
    file = tmp_path / "variant_of_mine.py"
    file.write_text(
        "from metarl.envs import register\nfrom metarl.envs.point_nav import PointNav\n\n"
        "register(PointNav(variant='mine', horizon=7))\n"
    )
    family = get(f"{file}:point-nav@mine+switch")
    assert family.horizon == 7
    assert registry.address(family) == f"{file}:point-nav@mine+switch"
    assert get(registry.address(family)) is family
    assert registry.address(get("point-nav")) == "point-nav@maml17"


def test_list_shows_it(family_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", f"{family_file}:own-reach", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shown = found["families"][0] if "families" in found else found
    assert "own-reach@plain" in json.dumps(shown)
    assert '"observation_size": 2' in json.dumps(shown)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py:own-reach", ["there is no file", "nowhere.py"]),
        ("no.such.module:own-reach", ["importing no.such.module failed", "No module named"]),
        ("{file}:own-raech", ["unknown family 'own-raech'", "Did you mean 'own-reach'?"]),
        ("{file}:own-reach@v9", ["no variant 'v9'", "success"]),
    ],
)
def test_a_source_that_does_not_have_it(
    name: str, says: list[str], family_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = name.format(file=family_file)
    assert main(["train", "maml-trpo", "--family", given, "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    for text in says:
        assert text in message


def test_a_file_called_like_a_module_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("")
    with pytest.raises(UserError, match="another module is called json here"):
        get(f"{tmp_path}/json.py:own-reach")


def test_a_file_that_breaks_is_not_half_imported(tmp_path: Path) -> None:
    broken = tmp_path / "broken_family.py"
    broken.write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(UserError, match=r"importing .*broken_family.py failed, ZeroDivisionError"):
            get(f"{broken}:own-reach")


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
