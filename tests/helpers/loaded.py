"""All that commands import, imported once: the processes that tests start are forked from one that has this.

It computes nothing, so that they have no state of the tests; and no test's hooks are in it.
"""

from __future__ import annotations

import importlib
import pkgutil

import matplotlib.pyplot  # noqa: F401
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

import metarl

for found in pkgutil.walk_packages(metarl.__path__, "metarl."):
    # What needs a compiler for GPUs is imported by those who use it.
    if not found.name.endswith(("__main__", ".child")) and ".engines." not in found.name:
        importlib.import_module(found.name)
