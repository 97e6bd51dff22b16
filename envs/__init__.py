"""Task families, the engines that run them, and their Gymnasium environments."""

from metarl.envs.registry import families, get, gymnasium_id, make_worlds, register
from metarl.envs.single import FamilyEnv
from metarl.envs.vector import FamilyVectorEnv

__all__ = ["FamilyEnv", "FamilyVectorEnv", "families", "get", "gymnasium_id", "make_worlds", "register"]
