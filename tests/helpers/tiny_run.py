"""The run driver with a tiny agent, in a process of its own: `python -m tests.helpers.tiny_run FOLDER [--resume]`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarl.run.driver import TrainResult, iterations_of, train
from metarl.run.settings import RunConfig
from metarl.seeding import Streams
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import BatchEnv, Learner, Metrics, SampleTasks, Step, Tasks

SPACE = ParameterSpace(
    "tiny",
    (Parameter(name="goal", unit="m", description="goal", scale="uniform", low=-1.0, high=1.0, size=4),),
)
RUN = RunConfig(family="tiny", agent="follower", seed=3, threads=1, checkpoint_every=4)
ITERATIONS = 50
PAUSE = 0.05
"""How long an iteration takes, s: long enough that a test can kill the process between two of them."""


@dataclass(frozen=True, kw_only=True)
class FollowerConfig:
    iterations: int = ITERATIONS
    rate: float = 0.1
    seconds: float = 0.0
    """How long an iteration takes at least, s."""


class Follower:
    """Follows the goals with momentum: its state depends on every draw of both streams so far."""

    name = "follower"
    trial = 1
    pools = True

    def __init__(self, config: FollowerConfig) -> None:
        self.config = config
        self.position = torch.zeros(4, dtype=torch.float64)
        self.velocity = torch.zeros(4, dtype=torch.float64)

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        time.sleep(self.config.seconds)
        goal = sample_tasks(3, "train", streams["tasks"])["goal"].mean(0)
        noise = torch.randn(4, generator=streams["noise"], dtype=torch.float64)
        self.velocity = 0.9 * self.velocity + self.config.rate * (goal - self.position + 0.1 * noise)
        self.position = self.position + self.velocity
        distance = float((goal - self.position).norm())
        return {"return/pre": -distance - 1.0, "return/post": -distance, "env/steps": 12.0}

    def start(self, tasks: Tasks) -> Learner:
        raise NotImplementedError("this agent is only trained")

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.velocity = state["position"], state["velocity"]


class NoWorlds:
    """A BatchEnv that the agent never steps."""

    family_name = "tiny"
    num_worlds = 1
    horizon = 1
    observation_size = 1
    action_size = 1
    failures = 0

    def set_tasks(self, tasks: Tasks) -> None:
        raise NotImplementedError

    def reset(self, generator: torch.Generator) -> torch.Tensor:
        raise NotImplementedError

    def step(self, action: torch.Tensor) -> Step:
        raise NotImplementedError


def start(
    folder: Path,
    config: FollowerConfig,
    *,
    run: RunConfig = RUN,
    iterations: int = ITERATIONS,
    **options: Any,
) -> tuple[Follower, TrainResult]:
    """Make everything afresh, as a new process would, and train."""
    agent, streams = Follower(config), Streams(run.seed)
    step = iterations_of(agent, NoWorlds(), SPACE.sample, streams)
    result = train(folder, run, agent, step, streams, iterations, **options)
    return agent, result


if __name__ == "__main__":
    start(Path(sys.argv[1]), FollowerConfig(seconds=PAUSE), resume="--resume" in sys.argv)
