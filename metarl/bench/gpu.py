"""Benchmark of the GPU engine: env-steps, iterations of two agents and few-shot updates, and what crosses to the host.

Figures are medians over rounds. Where the device is the CPU (Warp runs there too) they say only that everything works.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from metarl.agents import config_class, make
from metarl.bench.engines import without_end
from metarl.bench.fewshot import PROBLEMS, ours, task_loop
from metarl.config import check
from metarl.devices import resolve_device, resolve_threads, torch_threads
from metarl.envs import families, get, make_worlds
from metarl.envs.family import Family, MujocoFamily, random_actions, with_horizon
from metarl.errors import UserError
from metarl.run.settings import Device
from metarl.seeding import Streams

PARTS = ("time/collect", "time/policy", "time/adapt", "time/update")
"""Parts of an iteration, as the agents' metrics name them."""
VERSIONS = ("torch", "mujoco", "mujoco-warp", "warp-lang")


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
            console.print(f"{agent}: {report['iterations'][agent]}", highlight=False)
        report["fewshot"] = fewshot(config, device)
    console.print(engines_table(report))
    console.print(iterations_table(report))
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
    env.set_tasks(family.space.sample(worlds, "train", generator))
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

    The policy's share on a GPU is the time to launch its kernels, not to run them.
    """
    family = with_horizon(get("half-cheetah-vel"), config.horizon)
    if name == "maml-trpo":
        settings = config_class(name)(tasks=config.tasks, episodes=config.episodes)
    else:
        worlds = config.tasks * config.episodes
        settings = config_class(name)(tasks=worlds, episodes=2, minibatches=min(10, worlds))
    agent = make(name, settings, family.spec(), Streams(0), device)
    env = make_worlds(family, settings.worlds, threads=threads, engine="gpu", device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rounds: list[dict[str, float]] = []
    for turn in range(config.rounds + 1):
        started = time.perf_counter()
        metrics = agent.train_iteration(env, family.space.sample, Streams(turn))
        wait(device)
        rounds.append(dict(metrics) | {"time/iteration": time.perf_counter() - started})
    result = {part: median(r[part] for r in rounds[1:]) for part in (*PARTS, "time/iteration") if part in rounds[0]}
    result["update_share"] = median(r["time/update"] / r["time/iteration"] for r in rounds[1:])
    if device.type == "cuda":
        result["torch_peak_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return result


def fewshot(config: GpuConfig, device: torch.device) -> dict[str, Any]:
    """Return few-shot meta-updates per second, grouped and by a loop over tasks."""
    problem = PROBLEMS[config.case]
    if config.tasks < problem.tasks:
        problem = replace(problem, tasks=config.tasks)
    speeds = {}
    for name, update in (("grouped", ours(problem, "grouped", device)), ("task loop", task_loop(problem, device))):

        def timed(update: Callable[[], object] = update) -> float:
            wait(device)
            started = time.perf_counter()
            update()
            wait(device)
            return 1.0 / (time.perf_counter() - started)

        timed()
        speeds[name] = median(timed() for _ in range(config.rounds))
    return {
        "title": problem.title,
        "tasks": problem.tasks,
        "updates_per_second": speeds,
        "speedup": speeds["grouped"] / speeds["task loop"],
    }


# -- what is printed --------------------------------------------------------------------------------------------------


def engine_line(row: dict[str, Any]) -> str:
    """Return a family's figures in a line, shown while the others are measured."""
    speeds = ", ".join(f"{worlds}: {entry['env_steps_per_second']:,.0f}" for worlds, entry in row["gpu"].items())
    return f"{row['family']}: {speeds}; CPU engine {row['cpu']:,.0f} env-steps/s"


def engines_table(report: dict[str, Any]) -> Table:
    """Return all families as a table."""
    table = Table(title=f"env-steps/s on {report['machine']['device']}; CPU engine: {report['threads']} threads")
    counts = list(report["engines"][0]["gpu"])
    for column in ("family", *(f"{count:,} worlds" for count in counts), "CPU engine", "ratio", "MB", "copies in/out"):
        table.add_column(column, justify="left" if column == "family" else "right")
    for row in report["engines"]:
        largest = row["gpu"][counts[-1]]
        moved = largest["copies"]
        table.add_row(
            row["family"],
            *(f"{row['gpu'][count]['env_steps_per_second']:,.0f}" for count in counts),
            f"{row['cpu']:,.0f}",
            f"{row['over_cpu']:.2f}",
            f"{largest['memory_mb']:,.0f}",
            "-" if moved is None else f"{moved['HtoD']}/{moved['DtoH']}",
        )
    return table


def iterations_table(report: dict[str, Any]) -> Table:
    """Return iterations and updates as a table."""
    shot = report["fewshot"]
    table = Table(title="iterations, half-cheetah-vel; and few-shot meta-updates", caption=shot["title"])
    for column in ("what", "figure", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for agent, parts in report["iterations"].items():
        for part, value in parts.items():
            table.add_row(agent, part, f"{value:.3f}")
    for name, speed in shot["updates_per_second"].items():
        table.add_row("few-shot", f"{name}, updates/s", f"{speed:.2f}")
    table.add_row("few-shot", "grouped / task loop", f"{shot['speedup']:.2f}")
    return table
