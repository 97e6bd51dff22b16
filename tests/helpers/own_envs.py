"""Environments as a user of metarl has them: plain Gymnasium, run by worker processes. Nothing here imports metarl."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces

FREE = spaces.Box(-np.inf, np.inf, (2,), np.float64)
UNIT = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Reach(gymnasium.Env):
    """A point that is to go to `goal`; its start and every move are noisy."""

    def __init__(self, noise: float = 0.01, observation_space: Any = FREE, action_space: Any = UNIT) -> None:
        self.noise = noise
        self.observation_space = observation_space
        self.action_space = action_space
        self.goal: Any = None

    def set_goal(self, task: dict[str, Any]) -> None:
        self.goal = task["goal"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if options is not None:
            self.goal = options["task"]["goal"]
        print("a user's print goes nowhere near the messages")
        self.position = self.np_random.normal(0.0, 1.0, 2)
        return self.position, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position = self.position + 0.1 * action + self.noise * self.np_random.normal(size=2)
        distance = float(np.linalg.norm(self.position - np.array(self.goal)))
        return self.position, -distance, False, False, {"success": distance < 1.0}


def set_goal(env: Any, task: dict[str, Any]) -> None:
    env.unwrapped.set_goal(task)


def wrapped() -> gymnasium.Env:
    return gymnasium.wrappers.TimeLimit(Reach(), 1000)


class Clock(gymnasium.Env):
    """Observes its time; ends by itself after `ends` steps, in a terminal state or cut off."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Discrete(3, start=5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if options:
            self.task = options["task"]
        self.time = 0
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        ended = self.time >= abs(self.task["ends"])
        return (
            np.array([self.time]),
            float(action),
            ended and self.task["ends"] > 0,
            ended and self.task["ends"] < 0,
            {},
        )


class SlowClock(Clock):
    """A clock that takes its time to begin."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        time.sleep(0.2)
        return super().reset(seed=seed, options=options)


class Shapes(gymnasium.Env):
    """Observes its last action in several spaces."""

    observation_space = spaces.Dict(
        {"last": spaces.Box(-9.0, 9.0, (2, 2)), "pair": spaces.Tuple((spaces.Discrete(3), spaces.Box(0.0, 1.0, ())))}
    )
    action_space = spaces.Box(
        np.array([[-3.0, 0.0], [0.0, 0.0]], np.float32), np.array([[3.0, 1.0], [2.0, 4.0]], np.float32)
    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._seen(np.zeros((2, 2), np.float32)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self._seen(action), 1.0, False, False, {}

    def _seen(self, action: Any) -> dict[str, Any]:
        return {"last": action, "pair": (np.int64(2), np.float32(0.5))}


class Trouble(Reach):
    """Does what `what` names, in a step where not said otherwise, in the worlds whose goal lies right of `right`."""

    def __init__(self, what: str, right: float = -9.0) -> None:
        super().__init__()
        self.what = what
        self.right = right
        if what == "make":
            raise RuntimeError("no such robot here")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        if self.what == "reset":
            raise KeyError("goal in the wall")
        return (observation * np.nan if self.what == "nan at reset" else observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, _, _, info = super().step(action)
        if self.goal[0] < self.right:
            return observation, reward, False, False, info
        if self.what == "raise":
            raise ZeroDivisionError("the arm\nhas no length")
        if self.what == "leave":
            sys.exit("good bye")
        if self.what == "exit":
            print("my last words", file=sys.stderr, flush=True)
            os._exit(3)
        if self.what in ("SIGKILL", "SIGSEGV", "SIGSTOP"):
            os.kill(os.getpid(), signal.Signals[self.what])
        if self.what == "sleep":
            time.sleep(60.0)
        if self.what == "no reward":
            return observation, cast(Any, None), False, False, info
        if self.what == "nan reward":
            return observation, float("nan"), False, False, info
        if self.what == "nan":
            return observation * np.nan, reward, False, False, info
        if self.what == "shape":
            return observation[:1], reward, False, False, info
        if self.what == "success":
            return observation, reward, False, False, {"success": np.nan}
        return observation, reward, False, False, {}


class Simulator(Trouble):
    """Starts processes in every way that one gets away from its parent, and notes them in a file."""

    def __init__(self, notes: str, what: str = "") -> None:
        super().__init__(what)
        self.notes = notes
        note = f"echo $$ >> {shlex.quote(notes)}; exec sleep 300"
        quiet: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        subprocess.Popen(["sh", "-c", note])
        subprocess.Popen(["sh", "-c", f"trap '' TERM HUP INT; {note}"], start_new_session=True, **quiet)
        subprocess.Popen(["sh", "-c", note], start_new_session=True, env={"PATH": os.environ["PATH"]})
        # A daemon: the one that started it ends at once.
        subprocess.run(["sh", "-c", f"setsid sh -c {shlex.quote(note)} & exit 0"], check=True, **quiet)
        if os.fork() == 0:
            # Holds the connection to metarl too.
            os.setsid()
            self._note()
            time.sleep(300.0)
        self._note()

    def _note(self) -> None:
        with open(self.notes, "a") as file:  # noqa: PTH123
            file.write(f"{os.getpid()}\n")


class Warns(Reach):
    """Has MuJoCo warn in every step."""

    def __init__(self) -> None:
        super().__init__()
        import mujoco

        body = "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"
        self.model = mujoco.MjModel.from_xml_string(body)
        self.data, self.advance = mujoco.MjData(self.model), mujoco.mj_step

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.data.qvel[:] = 1e12
        self.advance(self.model, self.data)
        return super().step(action)


class Imports(Reach):
    """Observes whether torch and metarl have been imported, and the thread limit."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        heavy = [name for name in sys.modules if name.split(".")[0] in ("torch", "metarl", "mujoco", "jaxtyping")]
        return np.array([len(heavy), float("PYTHONPATH" in os.environ)]), {}


def worlds(num_envs: int, mode: str = "Disabled", **kwargs: Any) -> gymnasium.vector.VectorEnv:
    """Return a vector environment."""
    return gymnasium.vector.SyncVectorEnv([lambda: Reach(**kwargs)] * num_envs, autoreset_mode=mode)


def clocks(num_envs: int, mode: str) -> gymnasium.vector.VectorEnv:
    return gymnasium.vector.SyncVectorEnv([Clock] * num_envs, autoreset_mode=mode)


def set_goals(envs: Any, tasks: list[dict[str, Any]]) -> None:
    for env, task in zip(envs.envs, tasks, strict=True):
        env.goal = task["goal"]


def set_ends(envs: Any, tasks: list[dict[str, Any]]) -> None:
    for env, task in zip(envs.envs, tasks, strict=True):
        env.task = task


class Echo(gymnasium.Env):
    """Observes its last action, two choices; or pictures among other numbers, which may belie their space."""

    def __init__(self, kind: str, turned: bool = False, bright: bool = False) -> None:
        self.kind, self.turned, self.bright = kind, turned, bright
        self.action_space = spaces.MultiDiscrete([3, 2])
        self.observation_space = FREE
        if kind == "pictures":
            parts = {"a": spaces.Box(0, 255, (8, 8, 3), np.uint8), "b": spaces.Box(0.0, 1.0, (8, 9))}
            self.observation_space = spaces.Dict({"0": FREE, **parts, "c": spaces.Discrete(3)})

    def _seen(self, action: Any) -> Any:
        if self.kind != "pictures":
            return np.array(action, np.float64)
        pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        other = np.zeros((8, 9), np.float32)
        other[0, 0] = 255.0 if self.bright else 1.0
        return {"0": np.zeros(2), "a": pixels.transpose(2, 0, 1) if self.turned else pixels, "b": other, "c": 1}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._seen([0, 0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self._seen(action), 1.0, False, False, {}


class Drawn(Reach):
    """Draws how many steps it has taken, and whether it was told to draw."""

    def __init__(self, what: str = "", render_mode: str | None = None) -> None:
        super().__init__()
        self.what, self.render_mode, self.steps = what, render_mode, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return super().step(action)

    def render(self) -> Any:
        if self.what == "gl":
            raise RuntimeError("no display")
        if self.what == "grey":
            return np.zeros((20, 20), np.uint8)
        told = self.render_mode == "rgb_array" and self.what != "none"
        return np.full((20, 20, 3), (self.steps, 0, 7), np.uint8) if told else None


def drawn_worlds(num_envs: int, render_mode: str | None = None) -> gymnasium.vector.VectorEnv:
    return gymnasium.vector.SyncVectorEnv([lambda: Drawn("", render_mode)] * num_envs, autoreset_mode="Disabled")
