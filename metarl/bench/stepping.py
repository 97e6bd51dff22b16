"""Steps of worlds on the GPU engine and on the CPU engine: the whole step, physics alone, memory, what the device does.

The whole step and physics alone go through the same states: the same tasks, starts and actions, and no episode ends.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from metarl.bench.engines import without_end
from metarl.bench.timing import in_turn, ratio
from metarl.devices import device_problem, repeatable, torch_threads
from metarl.envs import get, make_worlds
from metarl.envs.engines.gpu import WarpPhysics
from metarl.envs.family import Family, MujocoFamily, random_actions
from metarl.envs.horizon import with_horizon

ACTIONS = 20
"""Different actions of a round, which take turns: enough to keep steps apart, without filling the memory."""


def with_own_models(family: Family) -> Family:
    """Return a family in which every world has a model of its own: body masses, where tasks change nothing."""
    if isinstance(family, MujocoFamily) and not family.apply(family.space.sample(1, "train", torch.Generator())):
        return get(f"{family.full_name}+mass")
    return family


class Stepping:
    """Worlds of a family, stepped in rounds that all begin at the same start.

    Args:
        family: the family.
        worlds: B.
        steps: of a round.
        engine: `cpu` or `gpu`.
        device: of the GPU engine.
        threads: of the CPU engine.
    """

    def __init__(
        self, family: Family, worlds: int, steps: int, engine: str, device: torch.device, threads: int
    ) -> None:
        endless = without_end(family) if isinstance(family, MujocoFamily) else with_horizon(family, steps + 1)
        generator = torch.Generator().manual_seed(0)
        self.env = make_worlds(endless, worlds, threads=threads, engine=engine, device=device)
        self.env.horizon = steps + 1
        self.steps = steps
        self.env.set_tasks(endless.space.sample(worlds, "train", generator))
        count = min(steps, ACTIONS)
        drawn = [random_actions(family, worlds, generator).float().to(self.env.device) for _ in range(count)]
        self.actions: Sequence[Tensor] = drawn
        self.physical: Sequence[Tensor] = [self.env._physical(action).clone() for action in drawn]

    def whole(self) -> float:
        """Return the env-steps per second of whole steps: physics, observation, reward and ends."""
        return self._round(self.actions, self.env.step)

    def physics(self) -> float:
        """Return the env-steps per second of physics alone."""
        return self._round(self.physical, self._move)

    def _move(self, action: Tensor) -> None:
        physics = self.env.physics
        if isinstance(physics, WarpPhysics):
            physics._control.copy_(action)
            physics._steps()
        else:
            physics.advance(action, None)

    def _round(self, actions: Sequence[Tensor], take: Any) -> float:
        self.env.reset(torch.Generator().manual_seed(0))
        wait(self.env.device)
        started = time.perf_counter()
        for step in range(self.steps):
            take(actions[step % len(actions)])
        wait(self.env.device)
        return self.steps * self.env.num_worlds / (time.perf_counter() - started)


def gpu_figures(family: Family, worlds: int, steps: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Return what a number of worlds does on the GPU engine; of a device that is too small, what it says."""
    before = used_memory(device)

    def measured() -> dict[str, Any]:
        stepping = Stepping(family, worlds, steps, "gpu", device, 1)
        figures = in_turn(rounds, {"whole": stepping.whole, "physics": stepping.physics})
        found: dict[str, Any] = {
            "env_steps_per_second": median(figures["whole"]),
            "physics_alone": median(figures["physics"]),
            "of_physics": ratio(figures["whole"], figures["physics"]),
            "memory_mb": used_memory(device) - before,
            "failures": stepping.env.failures,
            "busy": None,
            "copies": None,
        }
        if device.type == "cuda":
            found |= profiled(stepping, found["env_steps_per_second"])
        return found

    return where_it_fits(measured)


def deterministic_figures(family: Family, worlds: int, steps: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Return `times_as_long`, what a step takes with --deterministic over one without; the rest as in `gpu_figures`."""

    def measured() -> dict[str, Any]:
        plain = Stepping(family, worlds, steps, "gpu", device, 1)
        with repeatable(on=True):
            same = Stepping(family, worlds, steps, "gpu", device, 1)

        def repeated() -> float:
            with repeatable(on=True):
                return same.whole()

        figures = in_turn(rounds, {"plain": plain.whole, "repeated": repeated})
        return {"worlds": worlds, "times_as_long": ratio(figures["plain"], figures["repeated"])}

    return where_it_fits(measured)


def where_it_fits(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is measured; of a device that is too small, what it says as `problem`."""
    try:
        return measure()
    except RuntimeError as error:
        problem = device_problem(error)
        if problem is None:
            raise
        return {"problem": problem}


def profiled(stepping: Stepping, speed: float) -> dict[str, Any]:
    """Return what the device does in a round of whole steps and its reset.

    Args:
        stepping: the worlds.
        speed: their env-steps per second, of rounds that were not watched.

    Returns:
        `busy`, the share of a step's time in which kernels run; `kernels`, how many run in a step; `copies` between
        host and device by direction.
    """
    stepping.whole()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        stepping.whole()
    spans, counts = [], {"HtoD": 0, "DtoH": 0}
    for event in profile.events() or ():
        if event.device_type.name != "CUDA":
            continue
        if not event.name.startswith(("Memcpy", "Memset")):
            spans.append((event.time_range.start, event.time_range.end))
        for way in counts:
            if event.name.startswith("Memcpy") and way in event.name:
                counts[way] += 1
    seconds = covered(spans) * 1e-6
    took = stepping.steps * stepping.env.num_worlds / speed
    return {"busy": seconds / took, "kernels": len(spans) / stepping.steps, "copies": counts}


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts: (start, end), in any order."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@dataclass(frozen=True, kw_only=True)
class Cores:
    """What so many threads of the CPU engine do."""

    threads: int
    env_steps_per_second: float
    physics_alone: float
    efficiency: float
    """Speed over that of one thread, for each thread."""


def cpu_figures(family: Family, worlds: int, steps: int, rounds: int, threads: int) -> list[Cores]:
    """Return the CPU engine's speed with 1, 2, 4 ... threads, and with all; torch has one, as in a collection."""
    found: list[Cores] = []
    with torch_threads(1):
        for count in sorted({*(2**power for power in range(threads.bit_length())), threads}):
            stepping = Stepping(family, worlds, steps, "cpu", torch.device("cpu"), count)
            figures = in_turn(rounds, {"whole": stepping.whole, "physics": stepping.physics})
            speed = median(figures["whole"])
            one = found[0].env_steps_per_second if found else speed
            found.append(
                Cores(
                    threads=count,
                    env_steps_per_second=speed,
                    physics_alone=median(figures["physics"]),
                    efficiency=speed / one / count,
                )
            )
    return found


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def used_memory(device: torch.device) -> float:
    """Return the MB of the device that are taken, by torch, Warp and everybody else."""
    if device.type != "cuda":
        return 0.0
    wait(device)
    # Worlds of before refer to themselves.
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**20
