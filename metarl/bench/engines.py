"""Benchmark of the CPU engine: env-steps per second beside its open-loop ceiling and other people's environments.

The ceiling is the limit of the machine: the same physics in the same worlds, with controls known in advance, and
neither observation nor reward. A share of it is what closing the loop leaves of the machine's speed.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Bool
from rich.console import Console
from torch import Tensor

from metarl.bench.timing import explain, in_turn, percent, print_table, ratio
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import families, get, make_worlds
from metarl.envs.driving import of_physics
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.family import MujocoFamily, State
from metarl.errors import UserError
from metarl.system import lines_left_out
from metarl.types import Tasks

PEERS = {
    "half-cheetah": "HalfCheetah",
    "ant": "Ant",
    "humanoid": "Humanoid",
    "walker2d": "Walker2d",
    "hopper": "Hopper",
    "swimmer": "Swimmer",
    "reacher": "Reacher",
}
"""Robot (start of the family's name) -> the same robot's environment: -v5 in Gymnasium, -v4 in EnvPool."""
MOST_PROCESSES = 64
"""AsyncVectorEnv starts one process a world; beyond this many it is left out."""

Run = Callable[[], float]
"""Does one round and returns env-steps per second."""

COLUMNS = {
    "env-steps/s": "control steps a second, with observation and reward",
    "metarl is": "so many times as fast",
    "of open loop": "share of the machine's limit: the same physics alone",
    "new tasks": "drawing and starting new tasks, as a share of a collection",
}
"""What the columns mean."""
CEILING = "open loop"

MOST_ENV_STEPS = 10_000_000_000
"""Environment steps of a contender in a round: days."""


@dataclass(frozen=True, kw_only=True)
class EnginesConfig:
    """Speed of our CPU engine and its peers."""

    family: tuple[str, ...] = ("half-cheetah-vel", "ant-dir")
    """MuJoCo families; or `all`: every MuJoCo family's default variant, against the open-loop ceiling only."""
    worlds: tuple[int, ...] = (256,)
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
        check(self, at_least={"rounds": 1, "env_steps": 1, "threads": 0}, at_most={"rounds": MOST_STEPS})
        check(self, at_most={"env_steps": MOST_ENV_STEPS})
        if not self.family or min(self.worlds, default=0) < 1 or ("all" in self.family and len(self.family) > 1):
            raise UserError(
                f"Got --family {' '.join(self.family)} --worlds {self.worlds}. Name families, or `all` alone, and "
                "worlds from 1."
            )


def run_engines(config: EnginesConfig) -> dict[str, Any]:
    """Measure, print and return env-steps per second of every engine, and their ratios to ours."""
    threads = resolve_threads(config.threads)
    everything = config.family == ("all",)
    chosen = [variants[0] for variants in families().values()] if everything else [get(name) for name in config.family]
    robots = [family for family in chosen if isinstance(family, MujocoFamily)]
    others = [family.full_name for family in chosen if not isinstance(family, MujocoFamily)]
    if others and not everything:
        raise UserError(f"Got {others[0]}, which has no MuJoCo model to compare. Choose a robot family.")
    report: dict[str, Any] = {"threads": threads, "rounds": config.rounds, "results": [], "left_out": others}
    for family in robots:
        for worlds in config.worlds:
            row = _measure(family, worlds, config, threads, peers=not everything)
            report["results"].append(row)
            if not (config.json or everything):
                _print_engines(row, config.rounds, threads)
    if not config.json:
        if everything:
            _print_ceilings(report)
        console = Console()
        console.print(explain(COLUMNS), highlight=False)
        if others:
            console.print(f"left out, without a MuJoCo model: {', '.join(others)}", highlight=False)
    return report


def _measure(family: MujocoFamily, worlds: int, config: EnginesConfig, threads: int, *, peers: bool) -> dict[str, Any]:
    """Return the figures of one family at one number of worlds."""
    steps = max(20, config.env_steps // worlds)
    with contenders(family, worlds, steps, threads, peers=peers) as runs:
        ours = runs["metarl"]
        assert isinstance(ours, Ours)
        speeds = in_turn(config.rounds, {**runs, "new tasks": ours.new_tasks})
    pauses = speeds.pop("new tasks")
    collections = [worlds * family.horizon / speed for speed in speeds["metarl"]]
    return {
        "family": family.full_name,
        "worlds": worlds,
        "steps": steps,
        "env_steps_per_second": {label: median(values) for label, values in speeds.items()},
        "metarl_over": {
            label: ratio(speeds["metarl"], values) for label, values in speeds.items() if label != "metarl"
        },
        "new_tasks_share_of_collection": median(
            pause / (pause + collection) for pause, collection in zip(pauses, collections, strict=True)
        ),
    }


@contextmanager
def contenders(
    family: MujocoFamily, worlds: int, steps: int, threads: int, *, peers: bool = True
) -> Iterator[dict[str, Run]]:
    """Give every contender as a function that takes `steps` control steps in all worlds.

    Ours and the ceiling step the same worlds: the same tasks, models, starts and actions, and no episode ends, so
    that both go through the same states bit for bit. (A robot that lies on the ground has more contacts, and takes
    longer to simulate, than one that was started again.) The peers restart worlds that have ended by themselves.
    """
    rng = np.random.default_rng(0)
    # Rounded to float32, which is what agents give.
    actions = rng.uniform(-1.0, 1.0, (steps, worlds, family.action_size)).astype(np.float32)
    low, high = np.array(family.action_low), np.array(family.action_high)
    physical = np.clip(low + (actions.astype(np.float64) + 1.0) * 0.5 * (high - low), low, high)
    tasks = family.space.sample(worlds, "train", torch.Generator().manual_seed(0))
    runs: dict[str, Run] = {
        "metarl": Ours(family, tasks, torch.from_numpy(actions), threads),
        CEILING: OpenLoop(family, tasks, physical, threads),
    }
    # Over terrain nobody else has them.
    peers = peers and family.model.nhfield == 0
    robot = next((peer for robot, peer in PEERS.items() if peers and family.name.startswith(robot)), None)
    with torch_threads(1), ExitStack() as stack:
        if robot is not None:
            makers = [partial(gymnasium.make, f"{robot}-v5")] * worlds
            # Gymnasium is slow enough that fewer steps measure as well.
            fewer = physical[: max(10, steps // 4)]
            # MuJoCo 4 prints it for every HalfCheetah that Gymnasium loads.
            with lines_left_out("'settotalmass' is deprecated"):
                sync = gymnasium.vector.SyncVectorEnv(makers)
                stack.callback(sync.close)
                runs["SyncVectorEnv"] = _gymnasium(sync, fewer)
                if worlds <= MOST_PROCESSES:
                    parallel = gymnasium.vector.AsyncVectorEnv(makers)
                    stack.callback(parallel.close)
                    runs["AsyncVectorEnv"] = _gymnasium(parallel, fewer)
            if importlib.util.find_spec("envpool") is not None:
                runs["EnvPool"] = _envpool(f"{robot}-v4", physical, threads)
        yield runs


class Ours:
    """Our worlds in closed loop: observation, reward and termination of every step."""

    def __init__(self, family: MujocoFamily, tasks: Tasks, actions: Tensor, threads: int) -> None:
        self.actions = actions
        self.env = make_worlds(without_end(family), len(tasks), threads=threads)
        self.env.horizon = len(actions) + 1
        self.tasks = tasks
        self.env.set_tasks(tasks)
        self.env.reset(torch.Generator())
        _vary(self.physics, tasks)

    @property
    def physics(self) -> MujocoPhysics:
        """The engine's worlds."""
        assert isinstance(self.env.physics, MujocoPhysics)
        return self.env.physics

    def __call__(self) -> float:
        """Return env-steps per second."""
        self.env.reset(torch.Generator().manual_seed(0))
        started = time.perf_counter()
        for action in self.actions:
            self.env.step(action)
        return self.actions.shape[0] * self.actions.shape[1] / (time.perf_counter() - started)

    def new_tasks(self) -> float:
        """Return how many seconds it takes to draw new tasks for all worlds and to start with them."""
        generator = torch.Generator().manual_seed(0)
        started = time.perf_counter()
        self.env.set_tasks(self.env.family.space.sample(self.env.num_worlds, "train", generator))
        self.env.reset(generator)
        seconds = time.perf_counter() - started
        self.env.set_tasks(self.tasks)
        self.env.reset(generator)
        _vary(self.physics, self.tasks)
        return seconds


class OpenLoop:
    """The ceiling: the same physics, controls known in advance, no observation and no reward."""

    def __init__(self, family: MujocoFamily, tasks: Tasks, actions: np.ndarray, threads: int) -> None:
        self.tasks = tasks
        self.physics = MujocoPhysics(family, len(tasks), threads)
        self.physics.apply(tasks, None)
        _vary(self.physics, tasks)
        self.controls = np.ascontiguousarray(actions.transpose(1, 0, 2).repeat(family.frame_skip, axis=1))
        self.steps = len(actions)

    def __call__(self) -> float:
        """Return env-steps per second."""
        family = self.physics.family
        start = family.reset_state(torch.Generator().manual_seed(0), self.tasks)
        self.physics.write(of_physics(family, start), None)
        started = time.perf_counter()
        self.physics.batch.rollout(self.controls.shape[1], self.controls, record=())
        return self.steps * len(self.tasks) / (time.perf_counter() - started)


def without_end(family: MujocoFamily) -> MujocoFamily:
    """Return the family with episodes that no state ends; whether one would have is computed all the same."""
    endless = copy.copy(family)

    def terminated(state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        ended = family.terminated(state, tasks)
        return None if ended is None else torch.zeros_like(ended)

    # Families are frozen.
    object.__setattr__(endless, "terminated", terminated)
    return endless


def _vary(physics: MujocoPhysics, tasks: Tasks, seed: int = 0) -> None:
    """Give every world a model of its own also where the tasks do not: body masses of 0.75 to 1.25 of the model's."""
    if physics.family.apply(tasks):
        return
    factors = np.random.default_rng(seed).uniform(0.75, 1.25, (len(tasks), physics.family.model.nbody))
    physics.batch.expand("body_mass")[:] = physics.family.model.body_mass * factors
    physics.batch.set_const()


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
    over = row["metarl_over"]
    share, pause = percent(over[CEILING]), percent(row["new_tasks_share_of_collection"])
    print_table(
        f"{row['family']}, {row['worlds']} worlds x {row['steps']} steps, {threads} threads, {rounds} rounds",
        ("engine", *COLUMNS),
        [
            # The others restart worlds by themselves, and have no parameters of every world's own: their physics is
            # not that of the ceiling.
            (label, f"{speed:,.0f}", f"{over[label]:.2f}x" if label not in ("metarl", CEILING) else "", *own)
            for label, speed in row["env_steps_per_second"].items()
            for own in [(share, pause) if label == "metarl" else ("", "")]
        ],
        words=("engine",),
    )


def _print_ceilings(report: dict[str, Any]) -> None:
    print_table(
        f"our closed loop against the open-loop ceiling, {report['threads']} threads, {report['rounds']} rounds",
        ("family", "worlds", "env-steps/s", "open loop", "of open loop", "new tasks"),
        [
            (
                row["family"],
                str(row["worlds"]),
                f"{row['env_steps_per_second']['metarl']:,.0f}",
                f"{row['env_steps_per_second'][CEILING]:,.0f}",
                percent(row["metarl_over"][CEILING]),
                percent(row["new_tasks_share_of_collection"]),
            )
            for row in report["results"]
        ],
        words=("family",),
    )
