"""Task families, the engines that run them, and their Gymnasium environments."""

from metarl.envs.external.adapter import GymnasiumFamily
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.gym.vector import FamilyVectorEnv
from metarl.envs.registry import families, get, gymnasium_id, make_worlds, register

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
