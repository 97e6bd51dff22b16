"""Robots from files, against numbers that are worked out by hand, and against a family in Python."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from metarl.envs import get, make_worlds
from metarl.envs.external import child
from metarl.envs.robots.building import into_base, up_in_base
from metarl.envs.robots.robot_family import RobotFamily, robot_family
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.types import Tasks
from tests.helpers.readme import ROOT
from tests.helpers.robot_files import example, forget, small

CHEETAH = ROOT / "tests" / "envs" / "robots" / "half_cheetah_vel.yaml"


def cheetah(folder: Path) -> Path:
    """Return the robot file of half-cheetah-vel, beside Gymnasium's model."""
    model = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
    file = folder / CHEETAH.name
    file.write_text(CHEETAH.read_text().replace("half_cheetah.xml", str(model)))
    return file


def worlds_of(family: RobotFamily, tasks: Mapping[str, list[float] | list[list[float]]]) -> Worlds:
    """Return worlds with these tasks, at their start."""
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in tasks.items()}
    worlds = make_worlds(family, len(next(iter(values.values()))), threads=1, unit_actions=False, dtype=torch.float64)
    worlds.set_tasks(Tasks(family.full_name, values))
    worlds.reset(torch.Generator().manual_seed(0))
    return worlds


def test_a_file_is_the_same_as_the_family_in_python(tmp_path: Path) -> None:
    """Whole episodes of half-cheetah-vel, written both ways."""
    written, family = get("half-cheetah-vel"), robot_family(cheetah(tmp_path))
    assert [row.unit for row in family.observables] == [row.unit for row in written.observables]
    assert [row.name for row in family.observables] == [row.name for row in written.observables]
    tasks = written.space.sample(6, "train", torch.Generator().manual_seed(0))
    both = [make_worlds(f, 6, threads=1, dtype=torch.float64) for f in (written, family)]
    both[0].set_tasks(tasks)
    both[1].set_tasks(Tasks(family.full_name, tasks.values))
    seen = [worlds.reset(torch.Generator().manual_seed(1)) for worlds in both]
    torch.testing.assert_close(seen[0], seen[1], rtol=0.0, atol=1e-12)
    generator = torch.Generator().manual_seed(2)
    ended = torch.zeros(6, dtype=torch.bool)
    for _ in range(written.horizon):
        action = torch.rand(6, 6, generator=generator, dtype=torch.float64) * 2.0 - 1.0
        one, other = (worlds.step(action) for worlds in both)
        torch.testing.assert_close(one.observation, other.observation, rtol=0.0, atol=1e-12)
        torch.testing.assert_close(one.reward, other.reward, rtol=0.0, atol=1e-12)
        ended = other.truncated
    assert bool(ended.all())


def test_servos_and_motors_are_what_the_file_says(tmp_path: Path) -> None:
    family = robot_family(small(tmp_path))
    # In the order of the joints in the model: the rail's motor, the knee's servo about its start of 0.5 rad.
    assert family.action_low == pytest.approx((-1.0, 0.1))
    assert family.action_high == pytest.approx((1.0, 0.9))
    assert (family.frame_skip, family.step_seconds) == (4, 0.02)
    worlds = worlds_of(family, {"speed": [0.0]})
    torch.testing.assert_close(worlds.state["qpos"], torch.tensor([[0.25, 0.5]], dtype=torch.float64))
    data = mujoco.MjData(family.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = (0.25, 0.5), (0.0, 0.2), (0.5, 0.7)
    mujoco.mj_forward(family.model, data)
    # 4 N half way; 8 (0.7 - 0.5) - 0.5 0.2 N m.
    assert data.actuator_force == pytest.approx([2.0, 1.5])
    data.ctrl[1] = 1.0
    mujoco.mj_forward(family.model, data)
    assert data.actuator_force[1] == 3.0


def test_starts_have_the_noise_that_was_asked_for(tmp_path: Path) -> None:
    noise = "noise: {position: 0.1, velocity: 0.2, base_velocity: 0.3, heading: 0.5}"
    family = robot_family(example(tmp_path, ("noise: {position: 0.05, velocity: 0.1}", noise)))
    tasks = family.space.sample(400, "train", torch.Generator().manual_seed(0))
    start = family.reset_state(torch.Generator().manual_seed(1), tasks)
    off = start["qpos"] - family.robot.build.home
    assert float(off[:, 7:].abs().max()) == pytest.approx(0.1, abs=2e-3)
    assert float(off[:, :3].abs().max()) == 0.0
    turn = 2.0 * torch.atan2(start["qpos"][:, 6], start["qpos"][:, 3])
    assert float(turn.abs().max()) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(start["qpos"][:, 3:7].norm(dim=1), torch.ones(400, dtype=torch.float64))
    assert float(start["qvel"][:, :6].std()) == pytest.approx(0.3, abs=0.02)
    assert float(start["qvel"][:, 6:].std()) == pytest.approx(0.2, abs=0.02)
    assert not start["previous_action"].any()


def test_frames_turn_as_mujoco_turns_them() -> None:
    generator = np.random.default_rng(0)
    quaternion, vector = generator.normal(size=(5, 4)), generator.normal(size=(5, 3))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    for q, v in zip(quaternion, vector, strict=True):
        back, local, up = np.zeros(4), np.zeros(3), np.zeros(3)
        mujoco.mju_negQuat(back, q)
        mujoco.mju_rotVecQuat(local, v, back)
        mujoco.mju_rotVecQuat(up, np.array([0.0, 0.0, 1.0]), back)
        one = torch.from_numpy(q)[None]
        np.testing.assert_allclose(into_base(one, torch.from_numpy(v)[None])[0], local, atol=1e-12)
        np.testing.assert_allclose(up_in_base(one)[0], up, atol=1e-12)


def test_observations_are_what_their_table_says(tmp_path: Path) -> None:
    parts = """observation:
  - joint_positions: {joints: knee}
  - joint_positions: {joints: [rail, knee], relative: false, as: plain}
  - joint_velocities: {joints: rail, clip: 0.5}
  - position: {of: site, name: tip}
  - position: {of: site, name: tip, relative_to: cart, as: seen}
  - command: {names: speed}
  - actuator_forces
  - previous_action
"""
    family = robot_family(small(tmp_path, ("observation: [joint_positions, joint_velocities]\n", parts)))
    worlds = worlds_of(family, {"speed": [0.75]})
    assert family.observation_size == 1 + 2 + 1 + 3 + 3 + 1 + 2 + 2
    assert [row.unit for row in family.observables] == (
        ["rad", "m", "rad", "m/s"] + ["m"] * 6 + ["m/s", "N", "N m"] + ["of its bounds"] * 2
    )
    step = worlds.step(torch.tensor([[0.5, 0.7]], dtype=torch.float64))
    seen, state = step.observation[0], worlds.state
    knee = float(state["qpos"][0, 1])
    assert float(seen[0]) == pytest.approx(knee - 0.5)
    assert seen[1:3].tolist() == pytest.approx(state["qpos"][0].tolist())
    assert float(seen[3]) == pytest.approx(max(-0.5, min(0.5, float(state["qvel"][0, 0]))))
    # What MuJoCo derives is of the physics step before.
    assert seen[4:7].tolist() == pytest.approx(state["site_xpos"][0, 0].tolist())
    assert seen[7:10].tolist() == pytest.approx((state["site_xpos"][0, 0] - state["xpos"][0, 1]).tolist())
    assert float(seen[10]) == 0.75
    assert seen[11:13].tolist() == pytest.approx(state["actuator_force"][0].tolist())
    assert seen[13:].tolist() == pytest.approx([0.5, 0.5])


def test_rewards_and_ends_are_what_they_say(tmp_path: Path) -> None:
    reward = """reward:
  now: {term: velocity_error, weight: -2, joint: rail, command: speed}
  mean: {term: velocity, weight: 1, joint: rail, measure: mean}
  near: {term: track_velocity, weight: 1, joint: rail, command: 0.5, width: 0.5}
  posture: {weight: -1, joints: knee}
  joint_speed: -0.1
  action: -1
  action_rate: -1
  torque: -1
  power: -1
  far: {term: distance, weight: -1, site: tip, to: [0, 0, 1]}
  reach: {weight: 1, site: tip, to: [0.5, 0, 0.5], offset: [0, 0.1, 0], width: 0.5}
ends: {bent: {end: joint_position, joint: knee, above: 0.55}}
success: {site: tip, to: [0, 0, 0.7], below: 10}
"""
    family = robot_family(small(tmp_path, ("reward: {alive: 1}\n", reward)))
    worlds = worlds_of(family, {"speed": [1.0]})
    worlds.step(torch.tensor([[-0.5, 0.5]], dtype=torch.float64))
    before = worlds.state["qpos"].clone()
    step = worlds.step(torch.tensor([[1.0, 0.9]], dtype=torch.float64))
    state = {name: value[0].clone() for name, value in worlds.state.items()}
    terms = {name: float(value) for name, value in step.terms.items()}
    speed, knee = float(state["qvel"][0]), float(state["qpos"][1])
    force, rate = state["actuator_force"], state["actuator_velocity"]
    tip = state["site_xpos"][0]
    # Of the action -1..1 of its bounds: (-0.5, 0), then (1, 1).
    expected = {
        "now": -2.0 * abs(speed - 1.0),
        "mean": float(state["qpos"][0] - before[0, 0]) / 0.02,
        "near": math.exp(-(((speed - 0.5) / 0.5) ** 2)),
        "posture": -((knee - 0.5) ** 2),
        "joint_speed": -0.1 * float(state["qvel"].square().sum()),
        "action": -2.0,
        "action_rate": -(1.5**2 + 1.0),
        "torque": -float(force.square().sum()),
        "power": -float((force * rate).abs().sum()),
        "far": -float((tip - torch.tensor([0.0, 0.0, 1.0])).norm()),
        "reach": math.exp(-float((tip - torch.tensor([0.5, 0.1, 0.5])).square().sum()) / 0.25),
    }
    assert terms == pytest.approx(expected)
    assert float(step.reward) == pytest.approx(sum(expected.values()))
    assert bool(step.terminated) == (knee > 0.55)
    assert step.success is not None
    assert bool(step.success.all())


def test_a_walker_is_measured_in_its_own_frame(tmp_path: Path) -> None:
    more = """  base_velocity: {term: track_velocity, weight: 1, command: 0.4, axis: y, width: 1}
  upright: 1
  height: {weight: 1, target: 0.3, width: 0.1}
  foot_slip: {weight: -1, geoms: "*_foot"}
  contact: {weight: -1, geoms: trunk}
ends:
  hit: {end: contact, geoms: trunk}
"""
    observation = "  - base_velocity\n  - base_height\n  - base_orientation\n  - contacts: {geoms: '*_foot'}\nreward:\n"
    family = robot_family(example(tmp_path, ("reward:\n", observation), ("ends:\n", more)))
    worlds = worlds_of(family, {"speed": [0.5, 0.5], "payload": [0.0, 0.0]})
    half = math.sqrt(0.5)
    qpos, qvel = worlds.state["qpos"].clone(), torch.zeros(2, 18, dtype=torch.float64)
    # Turned to the left, in the air, going along the world's x: that is backwards along its own y.
    qpos[:, 3:7] = torch.tensor([half, 0.0, 0.0, half], dtype=torch.float64)
    qpos[0, 2] = 0.5
    qvel[:, 0] = 0.4
    state = {**worlds.state, "qpos": qpos, "qvel": qvel}
    tasks = worlds.present
    assert tasks is not None
    seen = family.observe(state, tasks)[0]
    names = [row.meaning for row in family.observables]
    first = names.index("x of the base's velocity")
    assert seen[first : first + 3].tolist() == pytest.approx([0.0, -0.4, 0.0], abs=1e-12)
    assert float(seen[first + 3]) == 0.5
    terms = family.reward_terms(
        {**state, "previous_action": torch.zeros(2, 12).double()}, state, torch.zeros(2, 12).double(), tasks
    )
    assert float(terms["base_velocity"][0]) == pytest.approx(math.exp(-(0.8**2)))
    assert float(terms["upright"][0]) == pytest.approx(1.0)
    assert float(terms["height"][0]) == pytest.approx(math.exp(-4.0))
    assert float(terms["velocity_error"][0]) == pytest.approx(-0.5)
    middle = torch.tensor([family.action_low, family.action_high]).double().mean(0).repeat(2, 1)
    for _ in range(19):
        worlds.step(middle)
    step = worlds.step(middle)
    # It stands on all its feet, and on nothing else.
    assert step.observation[0, -4:].tolist() == [1.0] * 4
    assert float(step.terms["contact"].abs().sum()) == 0.0
    assert float(step.terms["foot_slip"].abs().max()) < 1e-3


def test_tasks_change_the_model_as_they_say(tmp_path: Path) -> None:
    tasks = """tasks:
  mass: {body: cart, field: mass, do: multiply, range: [0.5, 3]}
  load: {body: leg, field: mass, do: add, range: [0, 1], unit: kg}
  com: {body: leg, field: center_of_mass, do: add, axis: z, range: [-0.1, 0.1], unit: m}
  slip: {geom: "*", field: friction, do: set, range: [0.5, 2], unit: "", each: true}
  damp: {joint: knee, field: damping, do: set, range: [0, 1], unit: N m s/rad}
  kp: {actuator: knee, field: kp, do: multiply, range: [0.5, 2]}
  kd: {actuator: knee, field: kd, do: add, range: [0, 1], unit: N m s/rad}
  zero: {actuator: knee, field: offset, do: add, range: [-0.2, 0.2], unit: rad}
  weak: {actuator: rail, field: strength, do: multiply, range: [0.5, 1]}
  limit: {actuator: knee, field: effort, do: set, range: [1, 3], unit: N m}
  down: {world: gravity, do: set, axis: z, range: [-10, 0], unit: m/s²}
  bias: {observation: joint_positions, do: add, range: [-1, 1], unit: rad}
  gain: {observation: joint_velocities, do: multiply, range: [0.5, 2], each: true}
"""
    old = "tasks:\n  speed: {command: true, range: [0, 1], unit: m/s}\n"
    knee = ("observation: [joint_positions,", "observation: [joint_positions: {joints: knee},")
    family = robot_family(small(tmp_path, (old, tasks), knee))
    values = {
        **{"mass": [2.0], "load": [0.5], "com": [0.05], "slip": [[0.6, 0.7]], "damp": [0.3], "kp": [1.5], "kd": [0.25]},
        **{"zero": [0.1], "weak": [0.5], "limit": [2.0], "down": [-3.0], "bias": [0.2], "gain": [[0.5, 2.0]]},
    }
    worlds = worlds_of(family, values)
    model, own = family.model, worlds.physics.snapshot(0)[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert own.body_mass[1:].tolist() == [4.0, 1.5]
    np.testing.assert_allclose(own.body_inertia[1], 2.0 * model.body_inertia[1])
    np.testing.assert_array_equal(own.body_inertia[2], model.body_inertia[2])
    np.testing.assert_allclose(own.body_ipos[2] - model.body_ipos[2], [0.0, 0.0, 0.05], atol=1e-12)
    assert own.geom_friction[:, 0].tolist() == [0.6, 0.7]
    assert own.dof_damping.tolist() == [0.0, 0.3]
    assert own.actuator_gainprm[:, 0].tolist() == [2.0, 12.0]
    # 12 (control + 0.1 - position) - 0.75 speed.
    assert own.actuator_biasprm[1, :3] == pytest.approx([1.2, -12.0, -0.75])
    assert own.actuator_forcerange.tolist() == [[-2.0, 2.0], [-2.0, 2.0]]
    assert own.opt.gravity.tolist() == [0.0, 0.0, -3.0]
    state, present = worlds.state, worlds.present
    assert present is not None
    plain = torch.cat((state["qpos"][:, 1:] - 0.5 + 0.2, state["qvel"] * torch.tensor([0.5, 2.0])), dim=1)
    torch.testing.assert_close(family.observe(state, present), plain)


def test_noise_is_of_the_tasks_deviation_and_the_same_under_a_seed(tmp_path: Path) -> None:
    task = "  noise: {observation: joint_positions, do: noise, range: [0, 1], unit: rad}\n"
    knee = ("observation: [joint_positions,", "observation: [joint_positions: {joints: knee},")
    family = robot_family(small(tmp_path, ("unit: m/s}\n", f"unit: m/s}}\n{task}"), knee))
    tasks = {"speed": [0.0] * 300, "noise": [0.3] * 150 + [0.0] * 150}
    one, other = worlds_of(family, tasks), worlds_of(family, tasks)
    still = torch.tensor([[0.0, 0.5]], dtype=torch.float64).repeat(300, 1)
    first, second = one.step(still).observation, one.step(still).observation
    off = first[:, 0] - (one.state["qpos"][:, 1] - 0.5)
    assert float(off[:150].std()) == pytest.approx(0.3, abs=0.05)
    assert float(first[150:, 0].max()) == float(first[150:, 0].min())
    assert not torch.equal(first, second)
    assert torch.equal(first, other.step(still).observation)


def test_functions_of_ones_own_are_pieces(tmp_path: Path) -> None:
    (tmp_path / "own_pieces_of_leg.py").write_text(
        "def twice(robot, state, tasks):\n    return 2.0 * state['qpos'] + robot.home\n"
        "def fast(robot, before, state, action, tasks):\n    return (state['qpos'] - before['qpos'])[:, 0]\n"
        "def far(robot, state, tasks):\n    return state['qpos'][:, 0] > tasks['speed']\n"
        "def wrong(robot, state, tasks):\n    return state['qpos']\n"
    )
    part = "own: {function: 'own_pieces_of_leg.py:twice', units: [m, rad]}"
    term = "fast: {term: own, weight: 3, function: 'own_pieces_of_leg.py:fast', remember: [qpos]}"
    end = "ends: {far: {end: own, function: 'own_pieces_of_leg.py:far'}}"
    changes = (("[joint_positions, joint_velocities]", f"[{part}]"), ("{alive: 1}", f"{{{term}}}\n{end}"))
    family = robot_family(small(tmp_path, *changes))
    worlds = worlds_of(family, {"speed": [0.2, 0.3]})
    step = worlds.step(torch.tensor([[0.0, 0.5]], dtype=torch.float64).repeat(2, 1))
    moved = worlds.state["qpos"] - family.robot.build.home
    torch.testing.assert_close(step.observation, 3.0 * family.robot.build.home + 2.0 * moved)
    torch.testing.assert_close(step.reward, 3.0 * moved[:, 0])
    assert step.terminated.tolist() == [True, False]
    for old, new, text in (
        (
            ":twice",
            ":twize",
            "observation[0].own.function: own_pieces_of_leg.py has no function 'twize'. Did you mean 'twice'?",
        ),
        ("own_pieces_of_leg.py:fast", "none.py:fast", "reward.fast.function: there is no file"),
        ("[qpos]", "[qpoz]", "reward.fast.fields[0]: mjData has no field 'qpoz'."),
    ):
        with pytest.raises(UserError) as error:
            robot_family(small(tmp_path, *changes, (old, new)))
        assert text in str(error.value)
    family = robot_family(small(tmp_path, *changes, (":far", ":wrong")))
    worlds = worlds_of(family, {"speed": [0.0]})
    with pytest.raises(UserError, match=r"ends.far: the function returned float64 \[1, 2\]. It has to return booleans"):
        worlds.step(torch.zeros(1, 2, dtype=torch.float64))


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(child, "FOLDERS", [])
    yield
    forget()


def test_it_copies_and_pickles_and_takes_modifiers(tmp_path: Path) -> None:
    family = robot_family(example(tmp_path))
    again = pickle.loads(pickle.dumps(family))
    assert again.observables == family.observables
    assert copy.deepcopy(family) is family
    other = get(f"{tmp_path / 'quadruped.yaml'}+mass+switch")
    assert other.full_name == "quadruped@v1+mass+switch"
    assert get(f"{tmp_path / 'quadruped.yaml'}:quadruped@v1+horizon=7").horizon == 7
    with pytest.raises(UserError, match="has the family quadruped@v1, not 'walker'"):
        get(f"{tmp_path / 'quadruped.yaml'}:walker")


def test_a_urdf_walks_where_its_root_is_freed(tmp_path: Path) -> None:
    inertia = '<inertia ixx="0.1" iyy="0.1" izz="0.1" ixy="0" ixz="0" iyz="0"/>'
    one_joint = '<joint name="knee" type="revolute"><parent link="trunk"/><child link="leg"/><axis xyz="0 1 0"/>'
    (tmp_path / "one.urdf").write_text(
        f'<robot name="one"><link name="trunk"><inertial><mass value="2"/>{inertia}</inertial><collision><geometry>'
        '<box size="0.2 0.2 0.1"/></geometry></collision></link>'
        f'<link name="leg"><inertial><mass value="0.5"/>{inertia}</inertial></link>'
        f'{one_joint}<limit lower="-1" upper="1" effort="7" velocity="3"/></joint></robot>'
    )
    changes = (
        ("{file: leg.xml}", "{file: one.urdf, free_joint: trunk, floor: {friction: 0.5}}\ntime_step: 0.005"),
        ("  - {joints: rail, kind: motor, effort: 4}\n", ""),
        ("{keyframe: bent}", "{place: [0, 0, 0.5]}"),
        ("[joint_positions, joint_velocities]", "[joint_positions, gyro]"),
    )
    family = robot_family(small(tmp_path, *changes))
    assert family.model.nv == 7
    assert family.model.geom("floor").friction[0] == 0.5
    worlds = worlds_of(family, {"speed": [0.0]})
    worlds.step(torch.zeros(1, 1, dtype=torch.float64))
    assert float(worlds.state["qpos"][0, 2]) < 0.5
    for old, new, text in (
        ("free_joint: trunk", "free_joint: trnk", "model.free_joint: the model has no body 'trnk'."),
        ("free_joint: trunk", "free_joint: leg", "model.free_joint: the body 'leg' is carried by another one."),
    ):
        with pytest.raises(UserError) as error:
            robot_family(small(tmp_path, *changes, (old, new)))
        assert text in str(error.value)
