"""Plays Meta-World's environments as they are, each on its own; run by Meta-World's interpreter, prints JSON.

`python plain_meta_world.py STEPS CLASS ...`: two tasks of every class, twice each, the second time in the same
environment after the other task.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys

import numpy as np

ENVIRONMENTS = importlib.import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS
Task = importlib.import_module("metaworld.types").Task


def main(steps: int, names: list[str]) -> None:
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1.0, 1.0, (steps, 4))
    found = []
    for name in names:
        kind = ENVIRONMENTS[f"{name}-v3"]
        env = kind(reward_function_version="v2")
        # Goals near objects are drawn again, in some classes from the vector alone: they would not end.
        env._freeze_rand_vec, env._set_task_called = False, True
        vectors = []
        for _ in range(2):
            env.reset()
            vectors.append(env._last_rand_vec.copy())
        for number in (0, 1, 0):
            data = {"rand_vec": vectors[number], "env_cls": kind, "partially_observable": True}
            env.set_task(Task(f"{name}-v3", pickle.dumps(data)))
            seen, _ = env.reset()
            observations, rewards, successes = [seen.tolist()], [], []
            for action in actions.astype(np.float32):
                seen, reward, _, _, info = env.step(action)
                observations.append(seen.tolist())
                rewards.append(float(reward))
                successes.append(bool(info["success"]))
            found.append(
                {
                    "class": name,
                    "vector": vectors[number].tolist(),
                    "observations": observations,
                    "rewards": rewards,
                    "successes": successes,
                }
            )
        env.close()
    print(json.dumps({"actions": actions.tolist(), "episodes": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
