"""Meta-reinforcement learning on families of tasks: agents that adapt, and the adaptation curve.

    import metarl

    run = metarl.train("maml-trpo", "point-nav", iterations=50, inner_rate=0.5)
    curve = metarl.evaluate(run, random=True)

    train      meta-train an agent on a family of tasks, in a run folder
    resume     go on with a run
    load       a run with its trained agent
    evaluate   runs -> adaptation curves on held-out tasks, with arrays, table and figure
    export     a run -> a policy in a folder that runs without metarl
    identify   a log of a system -> what it says of unknown parameters, with intervals
    families   the task families by name
    worlds     parallel worlds of a family

Each is explained by `help(metarl.train)`. `metarl.envs`, `metarl.agents` and `metarl.fewshot` are imported when they
are first used.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from metarl.version import __version__

# As `typing` has it, which takes a while to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from metarl import agents, envs, fewshot
    from metarl.api.evaluating import evaluate
    from metarl.api.exporting import export
    from metarl.api.families import families
    from metarl.api.identifying import identify
    from metarl.api.runs import load
    from metarl.api.training import resume, train
    from metarl.envs import make_worlds as worlds

__all__ = [
    "__version__",
    "agents",
    "envs",
    "evaluate",
    "export",
    "families",
    "fewshot",
    "identify",
    "load",
    "resume",
    "train",
    "worlds",
]

# Imported when they are asked for: torch and mujoco take seconds, and the command's --help needs neither.
_FACE = {
    "train": ("metarl.api.training", "train"),
    "resume": ("metarl.api.training", "resume"),
    "load": ("metarl.api.runs", "load"),
    "evaluate": ("metarl.api.evaluating", "evaluate"),
    "export": ("metarl.api.exporting", "export"),
    "families": ("metarl.api.families", "families"),
    "identify": ("metarl.api.identifying", "identify"),
    "worlds": ("metarl.envs", "make_worlds"),
}
_ROOMS = ("agents", "envs", "fewshot")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"metarl.{name}")
    if name not in _FACE:
        raise AttributeError(f"module 'metarl' has no attribute '{name}'; it offers {', '.join(__all__)}")
    if "torch" not in sys.modules:
        # As the command does (metarl/cli/main.py says why); OpenMP reads it once, when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module, attribute = _FACE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
