"""Modifiers in a family's name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.envs import get, make_worlds
from metarl.envs.modifiers.dynamics import QUANTITIES, Factor
from metarl.envs.modifiers.names import MODIFIERS, in_name, parse
from metarl.errors import UserError
from tests.helpers.toys import seeded as generator


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("half-cheetah-vel+gravity=each", "half-cheetah-vel@v5+gravity"),
        ("half-cheetah-vel+gravity=0.9..1.1,each", "half-cheetah-vel@v5+gravity=0.9..1.1"),
        ("half-cheetah-vel+mass", "half-cheetah-vel@v5+mass"),
        ("half-cheetah-vel@maml17+friction+mass", "half-cheetah-vel@maml17+mass+friction"),
        ("half-cheetah-vel+mass=0.5..2", "half-cheetah-vel@v5+mass"),
        ("half-cheetah-vel+mass=0.50..3.0,each", "half-cheetah-vel@v5+mass=0.5..3,each"),
        ("half-cheetah-vel+switch=50..150", "half-cheetah-vel@v5+switch"),
        ("half-cheetah-vel+switch=5..150+gain=each", "half-cheetah-vel@v5+gain=each+switch=5..150"),
        ("ant-dir+damage=limb", "ant-dir@v5+damage"),
        ("half-cheetah-vel+damage=joint", "half-cheetah-vel@v5+damage"),
        ("half-cheetah-vel+damage=limb", "half-cheetah-vel@v5+damage=limb"),
        ("half-cheetah-vel+delay+noise+mass", "half-cheetah-vel@v5+mass+noise+delay"),
        ("half-cheetah-vel+noise=0..1+delay=0..3", "half-cheetah-vel@v5+noise+delay"),
        ("half-cheetah-vel+bias=-2..2.50,each", "half-cheetah-vel@v5+bias=-2..2.5,each"),
        ("half-cheetah-vel+delay=2..2,action", "half-cheetah-vel@v5+delay=2..2,action"),
        ("half-cheetah-vel+payload=torso+push=1..2,bfoot", "half-cheetah-vel@v5+payload+push=1..2,bfoot"),
        ("half-cheetah-vel+slope=0..0.2+gains=0.8..1.25", "half-cheetah-vel@v5+gains+slope"),
    ],
)
def test_a_family_has_one_name_and_is_one_object(name: str, canonical: str) -> None:
    family = get(name)
    assert family.full_name == canonical
    assert get(canonical) is family
    assert family.spec().family == canonical
    worlds = make_worlds(name, 2, threads=1)
    worlds.set_tasks(family.space.sample(2, "train", generator()))
    worlds.reset(generator())
    assert worlds.step(torch.zeros(2, family.action_size)).reward.isfinite().all()


FACTORS = st.tuples(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30)).filter(lambda ends: ends[0] < ends[1])


@given(quantity=st.sampled_from(sorted(QUANTITIES)), ends=st.none() | FACTORS, each=st.booleans())
def test_a_name_says_everything(quantity: str, ends: tuple[float, float] | None, each: bool) -> None:
    low, high = ends or (None, None)
    factor = Factor(quantity=quantity, low=low, high=high, per="each" if each else "all")
    assert parse(in_name(factor)) == factor


def test_every_modifier_can_be_parsed() -> None:
    assert [in_name(parse(word)) for word in MODIFIERS] == list(MODIFIERS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half-cheetah-vel+mas", r"unknown modifier '\+mas'\. Did you mean 'mass'\? Choose from: mass, inertia"),
        ("half-cheetah-vel+", r"unknown modifier '\+'"),
        ("half-cheeta-vel+mass", "Did you mean 'half-cheetah-vel'"),
        ("half-cheetah-vel@v6+mass", "has no variant 'v6'"),
        ("half-cheetah-vel+mass+mass", r"got the modifiers \+mass\+mass for half-cheetah-vel@v5: give each once"),
        ("half-cheetah-vel+mass=0.5-2", r"got '\+mass=0.5-2': give \+mass, \+mass=0.5..2, \+mass=each"),
        ("half-cheetah-vel+mass=", r"got '\+mass=': give"),
        ("half-cheetah-vel+mass=1..inf", r"got '\+mass=1..inf': give"),
        ("half-cheetah-vel+mass=each,1..2", r"got '\+mass=each,1..2': give"),
        ("half-cheetah-vel+mass=2..0.5", "factors of mass from 2.0 to 0.5: give 0 < LOW < HIGH"),
        ("half-cheetah-vel+mass=-1..2", "factors of mass from -1.0 to 2.0: give 0 < LOW < HIGH"),
        ("half-cheetah-vel+damage=leg", r"got '\+damage=leg': give \+damage, \+damage=limb or"),
        ("hopper-rand-params+damage=limb", r"got \+damage=limb: this robot has 1 limb .*try \+damage=joint"),
        ("swimmer-vel+damping", r"got \+damping: this robot has no damping of the joints to scale"),
        (
            "point-nav+mass",
            r"no MuJoCo model, which \+mass would change: only \+bias, \+noise, \+delay, \+switch fit it",
        ),
        ("point-nav+noise+push", r"no MuJoCo model, which \+push would change: only"),
        ("half-cheetah-vel+noise=each,1..2", r"got '\+noise=each,1..2': give \+noise, \+noise=0.5..2, \+noise=each or"),
        ("half-cheetah-vel+noise=-1..2", r"got levels of \+noise from -1.0 to 2.0: give 0 <= LOW < HIGH"),
        ("half-cheetah-vel+bias=", r"got '\+bias=': give \+bias, \+bias=-2..2"),
        ("half-cheetah-vel+gains=0..1", r"got factors of \+gains from 0.0 to 1.0: give 0 < LOW < HIGH"),
        ("half-cheetah-vel+delay=1.5..2", r"got '\+delay=1.5..2': give whole control steps, such as \+delay=0..5"),
        ("half-cheetah-vel+delay=3..1", r"got a delay from 3 to 1 steps: give 0 <= LOW <= HIGH <= 50, not 0..0"),
        ("half-cheetah-vel+delay=sideways", r"got '\+delay=sideways': give \+delay, \+delay=0..5, \+delay=action"),
        ("point-nav+damage+switch", r"no MuJoCo model, which \+damage would change"),
    ],
)
def test_says_what_is_wrong_with_a_name(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get(name)


@pytest.mark.parametrize("steps", ["0", "-1", "1e3", "9" * 5000, "x" * 5000, ""], ids=range(6))
def test_a_horizon_that_is_no_number_of_steps_is_refused(steps: str) -> None:
    with pytest.raises(UserError, match="with a whole number of steps from 1"):
        get(f"point-nav+horizon={steps}")


def test_a_name_keeps_numbers_that_are_large() -> None:
    family = get("ant-dir+gravity=1e-9..1e30")
    assert family.full_name.endswith("+gravity=1e-09..1e30")
    assert get(family.full_name) is family
