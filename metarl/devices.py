"""Where is computed: the device of the networks, and CPU threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from metarl.errors import UserError, nearest

DEVICES = ("auto", "cpu", "cuda")
"""Names that a device may be asked for by."""


def resolve_device(name: str) -> torch.device:
    """Return the device called `auto`, `cpu` or `cuda`.

    A GPU comes with its number, see `numbered`.

    Raises:
        UserError: there is no such name, or no such device here.
    """
    if name not in DEVICES:
        raise UserError(f"Unknown device '{name}'.{nearest(name, DEVICES)}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("Got the device 'cuda', but torch finds no CUDA device here. Use --device cpu or auto.")
    return numbered(torch.device(name))


def numbered(device: torch.device) -> torch.device:
    """Return a device with its number, which Warp needs: `cuda` is the GPU of the local rank, else the current one."""
    if device.type != "cuda" or device.index is not None:
        return device
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", torch.cuda.current_device() if local_rank is None else int(local_rank))


def resolve_threads(threads: int) -> int:
    """Return the number of threads, with 0 as all cores that this process may use; ranks of a machine share them."""
    if threads:
        return threads
    # A container or a job scheduler may leave this process fewer cores than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads, for a while: one while the engine's own threads step the worlds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
