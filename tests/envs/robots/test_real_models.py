"""Robots that packages on the index carry, read as data: skipped where they are not there (see the room's README)."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from metarl.api.checking import check
from metarl.envs import make_worlds
from metarl.envs.horizon import with_horizon
from metarl.envs.robots.robot_family import robot_family
from tests.helpers.readme import ROOT

GO1 = "mjlab/asset_zoo/robots/unitree_go1/xmls/go1.xml"
G1 = "mjlab/asset_zoo/robots/unitree_g1/xmls/g1.xml"
YAM = "mjlab/asset_zoo/robots/i2rt_yam/xmls/yam.xml"
FETCH = "gymnasium_robotics/envs/assets/fetch/reach.xml"

HUMANOID = """
model: {file: FILE, floor: true}
time_step: 0.004
integrator: implicitfast
control_rate: 50
horizon: 20
actuators:
  - {joints: ["*_hip_*", "*_knee_*", "waist_*"], kp: 100, kd: 4, effort: 88, armature: 0.01}
  - {joints: "*_ankle_*", kp: 40, kd: 2, effort: 50, armature: 0.007}
  - {joints: ["*_shoulder_*", "*_elbow_*", "*_wrist_*"], kp: 30, kd: 2, effort: 25, armature: 0.004}
action: {reach: 0.3}
start: {place: [0, 0, 0.79], pose: {"*_knee_joint": 0.2, "*_hip_pitch_joint": -0.1, "*_ankle_pitch_joint": -0.1}}
observation: [joint_positions, joint_velocities, gyro, projected_gravity, {sensor: {name: imu_lin_vel}}]
reward: {upright: 1, track_velocity: {weight: 1, command: speed}}
ends: {fall: {end: height, below: 0.4}}
tasks:
  speed: {command: true, range: [0, 1], unit: m/s}
  load: {body: torso_link, field: mass, do: add, range: [0, 5], unit: kg}
"""
ARM = """
model: {file: FILE}
time_step: 0.002
integrator: implicitfast
control_rate: 50
horizon: 20
actuators:
  - {joints: "joint[1-6]", kp: 60, kd: 3, effort: 28, armature: 0.01}
  - {joints: left_finger, kp: 500, kd: 10, effort: 20}
action: {reach: {"joint*": 0.5, left_finger: 0.02}}
start: {pose: {joint2: 1.0, joint3: 1.0}, noise: {position: 0.02}}
observation: [joint_positions, joint_velocities, {position: {of: body, name: link_6}}]
reward: {action: -1, joint_speed: -0.01}
tasks:
  friction: {joint: "joint[1-6]", field: friction_loss, do: set, range: [0, 0.5], unit: N m, each: true}
  load: {body: link_6, field: mass, do: add, range: [0, 1], unit: kg}
"""
REACH = """
model: {file: FILE}
control_rate: 25
horizon: 20
actuators:
  - {joints: ["*_pan_joint", "*_lift_joint", "*_roll_joint", "*_flex_joint"], kp: 200, kd: 40, effort: 60, armature: 1}
  - {joints: ["robot0:slide*", "*_tilt_joint", "*_finger_joint"], kp: 2000, kd: 400, armature: 1}
action: {reach: 0.3}
observation: [joint_positions, joint_velocities, {position: {of: site, name: "robot0:grip"}}]
reward: {distance: {weight: -1, site: "robot0:grip", to: [x, y, 0.6]}}
success: {site: "robot0:grip", to: [x, y, 0.6], below: 0.05}
tasks:
  x: {command: true, range: [0.4, 0.8], unit: m}
  y: {command: true, range: [-0.3, 0.3], unit: m}
"""


def model(name: str) -> Path:
    """Return a model of a package that is unzipped in $METARL_ROBOTS, or installed."""
    places = [Path(os.environ["METARL_ROBOTS"])] if os.environ.get("METARL_ROBOTS") else []
    spec = importlib.util.find_spec(name.partition("/")[0])
    places += [] if spec is None or spec.origin is None else [Path(spec.origin).parents[1]]
    found = next(
        (file for place in places for file in (place / name, *place.glob(f"*/{name}")) if file.is_file()), None
    )
    if found is None:
        pytest.skip(f"no {name}: unzip the package into a folder, and name that in METARL_ROBOTS")
    return found


def go1() -> str:
    """Return the whole file that the page of the room shows."""
    text = (ROOT / "envs" / "robots" / "README.md").read_text(encoding="utf-8")
    return text.partition("```yaml\n")[2].partition("```")[0].replace("go1/go1.xml", "FILE")


@pytest.mark.parametrize(
    ("name", "text", "mass", "actuators"),
    [(GO1, go1(), 12.74, 12), (G1, HUMANOID, 33.34, 29), (YAM, ARM, 4.006, 7), (FETCH, REACH, 0.0, 15)],
    ids=["go1", "g1", "yam", "fetch"],
)
def test_real_robots_hold(tmp_path: Path, name: str, text: str, mass: float, actuators: int) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(text.replace("FILE", str(model(name))))
    family = with_horizon(robot_family(file), 20)
    assert family.model.nu == actuators
    if mass:
        assert float(family.model.body_mass.sum()) == pytest.approx(mass, rel=0.02)
    # The mesh files count as parts of it.
    assert len(family.sources) > 4
    found = check(family, 8, threads=1)
    assert found.failures == 0
    worlds = make_worlds(family, 2, threads=1)
    worlds.set_tasks(family.space.sample(2, "train", torch.Generator().manual_seed(0)))
    assert bool(worlds.reset(torch.Generator().manual_seed(0)).isfinite().all())
