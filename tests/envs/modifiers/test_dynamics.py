"""Scaled dynamics and damage: against plain MuJoCo models changed by hand; names; splits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metarl.envs import FamilyEnv, families, get, make_worlds
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.family import Family, MujocoFamily, TorchFamily, gymnasium_model, with_horizon
from metarl.envs.modifiers.apply import Modified, ModifiedMujoco, ModifiedTorch, modify, with_damage, with_dynamics
from metarl.envs.modifiers.damage import Damage, limbs
from metarl.envs.modifiers.dynamics import QUANTITIES, Factor, entry_factors, nominal, scaled
from metarl.envs.modifiers.names import MODIFIERS, in_name, parse
from metarl.envs.registry import resolve
from metarl.errors import UserError
from metarl.types import Record, Tasks
from tests.helpers.toys import seeded as generator

WORLDS, STEPS = 4, 15


def mujoco_family(name: str) -> MujocoFamily:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    return family


def start(family: Family, tasks: Tasks) -> tuple[dict[str, Tensor], Tensor]:
    """Starts, and actions that reach the ends of their range: the joints must meet their limits."""
    state = family.reset_state(generator(1), tasks)
    noise = torch.randn(STEPS, len(tasks), family.action_size, generator=generator(2), dtype=torch.float64)
    return state, (2.0 * noise).clamp(-1.0, 1.0)


def play(family: MujocoFamily, tasks: Tasks, state: dict[str, Tensor], actions: Tensor) -> list[dict[str, Tensor]]:
    """States of all worlds after every control step of the engine."""
    physics = MujocoPhysics(family, len(tasks), threads=2)
    physics.apply(tasks, None)
    physics.write(state, None)
    seen = []
    for action in actions:
        assert physics.advance(action, None) is None
        seen.append({name: value.clone() for name, value in physics.state.items()})
    return seen


def play_by_hand(
    family: MujocoFamily, model: mujoco.MjModel, state: dict[str, Tensor], actions: Tensor, world: int
) -> list[dict[str, np.ndarray]]:
    """States of one world after every control step of a plain MuJoCo loop."""
    data = mujoco.MjData(model)
    mujoco.mj_setConst(model, data)
    mujoco.mj_resetData(model, data)
    for name, value in state.items():
        getattr(data, name)[:] = value[world].numpy()
    mujoco.mj_forward(model, data)
    seen = []
    for action in actions[:, world]:
        data.ctrl[:] = action.numpy()
        mujoco.mj_step(model, data, nstep=family.frame_skip)
        seen.append({name: getattr(data, name).copy() for name in ("qpos", "qvel", *family.fields)})
    return seen


# --- what each factor does, written out -----------------------------------------------------------------------------


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


SERVOS = """
<mujoco><worldbody>
  <body><joint name="a" type="hinge" axis="0 1 0"/><geom size=".1" pos=".3 0 0"/></body>
  <body pos="0 2 0"><joint name="b" type="slide" axis="1 0 0"/><geom size=".1"/></body>
</worldbody><actuator>
  <motor joint="a" gear="30"/>
  <position joint="a" kp="50" kv="2" forcerange="-3 3"/>
  <position joint="b" kp="50" kv="2"/>
  <velocity joint="b" kv="4"/>
  <damper joint="b" kv="3" ctrlrange="0 1"/>
  <general joint="a" gainprm="2 1 1" gaintype="affine" biastype="affine" biasprm=".5 -1 -2"/>
</actuator></mujoco>"""


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


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robot", "expected"),
    [
        ("ant", [("hip_4", "ankle_4"), ("hip_1", "ankle_1"), ("hip_2", "ankle_2"), ("hip_3", "ankle_3")]),
        ("half_cheetah", [("bthigh", "bshin", "bfoot"), ("fthigh", "fshin", "ffoot")]),
        ("hopper", [("thigh_joint", "leg_joint", "foot_joint")]),
        (
            "humanoid",
            [
                ("right_hip_x", "right_hip_z", "right_hip_y", "right_knee"),
                ("left_hip_x", "left_hip_z", "left_hip_y", "left_knee"),
                ("right_shoulder1", "right_shoulder2", "right_elbow"),
                ("left_shoulder1", "left_shoulder2", "left_elbow"),
            ],
        ),
    ],
)
def test_limbs_are_unbranched_chains(robot: str, expected: list[tuple[str, ...]]) -> None:
    spec = gymnasium_model(f"{robot}.xml")
    spec.compiler.settotalmass = -1.0
    model = spec.compile()
    found = [tuple(model.joint(model.actuator_trnid[i, 0]).name for i in limb) for limb in limbs(model)]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "damaged", "actuators"),
    [
        ("ant-dir+damage", 2, [2, 3]),
        ("ant-dir+damage=joint", 8, [7]),
        ("half-cheetah-vel+damage", 3, [2]),
        ("half-cheetah-vel+damage=limb", 2, [3, 4, 5]),
    ],
)
def test_a_damaged_limb_makes_no_force(name: str, damaged: int, actuators: list[int]) -> None:
    family = mujoco_family(name)
    plain = mujoco_family(name.partition("+")[0])
    tasks = plain.space.sample(2, "train", generator())
    damage = torch.tensor([0.0, float(damaged)], dtype=torch.float64)
    both = Tasks(family.full_name, {**tasks.values, "damaged": damage})
    state, actions = start(family, tasks)
    state = {field: value[:1].repeat(2, 1) for field, value in state.items()}
    actions = actions[:, :1].repeat(1, 2, 1)
    silenced = actions.clone()
    silenced[:, 1, actuators] = 0.0
    expected = play(plain, tasks, state, silenced)
    for ours, theirs in zip(play(family, both, state, actions), expected, strict=True):
        assert all(torch.equal(ours[field], theirs[field]) for field in theirs)
    assert not torch.equal(expected[-1]["qpos"][0], expected[-1]["qpos"][1])


def test_the_last_limb_is_held_out() -> None:
    space = get("half-cheetah-vel+damage").space
    drawn = {
        split: set(space.sample(200, split, generator())["damaged"].tolist()) for split in ("train", "test", "ood")
    }
    assert drawn == {"train": {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}, "test": {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}, "ood": {6.0}}
    assert any("0 nothing, 1 bthigh, 2 bshin, 3 bfoot" in line for line in space.describe())


# --- spaces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["half-cheetah-vel+mass+friction=each", "ant-dir+gravity", "half-cheetah-vel@pearl19+gain"]
)
def test_splits_do_not_overlap(name: str) -> None:
    space = get(name).space
    assert space.family == get(name).full_name
    assert not space.coincide
    for split in ("train", "test", "ood"):
        tasks = space.sample(300, split, generator())
        assert space.contains(tasks, split).all()
        assert not any(space.contains(tasks, other).any() for other in ("train", "test", "ood") if other != split)
        assert space.from_records(tasks.records()).records() == tasks.records()


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


def test_fixed_sets_stay_fixed() -> None:
    space = get("half-cheetah-vel@pearl19+mass").space
    train = space.sample(100, "train", generator(1))
    assert torch.equal(train["mass_factor"], space.sample(100, "train", generator(2))["mass_factor"])
    assert len(train["mass_factor"].unique()) == len(train["velocity"].unique()) == 100


# --- names -------------------------------------------------------------------------------------------------------


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


FACTORS = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda ends: ends[0] < ends[1])


@given(quantity=st.sampled_from(sorted(QUANTITIES)), ends=st.none() | FACTORS, each=st.booleans())
def test_a_name_says_everything(quantity: str, ends: tuple[float, float] | None, each: bool) -> None:
    low, high = ends or (None, None)
    factor = Factor(quantity=quantity, low=low, high=high, per="each" if each else "all")
    assert parse(in_name(factor)) == factor


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
        ("point-nav+mass", r"no MuJoCo model, which \+mass would change: only \+switch fits it"),
        ("point-nav+damage+switch", r"no MuJoCo model, which \+damage would change"),
    ],
)
def test_says_what_is_wrong_with_a_name(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get(name)


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


def test_in_python_as_by_name() -> None:
    base = get("half-cheetah-vel")
    family = with_damage(with_dynamics(base, Factor(quantity="gain", per="each"), Factor(quantity="mass")))
    assert family.full_name == "half-cheetah-vel@v5+mass+gain=each+damage"
    assert family.space == get(family.full_name).space
    assert modify(base) is base
    with pytest.raises(UserError, match=r"\+mass\+gain\+gain"):
        with_dynamics(base, Factor(quantity="gain"), Factor(quantity="mass"), Factor(quantity="gain"))


def test_as_a_gymnasium_environment() -> None:
    env = gymnasium.make("metarl/HalfCheetahVel-v0", variant="v5+mass")
    _, info = env.reset(seed=0)
    assert set(info["task"]) == {"velocity", "mass_factor"}
    by_name = FamilyEnv("half-cheetah-vel+mass")
    assert by_name.reset(seed=0)[1] == info
    envs = gymnasium.make_vec("metarl/HalfCheetahVel-v0", num_envs=2, variant="v5+mass", threads=1)
    _, infos = envs.reset(seed=0)
    assert infos["task"]["mass_factor"].shape == (2,)
    assert resolve("half-cheetah-vel+mass", "maml17") is get("half-cheetah-vel@maml17+mass")
    for each in (env, envs):
        each.close()


# --- the base shows through ----------------------------------------------------------------------------------------


def test_everything_else_is_the_bases() -> None:
    """A method that families gain must be passed on, too."""
    derived = {"observation_size", "action_size", "spec", "full_name"}
    for kind, ours in ((Family, Modified), (MujocoFamily, ModifiedMujoco), (TorchFamily, ModifiedTorch)):
        methods = {name for name in vars(kind) if not name.startswith("_")} - set(kind.__annotations__) - derived
        assert methods
        assert methods <= set(vars(ours)), f"{ours.__name__} does not pass on {methods - set(vars(ours))}"
    for name in ("ant-dir@maml17+mass", "point-nav+switch"):
        family = get(name)
        assert isinstance(family, ModifiedMujoco | ModifiedTorch)
        kind = MujocoFamily if isinstance(family, MujocoFamily) else TorchFamily
        for attribute in {*Family.__annotations__, *kind.__annotations__} - {"space", "summary", "source"}:
            assert getattr(family, attribute) == getattr(family.base, attribute), attribute


def test_with_another_horizon() -> None:
    family = with_horizon(get("half-cheetah-vel+mass+switch"), 40)
    assert isinstance(family, ModifiedMujoco)
    assert (family.horizon, family.base.horizon) == (40, 40)
    assert family.space.parameters[-1].bounds == (10.0, 30.0)


@pytest.mark.parametrize("name", [name for name in families() if isinstance(get(name), MujocoFamily)])
def test_fits_every_robot(name: str) -> None:
    family = mujoco_family(f"{name}+mass+inertia=each+gain+damage")
    worlds = make_worlds(family, WORLDS, threads=1, dtype=torch.float64)
    worlds.set_tasks(family.space.sample(WORLDS, "train", generator()))
    first = worlds.reset(generator())
    assert first.shape == (WORLDS, family.observation_size)
    for action in torch.rand(3, WORLDS, family.action_size, generator=generator(1)) * 2.0 - 1.0:
        assert worlds.step(action).observation.isfinite().all()
    assert worlds.failures == 0


def test_every_modifier_can_be_parsed() -> None:
    assert [in_name(parse(word)) for word in MODIFIERS] == list(MODIFIERS)
