"""Benchmark of whole iterations of agents: how long one takes, and what share of it each part has."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from rich.console import Console

from metarl.agents import config_class, make
from metarl.bench.timing import explain, in_turn, percent, print_table, ratio
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import make_worlds
from metarl.envs.family import Family
from metarl.envs.registry import resolve
from metarl.errors import UserError
from metarl.seeding import Streams
from metarl.types import Metrics

COLUMNS = {
    "agent": "whose iterations; of rma those of teacher and of student",
    "s": "seconds of an iteration",
    "steps/s": "environment steps of an iteration over its seconds",
    "worlds": "share of physics, observations and rewards",
    "policy": "share of acting",
    "update": "share of learning",
    "belief": "share of encoder and decoders, in that of the update (varibad)",
    "to first": "its seconds over those of the first agent of the table",
}
"""What the columns mean."""


@dataclass(frozen=True, kw_only=True)
class AgentsConfig:
    """What iterations of agents cost, with their default settings."""

    agents: tuple[str, ...] = ("rl2", "varibad", "ppo", "rma")
    """Names of agents that are trained; others are compared with the first."""
    family: str = "half-cheetah-vel"
    """Whose tasks they learn."""
    horizon: int | None = None
    """Steps of an episode; the family's if not given."""
    tasks: int = 0
    """Tasks of an iteration; 0 for as many as each has by default."""
    rounds: int = 3
    """Rounds in which the contenders take turns."""
    threads: int = 0
    """Threads of engine and torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(self, at_least={"tasks": 0, "rounds": 1, "threads": 0}, at_most={"rounds": MOST_STEPS})
        if not self.agents or "random" in self.agents:
            raise UserError(f"Got --agents {' '.join(self.agents)}. Name one or more agents that are trained.")


def run_agents(config: AgentsConfig) -> dict[str, Any]:
    """Measure, print and return what iterations cost."""
    threads = resolve_threads(config.threads)
    family = resolve(config.family, horizon=config.horizon)
    with torch_threads(threads):
        contenders: dict[str, Callable[[], Metrics]] = {}
        for name in dict.fromkeys(config.agents):
            contenders |= _iterations(name, family, config.tasks, threads)
        figures = in_turn(config.rounds, contenders)
        first = [row["time/iteration"] for row in next(iter(figures.values()))]
        rows = [_row(label, found, first) for label, found in figures.items()]
    report = {"threads": threads, "rounds": config.rounds, "family": family.full_name, "agents": rows}
    if not config.json:
        _print(report)
    return report


def _iterations(name: str, family: Family, tasks: int, threads: int) -> dict[str, Callable[[], Metrics]]:
    """Return what runs an iteration of an agent, by what it is called; of rma one of each phase."""
    settings = config_class(name)(**({"tasks": tasks} if tasks else {}))
    streams = Streams(0)
    agent: Any = make(name, settings, family.spec(), streams, torch.device("cpu"))
    worlds = make_worlds(family, settings.worlds, threads=threads)

    def iteration(begin: int | None = None) -> Metrics:
        if begin is not None:
            agent.iteration = begin
        started = time.perf_counter()
        metrics = agent.train_iteration(worlds, family.space.sample, streams)
        return {**metrics, "time/iteration": time.perf_counter() - started}

    if name != "rma":
        return {name: iteration}
    # The teacher plays beside its student in the first iteration of ten.
    return {"rma teacher": lambda: iteration(0), "rma student": lambda: iteration(settings.by_ppo + 1)}


def _row(label: str, found: list[Metrics], first: list[float]) -> dict[str, Any]:
    """Return the figures of an agent, medians over the rounds, given the first one's seconds of an iteration."""

    def share(part: Callable[[Metrics], float]) -> float:
        return median(part(row) / row["time/iteration"] for row in found)

    return {
        "agent": label,
        "iteration_s": median(row["time/iteration"] for row in found),
        "steps_per_second": share(lambda row: row["env/steps"]),
        "worlds_share": share(lambda row: row["time/collect"] - row["time/policy"]),
        "policy_share": share(lambda row: row["time/policy"]),
        "update_share": share(lambda row: row["time/update"] + row.get("time/adapt", 0.0)),
        "belief_share": share(lambda row: row.get("time/belief", 0.0)),
        "over_first": ratio([row["time/iteration"] for row in found], first),
    }


def _print(report: dict[str, Any]) -> None:
    print_table(
        f"Iterations on {report['family']}, {report['threads']} threads, median of {report['rounds']} rounds",
        list(COLUMNS),
        [
            (
                row["agent"],
                f"{row['iteration_s']:.2f}",
                f"{row['steps_per_second']:,.0f}",
                *(percent(row[f"{part}_share"]) for part in ("worlds", "policy", "update", "belief")),
                f"{row['over_first']:.2f}x",
            )
            for row in report["agents"]
        ],
        words=("agent",),
    )
    Console(highlight=False).print(explain(COLUMNS))
