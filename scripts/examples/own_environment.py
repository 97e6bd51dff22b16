"""A Gymnasium environment of your own becomes a family of tasks, and an agent learns to adapt in it.

A boat drifts in a current that it cannot see, and is to stay at a buoy: a task is a current. The environment gets its
task at every reset, and runs in worker processes that import this file; so all that needs torch stands in `main`.

    python scripts/examples/own_environment.py
    tensorboard --logdir runs/own-environment
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

import metarl


class Boat(gymnasium.Env):
    """Observes where it is; its engine can just hold against the strongest current."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Begin near the buoy, in the current of the task."""
        super().reset(seed=seed)
        self.current = np.array((options or {}).get("task", {"current": [0.0, 0.0]})["current"])
        self.position = self.np_random.normal(0.0, 0.1, 2)
        return self.position, {}

    def step(self, action):
        """Move by engine and current, one second."""
        self.position = self.position + 0.2 * (action + self.current)
        return self.position, -float(np.linalg.norm(self.position)), False, False, {}


def main() -> None:
    """Train on some currents, adapt to others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=30, help="of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/own-environment"), help="run folder (%(default)s)")
    options = parser.parse_args()

    current = metarl.envs.Parameter(
        name="current", unit="m/s", description="speed of the water", scale="uniform", low=-1.0, high=1.0, size=2
    )
    boat = metarl.envs.GymnasiumFamily(name="boat", make=Boat, parameters=(current,), horizon=30)
    metarl.envs.register(boat)

    run = metarl.train("maml-trpo", boat, iterations=options.iterations, tasks=10, episodes=10, out=options.out)
    curve = metarl.evaluate(run, random=True, out=options.out / "evaluation" / "test")
    print(curve)
    print(f"Picture  {options.out / 'evaluation' / 'test' / 'adaptation.png'}")


if __name__ == "__main__":
    main()
