"""Robot files: every mistake is one line that names the key; the JSON Schema says the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from metarl.envs.robots.ends import ENDS
from metarl.envs.robots.file import read_file, schema, split_robot_file
from metarl.envs.robots.parts import PARTS
from metarl.envs.robots.quantities import QUANTITIES
from metarl.envs.robots.rewards import TERMS
from metarl.envs.robots.robot import make
from metarl.errors import UserError
from tests.helpers.readme import ROOT
from tests.helpers.robot_files import EXAMPLE, example, small

IN_FORM: list[tuple[str, str, str]] = [
    ("horizon: 200", "horizons: 200", "horizons: unknown key. Did you mean 'horizon'?"),
    ("horizon: 200", "horizon: 2.5", "horizon: got 2.5 where a whole number from 1 up to 1e+06 is needed"),
    ("horizon: 200", "horizon: .nan", "horizon: got nan where"),
    ("name: quadruped\n", "name: a/b\n", "name: got 'a/b' where a name of letters"),
    ("control_rate: 50 ", "control_rate: [50] ", "control_rate: got [50] where a number above 0 is needed"),
    ("model: {file: quadruped.xml, floor: true}", "model: quadruped.xml", "model: got 'quadruped.xml' where a mapping"),
    ("model: {file: quadruped.xml, floor: true}", "model: {floor: true}", "model.file: missing. It is MJCF"),
    ("floor: true", "floor: 3", "model.floor: got 3 where true or false or a mapping is needed"),
    ("kp: 40, kd: 1, effort: 20", "kp: -4", "actuators[0].kp: got -4 where a number above 0 is needed"),
    ("kd: 1, effort: 20", "kf: 1", "actuators[0].kf: unknown key."),
    ("kd: 1, effort: 20", "kind: spring", "actuators[0].kind: got 'spring'."),
    ("- gyro", "- giro", "observation[2]: there is no part 'giro'. Did you mean 'gyro'?"),
    ("- gyro", "- gyro: {clip: 0}", "observation[2].gyro.clip: got 0 where a number above 0 is needed"),
    ("- gyro", "- contacts", "observation[2].contacts.geoms: missing."),
    ("- gyro", "- 3", "observation[2]: got 3 where a part"),
    (
        "weight: -1, command: speed",
        "wieght: -1, command: speed",
        "reward.velocity_error.wieght: unknown key. Did you mean",
    ),
    ("weight: -1, command: speed", "command: speed", "reward.velocity_error.weight: missing."),
    ("  alive: 0.4", "  alife: 0.2", "reward.alife: there is no term 'alife'. Did you mean 'alive'?"),
    ("  alive: 0.4", "  alive: {weight: 0.2, term: alife}", "reward.alive.term: there is no term 'alife'."),
    ("  alive: 0.4", "  alive: yes", "reward.alive.weight: got True where a number is needed"),
    ("turning: 0.3", "turning: {weight: 0.3, width: 0}", "reward.track_turning.width: got 0 where a number above 0"),
    ("command: speed}", "command: speed, axis: w}", "reward.velocity_error.axis: got 'w'."),
    ("{end: height, below: 0.16}", "{end: hight, below: 0.16}", "ends.fall.end: there is no end 'hight'. Did you mean"),
    ("range: [0, 0.8]", "range: [0.8, 0]", "tasks.speed.range: got [0.8, 0], which is upside down"),
    ("range: [0, 0.8]", "range: [0, 0.4, 0.8]", "tasks.speed.range: got [0, 0.4, 0.8] where a range [LOW, HIGH]"),
    ("ood: [0.8, 1.1]", "ood: [1.1, 0.8]", "tasks.speed.ood: got [1.1, 0.8], which is upside down"),
    ("unit: m/s", "unit: mph", "tasks.speed.unit: got 'mph'."),
    ("unit: kg", "unit: lb", "tasks.payload.unit: got 'lb'. Choose from: kg."),
    (", unit: kg", "", "tasks.payload.unit: missing. The mass of a body is in kg."),
    ("do: add", "do: multiply", "tasks.payload.unit: got 'kg'."),
    (", do: add", "", "tasks.payload.do: missing. Choose from: add, multiply, set."),
    ("field: mass", "field: weight", "tasks.payload.field: got 'weight'."),
    ("field: mass, ", "", "tasks.payload.field: missing. Choose from: mass, inertia"),
    ("body: trunk", "bodies: trunk", "tasks.payload.bodies: unknown key. Did you mean 'body'?"),
    ("body: trunk", "body: trunk, geom: trunk", "tasks.payload: got body and geom of"),
    ("command: true, range: [0, 0.8], ", "command: true, ", "tasks.speed: got neither of range and choices."),
    ("command: true, range", "command: false, range", "tasks.speed.command: got false."),
]
"""What is replaced in the example by what, and what is said of it."""

IN_MODEL: list[tuple[str, str, str]] = [
    ("control_rate: 50 ", "control_rate: 60 ", "control_rate: got 60 Hz, which is 3.33333 steps of 0.005 s"),
    (
        "control_rate: 50 ",
        "time_step: 1.0e-9\ncontrol_rate: 50 ",
        "control_rate: got 50 Hz, and a time step of 1e-09 s, which are more than 10,000 physics steps of",
    ),
    ("control_rate: 50 ", "control_rate: 50\nframe_skip: 5 ", "control_rate: got it and frame_skip."),
    ("quadruped.xml", "quadruped.urdf", "model.file: there is no file"),
    ("quadruped.xml", "quadruped.obj", "model.file: got 'quadruped.obj'. Give an MJCF or URDF file"),
    (
        '"*_hip", kp',
        '"*_hop", kp',
        "actuators[0].joints: the model has no hinge or slide joint '*_hop'. Choose from: FL_hip,",
    ),
    ('["*_thigh", "*_calf"]', '["*_thigh", "*"]', "actuators[1].joints: 'FL_hip' has an actuator already."),
    ("kp: 40, kd: 1, effort: 20", "kd: 1", "actuators[0].kp: missing, and a servo needs it."),
    ("kp: 40, kd: 1, effort: 20", "kp: 4, kind: motor, effort: 2", "actuators[0]: got kp or kd for a motor"),
    ("kp: 40, kd: 1, effort: 20", "kind: motor, effort: 20", "action.reach.*_hip: 'FL_hip' is no servo on a joint."),
    ('"*_calf": 0.5}}', '"*_calf": 0.5, "tail": 1}}', "action.reach.tail: the model has no actuator 'tail'."),
    ('"*_calf": -1.5', '"*_calf": 1.5', "start.pose.*_calf: got 1.5 rad, but 'FL_calf' goes from -2.6 to -0.5 rad."),
    ("start:\n", "start:\n  keyframe: home\n", "start.keyframe: the model has no keyframe 'home'."),
    (
        "horizon: 200",
        "base: FL_hip\nhorizon: 200",
        "base: the body 'FL_hip' has no free joint; those that have one: trunk",
    ),
    ("horizon: 200", "camera: back\nhorizon: 200", "camera: the model has no camera 'back'."),
    ("- gyro", "- contacts: {geoms: '*_foto'}", "observation[2].contacts.geoms: the model has no geom '*_foto'."),
    ("- gyro", "- sensor: {name: imu}", "observation[2].sensor.name: the model has no sensor 'imu'."),
    (
        "command: speed",
        "command: sped",
        "reward.velocity_error.command: no task 'sped' is a command. Did you mean 'speed'?",
    ),
    ("command: speed", "command: payload", "reward.velocity_error.command: no task 'payload' is a command."),
    (
        "track_turning: 0.3",
        "track_turning: {weight: 1, command: speed}",
        "'speed' has the unit m/s, and rad/s is needed",
    ),
    (
        "track_turning: 0.3",
        "height: {weight: 1, target: 0.3, body: trnk}",
        "reward.height.body: the model has no body 'trnk'.",
    ),
    ("{end: height, below: 0.16}", "{end: height}", "ends.fall: got neither of below and above."),
    ("below: 0.16}", "below: 0.5, above: 0.4}", "ends.fall: got below 0.5 and above 0.4, so that every episode ends."),
    ("body: trunk", "body: trnk", "tasks.payload.body: the model has no body 'trnk'. Did you mean 'trunk'?"),
    ("range: [0, 4]", "range: [-9, 4]", "tasks.payload: the mass would get 0 or less."),
    ("ood: [0.8, 1.1]", "ood: [0.5, 1.1]", "tasks.speed: ood interval 0.5 to 1.1 must not overlap the training range"),
    ("range: [0, 0.8]", "range: [0, 0.8], scale: log", "tasks.speed: log-uniform takes no range from 0.0."),
    (
        "body: trunk, field: mass, do: add, range: [0, 4], ood: [4, 6], unit: kg",
        "joint: '*_hip', field: stiffness, do: multiply, range: [0.5, 2]",
        "tasks.payload: the stiffness is 0 in the model, so that nothing changes.",
    ),
    (
        "body: trunk, field: mass, do: add, range: [0, 4], ood: [4, 6], unit: kg",
        "joint: root, field: damping, do: set, range: [0.5, 2], unit: N m s/rad",
        "tasks.payload.joint: 'root' is neither a hinge nor a slide joint.",
    ),
    (
        "body: trunk, field: mass, do: add, range: [0, 4], ood: [4, 6], unit: kg",
        "observation: gyro, do: add, range: [0, 1], unit: rad",
        "tasks.payload.unit: got 'rad', but gyro is in rad/s.",
    ),
    (
        "body: trunk, field: mass, do: add, range: [0, 4], ood: [4, 6], unit: kg",
        "observation: gyro, do: noise, range: [-1, 1], unit: rad/s",
        "tasks.payload: got -1 for noise, whose standard deviation is at least 0.",
    ),
    (
        "body: trunk, field: mass, do: add, range: [0, 4], ood: [4, 6], unit: kg",
        "observation: giro, do: add, range: [0, 1], unit: rad/s",
        "tasks.payload.observation: there is no part 'giro'.",
    ),
]


VALIDATOR = jsonschema.Draft202012Validator(schema())


def said(file: Path) -> str:
    """Return what is said of a file that is wrong."""
    with pytest.raises(UserError) as error:
        make(file)
    text = str(error.value)
    assert "\n" not in text
    assert file.name in text
    return text


@pytest.mark.parametrize(("old", "new", "text"), IN_FORM, ids=[new for _, new, _ in IN_FORM])
def test_what_is_wrong_in_a_file_is_named_by_its_key_and_refused_by_the_schema(
    tmp_path: Path, old: str, new: str, text: str
) -> None:
    file = example(tmp_path, (old, new))
    assert text in said(file)
    # Two keys at once, and a mean range, are beyond JSON Schema.
    if "upside down" not in text and "true" not in new and "false" not in new:
        assert not VALIDATOR.is_valid(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(("old", "new", "text"), IN_MODEL, ids=[text for *_, text in IN_MODEL])
def test_what_does_not_fit_the_model_is_named_by_its_key(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert text in said(example(tmp_path, (old, new)))


def test_keys_stand_once_and_files_are_there(tmp_path: Path) -> None:
    assert "the entry 'horizon' stands twice" in said(example(tmp_path, ("horizon: 200", "horizon: 200\nhorizon: 3")))
    with pytest.raises(UserError, match=r"There is no robot file .*nowhere.yaml"):
        make(tmp_path / "nowhere.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    assert "is no UTF-8 text" in said(tmp_path / "bytes.yaml")


def test_models_are_read_with_care(tmp_path: Path) -> None:
    file = small(tmp_path)
    model = tmp_path / "leg.xml"
    whole = model.read_text()
    for old, new, text in (
        ('qpos="0.25 0.5"', 'qpos="0.25"', "start.keyframe: 'bent' has 1 numbers for qpos, and the model 2."),
        ('qpos="0.25 0.5"', 'qpos="0 0 0"', "start.keyframe: MuJoCo cannot compile the model: keyframe 'bent'"),
        ('qpos="0.25 0.5"', 'qpos="0.25 nan"', "start.keyframe: 'bent' has a number that is not finite in qpos."),
        (
            'qpos="0.25 0.5"',
            'qpos="0.25 90"',
            "start.keyframe: 'bent' has 90 rad for 'knee', which goes from -1 to 1 rad. Correct it in the model.",
        ),
        ("<keyframe>", "<nonsense/><keyframe>", "model.file: "),
        (
            "<mujoco>",
            "<mujoco><option timestep='x'/>",
            "cannot be read: bad format in attribute 'timestep' Element 'option', line 1. Mend",
        ),
        ("<worldbody>", '<asset><mesh name="m" file="m.stl"/></asset><worldbody>', "takes the mesh"),
        ("<worldbody>", '<include file="rest.xml"/><worldbody>', "model.file: leg.xml: there is no file"),
        (
            "<worldbody>",
            '<asset><model name="m" file="m.xml"/></asset><worldbody>',
            "takes the model m.xml within a model",
        ),
        ("<mujoco>", "<!DOCTYPE m [<!ENTITY a 'b'>]><mujoco>", "declares entities of its own"),
        ("</mujoco>", "", "is no XML"),
    ):
        model.write_text(whole.replace(old, new))
        assert text in said(file)


def test_a_pipe_in_place_of_a_mesh_is_told(tmp_path: Path) -> None:
    file = small(tmp_path)
    model = tmp_path / "leg.xml"
    model.write_text(
        model.read_text().replace("<worldbody>", '<asset><mesh name="m" file="m.stl"/></asset><worldbody>')
    )
    os.mkfifo(tmp_path / "m.stl")
    assert "m.stl is a pipe, and a regular file is needed" in said(file)


def test_the_schema_is_one_and_accepts_what_is_right(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    files = [EXAMPLE, small(tmp_path), *(tmp_path / name for name in _examples_of_readme(tmp_path))]
    assert len(files) > 2
    for file in files:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        VALIDATOR.validate(content)
        read_file(file)


def _examples_of_readme(folder: Path) -> list[str]:
    """Write the whole files that the room's page shows into a folder; return their names."""
    text = (ROOT / "envs" / "robots" / "README.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    whole = [block for block in blocks if block.lstrip("# ").startswith("go1.yaml") or "\nobservation:" in block]
    names = [f"readme{i}.yaml" for i in range(len(whole))]
    for name, block in zip(names, whole, strict=True):
        (folder / name).write_text(block, encoding="utf-8")
    return names


def test_the_example_is_short() -> None:
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 40


def test_the_page_of_the_room_names_every_piece() -> None:
    text = (ROOT / "envs" / "robots" / "README.md").read_text(encoding="utf-8")
    quantities = [name for of in QUANTITIES.values() for name in of]
    for name in (*PARTS, *TERMS, *ENDS, *quantities):
        assert f"`{name}`" in text, name


def test_names_of_files_are_told_from_names_of_families() -> None:
    assert split_robot_file("go1.yaml") == ("go1.yaml", "")
    assert split_robot_file("a+b/go1.yml+mass+switch") == ("a+b/go1.yml", "+mass+switch")
    assert split_robot_file("x/go1.yaml:go1@v1+horizon=5") == ("x/go1.yaml", ":go1@v1+horizon=5")
    assert split_robot_file("half-cheetah-vel+mass") == ("", "half-cheetah-vel+mass")
    assert split_robot_file("file.yaml.py:name") == ("", "file.yaml.py:name")
