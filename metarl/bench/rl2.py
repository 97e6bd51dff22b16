"""Benchmark of RL2's memory: what it costs while acting, and in a training pass beside a bare nn.GRU.

A bare `nn.GRU` over whole sequences is the least that a pass with such a memory costs; RL2's has heads and objective in
addition. The transformer's core is compared with the GRU's, both without heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, get_args

import torch
from rich.console import Console
from torch import nn

from metarl.agents import make
from metarl.agents.rl2 import Rl2, Rl2Config, Rl2Core
from metarl.bench.limits import SIDES, operations, product
from metarl.bench.timing import explain, in_turn, percent, print_table, ratio, seconds_of
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import get, make_worlds
from metarl.envs.family import Family
from metarl.envs.horizon import with_horizon
from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.learning.trials import input_size
from metarl.nets.memory import CoreName, make_core
from metarl.seeding import Streams
from metarl.types import EnvSpec

ACTING = {
    "worlds": "how many, of which family",
    "core": "the memory",
    "width": "of its features",
    "collect s": "seconds of a trial in every world",
    "policy": "memory's and heads' share of that",
}
PASSES = {
    "forward and backward": "the first / the other, on the same trials",
    "steps": "of a trial",
    "s": "seconds of the first",
    "other s": "seconds of the other",
    "ratio": "the first's seconds over the other's",
    "of product": "the first's share of the limit, a matrix product",
}
COLUMNS = ACTING | PASSES
"""What the columns mean."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What RL2's memory costs: acting, training, and the transformer beside the GRU."""

    width: tuple[int, ...] = (Rl2Config().width,)
    """Sizes of the memory's features, H."""
    head: tuple[int, ...] = (32,)
    """Hidden layers of the policy and values that the memory of --core hyper emits."""
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
        check(
            self,
            at_least={"steps": 1, "trials": 1, "length": 1, "rounds": 1, "threads": 0},
            at_most={"rounds": MOST_STEPS},
        )
        for name in ("width", "worlds", "contexts"):
            given = getattr(self, name)
            if min(given, default=0) < 1:
                raise UserError(f"Got --{name} {' '.join(map(str, given))}. Give at least one number, from 1.")


def run_rl2(config: MemoryConfig) -> dict[str, Any]:
    """Measure, print and return what RL2's memory costs."""
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
            "update": [
                _update(robot.spec(), core, width, config) for width in config.width for core in ("gru", "hyper")
            ],
            "transformer": [
                _transformer(robot.spec(), width, steps, config) for width in config.width for steps in config.contexts
            ],
        }
    if not config.json:
        _print_rl2(report)
    return report


def _agent(spec: EnvSpec, core: Rl2Core, width: int, config: MemoryConfig, episodes: int = 1) -> Rl2:
    settings = Rl2Config(core=core, width=width, episodes=episodes, head=config.head if core == "hyper" else ())
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
        (core, width): partial(trial, _agent(spec, core, width, config, episodes))
        for core in get_args(Rl2Core)
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
            "policy_share": ratio(*zip(*seconds, strict=True)),
        }
        for (core, width), seconds in in_turn(config.rounds, contenders).items()
    ]


def _update(spec: EnvSpec, core: Rl2Core, width: int, config: MemoryConfig) -> dict[str, Any]:
    """Return the seconds of a training pass of RL2's network with its objective, and of a bare nn.GRU."""
    generator = torch.Generator().manual_seed(0)
    size = (config.trials, config.length)
    network = _agent(spec, core, width, config).network
    inputs = torch.randn(*size, input_size(spec), generator=generator)
    actions = torch.randn(*size, spec.action_size, generator=generator)
    slopes = torch.randn(*size, width, generator=generator)
    advantages, targets = torch.randn(2, *size, generator=generator).unbind()
    with torch.no_grad():
        old = network(inputs)[0].log_prob(actions)

    def ours() -> None:
        # The objective of metarl/learning/ppo.py, where every step is real.
        distribution, value = network(inputs)
        ratio = (distribution.log_prob(actions) - old).exp()
        gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        (-gain + (value - targets).square().mean() - distribution.entropy().mean()).backward()

    bare = nn.GRU(inputs.shape[-1], width, batch_first=True)
    return _compare(
        {"rl2_s": (network, ours), "gru_s": (bare, lambda: bare(inputs)[0].backward(slopes))},
        {"core": core, "width": width, "steps": config.length},
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
        {"width": width, "steps": steps},
        config.rounds,
    )


def _compare(
    contenders: dict[str, tuple[nn.Module, Callable[[], None]]], row: dict[str, Any], rounds: int
) -> dict[str, Any]:
    """Return a row with the seconds that two passes take, their ratio, and the first's share of a matrix product."""

    def seconds(module: nn.Module, run: Callable[[], None]) -> float:
        module.zero_grad()
        return seconds_of(run)

    runs = {name: partial(seconds, *contender) for name, contender in contenders.items()}
    counted = operations(next(iter(runs.values())))
    figures = in_turn(rounds, {**runs, "product": product()})
    limit = figures.pop("product")
    first, other = figures.values()
    return {
        **row,
        **{name: median(values) for name, values in figures.items()},
        "ratio": ratio(first, other),
        "gflop": counted / 1e9,
        "share_of_product": counted * ratio(limit, first),
        "product_gflops": 1e-9 / median(limit),
    }


def _print_rl2(report: dict[str, Any]) -> None:
    rounds = f"{report['threads']} threads, median of {report['rounds']} rounds"
    console = Console(highlight=False)
    print_table(
        f"RL2 acting, {rounds}",
        list(ACTING),
        [
            (
                f"{row['worlds']} {row['family'].partition('@')[0]}",
                row["core"],
                str(row["width"]),
                f"{row['collect_s']:.2f}",
                percent(row["policy_share"]),
            )
            for row in report["acting"]
        ],
        words=("worlds", "core"),
    )
    console.print(explain(ACTING))
    first = {"gru": "rl2 / bare nn.GRU", "hyper": "rl2 hyper / nn.GRU"}
    print_table(
        f"RL2 learning from {report['trials']} trials, {rounds}",
        ("forward and backward", "width", *list(PASSES)[1:]),
        [
            (
                first.get(row.get("core"), "transformer / gru"),
                str(row["width"]),
                str(row["steps"]),
                f"{row['rl2_s' if kind == 'update' else 'transformer_s']:.3f}",
                f"{row['gru_s']:.3f}",
                f"{row['ratio']:.2f}",
                percent(row["share_of_product"]),
            )
            for kind in ("update", "transformer")
            for row in report[kind]
        ],
        words=("forward and backward",),
    )
    console.print(explain(PASSES))
    speed = median(row["product_gflops"] for kind in ("update", "transformer") for row in report[kind])
    console.print(
        f"In the same rounds a {SIDES['cpu']:,} x {SIDES['cpu']:,} float32 product ran at {speed:,.0f} GFLOP/s. "
        "Counted for a pass: its matrix products without attention's own, nothing that works on single elements."
    )
