"""Whether what options ask for fits into memory, reckoned before anything is made of it.

Without that the system would end the process in the middle of it, or make everybody on the machine wait. An estimate is
meant to be right within a factor of 2 (tests/test_memory.py measures real peaks). What is here knows numbers only: who
has the settings of a run complete asks, before a folder is made.

    require({"--tasks, --episodes or --horizon": episodes(...), "--hidden": ...}, device)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from metarl.errors import UserError
from metarl.system import addresses_left

if TYPE_CHECKING:
    import torch

FLOAT, DOUBLE = 4, 8
"""Bytes of a number."""
STORED = 16
"""Copies of weights with the state of an optimiser, until a checkpoint of them is written."""
WORLD, TORCH_WORLD, TASK_NUMBER = 20_000, 1000, 160
"""Bytes of a world on the CPU engine, of one whose physics is in torch, and of each number of its task."""
GPU_WORLD = 60_000
"""Bytes of a world on the GPU engine, buffers of contacts included."""
LITTLE = 1 << 26
"""Bytes that any machine has."""
CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux says what containers may take."""


def require(parts: Mapping[str, int], device: torch.device | None = None) -> None:
    """Refuse what does not fit into memory.

    Args:
        parts: what asks for memory, to be read after "lower" (options, or arguments) -> bytes.
        device: where they are needed, if not in the machine's memory.

    Raises:
        UserError: they are not free; says what asks for most.
    """
    free, needed = free_memory(device), sum(parts.values())
    if needed > free:
        lower = max(parts, key=lambda name: parts[name])
        where = "" if device is None or device.type == "cpu" else f" of {device}"
        raise UserError(f"Needs about {_size(needed)} of memory{where}, and {_size(free)} are free: lower {lower}.")


def check_room(count: int, what: str) -> None:
    """Refuse to make more of a file than fits into memory; little is not looked at.

    Args:
        count: bytes that are made of it.
        what: it is called.

    Raises:
        UserError: they are not free.
    """
    if count > LITTLE:
        require({f"the size of {what}": count})


def _size(count: int) -> str:
    """Return a number of bytes in words. Whole numbers may be too large for floats."""
    for unit, size in (("TB", 10**12), ("GB", 10**9)):
        if count >= 10 * size:
            return f"{count // size:,} {unit}"
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.0f} MB"


# -- what is free -----------------------------------------------------------------------------------------------------


def free_memory(device: torch.device | None = None) -> int:
    """Return how much memory this process may still take, bytes; of a GPU where one is given."""
    if device is not None and device.type == "cuda":
        import torch

        # What torch holds, and does not use, is free too.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return max(0, min(_machine(), *_containers(), *addresses_left()))


def _machine() -> int:
    """Return what the machine has left."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Windows: the fifth of the numbers of MEMORYSTATUSEX is what is free. The first one is its length.
    status = (ctypes.c_ulonglong * 8)(64)
    windows: Any = ctypes
    windows.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status[2])


def _containers() -> Iterator[int]:
    """Yield what is left of each of the limits of the groups of processes that this one is in."""
    own = Path("/proc/self/cgroup")
    if not own.exists():
        return
    for line in own.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        first = controllers == ""
        if not first and "memory" not in controllers.split(","):
            continue
        root = CGROUPS if first else CGROUPS / "memory"
        limit, used = ("memory.max", "memory.current") if first else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        inside = PurePosixPath(name.lstrip("/"))
        # A container may see its own group as the root.
        for group in (inside, *inside.parents, PurePosixPath()):
            files = root / group / limit, root / group / used
            if all(file.exists() for file in files) and files[0].read_text().strip() != "max":
                yield int(files[0].read_text()) - int(files[1].read_text())


# -- what is needed ---------------------------------------------------------------------------------------------------
# Factors of what is kept, copied and on its way at once; measured, and in bytes where nothing else is said.


def worlds(count: int, *, task_numbers: int, state_numbers: int = 0, in_torch: bool = False, gpu: bool = False) -> int:
    """Reckon B worlds.

    Args:
        count: B.
        task_numbers: of the task of each.
        state_numbers: of the state of each, beside the engine's own.
        in_torch: the physics is in torch.
        gpu: they are on a GPU.
    """
    world = TORCH_WORLD if in_torch else GPU_WORLD if gpu else WORLD
    return count * (world + TASK_NUMBER * task_numbers + DOUBLE * state_numbers)


def episodes(steps: int, observation: int, action: int) -> int:
    """Reckon episodes of so many steps in all: as they are recorded, put in order, and made ready to be learned from.

    Args:
        steps: of all episodes together.
        observation: numbers of one, O.
        action: numbers of one, A.
    """
    return 60 * steps * (observation + action + 10)


def layers(inputs: int, hidden: Sequence[int], outputs: int) -> int:
    """Return the weights of a multi-layer perceptron."""
    sizes = (inputs, *hidden, outputs)
    return sum((rows + 1) * columns for rows, columns in pairwise(sizes))


def policy_gradients(*, steps: int, collections: int, at_a_time: int, hidden: Sequence[int]) -> int:
    """Reckon an update by policy gradients, beside the episodes and the weights.

    Args:
        steps: of all episodes of a collection.
        collections: that the update learns from.
        at_a_time: steps whose graph is in memory at once.
        hidden: units of the policy's layers.
    """
    # Log-probabilities of all steps are computed at once, without a graph: a layer, its activation and the next layer.
    passing = 3 * FLOAT * steps * max(hidden, default=0)
    graph = 4 * FLOAT * collections * min(at_a_time, steps) * sum(hidden)
    return passing + graph


def weights_of_tasks(weights: int, tasks: int, collections: int) -> int:
    """Reckon the weights of M tasks that adapt their own: behind each collection, and their gradients."""
    return FLOAT * weights * tasks * (6 + collections) + stored(weights)


def stored(weights: int) -> int:
    """Reckon weights with an optimiser's state, and the checkpoint of them."""
    return FLOAT * weights * STORED


def memory_core(core: str, inputs: int, width: int, blocks: int, context: int) -> int:
    """Return the weights of a memory core (metarl/nets/memory.py)."""
    if core != "transformer":
        return {"gru": 3, "lstm": 4}[core] * width * (inputs + width + 2)
    return width * (2 * inputs + context) + blocks * (4 * width * width + BLOCK // FLOAT)


BLOCK = 100_000
"""Bytes of a block of layers beside its weights."""


def memory_update(*, trials: int, length: int, rows: int, core: str, width: int, blocks: int) -> int:
    """Reckon acting with a memory and training it, beside the episodes and the weights.

    Args:
        trials: M.
        length: steps of a trial, L.
        rows: trials of a minibatch.
        core: gru, lstm or transformer.
        width: H.
        blocks: layers.
    """
    blocks = blocks if core == "transformer" else 1
    # Keys and values of every block, while their room is doubled.
    acting = 2 * FLOAT * trials * width * (length * blocks if core == "transformer" else 4)
    return acting + 18 * FLOAT * rows * length * width * blocks


def pictures(count: int, width: int, height: int) -> int:
    """Reckon pictures in colour that are held until a film is made of them, in a picture of all and in a palette."""
    return 8 * count * width * height


def meta_update(*, items: int, passed: int, item_numbers: int, kept: int) -> int:
    """Reckon a meta-update of a few-shot learner, beside the weights.

    Args:
        items: support and queries of all episodes.
        passed: items that go through the backbone on the way that a gradient goes back.
        item_numbers: of an item.
        kept: numbers that the backbone keeps of an item for its backward pass.
    """
    return FLOAT * (3 * items * item_numbers + 2 * passed * kept)


def drawn(episodes_: int, items: int, numbers: int = 2) -> int:
    """Reckon the rows and labels of test episodes, or their items where these are made for them.

    Args:
        episodes_: how many.
        items: of an episode.
        numbers: that say what an item and its label are.
    """
    return 24 * episodes_ * items * numbers
