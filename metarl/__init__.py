"""Meta-reinforcement learning on families of tasks.

The core lives in this package, the task families in `metarl.envs`, the algorithms in `metarl.agents`, and
the `metarl` command in `metarl.cli`.
"""

__version__ = "0.1.0"
