"""What is given in Python to functions and dataclasses: what does not fit is named in one line."""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytest
import torch

import metarl
from metarl import agents, envs, fewshot
from metarl.arguments import check_fields, checked
from metarl.config import check
from metarl.errors import UserError
from metarl.fewshot.learners.maml import MamlConfig

FACE = [
    *(metarl.train, metarl.resume, metarl.load, metarl.evaluate, metarl.export, metarl.worlds),
    *(fewshot.train, fewshot.load, fewshot.load_data, fewshot.predict, fewshot.score),
    *(fewshot.from_arrays, fewshot.from_functions, fewshot.config_class),
    *(agents.config_class, agents.register, envs.register, envs.get, envs.gymnasium_id),
]


ours: Any = metarl
few: Any = fewshot
names: Any = agents
"""To type checkers the wrong calls below are what they are here to be: wrong."""


class Unchecked(Protocol):
    number: int


@checked
def taken(
    number: int = 0,
    real: float = 0.0,
    choice: Literal["a", "b"] = "a",
    where: Path | str | None = None,
    several: Sequence[int] = (),
    named: Mapping[str, float] | None = None,
    pair: tuple[int, str] = (0, ""),
    all_of: tuple[int, ...] = (),
    some: Collection[float] = (),
    call: Callable[..., Any] = print,
    dtype: torch.dtype = torch.float32,
    like: Unchecked | None = None,
    flag: bool = False,
    *rest: int,
    **others: Any,
) -> tuple[Any, ...]:
    return number, real, where, rest, others


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"number": "3"}, "taken: got number='3' (str) where int is needed. Correct it."),
        ({"number": True}, "got number=True (bool) where int is needed"),
        ({"number": 2.0}, "got number=2.0 (float) where int is needed"),
        ({"number": None}, "got number=None (NoneType) where int is needed"),
        ({"real": "x"}, "got real='x' (str) where float is needed"),
        ({"real": 1j}, "where float is needed"),
        ({"choice": "c"}, "taken: got choice='c'. Choose from: a, b."),
        ({"choice": np.zeros(2)}, "where 'a' or 'b' is needed"),
        ({"where": 5}, "got where=5 (int) where Path or str or None is needed"),
        ({"where": b"x"}, "got where=b'x' (bytes)"),
        ({"where": "a\0b"}, "which has letters that no path can have"),
        ({"where": Path("a\ud800")}, "which has letters that no path can have"),
        ({"several": "12"}, "got several='12' (str) where Sequence of int is needed"),
        ({"several": [1, "2"]}, "got several=[1, '2'] (list)"),
        ({"named": {"a": "b"}}, "where Mapping of str and float or None is needed"),
        ({"named": [1]}, "got named=[1] (list)"),
        ({"pair": (1,)}, "where tuple of int and str is needed"),
        ({"all_of": [1]}, "where tuple of int is needed"),
        ({"some": 3}, "where Collection of float is needed"),
        ({"call": 3}, "got call=3 (int) where a function is needed"),
        ({"dtype": "float32"}, "got dtype='float32' (str) where dtype is needed"),
        ({"flag": 1}, "got flag=1 (int) where bool is needed"),
        ({"number": "9" * 10000}, "got number='999"),
    ],
)
def test_another_type_is_refused_in_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        taken(**given)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_what_fits_is_taken() -> None:
    call: Any = taken
    found = call(np.int8(3), np.float32(0.5), "b", Path("x"), [1, 2], {"a": 1}, (1, "x"), (1, 2), np.ones(3), len)
    assert found == (3, 0.5, Path("x"), (), {})
    assert [type(value) for value in found[:2]] == [int, float]
    assert call(real=1, like=torch.zeros(1), anything=[None])[4] == {"anything": [None]}
    with pytest.raises(TypeError, match=r"multiple values"):
        call(1, number=2)


@dataclass(frozen=True, kw_only=True)
class Settings:
    size: int = 1
    rates: tuple[float, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        check(self)


def test_fields_of_settings_have_their_types() -> None:
    Settings(size=2, rates=(1, 0.5))
    for given, says in [
        ({"size": 2.0}, r"Settings: got size=2\.0 \(float\) where int is needed"),
        ({"rates": [1.0]}, r"got rates=\[1\.0\] \(list\) where tuple of float is needed"),
        ({"size": np.int64(2)}, r"Settings: got size=.*2.*, a number of numpy\. Give int"),
    ]:
        with pytest.raises(UserError, match=says):
            Settings(**given)
    run = fewshot.FewShotRun(data="arrays", learner="proto")
    for settings, name, says in [(MamlConfig(), "inner_steps", "MamlConfig: got"), (run, "way", "FewShotRun: got")]:
        with pytest.raises(UserError, match=rf"{says} {name}='7' \(str\) where int is needed"):
            _with(settings, **{name: "7"}).__post_init__()
    with pytest.raises(UserError, match=r"here: got size=.2"):
        check_fields(_with(Settings(), size="2"), "here")


def _with(settings: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        object.__setattr__(settings, name, value)
    return settings


@pytest.mark.parametrize("function", FACE, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_the_face_is_checked_and_its_types_are_known(function: Callable[..., Any]) -> None:
    assert hasattr(function, "__wrapped__")
    assert typing.get_type_hints(function)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ours.train(None),
        lambda: ours.train("maml-trpo", "point-nav", out=5),
        lambda: ours.train("maml-trpo", "point-nav", out="o\0"),
        lambda: ours.train("maml-trpo", "point-nav", console=5),
        lambda: ours.train("maml-trpo", "point-nav", seed=None),
        lambda: ours.resume("nowhere", "3"),
        lambda: ours.load(None),
        lambda: ours.load("nowhere", 5),
        lambda: ours.evaluate(None),
        lambda: ours.evaluate(run for run in [None]),
        lambda: ours.evaluate(run for run in [["nowhere"]]),
        lambda: ours.evaluate("nowhere", split=None),
        lambda: ours.evaluate("nowhere", tasks=2.0),
        lambda: ours.evaluate("nowhere", oracle=None),
        lambda: ours.evaluate("nowhere", out=True),
        lambda: ours.worlds("point-nav", 2.0),
        lambda: ours.worlds("point-nav", 2, dtype="float32"),
        lambda: ours.worlds("point-nav", 2, dtype=torch.int64),
        lambda: few.predict(None, None, None, None, None),
        lambda: few.score(None, None),
        lambda: few.train("nowhere", {"data": "arrays"}),
        lambda: few.train("nowhere", few.FewShotRun(data="sinusoid", learner="proto"), config={"tasks": 1}),
        lambda: names.config_class(dict),
    ],
)
def test_wrong_calls_of_the_face_are_one_line(call: Any) -> None:
    with pytest.raises(UserError) as refused:
        call()
    assert "\n" not in str(refused.value)
