"""Benchmark of the few-shot module: meta-updates by every executor, Reptile and episode sampling, beside task loops.

The reference of every ratio is a loop over tasks, or over items, as people write it with plain torch: see
meta_updates.py and episode_sampling.py. Peak memory is what a contender adds in a process of its own.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Literal

import torch
from rich.console import Console

from metarl.bench import episode_sampling as sampling
from metarl.bench.limits import SIDES, copy, operations, product
from metarl.bench.meta_updates import (
    PACKAGES,
    PLAIN,
    PROBLEMS,
    REPTILE,
    Absent,
    contender,
    reptile_step_bytes,
    reptile_updates,
    task_loop,
    usable,
)
from metarl.bench.timing import explain, in_turn, percent, print_table, ratio, seconds_of
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.errors import UserError
from metarl.system import peak_kib

Case = Literal["sinusoid", "omniglot-1", "omniglot-5", "mini-imagenet", "reptile", "sampling"]

COLUMNS = {
    "ms": "milliseconds of a meta-update, or of an episode",
    "speed-up": "on the task loop, written as people write it with plain torch",
    "of product": "share of the machine's limit, a matrix product's GFLOP/s",
    "of copy": "share of the machine's limit, copying as many bytes",
    "peak MB": "memory that it adds to a process of its own",
}
"""What the columns mean."""
SAMPLED = 32
"""Episodes of a meta-batch that is sampled."""
LEAST_SECONDS = 0.2
"""A contender's turn lasts at least so long."""


@dataclass(frozen=True, kw_only=True)
class FewShotConfig:
    """Meta-updates and episode sampling beside loops over tasks."""

    cases: tuple[Case, ...] = ("sinusoid", "omniglot-1", "omniglot-5", "mini-imagenet", "reptile", "sampling")
    """Which."""
    rounds: int = 7
    """Rounds in which the contenders take turns."""
    memory: bool = True
    """Also measure the peak memory of every contender on images."""
    threads: int = 0
    """Threads of torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(self, at_least={"rounds": 1, "threads": 0}, at_most={"rounds": MOST_STEPS})
        if not self.cases:
            raise UserError("Got no case. Name at least one, see `metarl bench fewshot --help`.")


def run_fewshot(config: FewShotConfig) -> dict[str, Any]:
    """Measure, print and return all cases."""
    threads = resolve_threads(config.threads)
    report: dict[str, Any] = {
        "threads": threads,
        "rounds": config.rounds,
        "absent": {},
        "cases": {},
    }
    with torch_threads(threads):
        for case in config.cases:
            if case == "reptile":
                result = _reptile(config.rounds)
            elif case == "sampling":
                result = _sampling(config.rounds, report["absent"])
            else:
                result = _updates(case, config, threads, report["absent"])
            report["cases"][case] = result
            if not config.json:
                _print(result, report)
    if not config.json:
        console = Console(highlight=False)
        shown = {column for result in report["cases"].values() for column in _columns(result)}
        console.print(explain({name: meaning for name, meaning in COLUMNS.items() if name in shown}))
        if report["absent"]:
            console.print(f"Left out, for they do not work here: {'; '.join(report['absent'].values())}.")
    return report


# -- cases ------------------------------------------------------------------------------------------------------------


def _updates(case: str, config: FewShotConfig, threads: int, absent: dict[str, str]) -> dict[str, Any]:
    """Return the figures of one kind of meta-update; note the packages that cannot take part."""
    problem = PROBLEMS[case]
    updates = {}
    for name in (PLAIN, *PACKAGES, *problem.executors):
        try:
            updates[name] = contender(problem, name)
        except Absent as reason:
            absent[name] = str(reason)
    counted = operations(task_loop(problem))
    rows, limit = _compare(updates, config.rounds, product(), counted, "share_of_product")
    if config.memory and problem.width:
        for name in updates:
            rows[name]["peak_mb"] = _peak(case, name, threads)
    note = (
        f"product: {SIDES['cpu']:,} x {SIDES['cpu']:,} in float32, {1e-9 / limit:,.0f} GFLOP/s; counted: "
        f"{counted / 1e9:.3g} GFLOP, the task loop's products and direct convolutions"
    )
    return {
        "title": problem.title,
        "unit": "ms an update",
        "note": note,
        "gflop": counted / 1e9,
        "product_gflops": 1e-9 / limit,
        "rows": rows,
    }


def _reptile(rounds: int) -> dict[str, Any]:
    """Return the figures of Reptile on sinusoids: stacked parameters beside one optimiser a task."""
    moved, steps = reptile_step_bytes(), REPTILE.inner_steps
    rows, limit = _compare(reptile_updates(), rounds, copy(moved), steps * moved, "share_of_copy")
    return {
        "title": "Reptile on sinusoids: MLP 40-40, 25 tasks, 5 Adam steps of 10 items",
        "unit": "ms an update",
        "note": f"copy: {1e-9 / limit:,.1f} GB/s; counted: {steps * moved / 1e6:.3g} MB, parameters, gradients and "
        "moments as Adam reads and writes them",
        "moved_mb": steps * moved / 1e6,
        "copy_gb_per_second": 1e-9 / limit,
        "rows": rows,
    }


def _sampling(rounds: int, absent: dict[str, str]) -> dict[str, Any]:
    """Return the figures of sampling 5-way 1-shot episodes with 1 query a class of 28x28 images."""
    dataset = sampling.made_pictures()
    updates: dict[str, Callable[[], object]] = {
        PLAIN: sampling.by_item(dataset, SAMPLED),
        "ours": sampling.ours(dataset, SAMPLED),
    }
    try:
        updates["easyfsl"] = usable(
            "easyfsl.samplers", lambda package: sampling.with_easyfsl(package, dataset, SAMPLED)
        )
    except Absent as reason:
        absent["easyfsl"] = str(reason)
    moved = sampling.moved_bytes(dataset, SAMPLED)
    rows, limit = _compare(updates, rounds, copy(moved), moved, "share_of_copy", per=SAMPLED)
    return {
        "title": sampling.TITLE,
        "unit": "ms an episode",
        "note": f"copy: {1e-9 / limit:,.1f} GB/s; counted: {moved / SAMPLED / 1e3:.3g} kB an episode, every image read "
        "as bytes and written as float32",
        "moved_mb": moved / 1e6,
        "copy_gb_per_second": 1e-9 / limit,
        "rows": rows,
    }


def _compare(
    updates: dict[str, Callable[[], object]],
    rounds: int,
    limit: Callable[[], float],
    work: int,
    share: str,
    per: int = 1,
) -> tuple[dict[str, dict[str, Any]], float]:
    """Compare contenders with the plain loop and with what the machine can do at most.

    Args:
        updates: the contenders by name.
        rounds: of turns.
        limit: takes its turn too, and returns the seconds of one operation or byte.
        work: operations or bytes of a contender's call.
        share: name of the share of the limit.
        per: episodes of a call, among which the time is divided.

    Returns:
        A row for every contender, and the limit's median.
    """
    runs = {name: partial(seconds_of, update, LEAST_SECONDS) for name, update in updates.items()}
    seconds = in_turn(rounds, {**runs, share: limit})
    limits = seconds.pop(share)
    rows: dict[str, dict[str, Any]] = {
        name: {
            "ms": 1e3 * median(times) / per,
            "speedup": ratio(seconds[PLAIN], times),
            share: work * ratio(limits, times),
        }
        for name, times in seconds.items()
    }
    return rows, median(limits)


# -- memory -----------------------------------------------------------------------------------------------------------


def _peak(case: str, name: str, threads: int) -> float:
    """Return the MB that a contender's updates add to a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (case, name, threads))


def _peak_here(case: str, name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    update = contender(PROBLEMS[case], name)
    before = peak_kib()
    for _ in range(3):
        update()
    return (peak_kib() - before) / 1024.0


# -- what is printed --------------------------------------------------------------------------------------------------


def _columns(result: dict[str, Any]) -> dict[str, Callable[[dict[str, Any]], str]]:
    """Return the columns of a case: name -> what a row shows there."""
    shown: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
        "ms": ("ms", lambda row: f"{row['ms']:,.0f}" if row["ms"] >= 100.0 else f"{row['ms']:.3g}"),
        "speed-up": ("speedup", lambda row: f"{row['speedup']:.2f}x"),
        "of product": ("share_of_product", lambda row: percent(row["share_of_product"])),
        "of copy": ("share_of_copy", lambda row: percent(row["share_of_copy"])),
        "peak MB": ("peak_mb", lambda row: f"{row['peak_mb']:,.0f}"),
    }
    row = next(iter(result["rows"].values()))
    return {name: show for name, (key, show) in shown.items() if key in row}


def _print(result: dict[str, Any], report: dict[str, Any]) -> None:
    columns = _columns(result)
    print_table(
        f"{result['title']}; {report['threads']} threads, median of {report['rounds']} rounds",
        ("contender", *(result["unit"] if name == "ms" else name for name in columns)),
        [(name, *(show(row) for show in columns.values())) for name, row in result["rows"].items()],
        words=("contender",),
    )
    Console(highlight=False).print(result["note"])
