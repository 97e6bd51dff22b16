"""Benchmark of environments of one's own: worlds in worker processes beside a bare loop in the same processes.

The bare loop steps the same environments, each process its own by itself, by random actions and with nothing sent: the
most that these processes can give. Our worlds are stepped by a policy, and what they observe comes back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console

from metarl.bench.timing import explain, in_turn, percent, print_table
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import make_worlds
from metarl.envs.external.adapter import GymnasiumFamily, WorkerPhysics
from metarl.envs.external.pool import Pool
from metarl.envs.registry import resolve
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.nets.policy import MLP, make_policy
from metarl.types import Tasks

COLUMNS = {
    "env-steps/s": "of all worlds or loops together, without resets",
    "to the loop": "its steps a second over those of the bare loop",
    "spread": "quartiles of that ratio over the rounds",
    "resets": "what beginning an episode takes, as a share of a whole one",
}
"""What the columns mean."""
OURS, LOOP = "worlds, by a policy", "bare loop"


@dataclass(frozen=True, kw_only=True)
class ExternalConfig:
    """What worker processes cost an environment of one's own, Meta-World for example."""

    family: str = "ml1@reach"
    """A family whose environments run in worker processes; `path/file.py:name` for one of your own."""
    worlds: int = 50
    """Parallel worlds."""
    processes: int = 0
    """Worker processes; 0 takes one a core."""
    steps: int = 100
    """Steps of every world in a round; an episode's at most."""
    rounds: int = 7
    """Rounds in which the contenders take turns."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(self, at_least={"worlds": 1, "processes": 0, "steps": 1, "rounds": 1})
        check(self, at_most={"rounds": MOST_STEPS, "steps": MOST_STEPS})


def run_external(config: ExternalConfig) -> dict[str, Any]:
    """Measure, print and return env-steps per second of worlds in workers and of bare loops."""
    family = resolve(config.family)
    if not isinstance(family, GymnasiumFamily) or family.vector:
        raise UserError(
            f"Got {family.full_name}. Choose a family whose worlds are Gymnasium environments in worker processes, "
            "one each (GymnasiumFamily without vector=True)."
        )
    if config.steps > family.horizon:
        raise UserError(f"Got --steps {config.steps}. An episode of {family.full_name} has {family.horizon}.")
    processes = min(resolve_threads(config.processes), config.worlds)
    generator = torch.Generator().manual_seed(0)
    tasks = family.space.sample(config.worlds, "train", generator)
    ours = Ours(make_worlds(family, config.worlds, threads=processes), tasks, config.steps)
    with torch_threads(1):
        figures = in_turn(config.rounds, {OURS: ours, LOOP: ours.loop})
    ours.pool.close()
    resets = [spent for _, spent in figures[OURS]]
    speeds = {name: [speed for speed, _ in found] for name, found in figures.items()}
    ratios = [a / b for a, b in zip(speeds[OURS], speeds[LOOP], strict=True)]
    report = {
        "family": family.full_name,
        "worlds": config.worlds,
        "processes": processes,
        "steps": config.steps,
        "rounds": config.rounds,
        "env_steps_per_second": {name: median(found) for name, found in speeds.items()},
        "to_the_loop": median(ratios),
        "quartiles": np.quantile(ratios, (0.25, 0.75)).tolist(),
        "resets_share": median(
            spent / (spent + family.horizon * config.worlds / speed)
            for spent, speed in zip(resets, speeds[OURS], strict=True)
        ),
    }
    if not config.json:
        _print(report)
    return report


class Ours:
    """Worlds that a new policy steps, two hidden layers of 64."""

    def __init__(self, worlds: Worlds, tasks: Tasks, steps: int) -> None:
        self.worlds, self.steps = worlds, steps
        spec = worlds.family.spec()
        network = MLP(inputs=spec.observation_size, hidden=(64, 64), outputs=spec.action_size)
        self.policy = make_policy(network, choices=spec.choices, initial_std=1.0)
        self.generator = torch.Generator().manual_seed(0)
        self.params = self.policy.init(self.generator)
        worlds.set_tasks(tasks)

    @property
    def pool(self) -> Pool:
        """The processes of the worlds."""
        assert isinstance(self.worlds.physics, WorkerPhysics)
        return self.worlds.physics.pool

    @torch.no_grad()
    def __call__(self) -> tuple[float, float]:
        """Return env-steps per second, and the seconds of beginning an episode in all worlds."""
        started = time.perf_counter()
        seen = self.worlds.reset(self.generator)
        begun = time.perf_counter()
        running, taken = torch.ones(self.worlds.num_worlds, dtype=torch.bool), 0
        for _ in range(self.steps):
            step = self.worlds.step(self.policy(self.params, seen).sample(self.generator))
            taken += int(running.sum())
            # A world whose episode has ended stands still.
            running &= ~(step.terminated | step.truncated)
            seen = step.observation
        return taken / (time.perf_counter() - begun), begun - started

    def loop(self) -> tuple[float, float]:
        """Return env-steps per second of the processes by themselves; and no seconds of a reset."""
        self.worlds.reset(self.generator)
        # As long as the slowest of them.
        return self.steps * self.worlds.num_worlds / max(self.pool.loop(self.steps)), 0.0


def _print(report: dict[str, Any]) -> None:
    low, high = report["quartiles"]
    speeds = report["env_steps_per_second"]
    print_table(
        f"{report['family']}, {report['worlds']} worlds, {report['processes']} processes, {report['rounds']} rounds of "
        f"{report['steps']} steps",
        ("", *COLUMNS),
        [
            (
                OURS,
                f"{speeds[OURS]:,.0f}",
                f"{report['to_the_loop']:.2f}x",
                f"{low:.2f} to {high:.2f}",
                percent(report["resets_share"]),
            ),
            (LOOP, f"{speeds[LOOP]:,.0f}", "", "", ""),
        ],
        words=("",),
    )
    Console(highlight=False).print(explain(COLUMNS))
