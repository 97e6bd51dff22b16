"""Benchmarks: ratios measured side by side in one run.

Machines are noisy, so contenders take turns round by round; a figure is the median over rounds, and a ratio is the
median of the rounds' ratios. Absolute figures hold for the machine and the moment only.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from metarl.agents import make
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.config import check
from metarl.envs import get, make_worlds
from metarl.envs.cpu import MujocoPhysics
from metarl.envs.family import MujocoFamily, with_horizon
from metarl.errors import UserError
from metarl.inner import Executor
from metarl.seeding import Streams
from metarl.training import resolve_threads

GYMNASIUM_IDS = {"half-cheetah": "HalfCheetah-v5", "ant": "Ant-v5"}
"""Robot (start of the family's name) -> the Gymnasium environment of the same robot."""
ENVPOOL_IDS = {"half-cheetah": "HalfCheetah-v4", "ant": "Ant-v4"}
"""Robot -> EnvPool's environment of the same robot and physics."""
MOST_PROCESSES = 64
"""AsyncVectorEnv starts one process a world; beyond this many it is left out."""

Run = Callable[[], float]
"""Does one round and returns env-steps per second."""


@dataclass(frozen=True, kw_only=True)
class EnginesConfig:
    """Speed of our CPU engine and its peers."""

    family: tuple[str, ...] = ("half-cheetah-vel", "ant-dir")
    """MuJoCo families."""
    worlds: tuple[int, ...] = (32, 256, 1024)
    """Numbers of parallel worlds."""
    rounds: int = 7
    """Rounds in which the contenders take turns."""
    env_steps: int = 25_600
    """Environment steps of a contender in a round (at least 20 for each world)."""
    threads: int = 0
    """Engine threads; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(self, at_least={"rounds": 1, "env_steps": 1, "threads": 0})
        if not self.family or min(self.worlds, default=0) < 1:
            raise UserError(f"Got --family {self.family} --worlds {self.worlds}. Name families, and worlds from 1.")


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
    executors: tuple[Executor, ...] = ("folded", "vmap", "loop")
    """Executors to compare; the last one is the reference of the ratios."""
    rounds: int = 5
    """Rounds in which they take turns."""
    threads: int = 0
    """Threads of engine and torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(self, at_least={"tasks": 1, "episodes": 1, "steps": 1, "rounds": 1, "threads": 0})


def run_engines(config: EnginesConfig) -> dict[str, Any]:
    """Measure, print and return env-steps per second of every engine, and their ratios to ours."""
    threads = resolve_threads(config.threads)
    report: dict[str, Any] = {"threads": threads, "rounds": config.rounds, "results": []}
    for name in config.family:
        family = get(name)
        if not isinstance(family, MujocoFamily):
            raise UserError(f"Got {name}, which has no MuJoCo model to compare. Choose a robot family.")
        for worlds in config.worlds:
            steps = max(20, config.env_steps // worlds)
            speeds: dict[str, list[float]] = {}
            with contenders(family, worlds, steps, threads) as runs:
                for run in runs.values():
                    run()
                for _ in range(config.rounds):
                    for label, run in runs.items():
                        speeds.setdefault(label, []).append(run())
            row = {
                "family": family.full_name,
                "worlds": worlds,
                "steps": steps,
                "env_steps_per_second": {label: median(values) for label, values in speeds.items()},
                "metarl_over": {
                    label: median(ours / theirs for ours, theirs in zip(speeds["metarl"], values, strict=True))
                    for label, values in speeds.items()
                    if label != "metarl"
                },
            }
            report["results"].append(row)
            if not config.json:
                _print_engines(row, config.rounds, threads)
    return report


@contextmanager
def contenders(family: MujocoFamily, worlds: int, steps: int, threads: int) -> Iterator[dict[str, Run]]:
    """Give every contender as a function that takes `steps` control steps in all worlds."""
    rng = np.random.default_rng(0)
    low, high = np.array(family.action_low), np.array(family.action_high)
    actions = rng.uniform(low, high, (steps, worlds, family.action_size))
    robot = next((robot for robot in GYMNASIUM_IDS if family.name.startswith(robot)), None)
    runs: dict[str, Run] = {
        "metarl": _ours(family, actions, threads),
        "open loop": _open_loop(family, actions, threads),
    }
    closing: list[Callable[[], None]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if robot is not None:
            makers = [partial(gymnasium.make, GYMNASIUM_IDS[robot])] * worlds
            # Gymnasium is slow enough that fewer steps measure as well.
            fewer = actions[: max(10, steps // 4)]
            with known_warning_left_out():
                sync = gymnasium.vector.SyncVectorEnv(makers)
                closing.append(sync.close)
                runs["SyncVectorEnv"] = _gymnasium(sync, fewer)
                if worlds <= MOST_PROCESSES:
                    parallel = gymnasium.vector.AsyncVectorEnv(makers)
                    closing.append(parallel.close)
                    runs["AsyncVectorEnv"] = _gymnasium(parallel, fewer)
            if importlib.util.find_spec("envpool") is not None:
                runs["EnvPool"] = _envpool(ENVPOOL_IDS[robot], actions, threads)
        yield runs
    finally:
        torch.set_num_threads(before)
        for close in closing:
            close()


@contextmanager
def known_warning_left_out() -> Iterator[None]:
    """Leave one warning out of stderr: MuJoCo 4 prints it for every HalfCheetah that Gymnasium loads."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                if line.strip() and "'settotalmass' is deprecated" not in line:
                    print(line, file=sys.stderr)


def vary_masses(physics: MujocoPhysics, seed: int = 0) -> None:
    """Give every world its own body masses (0.75 to 1.25 of the model's) and refresh the derived constants."""
    masses = physics.batch.expand("body_mass")
    masses *= np.random.default_rng(seed).uniform(0.75, 1.25, masses.shape)
    physics.batch.set_const()


def _ours(family: MujocoFamily, actions: np.ndarray, threads: int) -> Run:
    steps, worlds, _ = actions.shape
    env = make_worlds(with_horizon(family, steps + 1), worlds, threads=threads)
    assert isinstance(env.physics, MujocoPhysics)
    vary_masses(env.physics)
    generator = torch.Generator().manual_seed(0)
    env.set_tasks(replace(family.space.sample(worlds, "train", generator), family=env.family_name))
    sequence = torch.from_numpy(actions).float()

    def run() -> float:
        env.reset(generator)
        started = time.perf_counter()
        for action in sequence:
            step = env.step(action)
            if bool(step.terminated.any()):
                # Start those worlds again, as the peers do: all contenders step all worlds all the time.
                env.reset(generator, step.terminated.nonzero().squeeze(1))
        return steps * worlds / (time.perf_counter() - started)

    return run


def _open_loop(family: MujocoFamily, actions: np.ndarray, threads: int) -> Run:
    """Measure the ceiling: the same physics, controls known in advance, no observation and no reward."""
    steps, worlds, _ = actions.shape
    physics = MujocoPhysics(family, worlds, threads)
    vary_masses(physics)
    generator = torch.Generator().manual_seed(0)
    controls = np.ascontiguousarray(actions.transpose(1, 0, 2).repeat(family.frame_skip, axis=1))

    def run() -> float:
        physics.write(family.reset_state(generator, worlds), None)
        started = time.perf_counter()
        physics.batch.rollout(steps * family.frame_skip, controls, record=())
        return steps * worlds / (time.perf_counter() - started)

    return run


def _gymnasium(env: gymnasium.vector.VectorEnv, actions: np.ndarray) -> Run:
    steps, worlds, _ = actions.shape
    sequence = actions.astype(np.float32)

    def run() -> float:
        env.reset(seed=0)
        started = time.perf_counter()
        for action in sequence:
            env.step(action)
        return steps * worlds / (time.perf_counter() - started)

    return run


def _envpool(name: str, actions: np.ndarray, threads: int) -> Run:
    envpool = importlib.import_module("envpool")
    steps, worlds, _ = actions.shape
    env = envpool.make(name, env_type="gymnasium", num_envs=worlds, num_threads=threads)

    def run() -> float:
        env.reset()
        started = time.perf_counter()
        for action in actions:
            env.step(action)
        return steps * worlds / (time.perf_counter() - started)

    return run


def _print_engines(row: dict[str, Any], rounds: int, threads: int) -> None:
    table = Table(
        title=f"{row['family']}, {row['worlds']} worlds x {row['steps']} steps, {threads} threads, {rounds} rounds"
    )
    for column in ("engine", "env-steps/s (median)", "metarl / engine"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for label, speed in row["env_steps_per_second"].items():
        ratio = row["metarl_over"].get(label)
        table.add_row(label, f"{speed:,.0f}", "" if ratio is None else f"{ratio:.2f}")
    Console().print(table)


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
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for turn in range(config.rounds + 1):
            for name, agent in agents.items():
                agent.load_state_dict(start[name])
                metrics = agent.train_iteration(env, family.space.sample, Streams(turn))
                for part in parts if turn else ():
                    seconds[name][part].append(metrics[part])
    finally:
        torch.set_num_threads(before)
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
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
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
