"""Agents whose actions make several choices at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents import config_class, make
from metarl.envs.families.bandit import Bandit
from metarl.envs.family import State, Terms
from metarl.envs.making import make_worlds
from metarl.learning.rollout import collect
from metarl.seeding import Streams
from metarl.types import Tasks
from tests.helpers.toys import seeded

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Levers(Bandit):
    """One of three levers and one of two: the last of either pays 1."""

    @property
    def choices(self) -> tuple[int, ...]:
        return (3, 2)

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        return {"pull": action[:, 2] + action[:, 4]}

    def optimal_action(self, observation: Tensor, tasks: Tasks) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0]).expand(len(observation), -1)


SETTINGS: dict[str, dict[str, Any]] = {
    "maml-trpo": {"tasks": 5, "episodes": 20, "max_kl": 0.1},
    "multitask": {"tasks": 5, "episodes": 20, "max_kl": 0.1},
    "promp": {"tasks": 5, "episodes": 20, "learning_rate": 0.03},
    "varibad": {
        **{"tasks": 60, "episodes": 1, "width": 8, "hidden": (8,), "minibatches": 2, "learning_rate": 3e-2},
        **{"belief_updates": 1, "iterations": 8},
    },
    "ppo": {"tasks": 15, "episodes": 4, "hidden": (8,), "minibatches": 2, "learning_rate": 3e-2, "iterations": 8},
    "dpt": {"tasks": 60, "episodes": 1, "width": 8, "minibatches": 2, "learning_rate": 3e-2, "iterations": 8},
    "rl2": {"tasks": 60, "episodes": 1, "width": 8, "minibatches": 2, "learning_rate": 3e-2, "iterations": 8},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_choice_is_learned(name: str) -> None:
    family = Levers(rewards="gaussian", arms=5, source="this test")
    config = config_class(name)(**SETTINGS[name])
    streams = Streams(0)
    agent = make(name, config, family.spec(), streams, CPU)
    env = make_worlds(family, config.worlds, threads=1)
    for _ in range(8):
        agent.train_iteration(env, family.space.sample, streams)
    tasks = family.space.sample(100, "test", seeded(1))
    policy = agent.start(tasks).policy
    played = collect(make_worlds(family, 100, threads=1), policy, tasks, 1, seeded(2))
    # By chance the first pays in a third of the pulls, and the second in half of them.
    assert float(played.actions[..., 2].mean()) > 0.6
    assert float(played.actions[..., 4].mean()) > 0.7
