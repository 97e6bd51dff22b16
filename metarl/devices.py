"""Where is computed: the device of the networks, and CPU threads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from metarl.errors import UserError, nearest

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1")
"""Names that a device may be asked for by; further GPUs go on with their numbers."""


_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Where cuBLAS reads how much memory its products have; torch asks for one of two settings."""
_FULL = (
    r"CUDA out of memory|CUDA error: out of memory|Failed to allocate \d+ bytes on device 'cuda|"
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
)
"""What torch and Warp say of a device whose memory is used up."""
_TAKEN = (
    r"CUDA-capable device\(s\) is/are busy or unavailable|CUDA error: invalid device ordinal|"
    r"CUDA driver initialization failed|Found no NVIDIA driver|CUDA unknown error|"
    r"Failed to acquire primary context for device"
)
"""What they say of one that another process has for itself, or whose driver does not answer."""


def check_device(name: str) -> None:
    """Raise UserError where there is no device of such a name on any machine."""
    if name not in DEVICES and not re.fullmatch(r"cuda:(0|[1-9][0-9]*)", name):
        raise UserError(f"Unknown device '{name}'.{nearest(name, (*DEVICES, '...'))}")


def resolve_device(name: str) -> torch.device:
    """Return the device called `auto`, `cpu`, `cuda` or `cuda:N`, a GPU with its number (see `numbered`).

    Raises:
        UserError: there is no such name, or no such device here; or processes of torchrun would have to share a GPU.
    """
    check_device(name)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"Got the device '{name}', but torch finds no CUDA device here. Use --device cpu or auto.")
    known, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local > known:
        raise UserError(
            f"Got {local} processes on a machine with {known} GPU{'s' if known > 1 else ''}, and each needs one of its "
            "own. Give torchrun --nproc-per-node as many as there are GPUs."
        )
    device = numbered(torch.device("cuda" if name == "auto" else name))
    if ":" in name and local > 1:
        raise UserError(
            f"Got the device '{name}' for {local} processes of this machine, and each needs a GPU of its own. Use "
            "--device cuda: each process takes the GPU of its local rank."
        )
    if device.index is not None and device.index >= known:
        raise UserError(
            f"Got the device '{device}', but torch finds {known} here, from cuda:0 to cuda:{known - 1}. Use --device "
            "with one of those."
        )
    return device


def numbered(device: torch.device) -> torch.device:
    """Return a device with its number, which Warp needs: `cuda` is the GPU of the local rank, else the current one."""
    if device.type != "cuda" or device.index is not None:
        return device
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", torch.cuda.current_device() if local_rank is None else int(local_rank))


def device_problem(error: RuntimeError) -> str | None:
    """Return in one line what an error says of a device that is full, taken or not there; None for any other error.

    What kinds of RuntimeError torch and Warp raise for it differs from one version to the next; their texts do not.
    """
    text = " ".join(str(error).split())
    said = text if len(text) <= 300 else f"{text[:300]} ..."
    if re.search(_FULL, text):
        return (
            f"the memory of the device does not suffice ({said}). Ask for fewer tasks or episodes, take another device "
            "with --device, or end what else runs there (nvidia-smi lists it)."
        )
    if re.search(_TAKEN, text):
        return (
            f"the device cannot be used ({said}). Another process may have it for itself: end that (nvidia-smi lists "
            "it), or take another device with --device."
        )
    return None


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


@contextmanager
def repeatable(*, on: bool) -> Iterator[None]:
    """Have torch, and with it the GPU engine, give the same numbers in every run, for a while; slower on a GPU.

    On a CPU they do so anyway. What has no such algorithm raises a RuntimeError that names it.
    """
    if not on:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # A module that stands in for itself: nothing knows its attribute.
    memory: Any = torch.utils.deterministic
    filled, workspace = memory.fill_uninitialized_memory, os.environ.get(_WORKSPACE)
    os.environ[_WORKSPACE] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    # Else everything that is about to be written is written twice.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        if workspace is None:
            del os.environ[_WORKSPACE]
        else:
            os.environ[_WORKSPACE] = workspace
