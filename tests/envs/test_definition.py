"""A family that says something impossible of itself is refused when it is registered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from metarl.envs import get, make_worlds
from metarl.envs.definition import check_definition
from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import TorchFamily
from metarl.envs.horizon import with_horizon
from metarl.errors import UserError
from metarl.space import Parameter, ParameterSpace

GOAL: dict[str, Any] = {"name": "g", "unit": "m", "description": "d", "scale": "uniform", "low": -1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"horizon": 5.0}, r"PointNav: got horizon=5\.0 \(float\) where int is needed"),
        ({"horizon": True}, "got horizon=True"),
        ({"horizon": 0}, "got horizon=0. Give at least 1 step"),
        ({"name": 3}, "got name=3"),
        ({"variant": None}, "got variant=None"),
        ({"step_seconds": "x"}, "got step_seconds='x'"),
        ({"action_low": 1.0}, "got action_low=1.0"),
        ({"action_low": ("x",)}, "got action_low="),
        ({"observables": ("x",)}, "got observables="),
        ({"space": None}, "got space=None"),
    ],
)
def test_an_attribute_of_another_type_is_named(changes: dict[str, Any], says: str) -> None:
    family = replace(cast(Any, get("point-nav")))
    for name, value in changes.items():
        object.__setattr__(family, name, value)
    with pytest.raises(UserError, match=says):
        check_definition(family)


def test_a_missing_attribute_is_named_and_lists_are_tuples() -> None:
    family = replace(cast(Any, get("point-nav")))
    object.__setattr__(family, "action_low", [-0.1, -0.1])
    check_definition(family)
    with pytest.raises(UserError, match=r"Bare has no name\. Give it one"):
        check_definition(Bare())


def test_a_space_is_the_familys_own() -> None:
    check_definition(Written())
    family = replace(Written(), variant="mine")
    with pytest.raises(
        UserError, match=r"got point-nav@mine with the space of point-nav@own\. .*y='point-nav@mine'\)$"
    ):
        check_definition(family)
    check_definition(replace(family, space=replace(family.space, family="point-nav@mine")))


def test_parameters_have_fields_of_their_types(tmp_path: Path) -> None:
    for changes, says in [
        ({"size": 2.0}, r"Parameter g: got size=2\.0 \(float\) where int is needed"),
        ({"low": "0"}, "got low='0'"),
        ({"ood": [1.0, 2.0]}, "got ood="),
        ({"unit": None}, "got unit=None"),
    ]:
        parameter = Parameter(**GOAL)
        for name, value in changes.items():
            object.__setattr__(parameter, name, value)
        with pytest.raises(UserError, match=says):
            parameter.__post_init__()
    space = ParameterSpace("f@v", (Parameter(**GOAL),))
    object.__setattr__(space, "parameters", (1,))
    with pytest.raises(UserError, match="got parameters="):
        space.__post_init__()
    file = tmp_path / "wrong_size_of_mine.py"
    file.write_text(f"from metarl.envs import Parameter\nParameter(**{ {**GOAL, 'low': 2.0}!r})\n")
    with pytest.raises(UserError, match=r"wrong_size_of_mine\.py: Parameter g: got 2\.0 to 1\.0"):
        get(f"{file}:f")


class Bare(TorchFamily):
    """A family that says nothing of itself."""

    def reset_state(self, generator: Any, tasks: Any) -> Any: ...

    def advance(self, state: Any, action: Any, tasks: Any) -> Any: ...

    def observe(self, state: Any, tasks: Any) -> Any: ...

    def reward_terms(self, before: Any, state: Any, action: Any, tasks: Any) -> Any: ...


WRITTEN = ParameterSpace("point-nav@own", (Parameter(**{**GOAL, "name": "goal", "size": 2}),))


@dataclass(frozen=True, kw_only=True)
class Written(PointNav):
    """A family whose space has its name written down."""

    variant: str = "own"
    space: ParameterSpace = WRITTEN

    def __post_init__(self) -> None:
        pass


def test_another_horizon_goes_with_a_space_whose_name_is_written_down() -> None:
    family = with_horizon(Written(), 7)
    assert family.space.family == family.full_name == "point-nav@own+horizon=7"
    worlds = make_worlds(family, 2)
    worlds.set_tasks(family.space.sample(2, "train", torch.Generator().manual_seed(0)))
    worlds.reset(torch.Generator().manual_seed(0))
    steps = [worlds.step(torch.zeros(2, 2)) for _ in range(7)]
    assert steps[-1].truncated.all()
