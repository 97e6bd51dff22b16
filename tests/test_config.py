from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from metarl.config import check, check_used, from_plain, from_yaml, to_plain, to_yaml
from metarl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    steps: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "größe: 1"
    estimator: Literal["lvc", "dice"] = "lvc"
    hidden: tuple[int, ...] = (64, 64)
    span: tuple[float, str] = (0.5, "m")
    inner: Inner = Inner()
    limit: float | None = None
    folder: Path | None = None
    first_order: bool = False
    weights: dict[str, float] | None = None
    several: list[Inner] | None = None

    def __post_init__(self) -> None:
        if self.inner.steps < 0:
            raise UserError("steps must not be negative")


FULL = Outer(
    estimator="dice",
    hidden=(),
    inner=Inner(rate=1e-5, steps=3),
    limit=float("inf"),
    folder=Path("some") / "where",
    first_order=True,
    weights={"kl": 0.1},
    several=[Inner(), Inner(steps=2)],
)


@pytest.mark.parametrize("config", [Outer(), FULL, replace(FULL, name="yes", limit=1.0)])
def test_yaml_brings_back_an_equal_configuration(config: Outer) -> None:
    assert from_yaml(Outer, to_yaml(config)) == config


def test_yaml_reads_in_the_order_of_the_fields() -> None:
    assert to_yaml(Inner()) == "rate: 0.1\nsteps: 1\n"


def test_people_may_write_numbers_their_own_way() -> None:
    assert from_yaml(Inner, "rate: 1\nsteps: 2") == Inner(rate=1.0, steps=2)
    assert from_yaml(Inner, "rate: 1e-3\nsteps: 2") == Inner(rate=0.001, steps=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 0.1\nsteps: 1\nstps: 2", r"Inner: unknown field 'stps'\. Did you mean 'steps'"),
        ("rate: 0.1", r"Inner: missing field 'steps'"),
        ("rate: 0.1\nsteps: 1.5", r"steps: got 1\.5 \(float\) where int is needed"),
        ("rate: 0.1\nsteps: true", r"steps: got True \(bool\) where int is needed"),
        ("rate: fast\nsteps: 1", r"rate: got 'fast' \(str\) where float is needed"),
        ("[1, 2]", r"Inner: got \[1, 2\] where a mapping"),
        ("rate: [0.1", r"not valid YAML"),
        ("!!python/object/apply:os.getcwd []", r"not valid YAML"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        from_yaml(Inner, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("estimator", "lcv", r"estimator: got 'lcv'\. Did you mean 'lvc'"),
        ("hidden", [64, "wide"], r"hidden\[1\]: got 'wide'"),
        ("hidden", 64, r"hidden: got 64 where a list is needed"),
        ("span", [0.5], r"span: got 1 items in \[0\.5\] where 2 are needed"),
        ("limit", "none", r"limit: got 'none' \(str\) where float is needed"),
        ("name", None, r"name: got None \(NoneType\) where str is needed"),
        ("inner", {"rate": 0.1}, r"Inner \(inner\): missing field 'steps'"),
        ("several", [{"rate": 0.1, "steps": "x"}], r"several\[0\]\.steps: got 'x'"),
        ("weights", {"kl": "x"}, r"weights\.kl: got 'x'"),
        ("inner", {"rate": 0.1, "steps": -1}, r"must not be negative"),
    ],
)
def test_errors_name_the_field(field: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_plain(Outer, {**to_plain(Outer()), field: value})


def test_fields_that_yaml_cannot_hold_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot hold"):
        to_plain({"layer": object()})


# -- numbers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Numbers:
    rate: float = 0.1
    most: float = math.inf
    steps: int = 1
    hidden: tuple[int, ...] = (4,)
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        check(self, at_least={"steps": 0}, at_most={"steps": 10})


def test_good_numbers_pass() -> None:
    for rate in (0.0, -3.0, 1e-30, 1e30, -1e30):
        assert Numbers(rate=rate, steps=10, hidden=(), most=2.0).rate == rate


@pytest.mark.parametrize("rate", [math.nan, math.inf, -math.inf, 1e308, 1e31, 1e-31, -1e-320])
def test_floats_that_nothing_can_be_computed_with_are_refused(rate: float) -> None:
    with pytest.raises(UserError, match=r"^Got --rate \S+\. It must be finite: 0, or from 1e-30 to 1e\+30 in size\.$"):
        Numbers(rate=rate)
    with pytest.raises(UserError, match="--rate"):
        Numbers(inner=Inner(rate=rate))
    # The field says otherwise, for this number only.
    assert Numbers(most=math.inf).most == math.inf
    with pytest.raises(UserError, match="--most"):
        Numbers(most=-math.inf if rate > 0 else math.nan)


@pytest.mark.parametrize("steps", [-1, 11, 2**63, 10**30, 10**5000, -(10**5000)], ids=[*map(str, range(6))])
def test_whole_numbers_out_of_bounds_are_refused_in_a_short_line(steps: int) -> None:
    with pytest.raises(UserError, match=r"^Got --steps") as caught:
        Numbers(steps=steps)
    assert len(str(caught.value)) < 120
    with pytest.raises(UserError, match="with a whole number of 5001 digits"):
        Numbers(hidden=(4, 10**5000))


def test_options_that_change_nothing_are_refused_where_they_are_not_the_default() -> None:
    unused = {"steps": "--rate above 0", "hidden": "layers"}
    check_used(Numbers(), unused)
    check_used(Numbers(rate=0.2, steps=1), unused)
    with pytest.raises(
        UserError, match=r"^Got --steps 2, which changes nothing there: it needs --rate above 0\. Leave"
    ):
        check_used(Numbers(steps=2), unused)
    with pytest.raises(UserError, match=r"^Got --hidden 3 4 for maml, which"):
        check_used(Numbers(hidden=(3, 4)), unused, "maml")
