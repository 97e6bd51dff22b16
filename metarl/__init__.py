"""Meta-reinforcement learning on families of tasks: agents that adapt, and the adaptation curve."""

from metarl.version import __version__

__all__ = ["__version__"]
