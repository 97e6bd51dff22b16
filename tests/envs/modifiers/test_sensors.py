"""+noise and +bias: what is added to every number of an observation, by its unit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from metarl.envs import Observable, chance, get
from metarl.envs.families.half_cheetah import HalfCheetahVel
from metarl.envs.modifiers.effect import KEY
from metarl.envs.modifiers.sensors import KINDS, SALT, Bias, Noise
from metarl.envs.robots.robot_family import robot_family
from metarl.errors import UserError
from metarl.types import Tasks
from tests.helpers.modified import actions_for, begun, modified
from tests.helpers.readme import ROOT
from tests.helpers.toys import seeded

CHEETAH = [0, *[1] * 7, 2, 2, *[3] * 7]
"""Of HalfCheetah-v5's observation: 0 a position, 1 angles, 2 velocities, 3 angular velocities."""


def test_one_level_for_every_unit() -> None:
    levels = {"position": 0.005, "angle": 0.01, "velocity": 0.02, "turn": 0.15}
    offsets = {"position": -0.01, "angle": 0.015, "velocity": -0.05, "turn": 0.1}
    record = {"velocity": 1.0, **{f"{kind}_noise": level for kind, level in levels.items()}}
    record |= {f"{kind}_bias": offset for kind, offset in offsets.items()}
    worlds = begun("half-cheetah-vel+noise+bias", [record, record])
    base, key = modified("half-cheetah-vel+noise+bias").base, worlds.state[KEY] ^ SALT
    stds, biases = (torch.tensor([list(kinds.values())[kind] for kind in CHEETAH]) for kinds in (levels, offsets))
    assert worlds.tasks is not None
    for number, action in enumerate(actions_for(worlds)):
        seen = worlds.step(action).observation
        true = base.observe(worlds.physics.state, worlds.tasks)
        wanted = true + biases.double() + chance.normal(key, number + 1, 17) * stds.double()
        torch.testing.assert_close(seen, wanted, rtol=0.0, atol=1e-7)
        assert not torch.equal(seen[0] - true[0], seen[1] - true[1])


def test_one_level_for_every_number() -> None:
    family = modified("half-cheetah-vel+noise=each+bias=0..3,each")
    sizes = {p.name: p.size for p in family.space.parameters[1:]}
    assert sizes == {
        **{"position_bias": 1, "angle_bias": 7, "velocity_bias": 2, "turn_bias": 7},
        **{"position_noise": 1, "angle_noise": 7, "velocity_noise": 2, "turn_noise": 7},
    }
    tasks = family.space.sample(2, "train", seeded())
    offsets = torch.cat([tasks[f"{kind}_bias"].reshape(2, -1) for kind in ("position", "angle", "velocity", "turn")], 1)
    bias = family.effects[0]
    given = bias.observe(torch.zeros(2, 17, dtype=torch.float64), {}, tasks)
    assert torch.equal(given, offsets)
    assert (offsets >= 0.0).all()
    turn = family.space.parameters[4]
    assert (turn.low, turn.high) == (0.0, pytest.approx(0.3))
    assert [list(ends) for ends in turn.ood_intervals] == [pytest.approx([-0.15, 0.0]), pytest.approx([0.3, 0.45])]


def test_units_side_by_side_in_any_order() -> None:
    family = modified("push-shape+noise=2..4")
    units = [row.unit for row in family.observables]
    tasks = family.space.sample(1, "train", seeded())
    for unit, kind in KINDS.items():
        if unit in units:
            found = next(p for p in family.space.parameters if p.name == f"{kind.name}_noise")
            assert (found.low, found.high) == (pytest.approx(2.0 * kind.noise), pytest.approx(4.0 * kind.noise))
    stds = family.effects[0].values(tasks)[0].tolist()  # pyright: ignore[reportAttributeAccessIssue]
    assert stds == [tasks[f"{KINDS[unit].name}_noise"].item() for unit in units]


def test_reward_and_end_are_of_the_true_state() -> None:
    worlds = begun("point-nav+bias=50..60", [{"goal": [0.1, 0.0], "position_bias": 0.55}])
    step = worlds.step(torch.tensor([[0.1, 0.0]], dtype=torch.float64))
    assert step.terminated.item()
    assert step.reward.item() == 0.0
    assert step.observation.tolist() == [[pytest.approx(0.65), pytest.approx(0.55)]]


def test_an_unknown_unit_is_refused() -> None:
    base = get("half-cheetah-vel")
    assert isinstance(base, HalfCheetahVel)
    odd = dataclasses.replace(base)
    object.__setattr__(odd, "observables", (Observable("height", "z", "ft"), *base.observables[1:]))
    for kind in (Noise(), Bias()):
        with pytest.raises(
            UserError, match=rf"no {kind.word} is known of the unit 'ft' of 'height', only of m, dm, rad"
        ):
            kind.effect(odd)


def test_a_robot_file_knows_its_last_action_exactly() -> None:
    base = robot_family(ROOT / "scripts" / "examples" / "robot" / "quadruped.yaml")
    for kind, size in ((Noise(low=1.0, high=2.0), 0.01), (Bias(low=1.0, high=2.0), 0.01)):
        effect = kind.effect(base)
        assert [p.name for p in effect.parameters] == [f"{n}_{kind.word}" for n in ("angle", "turn", "ratio")]
        levels = Tasks("", {p.name: torch.tensor([p.low], dtype=torch.float64) for p in effect.parameters})
        (values,) = effect.values(levels).tolist()  # pyright: ignore[reportAttributeAccessIssue]
        # 12 joints' positions, 12 velocities, a gyroscope, gravity's direction; then the previous action.
        assert values == [kind.size(KINDS["rad"])] * 12 + [kind.size(KINDS["rad/s"])] * 15 + [size] * 3 + [0.0] * 12


def test_nothing_measured_is_refused() -> None:
    base = get("half-cheetah-vel")
    assert isinstance(base, HalfCheetahVel)
    told = dataclasses.replace(base)
    object.__setattr__(told, "observables", (Observable("command", "-", "m/s", exact=True),))
    with pytest.raises(UserError, match=r"no sensor measures anything that it observes: leave \+noise out"):
        Noise().effect(told)
