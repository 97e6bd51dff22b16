"""What this machine can do at most: a matrix product where work is products, a copy where data is only moved.

A limit is measured like a contender, in the same rounds. A share of it is the time in which the machine would do the
same work at its limit, over the time that was taken: the median of the rounds' shares.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from metarl.bench.timing import seconds_of

CPU = torch.device("cpu")
LEAST_SECONDS = 0.1
"""A limit's turn lasts at least so long."""
SIDES = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied, by kind of device."""


def operations(run: Callable[[], object]) -> int:
    """Return the floating-point operations of a call's matrix products and convolutions, two a multiply-add.

    Whatever works on single elements does not count, nor do fused attention and LSTM kernels, which torch does not
    count on a CPU. Convolutions count as direct ones, whatever the kernel does. Count with one task at a time: torch
    counts the backward pass of grouped convolutions too high.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def product(device: torch.device = CPU) -> Callable[[], float]:
    """Return what multiplies two square float32 matrices and returns the seconds of one operation."""
    side = SIDES[device.type]
    left, right = torch.randn(2, side, side, generator=torch.Generator().manual_seed(0)).to(device).unbind()
    result = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=result)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return lambda: seconds_of(multiply, LEAST_SECONDS) / (2 * side**3)


def copy(moved: int) -> Callable[[], float]:
    """Return what copies half of `moved` bytes from one place to another and returns the seconds of one byte.

    A copy reads and writes, so both halves count. It is as large as what is compared with it, so that both find the
    same caches.
    """
    source = torch.zeros(moved // 2, dtype=torch.uint8)
    target = torch.empty_like(source)
    return lambda: seconds_of(partial(target.copy_, source), LEAST_SECONDS) / (2 * len(source))
