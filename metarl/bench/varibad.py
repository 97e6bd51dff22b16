"""Benchmark of VariBAD: an iteration by part, beside RL2's on as many trials of the same family.

Both play trials with a memory of one size. RL2's policy is trained through it; VariBAD's takes beliefs as numbers, and
its memory is trained by decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.console import Console

from metarl.agents import config_class, make
from metarl.bench.timing import explain, in_turn, percent, print_table, ratio
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import get, make_worlds
from metarl.envs.horizon import with_horizon
from metarl.seeding import Streams
from metarl.types import Metrics

AGENTS = ("varibad", "rl2")
"""The last one is the reference of the ratio."""
COLUMNS = {
    "agent": "whose iteration",
    "collect s": "seconds of playing the trials",
    "policy": "memory's and heads' share of that; the rest is the worlds'",
    "PPO s": "seconds of advantages and of the policy's update",
    "belief s": "seconds of the steps of encoder and decoders",
    "steps/s": "such steps in a second",
    "iteration": "all of it, in iterations of rl2",
}
"""What the columns mean."""


@dataclass(frozen=True, kw_only=True)
class VaribadBenchConfig:
    """An iteration of VariBAD by part, beside RL2's."""

    family: str = "half-cheetah-vel"
    """Family."""
    tasks: int = 40
    """Trials, M."""
    steps: int = 200
    """Steps of an episode, T; a trial has two."""
    width: int = 128
    """Size of the memories' features, H."""
    minibatches: int = 4
    """Of a pass of PPO."""
    belief_updates: int = 20
    """Steps of encoder and decoders."""
    belief_trials: int = 25
    """Trials of such a step."""
    rounds: int = 5
    """Rounds in which they take turns."""
    threads: int = 0
    """Threads of engine and torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(
            self,
            at_least={"tasks": 1, "steps": 1, "width": 2, "rounds": 1, "threads": 0},
            at_most={"rounds": MOST_STEPS},
        )


def run_varibad(config: VaribadBenchConfig) -> dict[str, Any]:
    """Measure, print and return the parts of an iteration."""
    threads = resolve_threads(config.threads)
    family = with_horizon(get(config.family), config.steps)
    env = make_worlds(family, config.tasks, threads=threads)
    shared = {"tasks": config.tasks, "width": config.width, "minibatches": config.minibatches}
    own = {"belief_updates": config.belief_updates, "belief_trials": config.belief_trials}

    def iteration(name: str) -> Metrics:
        # Anew in every round: the same work.
        settings = config_class(name)(**shared, **(own if name == "varibad" else {}))
        agent = make(name, settings, family.spec(), Streams(0), torch.device("cpu"))
        metrics = agent.train_iteration(env, family.space.sample, Streams(0))
        belief = metrics.get("time/belief", 0.0)
        update = metrics["time/update"]
        whole = metrics["time/collect"] + update
        return {**metrics, "belief_s": belief, "ppo_s": update - belief, "iteration_s": whole}

    with torch_threads(threads):
        figures = in_turn(config.rounds, {name: partial(iteration, name) for name in AGENTS})
    seconds = {name: {part: [turn[part] for turn in turns] for part in turns[0]} for name, turns in figures.items()}
    report: dict[str, Any] = {
        "family": family.full_name,
        "tasks": config.tasks,
        "steps": config.steps,
        "threads": threads,
        "rounds": config.rounds,
        "agents": {
            name: {
                "collect_s": median(turns["time/collect"]),
                "policy_share_of_collect": ratio(turns["time/policy"], turns["time/collect"]),
                "ppo_s": median(turns["ppo_s"]),
                "belief_s": median(turns["belief_s"]),
                "belief_steps_per_second": config.belief_updates / median(turns["belief_s"]) if name != "rl2" else 0.0,
                "iteration_over_rl2": ratio(turns["iteration_s"], seconds["rl2"]["iteration_s"]),
            }
            for name, turns in seconds.items()
        },
    }
    if not config.json:
        _print_varibad(report)
    return report


def _print_varibad(report: dict[str, Any]) -> None:
    print_table(
        f"{report['family']}, {report['tasks']} trials of 2 episodes x {report['steps']} steps, "
        f"{report['threads']} threads, median of {report['rounds']} rounds",
        list(COLUMNS),
        [
            (
                name,
                f"{row['collect_s']:.2f}",
                percent(row["policy_share_of_collect"]),
                f"{row['ppo_s']:.2f}",
                f"{row['belief_s']:.2f}",
                f"{row['belief_steps_per_second']:.1f}",
                f"{row['iteration_over_rl2']:.2f}x",
            )
            for name, row in report["agents"].items()
        ],
        words=("agent",),
    )
    Console(highlight=False).print(explain(COLUMNS))
