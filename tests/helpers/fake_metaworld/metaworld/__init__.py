"""A small package in the layout of Meta-World: what tests of metarl's families ask for, and nothing else."""

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from .env_dict import ALL_V3_ENVIRONMENTS
from .types import Task

ML10_TRAIN = (
    "reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open sweep basketball"
)
ML10_TEST = "drawer-open door-close shelf-place sweep-into lever-pull"

_every: Any = ALL_V3_ENVIRONMENTS


def _tasks(classes, seed):
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    tasks = []
    for name, kind in classes.items():
        env = kind()
        env._freeze_rand_vec, env._set_task_called = False, True
        for _ in range(50):
            env.reset()
            data = {"rand_vec": env._last_rand_vec, "env_cls": kind, "partially_observable": True}
            tasks.append(Task(env_name=name, data=pickle.dumps(data)))
    np.random.set_state(before)  # noqa: NPY002
    return tasks


def _classes(names) -> Any:
    return OrderedDict((f"{name}-v3", _every[f"{name}-v3"]) for name in names.split())


class ML1:
    def __init__(self, env_name, seed=0):
        self.train_classes = self.test_classes = OrderedDict([(env_name, ALL_V3_ENVIRONMENTS[env_name])])
        self.train_tasks, self.test_tasks = _tasks(self.train_classes, seed), _tasks(self.test_classes, seed + 1)


class ML10:
    def __init__(self, seed=0):
        self.train_classes, self.test_classes = _classes(ML10_TRAIN), _classes(ML10_TEST)
        self.train_tasks, self.test_tasks = _tasks(self.train_classes, seed), _tasks(self.test_classes, seed)
