"""Whether worlds fit into memory, by a rough estimate: the system would end the process in the middle of it."""

from __future__ import annotations

import os
from pathlib import Path

from metarl.envs.family import Family
from metarl.errors import UserError

WORLD_BYTES, NUMBER_BYTES, STEP_BYTES = 20_000, 160, 70
"""Memory that a collection needs for a world, for each number of its task, and for each number of a step, measured."""


def check_memory(family: Family, worlds: int, asked: str, more: int = 0) -> None:
    """Refuse what does not fit into memory.

    Args:
        family: what the worlds are of.
        worlds: B.
        asked: the options that ask for it.
        more: memory needed for something else, bytes.

    Raises:
        UserError: it does not fit.
    """
    step = family.observation_size + family.action_size + 10
    world = WORLD_BYTES + NUMBER_BYTES * family.space.feature_size + STEP_BYTES * step * family.horizon
    needed, free = worlds * world + more, free_memory()
    if needed > free:
        raise UserError(
            f"Got {asked}: that takes about {needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} are free. Ask "
            "for fewer."
        )


def free_memory() -> int:
    """Return how much memory this process may still take, bytes."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    # A container may have been given less.
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
