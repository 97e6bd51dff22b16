"""Benchmarks of learning: a meta-iteration of MAML-TRPO by part, and what RL2's memory costs.

As in engines.py contenders take turns round by round; a figure is the median over rounds, and a ratio is the median of
the rounds' ratios.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar, get_args

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from metarl.agents import make
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.rl2 import Rl2, Rl2Config, input_size
from metarl.config import check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import get, make_worlds
from metarl.envs.family import Family, with_horizon
from metarl.errors import UserError
from metarl.learning.inner import Executor
from metarl.learning.rollout import collect
from metarl.nets.memory import CoreName, make_core
from metarl.seeding import Streams
from metarl.types import EnvSpec

Key = TypeVar("Key", bound=Hashable)
Figure = TypeVar("Figure")

MOST_ACTING = 0.4
"""Limit of the policy's share of collection."""
MOST_UPDATE = 1.2
"""Limit of RL2's training pass, times that of a bare whole-sequence nn.GRU."""
MOST_TRANSFORMER = 1.0
"""Limit of the transformer's training pass, times the GRU's."""


def peak_kib() -> int:
    """Return the most memory that this process has had."""
    # Not getrusage's figure alone: a process begins with that of the one that started it.
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def in_turn(rounds: int, contenders: dict[Key, Callable[[], Figure]]) -> dict[Key, list[Figure]]:
    """Return what every contender gives in every round; one more round before warms up."""
    turns = [{key: run() for key, run in contenders.items()} for _ in range(rounds + 1)]
    return {key: [turn[key] for turn in turns[1:]] for key in contenders}


# -- MAML-TRPO --------------------------------------------------------------------------------------------------------


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
        check(self, at_least={"tasks": 1, "episodes": 1, "steps": 1, "rounds": 1, "threads": 0})


def run_maml(config: MamlConfig) -> dict[str, Any]:
    """Measure, print and return the parts of one meta-iteration under every executor."""
    threads = resolve_threads(config.threads)
    family = with_horizon(get(config.family), config.steps)
    env = make_worlds(family, config.tasks * config.episodes, threads=threads)
    agents = {}
    for executor in config.executors:
        settings = MamlTrpoConfig(tasks=config.tasks, episodes=config.episodes, executor=executor)
        if executor == "loop":
            settings = replace(settings, chunk_steps=1)
        agents[executor] = make("maml-trpo", settings, family.spec(), Streams(0), torch.device("cpu"))
    start = {name: agent.state_dict() for name, agent in agents.items()}
    parts = ("time/collect", "time/policy", "time/adapt", "time/update")
    seconds: dict[str, dict[str, list[float]]] = {name: {part: [] for part in parts} for name in agents}
    with torch_threads(threads):
        # The first round warms up.
        for turn in range(config.rounds + 1):
            for name, agent in agents.items():
                agent.load_state_dict(start[name])
                metrics = agent.train_iteration(env, family.space.sample, Streams(turn))
                for part in parts if turn else ():
                    seconds[name][part].append(metrics[part])
    reference = seconds[config.executors[-1]]

    def learning(times: dict[str, list[float]]) -> list[float]:
        return [a + u for a, u in zip(times["time/adapt"], times["time/update"], strict=True)]

    report: dict[str, Any] = {
        "family": family.full_name,
        "tasks": config.tasks,
        "episodes": config.episodes,
        "steps": config.steps,
        "threads": threads,
        "rounds": config.rounds,
        "peak_memory_mb": peak_kib() / 1024,
        "executors": {
            name: {
                **{part: median(values) for part, values in times.items()},
                "policy_share_of_collect": median(
                    p / c for p, c in zip(times["time/policy"], times["time/collect"], strict=True)
                ),
                "update_over_collect": median(
                    u / c for u, c in zip(times["time/update"], times["time/collect"], strict=True)
                ),
                "speedup": median(
                    theirs / ours for ours, theirs in zip(learning(times), learning(reference), strict=True)
                ),
            }
            for name, times in seconds.items()
        },
    }
    if not config.json:
        _print_maml(report, config.executors[-1])
    return report


def _print_maml(report: dict[str, Any], reference: str) -> None:
    table = Table(
        title=f"{report['family']}, {report['tasks']} tasks x {report['episodes']} episodes x {report['steps']} steps "
        f"before and after, {report['threads']} threads, median of {report['rounds']} rounds"
    )
    columns = (
        "executor",
        "collect s",
        "policy",
        "adapt s",
        "update s",
        "update/collect",
        "speed-up",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "executor" else "right")
    for name, row in report["executors"].items():
        table.add_row(
            name,
            f"{row['time/collect']:.2f}",
            f"{row['policy_share_of_collect']:.0%}",
            f"{row['time/adapt']:.3f}",
            f"{row['time/update']:.3f}",
            f"{row['update_over_collect']:.2f}",
            f"{row['speedup']:.2f}x",
        )
    console = Console()
    console.print(table)
    console.print(
        f"policy: its share of the collection; speed-up: of adapt and update, on {reference}; peak memory "
        f"{report['peak_memory_mb']:,.0f} MB"
    )


# -- RL2 --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What RL2's memory costs: acting, training, and the transformer beside the GRU."""

    width: tuple[int, ...] = (Rl2Config().width,)
    """Sizes of the memory's features, H."""
    worlds: tuple[int, int] = (1024, 256)
    """Worlds of the bandit and of half-cheetah-vel to act in."""
    steps: int = 100
    """Steps of a trial while acting: pulls of the bandit, steps of the robot's one episode."""
    trials: int = 64
    """Trials of a training pass."""
    length: int = 1000
    """Steps of a trial in the pass that is compared with a bare nn.GRU."""
    contexts: tuple[int, ...] = (50, 100, 200)
    """Steps of a trial in the passes of transformer and GRU."""
    rounds: int = 7
    """Rounds in which the contenders take turns."""
    threads: int = 0
    """Threads of engine and torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(self, at_least={"steps": 1, "trials": 1, "length": 1, "rounds": 1, "threads": 0})
        for name in ("width", "worlds", "contexts"):
            given = getattr(self, name)
            if min(given, default=0) < 1:
                raise UserError(f"Got --{name} {' '.join(map(str, given))}. Give at least one number, from 1.")


def run_rl2(config: MemoryConfig) -> dict[str, Any]:
    """Measure, print and return what RL2's memory costs, beside the limits set to it."""
    threads = resolve_threads(config.threads)
    bandits, robots = config.worlds
    robot = with_horizon(get("half-cheetah-vel"), config.steps)
    with torch_threads(threads):
        report: dict[str, Any] = {
            "threads": threads,
            "rounds": config.rounds,
            "trials": config.trials,
            "acting": [
                row
                for family, worlds in ((get("bandit"), bandits), (robot, robots))
                for row in _acting(family, worlds, threads, config)
            ],
            "update": [_update(robot.spec(), width, config) for width in config.width],
            "transformer": [
                _transformer(robot.spec(), width, steps, config) for width in config.width for steps in config.contexts
            ],
        }
    if not config.json:
        _print_rl2(report)
    return report


def _agent(spec: EnvSpec, core: CoreName, width: int, episodes: int = 1) -> Rl2:
    settings = Rl2Config(core=core, width=width, episodes=episodes)
    agent = make("rl2", settings, spec, Streams(0), torch.device("cpu"))
    assert isinstance(agent, Rl2)
    return agent


def _acting(family: Family, worlds: int, threads: int, config: MemoryConfig) -> list[dict[str, Any]]:
    """Return the policy's part of collecting a trial in every world, by core and width."""
    spec = family.spec()
    tasks = family.space.sample(worlds, "train", torch.Generator().manual_seed(0))
    env = make_worlds(family, worlds, threads=threads)
    episodes = -(-config.steps // spec.horizon)

    def trial(agent: Rl2) -> tuple[float, float]:
        policy, generator = agent.start(tasks).policy, torch.Generator().manual_seed(0)
        parts = [collect(env, policy, tasks, 1, generator, new_trial=number == 0) for number in range(episodes)]
        return sum(part.policy_seconds for part in parts), sum(part.seconds for part in parts)

    contenders = {
        (core, width): partial(trial, _agent(spec, core, width, episodes))
        for core in get_args(CoreName)
        for width in config.width
    }
    return [
        {
            "family": family.full_name,
            "worlds": worlds,
            "steps": config.steps,
            "core": core,
            "width": width,
            "policy_s": median(policy for policy, _ in seconds),
            "collect_s": median(collection for _, collection in seconds),
            "policy_share": median(policy / collection for policy, collection in seconds),
            "limit": MOST_ACTING,
        }
        for (core, width), seconds in in_turn(config.rounds, contenders).items()
    ]


def _update(spec: EnvSpec, width: int, config: MemoryConfig) -> dict[str, Any]:
    """Return the seconds of a training pass of RL2's network with its objective, and of a bare nn.GRU."""
    generator = torch.Generator().manual_seed(0)
    size = (config.trials, config.length)
    network = _agent(spec, "gru", width).network
    inputs = torch.randn(*size, input_size(spec), generator=generator)
    actions = torch.randn(*size, spec.action_size, generator=generator)
    slopes = torch.randn(*size, width, generator=generator)
    advantages, targets = torch.randn(2, *size, generator=generator).unbind()
    with torch.no_grad():
        old = network(inputs)[0].log_prob(actions)

    def ours() -> None:
        # The objective of agents/rl2.py, where every step is real.
        distribution, value = network(inputs)
        ratio = (distribution.log_prob(actions) - old).exp()
        gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        (-gain + (value - targets).square().mean() - distribution.entropy().mean()).backward()

    bare = nn.GRU(inputs.shape[-1], width, batch_first=True)
    return _compare(
        {"rl2_s": (network, ours), "gru_s": (bare, lambda: bare(inputs)[0].backward(slopes))},
        {"width": width, "steps": config.length, "limit": MOST_UPDATE},
        config.rounds,
    )


def _transformer(spec: EnvSpec, width: int, steps: int, config: MemoryConfig) -> dict[str, Any]:
    """Return the seconds of a training pass of the transformer, and of the GRU, without heads."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(config.trials, steps, input_size(spec), generator=generator)
    slopes = torch.randn(config.trials, steps, width, generator=generator)

    def core(name: CoreName) -> tuple[nn.Module, Callable[[], None]]:
        made = make_core(name, inputs=inputs.shape[-1], width=width, layers=1, context=steps, generator=generator)
        return made, lambda: made(inputs).backward(slopes)

    return _compare(
        {"transformer_s": core("transformer"), "gru_s": core("gru")},
        {"width": width, "steps": steps, "limit": MOST_TRANSFORMER},
        config.rounds,
    )


def _compare(
    contenders: dict[str, tuple[nn.Module, Callable[[], None]]], row: dict[str, Any], rounds: int
) -> dict[str, Any]:
    """Return a row with the seconds that two passes take, and the ratio of the first to the second."""

    def seconds(module: nn.Module, run: Callable[[], None]) -> float:
        module.zero_grad()
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    figures = in_turn(rounds, {name: partial(seconds, *contender) for name, contender in contenders.items()})
    ratio = median(ours / theirs for ours, theirs in zip(*figures.values(), strict=True))
    return {**row, **{name: median(values) for name, values in figures.items()}, "ratio": ratio}


def _print_rl2(report: dict[str, Any]) -> None:
    console = Console()
    rounds = f"{report['threads']} threads, median of {report['rounds']} rounds"
    acting = Table(title=f"RL2 acting, {rounds}")
    for column in ("worlds", "core", "width", "collect s", "policy", "limit"):
        acting.add_column(column, justify="left" if column in ("worlds", "core") else "right", no_wrap=True)
    for row in report["acting"]:
        acting.add_row(
            f"{row['worlds']} {row['family'].partition('@')[0]}",
            row["core"],
            str(row["width"]),
            f"{row['collect_s']:.2f}",
            f"{row['policy_share']:.0%}",
            f"{row['limit']:.0%}",
        )
    console.print(acting)
    passes = Table(title=f"RL2 learning from {report['trials']} trials, {rounds}")
    for column in ("forward and backward", "steps", "width", "s", "other s", "ratio", "limit"):
        passes.add_column(column, justify="left" if column == "forward and backward" else "right", no_wrap=True)
    for kind, first in (("update", "rl2 / bare nn.GRU"), ("transformer", "transformer / gru")):
        for row in report[kind]:
            passes.add_row(
                first,
                str(row["steps"]),
                str(row["width"]),
                f"{row['rl2_s' if kind == 'update' else 'transformer_s']:.3f}",
                f"{row['gru_s']:.3f}",
                f"{row['ratio']:.2f}",
                f"{row['limit']:.1f}",
            )
    console.print(passes)
    console.print("policy: its share of the collection; ratio: s / other s", highlight=False)
