"""Benchmark of the GPU engine: env-steps, iterations of two agents and few-shot updates, and what crosses to the host.

Figures are medians over rounds. Where the device is the CPU (Warp runs there too) they say only that everything works.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from statistics import median
from typing import Any

import torch
from rich.console import Console

from metarl.agents import config_class, make
from metarl.bench.limits import product
from metarl.bench.maml import PARTS, Counted
from metarl.bench.meta_updates import PROBLEMS, ours, task_loop
from metarl.bench.stepping import cpu_figures, deterministic_figures, gpu_figures, wait, with_own_models
from metarl.bench.timing import explain, in_turn, percent, print_table, ratio, seconds_of
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_device, resolve_threads, torch_threads
from metarl.envs import families, get, make_worlds
from metarl.envs.family import Family
from metarl.envs.horizon import with_horizon
from metarl.errors import UserError
from metarl.run.settings import Device
from metarl.seeding import Streams
from metarl.types import MetaAgent

VERSIONS = ("torch", "mujoco", "mujoco-warp", "warp-lang")

COLUMNS = {
    "env-steps/s": "of the GPU engine, with observation and reward",
    "physics alone": "through the same states, without observation and reward",
    "of it": "the whole step's share of physics alone",
    "busy": "share of the time in which the device runs kernels",
    "kernels": "that run in a step",
    "MB": "of the device, that the worlds take",
    "failures": "worlds that became invalid, or outgrew their buffers",
    "exact": "times as long a step takes with --deterministic, few worlds",
    "in/out": "copies between host and device in a round and its reset",
    "cores": "threads of the CPU engine of the same machine; torch has one",
    "per core": "speed for each thread, over that of one thread",
    "GPU/CPU": "best of the GPU engine over the CPU engine with all cores",
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
    worlds: tuple[int, ...] = (1024, 4096, 16384, 65536)
    """Numbers of parallel worlds."""
    cpu_family: tuple[str, ...] = ("all",)
    """Those of the families that the CPU engine, and --deterministic, are measured with too; or `all`."""
    cpu_worlds: int = 1024
    """Parallel worlds of the CPU engine beside it."""
    steps: int = 50
    """Control steps of a round on the GPU engine."""
    cpu_steps: int = 10
    """Control steps of a round on the CPU engine."""
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
        least = {
            "cpu_worlds": 1,
            "steps": 1,
            "cpu_steps": 1,
            "rounds": 1,
            "tasks": 1,
            "episodes": 1,
            "horizon": 1,
            "threads": 0,
        }
        check(self, at_least=least, at_most=dict.fromkeys(("rounds", "steps", "cpu_steps"), MOST_STEPS))
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
    on_both = None if config.cpu_family == ("all",) else {get(name).full_name for name in config.cpu_family}
    console = Console(quiet=config.json)
    report: dict[str, Any] = {"machine": describe_machine(device), "threads": threads, "engines": [], "iterations": {}}
    console.print(f"{report['machine']}", highlight=False)
    with torch_threads(threads):
        for family in chosen:
            row = engine_row(family, config, device, threads, beside=on_both is None or family.full_name in on_both)
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


def engine_row(
    family: Family, config: GpuConfig, device: torch.device, threads: int, *, beside: bool
) -> dict[str, Any]:
    """Return env-steps per second of a family, every world with its own model where it has one.

    Args:
        family: the family.
        config: how much is measured.
        device: of the GPU engine.
        threads: of the CPU engine, at most.
        beside: whether the CPU engine, and what --deterministic costs, are measured too.
    """
    family = with_own_models(family)
    row: dict[str, Any] = {"family": family.full_name}
    row["gpu"] = {worlds: gpu_figures(family, worlds, config.steps, config.rounds, device) for worlds in config.worlds}
    row["cpu"], row["over_cpu"], row["deterministic"] = [], None, None
    if beside:
        row["deterministic"] = deterministic_figures(family, min(config.worlds), config.steps, config.rounds, device)
        measured = cpu_figures(family, config.cpu_worlds, config.cpu_steps, config.rounds, threads)
        row["cpu"] = [asdict(cores) for cores in measured]
        speeds = [figures["env_steps_per_second"] for figures in row["gpu"].values() if "problem" not in figures]
        row["over_cpu"] = max(speeds) / measured[-1].env_steps_per_second if speeds else None
    return row


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
        # Its collections took the place of what was launched for the other.
        one(agent)
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
    speeds = [f"{worlds}: {figures.get('problem') or speed(figures)}" for worlds, figures in row["gpu"].items()]
    cores = [f"{cores['threads']}: {cores['env_steps_per_second']:,.0f}" for cores in row["cpu"]]
    exact = row["deterministic"]
    return (
        f"{row['family']}: {', '.join(speeds)}"
        + (f"; with --deterministic {exact.get('problem') or times_as_long(exact)}" if exact else "")
        + (f"; CPU engine by cores {', '.join(cores)}" if cores else "")
    )


def speed(figures: dict[str, Any]) -> str:
    """Return env-steps a second, and of them what physics alone would do."""
    return f"{figures['env_steps_per_second']:,.0f} ({percent(figures['of_physics'])})"


def times_as_long(exact: dict[str, Any]) -> str:
    """Return what a step takes with --deterministic."""
    return f"{exact['times_as_long']:.2f} times as long"


def print_engines(report: dict[str, Any]) -> None:
    """Print the speed of all families on both engines as tables."""
    rows = []
    for row in report["engines"]:
        for worlds, figures in row["gpu"].items():
            name = (row["family"], f"{worlds:,}")
            if "problem" in figures:
                rows.append((*name, figures["problem"], *[""] * 8))
                continue
            busy, moved = figures["busy"], figures["copies"]
            exact = row["deterministic"] or {}
            watched = ("-", "-", "-") if busy is None else (percent(busy), f"{figures['kernels']:.0f}", moves(moved))
            rows.append(
                (
                    *name,
                    f"{figures['env_steps_per_second']:,.0f}",
                    f"{figures['physics_alone']:,.0f}",
                    percent(figures["of_physics"]),
                    f"{figures['memory_mb']:,.0f}",
                    f"{figures['failures']}",
                    *watched,
                    f"{exact['times_as_long']:.2f}" if exact.get("worlds") == worlds else "",
                )
            )
    print_table(
        f"GPU engine on {report['machine']['device']}",
        (
            "family",
            "worlds",
            "env-steps/s",
            "physics alone",
            "of it",
            "MB",
            "failures",
            "busy",
            "kernels",
            "in/out",
            "exact",
        ),
        rows,
        words=("family",),
    )
    print_table(
        "CPU engine of the same machine",
        ("family", "cores", "env-steps/s", "physics alone", "of it", "per core", "GPU/CPU"),
        [
            (
                row["family"],
                str(cores["threads"]),
                f"{cores['env_steps_per_second']:,.0f}",
                f"{cores['physics_alone']:,.0f}",
                percent(cores["env_steps_per_second"] / cores["physics_alone"]),
                percent(cores["efficiency"]),
                f"{row['over_cpu']:.1f}" if cores is row["cpu"][-1] and row["over_cpu"] is not None else "",
            )
            for row in report["engines"]
            for cores in row["cpu"]
        ],
        words=("family",),
    )


def moves(copies: dict[str, int]) -> str:
    """Return copies to the device and to the host."""
    return f"{copies['HtoD']}/{copies['DtoH']}"


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
