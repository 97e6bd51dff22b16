"""Scaled dynamics, against plain MuJoCo models changed by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs import get
from metarl.envs.models import gymnasium_model
from metarl.envs.modifiers.damage import Damage
from metarl.envs.modifiers.dynamics import QUANTITIES, Factor, entry_factors, nominal, scaled
from metarl.errors import UserError
from metarl.types import Record, Tasks
from tests.helpers.plain_mujoco import SERVOS, WORLDS, mujoco_family, play, play_by_hand, start
from tests.helpers.toys import seeded as generator


def scale_mass(model: mujoco.MjModel, factor: float) -> None:
    model.body_mass[:] *= factor
    model.body_inertia[:] *= factor


def scale_inertia(model: mujoco.MjModel, factor: float) -> None:
    model.body_inertia[:] *= factor


def scale_damping(model: mujoco.MjModel, factor: float) -> None:
    model.dof_damping[:] *= factor


def scale_friction(model: mujoco.MjModel, factor: float) -> None:
    model.geom_friction[:] *= factor


def scale_gravity(model: mujoco.MjModel, factor: float) -> None:
    model.opt.gravity[:] *= factor


def scale_gain(model: mujoco.MjModel, factor: float) -> None:
    model.actuator_gainprm[:, 0] *= factor


def scale_range(model: mujoco.MjModel, factor: float) -> None:
    for joint in range(model.njnt):
        if model.jnt_limited[joint]:
            low, high = model.jnt_range[joint]
            rest = min(max(0.0, low), high)
            model.jnt_range[joint] = rest + (low - rest) * factor, rest + (high - rest) * factor


BY_HAND: dict[str, Callable[[mujoco.MjModel, float], None]] = {
    "mass": scale_mass,
    "inertia": scale_inertia,
    "damping": scale_damping,
    "friction": scale_friction,
    "gravity": scale_gravity,
    "gain": scale_gain,
    "range": scale_range,
}


def test_every_quantity_is_checked_by_hand() -> None:
    assert set(BY_HAND) == set(QUANTITIES)


@pytest.mark.parametrize("robot", ["half-cheetah-vel", "ant-dir@maml17"])
@pytest.mark.parametrize("quantities", [*([name] for name in BY_HAND), list(BY_HAND)], ids="+".join)
def test_equals_a_model_changed_by_hand(robot: str, quantities: list[str]) -> None:
    family = mujoco_family("+".join([robot, *quantities]))
    tasks = family.space.sample(WORLDS, "train", generator())
    state, actions = start(family, tasks)
    engine = play(family, tasks, state, actions)
    plain = play(mujoco_family(robot), tasks, state, actions)
    for world in range(WORLDS):
        model = copy.copy(mujoco_family(robot).model)
        for quantity in quantities:
            BY_HAND[quantity](model, tasks[f"{quantity}_factor"][world].item())
        for ours, theirs in zip(engine, play_by_hand(family, model, state, actions, world), strict=True):
            for name, value in theirs.items():
                np.testing.assert_array_equal(ours[name][world].numpy(), value, err_msg=name)
        # ... and the factor was felt.
        assert not torch.equal(engine[-1]["qpos"][world], plain[-1]["qpos"][world])


def test_each_entry_has_its_own_factor() -> None:
    family = mujoco_family("half-cheetah-vel+mass=each+damping=each+friction=each+gain=each+range=each")
    tasks = family.space.sample(WORLDS, "train", generator())
    state, actions = start(family, tasks)
    engine = play(family, tasks, state, actions)
    for world in range(WORLDS):
        model = copy.copy(family.model)
        factors = {name: tasks[f"{name}_factor"][world].numpy() for name in BY_HAND if f"{name}_factor" in tasks.values}
        # Body 0 is the world, degrees of freedom and joints 0 to 2 are the torso's and free.
        model.body_mass[1:] *= factors["mass"]
        model.body_inertia[1:] *= factors["mass"][:, None]
        model.dof_damping[3:] *= factors["damping"]
        model.geom_friction[:] *= factors["friction"][:, None]
        model.actuator_gainprm[:, 0] *= factors["gain"]
        # Every joint's pose at rest, 0, is in its range.
        model.jnt_range[3:] *= factors["range"][:, None]
        for ours, theirs in zip(engine, play_by_hand(family, model, state, actions, world), strict=True):
            for name, value in theirs.items():
                np.testing.assert_array_equal(ours[name][world].numpy(), value, err_msg=name)


def test_a_factor_of_one_changes_nothing() -> None:
    family = mujoco_family("ant-dir+" + "+".join(BY_HAND) + "+damage")
    task: Record = {"direction": 1.0, "damaged": 0.0, **{f"{name}_factor": 1.0 for name in BY_HAND}}
    tasks = family.space.from_records([{**task}] * WORLDS)
    state, actions = start(family, tasks)
    plain = play(mujoco_family("ant-dir"), tasks, state, actions)
    for ours, theirs in zip(play(family, tasks, state, actions), plain, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_scales_what_the_family_itself_gives_the_world() -> None:
    model = mujoco_family("half-cheetah-vel").model
    scaling = Factor(quantity="mass").scaling(model)
    heavy = nominal(model, "body_mass").repeat(2, 1) + torch.tensor([[1.0], [2.0]])
    tasks = Tasks("any", {"mass_factor": torch.tensor([0.5, 2.0], dtype=torch.float64)})
    fields = scaled(model, {"body_mass": heavy, "geom_size": torch.zeros(2, 9, 3)}, [scaling], tasks)
    assert torch.equal(fields["body_mass"], heavy * torch.tensor([[0.5], [2.0]]))
    assert torch.equal(fields["body_inertia"][1], 2.0 * nominal(model, "body_inertia"))
    assert torch.equal(fields["geom_size"], torch.zeros(2, 9, 3))


def test_rand_params_multiply_every_entry_and_scaling_goes_on_top() -> None:
    family = mujoco_family("walker2d-rand-params")
    both = mujoco_family("walker2d-rand-params+mass")
    tasks = both.space.sample(3, "train", generator())
    fields, scaled_fields = family.apply(tasks), both.apply(tasks)
    for name in ("body_mass", "body_inertia"):
        factor = tasks["mass_factor"].reshape(-1, *[1] * (fields[name].dim() - 1))
        assert torch.equal(scaled_fields[name], fields[name] * factor)
    assert torch.equal(scaled_fields["dof_damping"], fields["dof_damping"])


@pytest.mark.parametrize("factor", [0.5, 1.7])
def test_gain_multiplies_the_force_of_motors_and_servos(factor: float) -> None:
    model = mujoco.MjModel.from_xml_string(SERVOS)
    scaling = Factor(quantity="gain").scaling(model)
    tasks = Tasks("any", {"gain_factor": torch.tensor([factor], dtype=torch.float64)})
    strong = copy.copy(model)
    for name, value in scaled(model, {}, [scaling], tasks).items():
        getattr(strong, name)[:] = value[0].numpy()
    random, saturated = np.random.default_rng(0), 0
    for _ in range(20):
        forces = []
        qpos, qvel, control = random.normal(size=2), random.normal(size=2), random.normal(size=6)
        for each in (model, strong):
            data = mujoco.MjData(each)
            data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, control
            mujoco.mj_forward(each, data)
            forces.append(data.actuator_force.copy())
        np.testing.assert_allclose(forces[1], factor * forces[0], rtol=1e-13)
        saturated += abs(forces[0][1]) == 3.0
    assert 0 < saturated < 20


@pytest.mark.parametrize(
    ("robot", "joint", "expected"),
    [
        # Nominal ranges in degrees; the pose at rest is 0.
        ("walker2d", "leg_joint", (-150.0 * 0.8, 0.0)),
        ("ant", "hip_1", (-24.0, 24.0)),
        ("ant", "ankle_1", (30.0, 62.0)),
        ("ant", "ankle_2", (-62.0, -30.0)),
    ],
)
def test_range_keeps_the_pose_at_rest(robot: str, joint: str, expected: tuple[float, float]) -> None:
    model = gymnasium_model(f"{robot}.xml").compile()
    tasks = Tasks("any", {"range_factor": torch.tensor([0.8], dtype=torch.float64)})
    ranges = scaled(model, {}, [Factor(quantity="range").scaling(model)], tasks)["jnt_range"]
    assert ranges[0, model.joint(joint).id].rad2deg().tolist() == pytest.approx(expected)


def test_entry_factors_number_the_entries_that_are_not_zero() -> None:
    model = gymnasium_model("walker2d.xml").compile()
    scaling = entry_factors(model, "dof_damping", 1.3**-3, 1.3**3, "damping of the joints")
    assert (scaling.parameter.size, scaling.parameter.bounds) == (6, (1.3**-3, 1.3**3))
    assert scaling.targets[0].pick.tolist() == [-1, -1, -1, 0, 1, 2, 3, 4, 5]
    sizes = {
        field: entry_factors(model, field, 0.5, 2.0, "").parameter.size
        for field in ("body_mass", "body_inertia", "geom_friction")
    }
    assert sizes == {"body_mass": 7, "body_inertia": 21, "geom_friction": 24}


def test_factors_are_around_one_and_further_out_of_distribution() -> None:
    space = get("half-cheetah-vel+mass+gravity").space
    factors = space.sample(2000, "train", generator())["mass_factor"]
    assert factors.log().mean().abs() < 0.05
    assert 0.5 < factors.min() < 0.52
    assert 1.9 < factors.max() < 2.0
    outside = space.sample(500, "ood", generator())
    assert ((outside["mass_factor"] < 0.5) | (outside["mass_factor"] > 2.0)).all()
    assert ((outside["mass_factor"] > 0.25) & (outside["mass_factor"] < 4.0)).all()
    assert ((outside["gravity_factor"] < 0.7) | (outside["gravity_factor"] > 1.4)).all()


def test_refuses_actuators_whose_force_is_not_linear() -> None:
    xml = SERVOS.replace("</actuator>", '<muscle name="biceps" joint="a" lengthrange="0 1"/></actuator>')
    model = mujoco.MjModel.from_xml_string(xml)
    for modifier in (Factor(quantity="gain"), Damage()):
        with pytest.raises(UserError, match="whose force does not scale with their gain: biceps"):
            modifier.scaling(model)


def test_refuses_half_a_range_and_unknown_quantities() -> None:
    with pytest.raises(UserError, match=r"from 0\.5 to None"):
        Factor(quantity="mass", low=0.5)
    with pytest.raises(UserError, match="Did you mean 'mass'"):
        Factor(quantity="masses")
