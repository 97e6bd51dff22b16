"""Families, agents and made-up memories for the tests of probes and swaps."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch.nn.functional import one_hot

from metarl.agents import config_class, make
from metarl.agents.rl2 import Rl2
from metarl.envs import get, make_worlds
from metarl.envs.family import Family, Observable, TorchFamily
from metarl.envs.horizon import with_horizon
from metarl.evaluation.probe import probe, probe_tasks
from metarl.evaluation.probe_report import tables
from metarl.seeding import Streams
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks
from tests.helpers.toys import normal

POINT = with_horizon(get("point-nav"), 3)


CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Doors(TorchFamily):
    """Three doors, one of them with a reward behind it."""

    name: str = "doors"
    variant: str = "test"
    summary: str = "find the door"
    source: str = "here"
    horizon: int = 1
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = (0.0,) * 3
    action_high: tuple[float, ...] = (1.0,) * 3
    action_unit: str = "door"
    discrete: bool = True
    observables: tuple[Observable, ...] = (Observable("nothing", "-", "1"),)
    space: ParameterSpace = field(
        default=ParameterSpace(
            "doors@test",
            (
                Parameter(
                    name="door",
                    unit="",
                    description="the right one",
                    scale="choice",
                    choices=(0.0, 1.0, 2.0),
                    ood=(3.0,),
                ),
            ),
        )
    )

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> Any:
        return {"chosen": torch.full((len(tasks), 1), -1.0, dtype=torch.float64)}

    def advance(self, state: Any, action: torch.Tensor, tasks: Tasks) -> Any:
        return {"chosen": action.argmax(1, keepdim=True).double()}

    def observe(self, state: Any, tasks: Tasks) -> torch.Tensor:
        return torch.zeros_like(state["chosen"])

    def reward_terms(self, before: Any, state: Any, action: torch.Tensor, tasks: Tasks) -> Any:
        return {"found": (state["chosen"].squeeze(1) == tasks["door"]).double()}

    def success(self, state: Any, tasks: Tasks) -> torch.Tensor:
        return state["chosen"].squeeze(1) == tasks["door"]


DOORS = Doors()


class Scout:
    """Knows the scaled parameters of its task, and nothing else, once an episode is over."""

    def __init__(self, agent: MadeUp, known: torch.Tensor) -> None:
        self.agent = agent
        self.known = known
        self.memory = torch.zeros_like(known)

    def begin_episode(self) -> None:
        self.waiting = torch.zeros(len(self.known), dtype=torch.bool)

    def act(self, observation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        size = self.agent.family.action_size
        wish = torch.rand(len(self.memory), size, generator=generator)
        if not self.agent.ignores_memory:
            wish = self.memory
        return one_hot(wish.argmax(1), size).float() if self.agent.family.discrete else wish

    def see(self, reward: torch.Tensor, ended: torch.Tensor) -> None:
        self.memory = torch.where(ended[:, None], self.known, self.memory)
        self.waiting = self.waiting | ended

    def look(self, observation: torch.Tensor) -> tuple[torch.Tensor, object]:
        assert not bool(self.waiting.any())
        self.agent.looked_at.append(observation)
        features = self.agent.features(self.memory).float()
        return features, None

    def carried(self, order: torch.Tensor) -> Scout:
        other = Scout(self.agent, self.known)
        other.memory = self.memory[order]
        return other


@dataclass
class MadeUp:
    """An agent (and its own learner) whose policies are scouts; only what a probe needs."""

    family: Family
    features: Callable[[torch.Tensor], torch.Tensor]
    ignores_memory: bool = True
    trial: int = 2
    name: str = "scout"
    config: None = None
    pools: bool = False
    looked_at: list[torch.Tensor] = field(default_factory=list)
    started: list[Tasks] = field(default_factory=list)

    def start(self, tasks: Tasks) -> MadeUp:
        self.started.append(tasks)
        self.policy = Scout(self, self.family.space.features(tasks))
        return self

    def learn(self, experience: Any) -> MadeUp:
        return self

    def train_iteration(self, env: Any, sample_tasks: Any, streams: Any) -> dict[str, float]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def mixed(memory: torch.Tensor) -> torch.Tensor:
    """Return features that hold the memory linearly, among things that do not matter."""
    return memory @ normal(memory.shape[1], 8, seed=1) + 3.0


def probed(agent: MadeUp, count: int = 60, worlds: int = 60, split: str = "test") -> dict[str, Any]:
    space = agent.family.space
    fit, tasks = probe_tasks(space, split, count, Streams(0))
    env = make_worlds(agent.family, worlds, threads=1)
    return probe([agent], env, space, fit, tasks, 0, discrete=agent.family.discrete)


def rl2(core: str = "gru", family: Family = POINT, **options: Any) -> Rl2:
    config = config_class("rl2")(tasks=4, minibatches=1, episodes=2, width=8, core=core, **options)
    agent = make("rl2", config, family.spec(), Streams(0), CPU)
    assert isinstance(agent, Rl2)
    return agent


def shown(result: dict[str, Any]) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    for part in tables(result, "held-out tasks"):
        console.print(part)
    return console.export_text()
