"""A hand that moves to a goal, in the way of Meta-World's base class."""

import pickle
from typing import Any

import gymnasium
import mujoco
import numpy as np

MODEL = """
<mujoco><worldbody><body name="box" pos="0 0 0"><joint name="x" type="slide" axis="1 0 0"/><geom size=".1"/></body>
<site name="goal"/></worldbody></mujoco>
"""


class Box:
    def __init__(self, size):
        self.low, self.high = -np.ones(size), np.ones(size)


class SawyerXYZEnv(gymnasium.Env):
    number, short = 0, False
    models = 0
    """How many models have been made."""

    def __init__(self, render_mode=None, camera_name=None, reward_function_version="v2"):
        self.reward_function_version, self.render_mode = reward_function_version, render_mode
        self.model, self.data = self._initialize_simulation()
        self._random_reset_space = Box(3 if self.short else 6)
        self._last_rand_vec: Any = None
        self._freeze_rand_vec, self._set_task_called = True, False
        self._partially_observable = True
        self.hand = np.zeros(3)

    def _initialize_simulation(self):
        SawyerXYZEnv.models += 1
        model = mujoco.MjModel.from_xml_string(MODEL)
        return model, mujoco.MjData(model)

    def set_task(self, task):
        self._set_task_called = True
        data = pickle.loads(task.data)
        assert isinstance(self, data["env_cls"])
        self._last_rand_vec, self._partially_observable = data["rand_vec"], data["partially_observable"]
        self._freeze_rand_vec = True

    def reset(self, *, seed=None, options=None):
        assert self._set_task_called
        if not self._freeze_rand_vec:
            size = self._random_reset_space.low.size
            self._last_rand_vec = np.random.uniform(-1.0, 1.0, size)  # noqa: NPY002
        self.steps, self.hand = 0, np.zeros(3)
        # A model that the class's other environments have changed would be seen in every observation.
        self.model.body("box").pos = self._last_rand_vec[:3]
        self.model.site("goal").pos = self._last_rand_vec[-3:]
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        return self._seen(), {}

    def _seen(self):
        goal = np.zeros(3) if self._partially_observable else self.model.site("goal").pos
        return np.hstack((self.hand, self.number, self.data.body("box").xpos, np.zeros(29), goal))

    def step(self, action):
        assert len(action) == 4
        if self.steps >= 500:
            raise ValueError("You must reset the env manually once truncate==True")
        self.steps += 1
        self.hand = self.hand + 0.01 * np.clip(action[:3], -1, 1)
        mujoco.mj_step(self.model, self.data)
        distance = float(np.linalg.norm(self.hand - self.model.site("goal").pos))
        reward = -distance if self.reward_function_version == "v1" else 10.0 / (1.0 + distance)
        return self._seen(), reward, False, self.steps == 500, {"success": float(distance < 0.5)}

    def render(self):
        assert self.render_mode == "rgb_array"
        picture = np.full((48, 64, 3), np.uint8(self.number))
        picture[-1] = 255
        return picture
