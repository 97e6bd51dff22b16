"""Callables that no module has: workers get them by value, or they are refused when they are given."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from metarl.envs import GymnasiumFamily, get, register
from metarl.envs.external.adapter import reference
from metarl.errors import UserError
from tests.helpers.adapted import FILE, begin, named, own_envs, reach


class Here(own_envs.Reach):
    """An environment of this module."""


def local() -> Any:
    """Return a class that only this call has, with a value of the call's."""
    size = 3.0

    class Local(own_envs.Reach):
        def reset(self, **options: Any) -> Any:
            super().reset(**options)
            self.position = np.full(2, size)
            return self.position, {}

    return Local


def at_start(**fields: Any) -> Any:
    _, observation = begin(reach(**fields), 2, 2)
    return observation


@pytest.mark.parametrize(
    "make",
    [lambda: own_envs.Reach(noise=0.0), partial(own_envs.Reach, noise=0.0), local()],
    ids=["lambda", "partial", "local class"],
)
def test_what_no_module_has_comes_by_value(make: Any) -> None:
    assert at_start(make=make).isfinite().all()


def test_a_local_class_is_the_one_that_was_given() -> None:
    assert at_start(make=local()).tolist() == [[3.0, 3.0]] * 2


def test_a_task_is_set_by_a_function_of_this_session() -> None:
    family = reach(set_task=lambda env, task: env.unwrapped.set_goal({"goal": [9.0, 9.0]}), kwargs={"noise": 0.0})
    worlds, observation = begin(family, 1)
    step = worlds.step(torch.zeros(1, 2))
    assert step.reward.item() == pytest.approx(-float((observation[0] - 9.0).norm()))


@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_program_or_notebook_has_its_own_by_value(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    given = local()
    if kind == "function":
        given = eval("lambda: make()", {"make": given, "__name__": "__main__"})
    given.__module__, given.__qualname__ = "__main__", "Bell"
    monkeypatch.setattr(sys.modules["__main__"], "Bell", given, raising=False)
    family = reach(make=given)
    assert str(family.make) == "Bell of this session"
    assert family.summary == "Bell of this session with tasks"
    assert begin(family, 1)[1].tolist() == [[3.0, 3.0]]


def test_what_a_module_has_is_imported_by_name() -> None:
    assert reach().make == "own_envs:Reach" or reach().make == f"{FILE}:Reach"
    assert str(reach(make=Here).make).endswith("test_by_value:Here")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"make": partial(print, threading.Lock())}, ["cannot be sent to worker", "make='mine.py:NAME'"]),
        ({"set_task": partial(print, threading.Lock())}, ["got set_task=", "set_task='mine.py:NAME'"]),
        ({"make": lambda: own_envs.Reach(), "python": sys.executable}, ["that the interpreter", "mine.py:NAME"]),
    ],
    ids=named,
)
def test_what_cannot_be_carried_is_refused_when_it_is_given(fields: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        reach(**fields)
    for text in says:
        assert text in str(error.value)


@pytest.mark.parametrize("given", [own_envs.Reach(), 7])
def test_what_is_no_callable_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=r"got make=.*: give its class or a function, or .* such as 'file\.py:name'"):
        reference(given, "make")


@pytest.mark.usefixtures("own_registry")
def test_a_cell_can_be_run_again() -> None:
    first = reach(make=local(), name="again")
    register(first)
    with pytest.raises(UserError, match=r"got a second family again@v1.*or replace=True"):
        register(reach(make=local(), name="again"))
    second = reach(make=local(), name="again", horizon=7)
    register(second, replace=True)
    found = get("again")
    assert isinstance(found, GymnasiumFamily)
    assert found is second
    with pytest.raises(UserError, match=r"got a second family ant-dir@v5: each name@variant registers once, pick an"):
        register(get("ant-dir"), replace=True)
