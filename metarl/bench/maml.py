"""Benchmark of MAML-TRPO: one meta-iteration by part, the task-batched forms beside a loop over tasks.

Every round does the same work: the same initial parameters, tasks and random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.console import Console

from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.bench.limits import SIDES, operations, product
from metarl.bench.timing import explain, in_turn, percent, print_table, ratio
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import get, make_worlds
from metarl.envs.horizon import with_horizon
from metarl.learning.experience import Batch
from metarl.learning.inner import Executor
from metarl.seeding import Streams
from metarl.system import peak_kib
from metarl.types import Metrics, Params

PARTS = ("time/collect", "time/policy", "time/adapt", "time/update")
"""Parts of an iteration, as the agent's metrics name them; `policy` is a part of `collect`."""

COLUMNS = {
    "executor": "how the meta-batch is computed; all give the same numbers",
    "collect s": "seconds of playing the episodes before and after adaptation",
    "policy": "the networks' share of that; the rest is the worlds'",
    "adapt s": "seconds of advantages and adaptation steps",
    "update s": "seconds of the outer step: gradient, Fisher products, search",
    "of product": "the update's share of the machine's limit, a matrix product",
    "speed-up": "of adapt and update together, on the last executor",
}
"""What the columns mean."""


@dataclass(frozen=True, kw_only=True)
class MamlConfig:
    """One meta-iteration of MAML-TRPO: the task-batched forms against a plain loop over tasks."""

    family: str = "half-cheetah-vel"
    """Family."""
    tasks: int = 40
    """Tasks, M."""
    episodes: int = 20
    """Episodes of a task, K."""
    steps: int = 100
    """Steps of an episode, T."""
    executors: tuple[Executor, ...] = ("grouped", "vmap", "loop")
    """Executors to compare; the last one is the reference of the ratios."""
    rounds: int = 5
    """Rounds in which they take turns."""
    threads: int = 0
    """Threads of engine and torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(
            self,
            at_least={"tasks": 1, "episodes": 1, "steps": 1, "rounds": 1, "threads": 0},
            at_most={"rounds": MOST_STEPS},
        )


class Counted(MamlTrpo):
    """The agent, which also counts the operations of its update's matrix products."""

    operations = 0

    def _update(self, points: list[Params], batches: list[Batch]) -> Metrics:
        metrics: Metrics = {}
        self.operations = operations(lambda: metrics.update(super(Counted, self)._update(points, batches)))
        return metrics


def run_maml(config: MamlConfig) -> dict[str, Any]:
    """Measure, print and return the parts of one meta-iteration under every executor."""
    threads = resolve_threads(config.threads)
    family = with_horizon(get(config.family), config.steps)
    spec, device = family.spec(), torch.device("cpu")
    env = make_worlds(family, config.tasks * config.episodes, threads=threads)

    def settings(executor: Executor) -> MamlTrpoConfig:
        # Every round begins anew: with a scale each would play a warm-up first.
        chosen = MamlTrpoConfig(
            tasks=config.tasks, episodes=config.episodes, executor=executor, scale_observations=False
        )
        return replace(chosen, chunk_steps=1) if executor == "loop" else chosen

    def iteration(agent: MamlTrpo, start: dict[str, Any]) -> Metrics:
        agent.load_state_dict(start)
        return agent.train_iteration(env, family.space.sample, Streams(0))

    contenders: dict[str, Callable[[], Metrics]] = {}
    for executor in config.executors:
        agent = MamlTrpo(settings(executor), spec, Streams(0), device)
        contenders[executor] = partial(iteration, agent, agent.state_dict())
    multiply = product()
    counted = Counted(settings(config.executors[0]), spec, Streams(0), device)
    with torch_threads(threads):
        # The executors' operations are the same, to the last one.
        iteration(counted, counted.state_dict())
        figures = in_turn(config.rounds, {**contenders, "product": lambda: {"seconds": multiply()}})
    limit = [turn["seconds"] for turn in figures.pop("product")]
    seconds = {name: {part: [turn[part] for turn in turns] for part in PARTS} for name, turns in figures.items()}

    def learning(name: str) -> list[float]:
        return [a + u for a, u in zip(seconds[name]["time/adapt"], seconds[name]["time/update"], strict=True)]

    report: dict[str, Any] = {
        "family": family.full_name,
        "tasks": config.tasks,
        "episodes": config.episodes,
        "steps": config.steps,
        "threads": threads,
        "rounds": config.rounds,
        "peak_memory_mb": peak_kib() / 1024,
        "product_gflops": 1e-9 / median(limit),
        "update_gflop": counted.operations / 1e9,
        "executors": {
            name: {
                **{part: median(values) for part, values in times.items()},
                "policy_share_of_collect": ratio(times["time/policy"], times["time/collect"]),
                "update_over_collect": ratio(times["time/update"], times["time/collect"]),
                "update_share_of_product": counted.operations * ratio(limit, times["time/update"]),
                "speedup": ratio(learning(config.executors[-1]), learning(name)),
            }
            for name, times in seconds.items()
        },
    }
    if not config.json:
        _print_maml(report, config.executors[-1])
    return report


def _print_maml(report: dict[str, Any], reference: str) -> None:
    print_table(
        f"{report['family']}, {report['tasks']} tasks x {report['episodes']} episodes x {report['steps']} steps "
        f"before and after, {report['threads']} threads, median of {report['rounds']} rounds",
        list(COLUMNS),
        [
            (
                name,
                f"{row['time/collect']:.2f}",
                percent(row["policy_share_of_collect"]),
                f"{row['time/adapt']:.3f}",
                f"{row['time/update']:.3f}",
                percent(row["update_share_of_product"]),
                f"{row['speedup']:.2f}x",
            )
            for name, row in report["executors"].items()
        ],
        words=("executor",),
    )
    console = Console(highlight=False)
    console.print(explain(COLUMNS | {"speed-up": f"of adapt and update together, on {reference}"}))
    console.print(
        f"In the same rounds a {SIDES['cpu']:,} x {SIDES['cpu']:,} float32 product ran at "
        f"{report['product_gflops']:,.0f} GFLOP/s. Counted for the update: its matrix products, "
        f"{report['update_gflop']:,.2f} GFLOP, nothing that works on single elements. Peak memory "
        f"{report['peak_memory_mb']:,.0f} MB."
    )
