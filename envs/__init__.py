"""Task families and the engines that run them."""

from metarl.envs.registry import families, get, make_worlds, register

__all__ = ["families", "get", "make_worlds", "register"]
