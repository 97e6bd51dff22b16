"""Robot files for tests: the example of the repository, with changes; and a small one, whose numbers are known."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import gymnasium

from metarl.envs import registry
from tests.helpers.readme import ROOT

EXAMPLE = ROOT / "scripts" / "examples" / "robot" / "quadruped.yaml"

LEG = """<mujoco><compiler angle="radian"/><option timestep="0.005" gravity="0 0 0"/><worldbody>
  <body name="cart"><joint name="rail" type="slide" axis="1 0 0"/><geom name="box" size="0.1" mass="2"/>
    <body name="leg" pos="0 0 0.5"><joint name="knee" axis="0 1 0" range="-1 1" limited="true"/>
      <geom name="foot" type="capsule" fromto="0 0 0 0 0 0.2" size="0.02" mass="1"/>
      <site name="tip" pos="0 0 0.2"/></body>
  </body></worldbody><keyframe><key name="bent" qpos="0.25 0.5"/></keyframe></mujoco>"""
"""A cart of 2 kg on a rail, with a leg of 1 kg."""

FILE = """
model: {file: leg.xml}
control_rate: 50
horizon: 10
actuators:
  - {joints: knee, kp: 8, kd: 0.5, effort: 3}
  - {joints: rail, kind: motor, effort: 4}
action: {reach: {knee: 0.4}}
start: {keyframe: bent}
observation: [joint_positions, joint_velocities]
reward: {alive: 1}
tasks:
  speed: {command: true, range: [0, 1], unit: m/s}
"""
"""A family on it."""


def example(folder: Path, *changes: tuple[str, str]) -> Path:
    """Copy the example of the repository with its model into a folder, with texts replaced; return the file."""
    shutil.copy(EXAMPLE.with_suffix(".xml"), folder)
    return _written(folder / EXAMPLE.name, EXAMPLE.read_text(encoding="utf-8"), changes)


def small(folder: Path, *changes: tuple[str, str], name: str = "leg.yaml") -> Path:
    """Write the small robot file with its model into a folder, with texts replaced; return the file."""
    (folder / "leg.xml").write_text(LEG)
    return _written(folder / name, FILE, changes)


def _written(file: Path, text: str, changes: tuple[tuple[str, str], ...]) -> Path:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    return file


def forget() -> None:
    """Be a session that has read none of these files."""
    for name in [name for name, origin in registry._ORIGINS.items() if origin.robot is not None]:
        family = registry._ORIGINS.pop(name).robot
        assert family is not None
        registry._FAMILIES[family.name].pop(family.variant, None)
        if not registry._FAMILIES[family.name]:
            del registry._FAMILIES[family.name]
            gymnasium.registry.pop(registry.gymnasium_id(family.name), None)
        for modified in [other for other in registry._MODIFIED if other.startswith(f"{name}+")]:
            del registry._MODIFIED[modified]
    for module in [module for module in sys.modules if module.endswith("_of_leg")]:
        del sys.modules[module]
