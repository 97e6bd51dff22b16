"""All that commands import, imported once: the processes that tests start are forked from one that has this.

It computes nothing, so that they have no state of the tests; and no test's hooks are in it.
"""

from __future__ import annotations

import importlib
import pkgutil

import metarl

LATE = ("matplotlib.pyplot", "torch._dynamo", "torch.utils.tensorboard", "typeguard", "tyro")
"""What commands import when they need it."""
ENGINES = ("metarl.envs.engines.cpu", "metarl.envs.engines.in_torch")
"""Of the engines' room those that need no compiler for GPUs."""

for name in LATE + ENGINES:
    importlib.import_module(name)
for found in pkgutil.walk_packages(metarl.__path__, "metarl."):
    if not found.name.endswith(("__main__", ".child", ".keeper")) and ".engines." not in found.name:
        importlib.import_module(found.name)
