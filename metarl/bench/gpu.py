"""Benchmark of the GPU engine: env-steps, iterations of two agents and few-shot updates, and what crosses to the host.

Figures are medians over rounds. Where the device is the CPU (Warp runs there too) they say only that everything works.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from statistics import median
from typing import Any

import torch
from rich.console import Console

from metarl.agents import config_class, make
from metarl.bench.engines import without_end
from metarl.bench.limits import product
from metarl.bench.maml import PARTS, Counted
from metarl.bench.meta_updates import PROBLEMS, ours, task_loop
from metarl.bench.timing import explain, in_turn, print_table, ratio, seconds_of
from metarl.config import check
from metarl.devices import resolve_device, resolve_threads, torch_threads
from metarl.envs import families, get, make_worlds
from metarl.envs.family import Family, MujocoFamily, random_actions, with_horizon
from metarl.errors import UserError
from metarl.run.settings import Device
from metarl.seeding import Streams
from metarl.types import MetaAgent

VERSIONS = ("torch", "mujoco", "mujoco-warp", "warp-lang")

COLUMNS = {
    "N worlds": "env-steps/s of the GPU engine, with observation and reward",
    "CPU engine": "env-steps/s of the CPU engine of the same machine",
    "ratio": "the GPU engine's best over the CPU engine",
    "MB": "of the device, that the largest number of worlds takes",
    "copies in/out": "between host and device in a round and its reset",
    "time/...": "seconds of an iteration and of its parts",
    "update_share": "the update's share of the iteration",
    "of_product": "the update's share of the limit, a matrix product",
    "product_gflops": "GFLOP/s of that product, in the same rounds",
    "torch_peak_mb": "most memory that torch took in an iteration",
}
"""What the columns and the figures mean."""


@dataclass(frozen=True, kw_only=True)
class GpuConfig:
    """Speed of the GPU engine, beside the CPU engine of the same machine."""

    family: tuple[str, ...] = ("all",)
    """Families; or `all`: the default variant of each."""
    worlds: tuple[int, ...] = (1024, 4096, 16384)
    """Numbers of parallel worlds."""
    cpu_worlds: int = 1024
    """Parallel worlds of the CPU engine beside it."""
    steps: int = 50
    """Control steps of a round."""
    rounds: int = 3
    """Rounds of every figure, after one that warms up."""
    tasks: int = 40
    """Tasks of a meta-iteration."""
    episodes: int = 20
    """Episodes of each task of a MAML-TRPO iteration; RL2 plays 2 in a row."""
    horizon: int = 200
    """Steps of an episode of a meta-iteration."""
    case: str = "omniglot-5"
    """Few-shot problem, of `metarl bench fewshot`."""
    device: Device = "auto"
    """Where; auto is cuda where there is one, else Warp's CPU device."""
    threads: int = 0
    """Threads of the CPU engine; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        least = {"cpu_worlds": 1, "steps": 1, "rounds": 1, "tasks": 1, "episodes": 1, "horizon": 1, "threads": 0}
        check(self, at_least=least)
        if not self.family or min(self.worlds, default=0) < 1 or self.case not in PROBLEMS:
            raise UserError(
                f"Got --family {' '.join(self.family)} --worlds {self.worlds} --case {self.case}. Name families or "
                f"`all`, worlds from 1, and one of {', '.join(PROBLEMS)}."
            )


def run_gpu(config: GpuConfig) -> dict[str, Any]:
    """Measure, print and return everything."""
    device, threads = resolve_device(config.device), resolve_threads(config.threads)
    everything = config.family == ("all",)
    chosen = [variants[0] for variants in families().values()] if everything else [get(name) for name in config.family]
    console = Console(quiet=config.json)
    report: dict[str, Any] = {"machine": describe_machine(device), "threads": threads, "engines": [], "iterations": {}}
    console.print(f"{report['machine']}", highlight=False)
    with torch_threads(threads):
        for family in chosen:
            row = engine_row(family, config, device, threads)
            report["engines"].append(row)
            console.print(engine_line(row), highlight=False)
        for agent in ("maml-trpo", "rl2"):
            report["iterations"][agent] = iteration(agent, config, device, threads)
            console.print(
                f"{agent}: {report['iterations'][agent]['time/iteration']:.2f} s an iteration", highlight=False
            )
        report["fewshot"] = fewshot(config, device)
    if not config.json:
        print_engines(report)
        print_iterations(report)
        console.print(explain(COLUMNS), highlight=False)
    return report


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what the figures hold for."""
    found: dict[str, Any] = {"device": "cpu", "cores": os.cpu_count(), "python": platform.python_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = properties.name
        found["memory_gb"] = round(properties.total_memory / 2**30, 1)
        found["cuda"] = torch.version.cuda
    return found | {name: metadata.version(name) for name in VERSIONS}


# -- engines ----------------------------------------------------------------------------------------------------------


def engine_row(family: Family, config: GpuConfig, device: torch.device, threads: int) -> dict[str, Any]:
    """Return env-steps per second of a family, observation and reward included, every world with its own model."""
    if isinstance(family, MujocoFamily) and not family.apply(family.space.sample(1, "train", torch.Generator())):
        family = get(f"{family.full_name}+mass")
    row: dict[str, Any] = {"family": family.full_name, "gpu": {}}
    for worlds in config.worlds:
        before = used_memory(device)
        run = engine_round(family, worlds, config.steps, "gpu", device, threads)
        run()
        speed = median(run() for _ in range(config.rounds))
        row["gpu"][worlds] = {"env_steps_per_second": speed, "memory_mb": used_memory(device) - before}
        row["gpu"][worlds]["copies"] = copies(run) if device.type == "cuda" else None
        del run
    run = engine_round(family, config.cpu_worlds, config.steps, "cpu", device, threads)
    run()
    row["cpu"] = median(run() for _ in range(config.rounds))
    row["over_cpu"] = max(entry["env_steps_per_second"] for entry in row["gpu"].values()) / row["cpu"]
    return row


def engine_round(
    family: Family, worlds: int, steps: int, engine: str, device: torch.device, threads: int
) -> Callable[[], float]:
    """Return what takes the steps in all worlds, of which none ends, and returns env-steps per second."""
    endless = without_end(family) if isinstance(family, MujocoFamily) else with_horizon(family, steps + 1)
    generator = torch.Generator().manual_seed(0)
    env = make_worlds(endless, worlds, threads=threads, engine=engine, device=device)
    env.horizon = steps + 1
    env.set_tasks(endless.space.sample(worlds, "train", generator))
    # As many as keep every step's actions apart, without filling the memory.
    actions = [random_actions(family, worlds, generator).float().to(env.device) for _ in range(min(steps, 20))]

    def run() -> float:
        env.reset(torch.Generator().manual_seed(0))
        wait(device)
        started = time.perf_counter()
        for step in range(steps):
            env.step(actions[step % len(actions)])
        wait(device)
        return steps * worlds / (time.perf_counter() - started)

    return run


def copies(run: Callable[[], object]) -> dict[str, int]:
    """Return how many copies between host and device a round makes, its reset included, by direction."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
    counts = {"HtoD": 0, "DtoH": 0}
    for event in profile.key_averages():
        for way in counts:
            if event.key.startswith("Memcpy") and way in event.key:
                counts[way] += event.count
    return counts


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def used_memory(device: torch.device) -> float:
    """Return the MB of the device that are taken, by torch, Warp and everybody else."""
    if device.type != "cuda":
        return 0.0
    wait(device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**20


# -- iterations and updates -------------------------------------------------------------------------------------------


def iteration(name: str, config: GpuConfig, device: torch.device, threads: int) -> dict[str, float]:
    """Return the seconds of one iteration of an agent, by part, and the device's peak memory.

    The policy's share on a GPU is the time to launch its kernels, not to run them. Every round does the same work.
    """
    family = with_horizon(get("half-cheetah-vel"), config.horizon)
    if name == "maml-trpo":
        settings = config_class(name)(tasks=config.tasks, episodes=config.episodes)
    else:
        worlds = config.tasks * config.episodes
        settings = config_class(name)(tasks=worlds, episodes=2, minibatches=min(10, worlds))
    agent = make(name, settings, family.spec(), Streams(0), device)
    env = make_worlds(family, settings.worlds, threads=threads, engine="gpu", device=device)
    start = agent.state_dict()

    def one(agent: MetaAgent) -> dict[str, float]:
        agent.load_state_dict(start)
        started = time.perf_counter()
        metrics = agent.train_iteration(env, family.space.sample, Streams(0))
        wait(device)
        return dict(metrics) | {"time/iteration": time.perf_counter() - started}

    result: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        one(agent)
        result["torch_peak_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    counted = None
    runs: dict[str, Callable[[], dict[str, float]]] = {name: partial(one, agent)}
    if name == "maml-trpo":
        counted = Counted(settings, family.spec(), Streams(0), device)
        one(counted)
        multiply = product(device)
        runs["product"] = lambda: {"seconds": multiply()}
    figures = in_turn(config.rounds, runs)
    rounds = figures[name]
    result |= {part: median(r[part] for r in rounds) for part in (*PARTS, "time/iteration") if part in rounds[0]}
    updates = [r["time/update"] for r in rounds]
    result["update_share"] = ratio(updates, [r["time/iteration"] for r in rounds])
    if counted is not None:
        limit = [turn["seconds"] for turn in figures["product"]]
        result["of_product"] = counted.operations * ratio(limit, updates)
        result["product_gflops"] = 1e-9 / median(limit)
    return result


def fewshot(config: GpuConfig, device: torch.device) -> dict[str, Any]:
    """Return few-shot meta-updates per second, grouped and by a loop over tasks.

    Without the share of a matrix product: convolutions on a GPU may round to TF32 where products do not.
    """
    problem = PROBLEMS[config.case]
    if config.tasks < problem.tasks:
        problem = replace(problem, tasks=config.tasks)

    def finished(update: Callable[[], object]) -> None:
        update()
        wait(device)

    updates = {"grouped": ours(problem, "grouped", device), "task loop": task_loop(problem, device)}
    seconds = in_turn(
        config.rounds, {name: partial(seconds_of, partial(finished, update)) for name, update in updates.items()}
    )
    return {
        "title": problem.title,
        "tasks": problem.tasks,
        "updates_per_second": {name: 1.0 / median(times) for name, times in seconds.items()},
        "speedup": ratio(seconds["task loop"], seconds["grouped"]),
    }


# -- what is printed --------------------------------------------------------------------------------------------------


def engine_line(row: dict[str, Any]) -> str:
    """Return a family's figures in a line, shown while the others are measured."""
    speeds = ", ".join(f"{worlds}: {entry['env_steps_per_second']:,.0f}" for worlds, entry in row["gpu"].items())
    return f"{row['family']}: {speeds}; CPU engine {row['cpu']:,.0f} env-steps/s"


def print_engines(report: dict[str, Any]) -> None:
    """Print all families as a table."""
    counts = list(report["engines"][0]["gpu"])
    rows = []
    for row in report["engines"]:
        largest = row["gpu"][counts[-1]]
        moved = largest["copies"]
        speeds = [f"{row['gpu'][count]['env_steps_per_second']:,.0f}" for count in counts]
        copied = "-" if moved is None else f"{moved['HtoD']}/{moved['DtoH']}"
        rows.append(
            (
                row["family"],
                *speeds,
                f"{row['cpu']:,.0f}",
                f"{row['over_cpu']:.2f}",
                f"{largest['memory_mb']:,.0f}",
                copied,
            )
        )
    print_table(
        f"env-steps/s on {report['machine']['device']}; CPU engine: {report['threads']} threads",
        ("family", *(f"{count:,} worlds" for count in counts), "CPU engine", "ratio", "MB", "copies in/out"),
        rows,
        words=("family",),
    )


def print_iterations(report: dict[str, Any]) -> None:
    """Print iterations and few-shot updates as a table."""
    shot = report["fewshot"]
    iterations = [
        (agent, part, f"{value:.3f}") for agent, parts in report["iterations"].items() for part, value in parts.items()
    ]
    updates = [("few-shot", f"{name}, updates/s", f"{speed:.2f}") for name, speed in shot["updates_per_second"].items()]
    print_table(
        f"iterations, half-cheetah-vel; few-shot: {shot['title']}",
        ("what", "figure", "value"),
        [*iterations, *updates, ("few-shot", "grouped / task loop", f"{shot['speedup']:.2f}")],
        words=("what", "figure"),
    )
