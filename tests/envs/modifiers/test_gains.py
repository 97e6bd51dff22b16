"""+gains: stiffness, damping, strength and saturation against a plain model changed by hand."""

from __future__ import annotations

import copy

import mujoco
import numpy as np
import pytest

from metarl.envs.family import MujocoFamily
from metarl.envs.modifiers.apply import modify
from metarl.envs.modifiers.gains import Gains
from metarl.errors import UserError
from metarl.types import Record
from tests.helpers.modified import actions_for, begun, by_hand, modified, stepped
from tests.helpers.plain_mujoco import SERVOS


def test_motors_have_strength_and_saturation() -> None:
    name = "half-cheetah-vel+gains"
    tasks = [
        {"velocity": 1.0, "strength_factor": 1.2, "saturation_factor": 0.9},
        {"velocity": 1.0, "strength_factor": 0.8, "saturation_factor": 1.25},
    ]
    worlds = begun(name, tasks)
    actions = actions_for(worlds)
    wanted = []
    for world, task in enumerate(tasks):
        # A motor's force is the control, so limiting the one is limiting the other.
        controls = (actions[:, world] * task["strength_factor"]).clamp(
            -task["saturation_factor"], task["saturation_factor"]
        )
        model = copy.copy(modified(name).base.model)  # pyright: ignore[reportAttributeAccessIssue]
        model.actuator_ctrllimited[:] = False
        wanted.append(by_hand(worlds, world, model, controls))
    positions, velocities, _ = stepped(worlds, actions)
    for world in range(len(tasks)):
        np.testing.assert_allclose(positions[:, world], wanted[world][0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(velocities[:, world], wanted[world][1], rtol=0, atol=1e-8)


def test_servos_have_stiffness_and_damping() -> None:
    # On the model of all kinds of actuators: two numbers of one entry of each.
    model = mujoco.MjModel.from_xml_string(SERVOS)
    scalings = {s.parameter.name: s for s in Gains(per="each").effect(_robot(model)).scalings}  # pyright: ignore
    picks = {
        name: {target.field: target.pick[:, :3].tolist() for target in scaling.targets}
        for name, scaling in scalings.items()
    }
    # Actuators: motor, position, position, velocity, damper, affine.
    none = [-1, -1, -1]
    assert picks["kp_factor"]["actuator_gainprm"] == [none, [0] * 3, [1] * 3, none, none, [2] * 3]
    assert picks["kp_factor"]["actuator_biasprm"] == [none, [0, 0, -1], [1, 1, -1], none, none, [2, 2, -1]]
    assert picks["kd_factor"]["actuator_biasprm"] == [none, [-1, -1, 0], [-1, -1, 1], [-1, -1, 2], none, [-1, -1, 3]]
    assert picks["kd_factor"]["actuator_gainprm"] == [none, none, none, [2] * 3, none, none]
    assert [row[0] for row in picks["strength_factor"]["actuator_gainprm"]] == [0, 1, 2, 3, 4, 5]
    assert picks["saturation_factor"]["actuator_forcerange"] == [[-1, -1], [0, 0], *[[-1, -1]] * 4]


def _robot(model: mujoco.MjModel) -> MujocoFamily:
    family = copy.copy(modified("half-cheetah-vel+mass").base)
    vars(family)["model"] = model
    assert isinstance(family, MujocoFamily)
    return family


def test_a_pd_servo_by_hand() -> None:
    model = mujoco.MjModel.from_xml_string(SERVOS)
    family = modify(_robot(model), Gains(low=0.5, high=2.0))
    assert isinstance(family, MujocoFamily)
    record: Record = {
        "velocity": 1.0,
        "kp_factor": 2.0,
        "kd_factor": 0.5,
        "strength_factor": 1.5,
        "saturation_factor": 0.6,
    }
    fields = family.apply(family.space.from_records([record]))
    data = mujoco.MjData(family.model)
    for name, value in fields.items():
        getattr(family.model, name)[:] = value[0].numpy()
    data.qpos[:], data.qvel[:] = (0.3, 0.2), (0.4, -0.6)
    data.ctrl[:] = 0.25
    mujoco.mj_forward(family.model, data)
    servo = 1.5 * (2.0 * 50.0 * (0.25 - 0.2) + 0.5 * 2.0 * 0.6)
    limited = 1.5 * (2.0 * 50.0 * (0.25 - 0.3) - 0.5 * 2.0 * 0.4)
    assert data.actuator_force[1] == pytest.approx(max(limited, -0.6 * 3.0))
    assert data.actuator_force[2] == pytest.approx(servo)
    assert data.actuator_force[3] == pytest.approx(1.5 * 0.5 * 4.0 * (0.25 + 0.6))
    assert data.actuator_force[0] == pytest.approx(1.5 * 0.25)


def test_a_robot_without_actuators_is_refused() -> None:
    still = mujoco.MjModel.from_xml_string("<mujoco><worldbody><body><geom size='1'/></body></worldbody></mujoco>")
    with pytest.raises(UserError, match=r"got \+gains for half-cheetah-vel@v5: this robot has no actuators"):
        Gains().effect(_robot(still))
