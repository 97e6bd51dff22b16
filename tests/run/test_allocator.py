"""Memory that is freed stays with the process, where glibc can be told so."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from metarl.run import allocator

CHURN = """
import resource, sys
import torch
from metarl.run.allocator import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
for _ in range(20):
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Prints the page faults of ten blocks of 40 MB, one behind the other."""


def churn(how: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in allocator.CHOSEN}
    return subprocess.run(
        [sys.executable, "-c", CHURN, how], capture_output=True, text=True, env={**plain, **environment}, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_blocks_cost_no_page_faults_again() -> None:
    kept, plain = churn("keep"), churn("leave")
    assert kept.returncode == 0, kept.stderr
    # A block has 9,765 pages of 4 KiB, or 19 of 2 MiB where the kernel gives such.
    assert int(plain.stdout) >= 10 * 19
    assert int(kept.stdout) < int(plain.stdout) / 4


def test_what_the_environment_chose_stays() -> None:
    assert churn("keep", MALLOC_TRIM_THRESHOLD_="131072").returncode == 3
