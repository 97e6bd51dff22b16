"""The locomotion families: rewards, ends and observations worked out by hand; equality with Gymnasium's v5 robots."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.envs import get, make_worlds
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.family import MujocoFamily
from metarl.errors import UserError
from metarl.types import Record
from tests.helpers.toys import seeded as generator

VARIANTS = {
    # name: horizon, observation size, physics steps
    "ant-dir@v5": (200, 27, 5),
    "ant-dir@maml17": (200, 29, 5),
    "ant-dir-2d@v5": (200, 27, 5),
    "ant-dir-2d@promp18": (200, 27, 5),
    "ant-vel@v5": (200, 27, 5),
    "ant-vel@maml17": (200, 29, 5),
    "ant-goal@v5": (200, 29, 5),
    "ant-goal@promp18": (200, 29, 5),
    "ant-goal@pearl19": (200, 29, 5),
    "humanoid-dir@v5": (200, 45, 5),
    "humanoid-dir@pearl19": (200, 45, 5),
    "walker2d-vel@v5": (200, 17, 4),
    "walker2d-vel@promp18": (200, 17, 8),
    "walker2d-rand-params@v5": (200, 17, 4),
    "walker2d-rand-params@pearl19": (200, 17, 5),
    "walker2d-rand-params@varibad20": (200, 17, 4),
    "hopper-rand-params@v5": (200, 11, 4),
    "hopper-rand-params@pearl19": (200, 11, 4),
    "swimmer-vel@v5": (200, 8, 4),
    "reacher-goal@v5": (50, 8, 2),
}
RAND_PARAMS = [name for name in VARIANTS if "rand-params" in name]
FACTORS = {"body_mass": 1.5**3, "body_inertia": 1.5**3, "geom_friction": 1.5**3, "dof_damping": 1.3**3}


def robot(name: str) -> MujocoFamily:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    return family


def unscaled(family: MujocoFamily) -> Record:
    """The task of a rand-params family that leaves the model as it is."""
    return {parameter.name: [1.0] * parameter.size for parameter in family.space.parameters}


def state(family: MujocoFamily, **entries: dict[Any, float]) -> dict[str, Tensor]:
    """One world's fields of the family, zero but for the given entries: qpos={2: 0.5} for qpos[2]."""
    data = mujoco.MjData(family.model)
    fields = {}
    for name in dict.fromkeys(("qpos", "qvel", *family.fields)):
        fields[name] = torch.zeros(1, *getattr(data, name).shape, dtype=torch.float64)
        for index, value in entries.get(name, {}).items():
            fields[name][(0, *index) if isinstance(index, tuple) else (0, index)] = value
    return fields


def terms(name: str, before: dict[str, Tensor], after: dict[str, Tensor], action: float, **task: Any) -> dict[str, Any]:
    """Reward terms of one world whose actions are all `action`."""
    family = robot(name)
    tasks = family.space.from_records([dict(task)])
    actions = torch.full((1, family.action_size), action, dtype=torch.float64)
    before = {field: before[field] for field in family.remember}
    values = family.reward_terms(before, after, actions, tasks)
    return {key: pytest.approx(value.item(), abs=1e-12) for key, value in values.items()}


def ends(name: str, task: dict[str, Any], **entries: dict[Any, float]) -> bool:
    family = robot(name)
    ended = family.terminated(state(family, **entries), family.space.from_records([task]))
    assert ended is not None
    return bool(ended.item())


def succeeds(name: str, task: dict[str, Any], **entries: dict[Any, float]) -> bool:
    family = robot(name)
    success = family.success(state(family, **entries), family.space.from_records([task]))
    assert success is not None
    return bool(success.item())


# --- ant ---------------------------------------------------------------------------------------------------------

# Squares of the clipped forces: 0.25 + 1 + 1.
FORCES = {(3, 0): 0.5, (5, 2): 2.0, (13, 5): -7.0}
CONTACT = -5e-4 * 2.25


def ant(name: str, x: float = 0.0, y: float = 0.0, z: float = 0.5) -> dict[str, Tensor]:
    """An ant whose xpos and qpos agree."""
    family = robot(name)
    extra = {"xpos": {(1, 0): x, (1, 1): y}} if "xpos" in family.fields else {}
    return state(family, qpos={0: x, 1: y, 2: z}, cfrc_ext=FORCES, **extra)


@pytest.mark.parametrize(
    ("variant", "control", "survive", "fallen"), [("v5", -1.0, 1.0, 0.0), ("maml17", -0.01, 0.05, 0.05)]
)
def test_ant_vel_reward(variant: str, control: float, survive: float, fallen: float) -> None:
    # 0.1 m in 0.05 s is 2 m/s; eight actions of 0.5.
    name = f"ant-vel@{variant}"
    expected = {"velocity": 0.5, "survive": survive, "control": control, "contact": CONTACT}
    assert terms(name, ant(name, 0.2), ant(name, 0.3), 0.5, velocity=1.5) == expected
    assert terms(name, ant(name, 0.2), ant(name, 0.3), 0.5, velocity=2.5) == expected
    down = ant(name, 0.3, z=0.1)
    assert terms(name, ant(name, 0.2), down, 0.5, velocity=1.5) == {**expected, "survive": fallen}


@pytest.mark.parametrize(("variant", "fallen"), [("v5", 0.0), ("promp18", 1.0)])
def test_ant_dir_2d_reward(variant: str, fallen: float) -> None:
    # (2, -1) m/s along (0.6, 0.8).
    name = f"ant-dir-2d@{variant}"
    before, after = ant(name, 0.2, 0.3), ant(name, 0.3, 0.25)
    expected = {"forward": 0.4, "survive": 1.0, "control": -1.0, "contact": CONTACT}
    assert terms(name, before, after, 0.5, heading=[0.6, 0.8]) == expected
    above = ant(name, 0.3, 0.25, z=1.1)
    assert terms(name, before, above, 0.5, heading=[0.6, 0.8]) == {**expected, "survive": fallen}


def test_ant_goal_reward() -> None:
    # From (0.5, 2) to (-1, 1) are 1.5 + 1 m; eight actions of 0.5.
    for variant in ("promp18", "pearl19"):
        name = f"ant-goal@{variant}"
        expected = {"distance": -2.5, "control": -0.2, "contact": CONTACT}
        goal = robot(name).space.sample(30, "test", generator())["goal"][0]
        task = {"goal": goal.tolist()}
        after = ant(name, goal[0].item() + 1.5, goal[1].item() + 1.0)
        assert terms(name, ant(name), after, 0.5, **task) == expected
    name = "ant-goal@v5"
    expected = {"distance": -2.5, "survive": 1.0, "control": -1.0, "contact": CONTACT}
    assert terms(name, ant(name), ant(name, 0.5, 2.0), 0.5, goal=[-1.0, 1.0]) == expected
    fallen = ant(name, 0.5, 2.0, z=0.1)
    assert terms(name, ant(name), fallen, 0.5, goal=[-1.0, 1.0]) == {**expected, "survive": 0.0}


@pytest.mark.parametrize(
    ("name", "task", "lowest"),
    [
        ("ant-vel@v5", {"velocity": 1.0}, 0.2),
        ("ant-vel@maml17", {"velocity": 1.0}, 0.2),
        ("ant-dir-2d@v5", {"heading": [1.0, 0.0]}, 0.2),
        ("ant-dir-2d@promp18", {"heading": [1.0, 0.0]}, 0.0),
    ],
)
def test_ants_end_outside_their_heights(name: str, task: dict[str, Any], lowest: float) -> None:
    for height, ended in (
        (lowest - 0.01, True),
        (lowest, False),
        (1.0, False),
        (1.01, True),
        (float("nan"), True),
    ):
        assert ends(name, task, qpos={2: height}) == ended


@pytest.mark.parametrize("variant", ["v5", "promp18", "pearl19"])
def test_ant_goal_never_ends_and_succeeds_at_its_goal(variant: str) -> None:
    family = robot(f"ant-goal@{variant}")
    tasks = family.space.from_records([{"goal": [1.0, -2.0]}])
    assert family.terminated(state(family, qpos={2: 0.0}), tasks) is None
    for x, y, reached in ((1.3, -2.3, True), (1.4, -2.4, False), (1.49, -2.0, True), (0.0, 0.0, False)):
        assert succeeds(family.full_name, {"goal": [1.0, -2.0]}, qpos={0: x, 1: y}) == reached


# --- humanoid ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "fallen"), [("v5", 0.0), ("pearl19", 5.0)])
def test_humanoid_dir_reward(variant: str, fallen: float) -> None:
    # The centre of mass moves by (0.03, -0.015) m in 0.015 s: (2, -1) m/s; 17 actions of 0.2.
    name = f"humanoid-dir@{variant}"
    family = robot(name)
    before = state(family, subtree_com={(1, 0): 0.5, (1, 1): 0.1})
    moved = {(1, 0): 0.53, (1, 1): 0.085}
    after = state(family, subtree_com=moved, qpos={2: 1.4}, cfrc_ext={(3, 0): 300.0, (13, 5): -400.0})
    expected = {"forward": 1.25 * 0.4, "survive": 5.0, "control": -0.068, "contact": -0.125}
    assert terms(name, before, after, 0.2, heading=[0.6, 0.8]) == expected
    low = state(family, subtree_com=moved, qpos={2: 0.9}, cfrc_ext={(3, 0): 1e6})
    assert terms(name, before, low, 0.2, heading=[0.6, 0.8]) == {**expected, "survive": fallen, "contact": -10.0}


@pytest.mark.parametrize("variant", ["v5", "pearl19"])
def test_humanoid_ends_outside_its_heights(variant: str) -> None:
    for height, ended in ((0.99, True), (1.01, False), (1.99, False), (2.01, True), (float("nan"), True)):
        assert ends(f"humanoid-dir@{variant}", {"heading": [0.0, 1.0]}, qpos={2: height}) == ended


# --- walker and hopper -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "seconds", "reward", "survive", "fallen"),
    [("v5", 0.008, 0.7, 1.0, 0.0), ("promp18", 0.016, -0.3, 15.0, 15.0)],
)
def test_walker2d_vel_reward(variant: str, seconds: float, reward: float, survive: float, fallen: float) -> None:
    # 1.5 m/s where 1.8 is wanted; six actions of 0.5.
    name = f"walker2d-vel@{variant}"
    family = robot(name)
    before = state(family, qpos={0: 0.2})
    expected = {"velocity": reward, "survive": survive, "control": -0.0015}
    up, down = ({0: 0.2 + 1.5 * seconds, 1: height} for height in (1.2, 0.7))
    assert terms(name, before, state(family, qpos=up), 0.5, velocity=1.8) == expected
    assert terms(name, before, state(family, qpos=down), 0.5, velocity=1.8) == {**expected, "survive": fallen}


@pytest.mark.parametrize(
    ("variant", "seconds", "fallen"), [("v5", 0.008, 0.0), ("pearl19", 0.01, 1.0), ("varibad20", 0.008, 1.0)]
)
def test_walker2d_rand_params_reward(variant: str, seconds: float, fallen: float) -> None:
    name = f"walker2d-rand-params@{variant}"
    family = robot(name)
    task, before = unscaled(family), state(family, qpos={0: 0.2})
    expected = {"forward": -1.5, "survive": 1.0, "control": -0.0015}
    up, down = ({0: 0.2 - 1.5 * seconds, 1: height} for height in (1.2, 0.7))
    assert terms(name, before, state(family, qpos=up), 0.5, **task) == expected
    assert terms(name, before, state(family, qpos=down), 0.5, **task) == {**expected, "survive": fallen}


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("walker2d")])
def test_walkers_end_when_they_fall(name: str) -> None:
    family = robot(name)
    task = family.space.sample(10, "test", generator()).records()[0]
    for height, pitch, ended in (
        (1.25, 0.0, False),
        (0.81, 0.99, False),
        (1.99, -0.99, False),
        (0.79, 0.0, True),
        (2.01, 0.0, True),
        (1.25, 1.01, True),
        (1.25, -1.01, True),
        (float("nan"), 0.0, True),
    ):
        assert ends(name, task, qpos={1: height, 2: pitch}) == ended


@pytest.mark.parametrize(("variant", "fallen"), [("v5", 0.0), ("pearl19", 1.0)])
def test_hopper_rand_params_reward(variant: str, fallen: float) -> None:
    # 0.012 m in 0.008 s; three actions of 0.5.
    name = f"hopper-rand-params@{variant}"
    family = robot(name)
    task, before = unscaled(family), state(family, qpos={0: 0.2})
    expected = {"forward": 1.5, "survive": 1.0, "control": -0.00075}
    up, down = ({0: 0.212, 1: height} for height in (1.2, 0.6))
    assert terms(name, before, state(family, qpos=up), 0.5, **task) == expected
    assert terms(name, before, state(family, qpos=down), 0.5, **task) == {**expected, "survive": fallen}


@pytest.mark.parametrize("variant", ["v5", "pearl19"])
def test_hoppers_end_when_they_fall(variant: str) -> None:
    name = f"hopper-rand-params@{variant}"
    task = robot(name).space.sample(10, "test", generator()).records()[0]
    for qpos, qvel, ended in (
        ({1: 1.25}, {}, False),
        ({1: 0.71, 2: 0.19}, {}, False),
        ({1: 0.69}, {}, True),
        ({1: 1.25, 2: -0.21}, {}, True),
        ({1: 1.25, 5: -100.5}, {}, True),
        ({1: 1.25}, {0: 99.0, 5: -99.0}, False),
        ({1: 1.25}, {0: 101.0}, True),
        ({1: 1.25}, {5: float("nan")}, True),
        # Height and place are not among the angles and velocities that must stay small.
        ({0: 150.0, 1: 150.0}, {}, False),
    ):
        assert ends(name, task, qpos=qpos, qvel=qvel) == ended


@pytest.mark.parametrize("name", ["walker2d-vel", "hopper-rand-params"])
def test_observed_velocities_are_clipped(name: str) -> None:
    family = robot(name)
    seen = family.observe(
        state(family, qpos={1: 1.5, 2: 30.0}, qvel={0: 12.0, 1: -12.0, 2: 3.0}),
        family.space.sample(1, "train", generator()),
    )
    half = family.model.nq - 1
    assert seen[0, :2].tolist() == [1.5, 30.0]
    assert seen[0, half : half + 3].tolist() == [10.0, -10.0, 3.0]


# --- rand-params: the models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RAND_PARAMS)
def test_factors_cover_every_entry_that_is_not_zero(name: str) -> None:
    family = robot(name)
    assert [parameter.name for parameter in family.space.parameters] == list(FACTORS)
    for parameter in family.space.parameters:
        largest = FACTORS[parameter.name]
        assert parameter.scale == "log-uniform"
        assert parameter.bounds == pytest.approx((1.0 / largest, largest))
        assert parameter.size == np.count_nonzero(getattr(family.model, parameter.name))
    assert family.space.feature_size == (58 if "walker" in name else 34)
    # All but the world's mass and inertia and the damping of the three joints of the root.
    assert not family.model.body_mass[0]
    assert np.count_nonzero(family.model.body_mass) == family.model.nbody - 1


@pytest.mark.parametrize("name", ["walker2d-rand-params", "hopper-rand-params@pearl19"])
def test_models_are_scaled_and_their_constants_refreshed(name: str) -> None:
    family = robot(name)
    tasks = family.space.sample(10, "test", generator())
    physics = MujocoPhysics(family, 10, 1)
    physics.apply(tasks, None)
    model = family.model_spec().compile()
    for field in FACTORS:
        value = getattr(model, field)
        value[value != 0.0] *= tasks[field][7].numpy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    ours = physics.snapshot(7)[0]
    for field in (*FACTORS, "body_subtreemass", "dof_M0", "dof_invweight0", "body_invweight0"):
        np.testing.assert_allclose(getattr(ours, field), getattr(model, field), rtol=1e-14, atol=0.0, err_msg=field)
    assert physics.snapshot(6)[0].body_mass.sum() != ours.body_mass.sum()


def test_only_the_v5_walker_has_two_feet_of_one_friction() -> None:
    friction = {
        variant: [robot(f"walker2d-rand-params@{variant}").model.geom(foot).friction[0] for foot in FEET]
        for variant in ("v5", "pearl19", "varibad20")
    }
    assert friction == {"v5": [1.9, 1.9], "pearl19": [0.9, 1.9], "varibad20": [0.9, 1.9]}


FEET = ("foot_geom", "foot_left_geom")


# --- swimmer and reacher -----------------------------------------------------------------------------------------


def test_swimmer_vel_reward_punishes_the_error() -> None:
    # 0.01 m in 0.04 s is 0.25 m/s; two actions of 0.5.
    family = robot("swimmer-vel")
    before, after = state(family, qpos={0: 0.3}), state(family, qpos={0: 0.31})
    assert terms("swimmer-vel", before, after, 0.5, velocity=0.15) == {"velocity": -0.1, "control": -0.00005}
    assert family.terminated(after, family.space.from_records([{"velocity": 0.15}])) is None


def test_reacher_goal_reward_and_success() -> None:
    family = robot("reacher-goal")
    task: Record = {"goal": [0.0, 0.1]}
    far = {"xpos": {(3, 0): 0.03, (3, 1): 0.06, (3, 2): 0.01}}
    assert terms("reacher-goal", {}, state(family, **far), 0.5, **task) == {"distance": -0.05, "control": -0.5}
    assert not succeeds("reacher-goal", task, **far)
    assert not succeeds("reacher-goal", task, xpos={(3, 1): 0.0805})
    assert succeeds("reacher-goal", task, xpos={(3, 1): 0.0815})
    assert family.terminated(state(family), family.space.from_records([task])) is None


def test_reachers_with_other_goals_look_the_same() -> None:
    family = robot("reacher-goal")
    worlds, other = (make_worlds(family, 3, threads=1, dtype=torch.float64) for _ in range(2))
    for each, seed in ((worlds, 1), (other, 2)):
        each.set_tasks(family.space.sample(3, "train", generator(seed)))
        each.reset(generator())
    for _ in range(5):
        step, blind = worlds.step(torch.ones(3, 2)), other.step(torch.ones(3, 2))
        assert torch.equal(step.observation, blind.observation)
        assert (step.reward != blind.reward).all()


# --- equality with Gymnasium -------------------------------------------------------------------------------------


PAIRS = {
    # name: Gymnasium's id and options, and its names of those of our terms that are its own
    "ant-vel": ("Ant-v5", {"include_cfrc_ext_in_observation": False}, {"survive": "survive", "control": "ctrl"}),
    "ant-dir-2d": (
        "Ant-v5",
        {"include_cfrc_ext_in_observation": False},
        {"forward": "forward", "survive": "survive", "control": "ctrl"},
    ),
    "ant-goal": (
        "Ant-v5",
        {"include_cfrc_ext_in_observation": False, "exclude_current_positions_from_observation": False},
        {"survive": "survive", "control": "ctrl"},
    ),
    "humanoid-dir": (
        "Humanoid-v5",
        {f"include_{part}_in_observation": False for part in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")},
        {"forward": "forward", "survive": "survive", "control": "ctrl"},
    ),
    "walker2d-vel": ("Walker2d-v5", {}, {"survive": "survive", "control": "ctrl"}),
    "walker2d-rand-params": ("Walker2d-v5", {}, {"forward": "forward", "survive": "survive", "control": "ctrl"}),
    "hopper-rand-params": ("Hopper-v5", {}, {"forward": "forward", "survive": "survive", "control": "ctrl"}),
    "swimmer-vel": ("Swimmer-v5", {}, {"control": "ctrl"}),
    "reacher-goal": ("Reacher-v5", {}, {"distance": "dist", "control": "ctrl"}),
}
TASKS: dict[str, Record] = {
    "ant-vel": {"velocity": 1.0},
    "ant-dir-2d": {"heading": [1.0, 0.0]},
    "ant-goal": {"goal": [1.0, 2.0]},
    "humanoid-dir": {"heading": [1.0, 0.0]},
    "walker2d-vel": {"velocity": 1.0},
    "swimmer-vel": {"velocity": 0.15},
    "reacher-goal": {"goal": [0.1, -0.05]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_default_variants_equal_gymnasiums(name: str) -> None:
    reference, options, renamed = PAIRS[name]
    theirs: Any = gymnasium.make(reference, **options).unwrapped
    family = robot(name)
    assert family.variant == "v5"
    assert family.step_seconds == pytest.approx(theirs.dt)
    assert theirs.action_space.high.tolist() == pytest.approx(family.action_high)
    worlds = make_worlds(family, 1, threads=1, unit_actions=False, dtype=torch.float64)
    task = TASKS.get(name) or unscaled(family)
    worlds.set_tasks(family.space.from_records([task]))
    random, ended, contact = np.random.default_rng(0), 0, []
    for episode in range(4):
        worlds.reset(generator(episode))
        theirs.reset(seed=episode)
        start = {field: value[0].numpy().copy() for field, value in worlds.physics.state.items()}
        if name == "reacher-goal":
            # Theirs is a body, ours a task.
            start["qpos"][2:] = task["goal"]
        theirs.set_state(start["qpos"], start["qvel"])
        for _ in range(40):
            action = random.uniform(family.action_low, family.action_high)
            observation, _, terminated, _, info = theirs.step(action)
            step = worlds.step(torch.from_numpy(action)[None])
            if name == "reacher-goal":
                # The goal is seen there: numbers 4 and 5, and in the last two.
                parts = (observation[[0, 1, 2, 3, 6, 7]], observation[8:] + observation[4:6])
                np.testing.assert_allclose(step.observation[0], np.concatenate(parts), rtol=1e-15, atol=1e-15)
                np.testing.assert_array_equal(worlds.physics.state["qpos"][0, :2], theirs.data.qpos[:2])
                np.testing.assert_array_equal(worlds.physics.state["qvel"][0], theirs.data.qvel)
            else:
                np.testing.assert_array_equal(step.observation[0].numpy(), observation)
            for ours, other in renamed.items():
                # The centre of mass is summed in another order.
                close = 1e-11 if name == "humanoid-dir" else 1e-14
                assert step.terms[ours].item() == pytest.approx(info[f"reward_{other}"], rel=1e-14, abs=close)
            if "contact" in step.terms:
                contact.append((step.terms["contact"].item(), info["reward_contact"]))
            if name == "ant-goal":
                # It ends there; here the ant lies on.
                assert not step.terminated.item()
                continue
            assert step.terminated.item() == terminated
            if terminated:
                ended += 1
                break
    assert (ended > 0) == (family.terminated(worlds.physics.state, family.space.from_records([task])) is not None)
    if contact:
        # The one term that is only close (see ant.py, humanoid.py).
        ours, others = np.array(contact).T
        assert np.abs(others).max() > 1e-3
        assert ours.mean() == pytest.approx(others.mean(), rel=0.25)


# --- what they say of themselves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_and_times(name: str) -> None:
    horizon, size, steps = VARIANTS[name]
    family = robot(name)
    assert (family.horizon, family.observation_size, family.frame_skip) == (horizon, size, steps)
    assert family.step_seconds == pytest.approx(steps * family.model.opt.timestep)
    np.testing.assert_array_equal(family.model.actuator_ctrlrange[:, 0], family.action_low)
    np.testing.assert_array_equal(family.model.actuator_ctrlrange[:, 1], family.action_high)


@pytest.mark.parametrize("name", VARIANTS)
def test_observation_tables_name_the_joints_in_the_models_order(name: str) -> None:
    family = robot(name)
    worlds = make_worlds(family, 1, threads=1, dtype=torch.float64)
    worlds.set_tasks(family.space.sample(1, "train", generator()))
    worlds.reset(generator())
    seen, qpos, qvel = worlds.reset(generator())[0], worlds.physics.state["qpos"][0], worlds.physics.state["qvel"][0]
    checked = 0
    for value, row in zip(seen, family.observables, strict=True):
        joint = mujoco.mj_name2id(family.model, mujoco.mjtObj.mjOBJ_JOINT, row.name)
        if joint < 0 or row.unit == "1" or family.model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            continue
        angle, speed = qpos[family.model.jnt_qposadr[joint]], qvel[family.model.jnt_dofadr[joint]]
        assert value == (speed if row.unit.endswith("/s") else angle)
        checked += 1
    assert checked >= family.action_size


@pytest.mark.parametrize(
    ("name", "low", "high", "ood"),
    [
        ("ant-vel@v5", 0.0, 3.0, (3.0, 4.0)),
        ("ant-vel@maml17", 0.0, 3.0, (3.0, 4.0)),
        ("ant-goal@v5", 0.0, 3.0, (3.0, 4.0)),
        ("ant-goal@promp18", 0.0, 3.0, (3.0, 4.0)),
        ("ant-goal@pearl19", 0.0, 3.0, (3.0, 4.0)),
        ("walker2d-vel@v5", 0.0, 2.0, (2.0, 3.0)),
        ("walker2d-vel@promp18", 0.0, 10.0, (10.0, 11.0)),
        ("swimmer-vel@v5", 0.1, 0.2, (0.2, 0.3)),
        ("reacher-goal@v5", 0.0, 0.2, (0.2, 0.21)),
    ],
)
def test_ranges_of_tasks(name: str, low: float, high: float, ood: tuple[float, float]) -> None:
    (parameter,) = robot(name).space.parameters
    assert parameter.bounds == (low, high)
    assert parameter.ood_intervals == (pytest.approx(ood),)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.split("@")[0] in ("ant-dir-2d", "humanoid-dir")])
def test_headings_are_unit_vectors_all_round(name: str) -> None:
    space = robot(name).space
    heading = space.sample(100, "train", generator())["heading"]
    torch.testing.assert_close(heading.norm(dim=1), torch.ones(100, dtype=torch.float64))
    assert len({(x > 0, y > 0) for x, y in heading.tolist()}) == 4
    with pytest.raises(UserError, match="no out-of-distribution part"):
        space.sample(1, "ood", generator())


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("ant-goal@pearl19", 150, 30),
        ("humanoid-dir@pearl19", 100, 30),
        ("walker2d-rand-params@pearl19", 40, 10),
        ("hopper-rand-params@pearl19", 40, 10),
    ],
)
def test_pearl_tasks_are_fixed(name: str, train: int, test: int) -> None:
    space = robot(name).space
    key = space.parameters[0].name
    sets = {split: space.sample(count, split, generator(7))[key] for split, count in (("train", train), ("test", test))}
    assert torch.equal(sets["train"], space.sample(train, "train", generator(8))[key])
    assert len(torch.cat([sets["train"], sets["test"]]).unique(dim=0)) == train + test
    assert len(space.sample(3 * train, "train", generator(9))[key].unique(dim=0)) == train


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("@v5") and not name.startswith("ant")])
def test_starts_are_as_noisy_as_gymnasiums(name: str) -> None:
    noise = {"humanoid": 0.01, "walker2d": 0.005, "hopper": 0.005, "swimmer": 0.1, "reacher": 0.1}[name.split("-")[0]]
    family = robot(name)
    tasks = family.space.sample(500, "train", generator())
    start = family.reset_state(generator(), tasks)
    moved = start["qpos"] - torch.from_numpy(family.model.qpos0)
    if name.startswith("reacher"):
        moved, start["qvel"] = moved[:, :2], start["qvel"][:, :2] * 20.0
    for values in (moved, start["qvel"]):
        assert values.abs().max() <= noise
        # Uniform: half of the largest deviation is the mean one.
        assert values.abs().mean().item() == pytest.approx(noise / 2, rel=0.1)
        assert (values.min(0).values < -0.9 * noise).all()
        assert (values.max(0).values > 0.9 * noise).all()


@pytest.mark.parametrize(
    ("name", "task", "along"),
    [
        ("ant-dir", {"direction": -1.0}, (-1.0, 0.0)),
        ("ant-dir-2d", {"heading": [0.6, 0.8]}, (0.6, 0.8)),
        ("ant-vel", {"velocity": 2.0}, (1.0, 0.0)),
        ("humanoid-dir", {"heading": [0.6, 0.8]}, (0.6, 0.8)),
        ("half-cheetah-dir", {"direction": -1.0}, (-1.0, 0.0)),
        ("half-cheetah-vel", {"velocity": 0.0}, (0.05, 0.0)),
        ("walker2d-vel", {"velocity": 1.5}, (0.5, 0.0)),
        ("swimmer-vel", {"velocity": 0.1}, (0.5, 0.0)),
    ],
)
def test_pictures_show_what_is_wanted(name: str, task: dict[str, Any], along: tuple[float, float]) -> None:
    family = robot(name)
    (marker,) = family.markers(state(family), family.space.from_records([task]))
    assert marker.tip is not None
    torch.testing.assert_close(marker.tip - marker.position, torch.tensor([[*along, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize(("name", "height"), [("ant-goal", 0.0), ("reacher-goal", 0.01)])
def test_pictures_show_the_goal(name: str, height: float) -> None:
    family = robot(name)
    (marker,) = family.markers(state(family), family.space.from_records([{"goal": [0.1, -0.15]}]))
    assert marker.tip is None
    assert marker.position.tolist() == [[0.1, -0.15, height]]
