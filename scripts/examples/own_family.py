"""A task family of your own on a MuJoCo model, and an agent that learns to adapt in it.

A cart on a rail is to stay in the middle. How far the rail is tilted differs from task to task, and nobody tells the
cart. Thousands of such worlds run side by side, each with its own tilt.

    python scripts/examples/own_family.py
    metarl evaluate runs/own-family --split train --random
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import mujoco
import torch

import metarl
from metarl.envs import MujocoFamily, Observable, Parameter, ParameterSpace

MODEL = """<mujoco><worldbody><body>
  <joint name="rail" type="slide" axis="1 0 0" damping="0.5"/> <geom size="0.1" mass="1"/>
</body></worldbody><actuator><motor joint="rail" gear="6"/></actuator></mujoco>"""
TILT = Parameter(name="tilt", unit="rad", description="tilt of the rail", scale="uniform", low=-0.5, high=0.5)
SPACE = ParameterSpace("tilted-rail@v1", (TILT,))


@dataclass(frozen=True, kw_only=True)
class TiltedRail(MujocoFamily):
    """A cart that is pulled down a rail of unknown tilt; written for many worlds at once: [B, ...] in torch."""

    name: str = "tilted-rail"
    variant: str = "v1"
    summary: str = "hold a cart on a rail of unknown tilt"
    source: str = "own_family.py"
    horizon: int = 50
    frame_skip: int = 10
    step_seconds: float = 0.02
    action_low: tuple[float, ...] = (-1.0,)
    action_high: tuple[float, ...] = (1.0,)
    action_unit: str = "6 N"
    space: ParameterSpace = SPACE
    observables: tuple[Observable, ...] = (Observable("position", "rail", "m"), Observable("speed", "rail", "m/s"))

    def model_spec(self):
        """Return the model that all tasks share."""
        return mujoco.MjSpec.from_string(MODEL)

    def apply(self, tasks):
        """Return what of the model differs from task to task: here gravity, seen from the rail."""
        down = torch.stack((tasks["tilt"].sin(), torch.zeros(len(tasks)), -tasks["tilt"].cos()), dim=1)
        return {"opt.gravity": 9.81 * down}

    def reset_state(self, generator, tasks):
        """Return where an episode begins: near the middle, at rest."""
        position = 0.05 * torch.randn(len(tasks), 1, generator=generator, dtype=torch.float64)
        return {"qpos": position, "qvel": torch.zeros_like(position)}

    def observe(self, state, tasks):
        """Return what the agent sees."""
        return torch.cat((state["qpos"], state["qvel"]), dim=1)

    def reward_terms(self, before, state, action, tasks):
        """Return the rewards of a step by name."""
        return {"position": -state["qpos"][:, 0].abs(), "control": -0.01 * action[:, 0].square()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=30, help="of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/own-family"), help="run folder (%(default)s)")
    options = parser.parse_args()
    # A run folder names the family by its file, so that commands find it too.
    name = f"{__file__}:tilted-rail"
    run = metarl.train("maml-trpo", name, iterations=options.iterations, tasks=10, episodes=10, out=options.out)
    print(metarl.evaluate(run, random=True, out=options.out / "evaluation" / "test"))
else:
    # Whoever imports this file, `metarl` by the name FILE:tilted-rail for one, has the family.
    metarl.envs.register(TiltedRail())
