"""Task families, the engines that run them, and their Gymnasium environments."""

from metarl.envs.adapter import GymnasiumFamily
from metarl.envs.registry import families, get, gymnasium_id, make_worlds, register
from metarl.envs.single import FamilyEnv
from metarl.envs.vector import FamilyVectorEnv

__all__ = [
    "FamilyEnv",
    "FamilyVectorEnv",
    "GymnasiumFamily",
    "families",
    "get",
    "gymnasium_id",
    "make_worlds",
    "register",
]
