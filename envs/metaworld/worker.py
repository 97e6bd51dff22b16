"""Meta-World as its own interpreter sees it: an environment that changes its class with its task, and lists of tasks.

It is run by path, by a Python that has metaworld and not metarl. As a worker's environment (`MetaWorld`, see
envs/external) it is given a task at every reset: the number that Meta-World itself gives a class, and its vector, the
random numbers that a class makes its goal and its objects' start of. As a program, `python worker.py BENCHMARK SEED`
with ml1:CLASS, ml10, ml25 or ml45, it prints the tasks of Meta-World's own benchmark object with that seed, as JSON.

Meta-World's environments are used as they are, but for one thing: those of one class share one MuJoCo model, which is
nearly all of the memory that they take (21 MB). What a reset changes in a model, positions of bodies and sites, is put
back before another environment uses it, so that every number stays as it was.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np

VERSION = "3.1.1"
"""Of Meta-World: classes, goals and rewards differ between versions."""
MOVED = ("body_pos", "site_pos")
"""Fields of a model that a reset changes."""
LONGEST = 6
"""Numbers of the longest vector; shorter ones have zeros behind."""
EPISODE = 500
"""Steps, after which an episode is truncated."""
CAMERA = "corner2"
"""What pictures are taken with."""
SUFFIX = "-v3"
"""Of the names of Meta-World's classes."""

HOW = "run scripts/metaworld again, or name another python by METARL_METAWORLD"
if os.environ.get("METARL_METAWORLD"):
    HOW = "METARL_METAWORLD names it: name another one, or unset that and run scripts/metaworld"

try:
    import mujoco

    metaworld: Any = importlib.import_module("metaworld")
    ENVIRONMENTS = importlib.import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS
    Task = importlib.import_module("metaworld.types").Task
except ImportError as error:
    raise ImportError(f"{sys.executable} has no Meta-World that can be imported ({error}): {HOW}") from error
if version("metaworld") != VERSION:
    raise ImportError(f"{sys.executable} has metaworld {version('metaworld')}, and {VERSION} is needed: {HOW}")

CLASSES = list(ENVIRONMENTS)
"""Names of the classes, in the order of their numbers."""


class Shared:
    """The model of a class, and which environment uses it now."""

    def __init__(self) -> None:
        self.model: Any = None
        self.fresh: list[np.ndarray] = []
        self.user: Any = None

    def give(self, user: Any) -> None:
        """Make the model what it is to one of its environments."""
        if self.user is user:
            return
        if self.user is not None:
            self.user.moved = [getattr(self.model, name).copy() for name in MOVED]
        for name, values in zip(MOVED, user.moved or self.fresh, strict=True):
            getattr(self.model, name)[:] = values
        self.user = user


def sharing(kind: Any) -> Any:
    """Return a class of environments that does what `kind` does, all on one model."""
    shared = Shared()

    class Environment(kind):
        """One of them."""

        moved: list[np.ndarray] = []  # noqa: RUF012

        def _initialize_simulation(self) -> Any:
            if shared.model is None:
                shared.model, data = super()._initialize_simulation()
                shared.fresh = [getattr(shared.model, name).copy() for name in MOVED]
                shared.user = self
                return shared.model, data
            shared.give(self)
            return shared.model, mujoco.MjData(shared.model)

        def reset(self, **kwargs: Any) -> Any:
            shared.give(self)
            return super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            shared.give(self)
            return super().step(action)

        def render(self) -> Any:
            shared.give(self)
            return super().render()

    Environment.__name__ = kind.__name__
    return Environment


class MetaWorld(gymnasium.Env):
    """Any class of Meta-World, with its goal hidden; another one whenever a reset's task says so.

    Args:
        rewards: version of the reward functions, v1 or v2.
        render_mode: as Meta-World's own.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)

    kinds: dict[str, Any] = {}  # noqa: RUF012
    """Name of a class -> how one of its environments is made."""
    idle: dict[tuple[str, ...], list[Any]] = {}  # noqa: RUF012
    """Environments that no world uses, by what they are."""

    def __init__(self, rewards: str = "v2", render_mode: str | None = None) -> None:
        self.options = {"reward_function_version": rewards, "render_mode": render_mode, "camera_name": CAMERA}
        self.render_mode = render_mode
        self.name = ""
        self.inner: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode of `options["task"]`: the class's number and its vector."""
        task = options["task"]
        name = CLASSES[int(task["class"])]
        if name != self.name:
            self._become(name)
        vector = np.array(task["vector"])[: self.inner._random_reset_space.low.size]
        data = {"env_cls": ENVIRONMENTS[name], "rand_vec": vector, "partially_observable": True}
        self.inner.set_task(Task(env_name=name, data=pickle.dumps(data)))
        return self.inner.reset()

    def _become(self, name: str) -> None:
        """Take an environment of another class, and leave the present one to other worlds."""
        what = tuple(map(str, self.options.values()))
        if self.inner is not None:
            self.idle.setdefault((self.name, *what), []).append(self.inner)
        kept = self.idle.get((name, *what))
        if name not in self.kinds:
            self.kinds[name] = sharing(ENVIRONMENTS[name])
        self.inner = kept.pop() if kept else self.kinds[name](**self.options)
        self.name = name

    def step(self, action: Any) -> Any:
        """Take a step."""
        return self.inner.step(action)

    def render(self) -> Any:
        """Return a picture; the cameras in the corners stand on their heads."""
        return np.rot90(self.inner.render(), 2)

    def close(self) -> None:
        """Close all environments of this process; the first world does so for all."""
        for inner in [self.inner, *(one for kept in self.idle.values() for one in kept)]:
            if inner is not None:
                inner.close()
        self.idle.clear()
        self.inner = None


def tasks_of(name: str, seed: int) -> dict[str, Any]:
    """Return the tasks of a benchmark as Meta-World itself makes them: split -> class -> vectors."""
    benchmark, _, kind = name.partition(":")
    made = metaworld.ML1(f"{kind}{SUFFIX}", seed=seed) if kind else getattr(metaworld, benchmark.upper())(seed=seed)
    found: dict[str, Any] = {"metaworld": VERSION, "benchmark": name, "seed": seed}
    for split, tasks in (("train", made.train_tasks), ("test", made.test_tasks)):
        found[split] = {}
        for task in tasks:
            vectors = found[split].setdefault(task.env_name[: -len(SUFFIX)], [])
            vectors.append(pickle.loads(task.data)["rand_vec"].tolist())
    return found


if __name__ == "__main__":
    print(json.dumps(tasks_of(sys.argv[1], int(sys.argv[2]))))
