"""Task families, the engines that run them, and their Gymnasium environments.

What uses families: `families`, `get`, `make_worlds`, `FamilyEnv`, `FamilyVectorEnv`, `gymnasium_id`. What brings one's
own: `register`, with `GymnasiumFamily` for an environment that exists, else with `MujocoFamily` or `TorchFamily`; the
rest is what the file of such a family needs.
"""

# Before all that imports MuJoCo.
from metarl.envs import opengl as opengl  # isort: split

from metarl.envs.bodies.locomotion import uniform_start
from metarl.envs.external.adapter import GymnasiumFamily
from metarl.envs.family import Family, Marker, MujocoFamily, Observable, State, Terms, TorchFamily, View, on
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.gym.vector import FamilyVectorEnv
from metarl.envs.making import make_worlds
from metarl.envs.models import gymnasium_model, noisy_start
from metarl.envs.registry import families, get, gymnasium_id, register
from metarl.space import FixedTasks, ListedTasks, Parameter, ParameterSpace
from metarl.types import Tasks

__all__ = [
    "Family",
    "FamilyEnv",
    "FamilyVectorEnv",
    "FixedTasks",
    "GymnasiumFamily",
    "ListedTasks",
    "Marker",
    "MujocoFamily",
    "Observable",
    "Parameter",
    "ParameterSpace",
    "State",
    "Tasks",
    "Terms",
    "TorchFamily",
    "View",
    "families",
    "get",
    "gymnasium_id",
    "gymnasium_model",
    "make_worlds",
    "noisy_start",
    "on",
    "register",
    "uniform_start",
]
