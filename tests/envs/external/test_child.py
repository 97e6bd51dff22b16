"""What a worker process makes of an environment: spaces, vector environments, and what does not fit."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.envs import GymnasiumFamily, make_worlds
from metarl.envs.external import child
from metarl.errors import UserError
from tests.helpers.adapted import ENDS, GOAL, begin, clock, named, own_envs, processes, reach, same, trouble
from tests.helpers.toys import seeded as generator

pytestmark = pytest.mark.usefixtures("own_registry")


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


def test_spaces_that_are_not_supported(tmp_path: Path) -> None:
    source = tmp_path / "odd_spaces.py"
    space = "gymnasium.spaces.Tuple((gymnasium.spaces.Text(4), gymnasium.spaces.Discrete(3)))"
    source.write_text(
        f"import gymnasium, own_envs\n\ndef make():\n    return own_envs.Reach(observation_space={space})\n"
    )
    with pytest.raises(UserError) as error:
        make_worlds(reach(make=f"{source}:make"), 1)
    for text in ("reach@v1 with ", "odd_spaces.py:make", "observation.0 in the space Text", "allowed are Box, Dis"):
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


def told(value: Any, worlds: Any = 1) -> Any:
    """Return what a worker takes for success where the info of a step says `value`."""
    group = object.__new__(child.Group)
    group.success_key = "success"
    return group.succeeded({"success": value}, worlds)


@pytest.mark.parametrize("value", [True, 1, 1.0, np.bool_(True), np.float32(1), np.array(1), np.array([True])])
def test_success_is_true_or_1(value: Any) -> None:
    assert told(value)
    assert not told(value * 0)


@pytest.mark.parametrize("value", [np.nan, "no", "", None, 0.5, 2, -1, [], [1, 0], {"a": 1}, np.inf, 1j])
def test_success_that_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(child.Unfit, match=r"the info of a step has success=.*: give True or False, or 1 or 0"):
        told(value)


@pytest.mark.parametrize("value", [None, math.nan, "no", 0.5, 2, [True, False], [], b"1"], ids=repr)
@pytest.mark.parametrize("place", ["terminated", "truncated"])
def test_an_end_that_is_neither_true_nor_false_is_refused(place: str, value: Any) -> None:
    ended = {"terminated": False, "truncated": False, place: value}
    with pytest.raises(child.Unfit, match=rf"step returned {place}=.*: give True or False, or 1 or 0, of a world"):
        stepped(1.0, **ended)


def test_an_end_is_true_or_1() -> None:
    assert stepped(1.0, terminated=np.bool_(True), truncated=0) == (1.0, 1, 0)
    assert stepped(np.float32(2.0), terminated=False, truncated=np.array([1])) == (2.0, 0, 1)


def stepped(reward: Any, *, terminated: Any, truncated: Any) -> tuple[float, int, int]:
    """Return what a worker takes for the reward and the ends of a step."""

    class Env:
        def step(self, action: Any) -> Any:
            return 0.0, reward, terminated, truncated, {}

    group = object.__new__(child.Singles)
    group.observation_space, group.action_space = spaces.Box(-1.0, 1.0, ()), spaces.Discrete(2)
    group.envs, group.success_key, group.watch = [Env()], None, SimpleNamespace(call=lambda *_: None)  # pyright: ignore
    group.active, group.action = np.ones(1), np.zeros((1, 1))
    group.observation, group.reward = np.zeros((1, 1)), np.zeros(1)
    group.terminated, group.truncated = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
    group.step()
    return float(group.reward[0]), int(group.terminated[0]), int(group.truncated[0])


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (0, np.zeros((2, 1)) + 1j, r"observation is array\(\[0\.\+0\.j\]\)|real numbers are needed"),
        (0, np.array([["0"], ["1"]]), "real numbers are needed"),
        (1, ["1", "2"], r"step returned the rewards \['1', '2'\]: return 2 numbers, one of each world"),
        (1, np.ones((2, 2)), "return 2 numbers"),
        (2, np.array([0.5, 0.0]), "step returned terminated="),
        (3, [True], "step returned truncated="),
    ],
    ids=str,
)
def test_what_a_vector_environment_must_not_return_is_refused(place: int, value: Any, says: str) -> None:
    right: list[Any] = [np.zeros((2, 1)), np.ones(2), np.zeros(2, np.bool_), [0, 1]]
    assert together(*right) == ([1.0, 1.0], [False, True])
    with pytest.raises(child.Unfit, match=says):
        together(*[value if number == place else known for number, known in enumerate(right)])


def together(*returned: Any) -> tuple[list[float], list[bool]]:
    """Return what a worker takes for the rewards and ends of a step of two worlds."""
    group = object.__new__(child.Vectorised)
    group.observation_space, group.action_space = spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(2)
    group.envs, group.watch = SimpleNamespace(step=lambda _: (*returned, {})), SimpleNamespace(call=lambda *_: None)  # pyright: ignore
    group.count, group.size, group.mode, group.success_key, group.ended = 2, 1, "NextStep", None, np.zeros(2, np.bool_)
    group.active, group.action, group.observation, group.reward = (
        np.ones(2),
        *(np.zeros((2, 1)) for _ in "ab"),
        np.zeros(2),
    )
    group.terminated, group.truncated = np.zeros(2, np.uint8), np.zeros(2, np.uint8)
    group.step()
    return group.reward.tolist(), group.ended.tolist()


def test_success_of_several_worlds_is_looked_at_where_they_are_active() -> None:
    active = np.array([1, 0, 1], np.uint8)
    assert told(np.array([1.0, np.nan, 0.0]), active).tolist() == [True, True, False]
    assert told([True, False, False], active).tolist() == [True, False, False]
    for value in ([1.0, 0.0, np.nan], [1, 0], np.array(["no"] * 3), [True, None, False]):
        with pytest.raises(child.Unfit, match="give True or False"):
            told(value, active)


def test_a_step_with_success_of_nan_ends_with_what_was_got() -> None:
    family = reach(make=own_envs.Trouble, kwargs={"what": "success"}, success_key="success")
    worlds, _ = begin(family, 2, 1)
    with pytest.raises(UserError, match=r"the info of a step has success=nan: give True or False"):
        worlds.step(torch.zeros(2, 2))
