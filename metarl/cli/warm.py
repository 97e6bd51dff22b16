"""`metarl warm`: compile what robots need on a GPU ahead of their first use."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import tyro

from metarl.cli.codes import BAD_INPUT
from metarl.cli.options import parse
from metarl.errors import UserError, tell
from metarl.run.settings import Device

WARM = """\
Compile the kernels that robots need on the GPU engine, ahead of their first use, which else begins with it.

usage: metarl warm FAMILY... [OPTIONS]

It is done once for each robot, kind of GPU and version of Warp, whose cache keeps the kernels; variants and modifiers
of one robot share nearly all of them, and any number of worlds has the same. Runs with --deterministic need some more,
which are compiled where it is given here too. Several families are compiled side by side.

examples:
  metarl warm half-cheetah-vel
  metarl warm half-cheetah-vel ant-dir+mass humanoid-dir
  metarl warm all"""
WORLDS = 16
"""Kernels are the same for any number of worlds."""
Running = set[subprocess.Popen[str]]
"""The processes that compile now."""


@dataclass(frozen=True, kw_only=True)
class WarmOptions:
    """What is compiled, and for which device."""

    families: tyro.conf.Positional[tuple[str, ...]]
    """Families: NAME, NAME@VARIANT, with +MODIFIER; or `all`: the default variant of every robot."""
    device: Device = "auto"
    """Which device: auto is cuda where there is one, else the CPU, where Warp runs for checks."""
    deterministic: bool = False
    """Compile what runs with --deterministic need."""
    json: bool = False
    """Print one JSON object a family, in place of a line."""


def warm_command(arguments: list[str]) -> int:
    """Run `metarl warm`."""
    options = parse(WarmOptions, arguments, "metarl warm", WARM)
    if not options.families:
        raise UserError("metarl warm needs families, or `all`: metarl warm half-cheetah-vel. See metarl list.")

    from metarl.devices import resolve_device
    from metarl.envs.engines.loading import load

    names = robots(options.families)
    load()
    resolve_device(options.device)
    if len(names) == 1:
        show(warm(names[0], options.device, deterministic=options.deterministic), options)
        return 0
    return _side_by_side(names, options)


def robots(names: Sequence[str]) -> list[str]:
    """Return the full names of families; of `all`, those of robots.

    Raises:
        UserError: a family is unknown, or none of the GPU engine.
    """
    from metarl.envs import families, get
    from metarl.envs.family import MujocoFamily

    if "all" in names:
        if len(names) > 1:
            raise UserError(f"Got {' '.join(names)}. Name families, or `all` alone.")
        return [variants[0].full_name for variants in families().values() if isinstance(variants[0], MujocoFamily)]
    for name in names:
        if not isinstance(get(name), MujocoFamily):
            raise UserError(
                f"{get(name).full_name} is no robot on MuJoCo: there are no kernels to compile. Leave it out."
            )
    return list(dict.fromkeys(names))


def warm(name: str, device: str, *, deterministic: bool) -> dict[str, Any]:
    """Compile what a robot needs, by taking a step with it; return its name and the seconds that it took."""
    import torch

    from metarl.devices import repeatable, resolve_device
    from metarl.envs import make_worlds
    from metarl.envs.family import random_actions

    started = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    with repeatable(on=deterministic):
        worlds = make_worlds(name, WORLDS, engine="gpu", device=resolve_device(device))
        worlds.set_tasks(worlds.family.space.sample(WORLDS, "train", generator))
        worlds.reset(generator)
        worlds.step(random_actions(worlds.family, WORLDS, generator).float().to(worlds.device))
    return {"family": worlds.family_name, "seconds": round(time.perf_counter() - started, 1)}


def _side_by_side(names: Sequence[str], options: WarmOptions) -> int:
    """Give every family a process of its own, several at a time; return the exit code."""
    from metarl.devices import resolve_threads

    # Each uses all cores, but at its end waits for its largest module.
    together = max(1, min(len(names), resolve_threads(0) // 3))
    tell(f"compiling the kernels of {len(names)} families for the GPU engine, {together} at a time")
    code = 0
    running: Running = set()
    interrupted = threading.Event()
    in_a_process = partial(_in_a_process, options=options, running=running, interrupted=interrupted)
    with ThreadPoolExecutor(together) as pool:
        try:
            for result in pool.map(in_a_process, names):
                show(result, options)
                code = BAD_INPUT if "error" in result else code
        except BaseException:
            # Neither those that run are waited for, nor others begun.
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.kill()
            raise
    return code


def _in_a_process(name: str, options: WarmOptions, running: Running, interrupted: threading.Event) -> dict[str, Any]:
    """Return what `warm` returns, or the error that it ended with; the process stands in `running` meanwhile."""
    command = [sys.executable, "-m", "metarl", "warm", name, "--device", options.device, "--json"]
    command += ["--deterministic"] if options.deterministic else []
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        running.add(process)
        if interrupted.is_set():
            process.kill()
        output, errors = process.communicate()
        running.discard(process)
    if process.returncode:
        lines = [line for line in errors.splitlines() if line.strip()]
        return {"family": name, "error": lines[-1] if lines else f"exit code {process.returncode}"}
    return json.loads(output.splitlines()[-1])


def show(result: dict[str, Any], options: WarmOptions) -> None:
    """Print how a family went."""
    if options.json:
        print(json.dumps(result), flush=True)
    elif "error" in result:
        print(f"{result['family']}: {result['error']}", flush=True)
    else:
        print(f"{result['family']}: ready after {result['seconds']} s", flush=True)
