"""The C library's memory allocator, told to keep what is freed.

Every update allocates the same tensors of tens of MB again. By default glibc returns such blocks to the kernel when
they are freed, and the next allocation pays a page fault for every 4 KiB: up to half of an update's time on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Numbers of `mallopt`'s parameters, as in glibc's malloc.h."""
NEVER = 2**31 - 1
"""Free bytes at the end of the heap from which on they are returned: the largest number there is."""
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")
"""Environment variables by which a user has chosen for glibc."""


def keep_freed_memory() -> bool:
    """Let this process keep memory that is freed, and use it again. The `metarl` command calls this when it starts.

    Returns:
        Whether it is so: False where the C library is not glibc, or where the environment chose otherwise.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN):
        return False
    try:
        # musl and others have no such function.
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    # Blocks come from the heap, none from mappings of their own; and its end is never given back.
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, NEVER))
