"""Trials for the tests of agents with a memory: a family whose episodes end anyhow, a script, what a core met."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.rl2 import Rl2, Rl2Config
from metarl.envs.family import Observable, State, Terms, TorchFamily
from metarl.learning import rollout
from metarl.learning.recall import Actor
from metarl.learning.rollout import collect
from metarl.learning.trials import Inputs
from metarl.nets.memory import CoreName, Memory
from metarl.nets.policy import Normal
from metarl.seeding import Streams
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import EnvSpec, Step, Tasks, Trajectories
from tests.helpers.toys import DOUBLE, normal, seeded

CPU = torch.device("cpu")
SMALL = Rl2Config(tasks=5, episodes=3, width=4, minibatches=2, epochs=2, iterations=4, entropy=0.1)


@dataclass(frozen=True, kw_only=True)
class Ragged(TorchFamily):
    """Episodes of 1 to 5 steps, ended by a terminal state, by the time limit or by a simulation that fails."""

    discrete: bool = False
    name: str = "ragged"
    variant: str = "test"
    summary: str = "ends anyhow"
    source: str = "this test"
    horizon: int = 5
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = (-1.0, -1.0)
    action_high: tuple[float, ...] = (1.0, 1.0)
    action_unit: str = "m"
    longest: int = 8
    """Steps after which an episode would end by itself are drawn from 1 to here."""
    observables: tuple[Observable, ...] = (Observable("x", "x", "m"), Observable("y", "y", "m"))
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        gain = Parameter(name="gain", unit="", description="gain", scale="uniform", low=-1.0, high=1.0)
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (gain,)))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Tensor]:
        size = (len(tasks), 1)
        return {
            "position": torch.randn(len(tasks), 2, generator=generator, dtype=DOUBLE),
            "left": torch.randint(1, self.longest + 1, size, generator=generator).double(),
            "fails": torch.randint(0, 2, size, generator=generator).double(),
        }

    def advance(self, state: State, action: Tensor, tasks: Tasks) -> dict[str, Tensor]:
        left = state["left"] - 1.0
        broken = (left <= 0.0) & (state["fails"] > 0.0)
        position = torch.where(broken, torch.inf, state["position"] + 0.3 * action)
        return {"position": position, "left": left, "fails": state["fails"]}

    def observe(self, state: State, tasks: Tasks) -> Tensor:
        return state["position"]

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        return {"made_up": 2.0 * tasks["gain"] * action[:, 0] + state["position"].sum(1)}

    def terminated(self, state: State, tasks: Tasks) -> Tensor:
        return state["left"].squeeze(1) <= 0.0


def make(config: Rl2Config, spec: EnvSpec, seed: int = 0, *, double: bool = False) -> Rl2:
    """Return an agent none of whose parameters is special, so that its actions and values differ everywhere."""
    agent = Rl2(config, spec, Streams(seed), CPU)
    if double:
        agent.network.double()
    with torch.no_grad():
        for i, (name, value) in enumerate(agent.network.named_parameters()):
            if name != "log_std":
                value.add_(0.3 * normal(*value.shape, seed=i))
    return agent


# --- a script ------------------------------------------------------------------------------------------------------

# By episode and world: its steps, and whether a terminal state ended it, in place of the time limit of 3 steps.
LENGTHS = torch.tensor([[1, 3], [3, 2], [2, 3]])
TERMINAL = torch.tensor([[True, False], [False, True], [True, False]])
SIGN = torch.tensor([1.0, -1.0])


class Script:
    """The worlds of the table (a `BatchEnv`)."""

    family_name = "script"
    num_worlds = 2
    horizon = 3
    observation_size = 1
    action_size = 1
    failures = 0

    def set_tasks(self, tasks: Tasks) -> None:
        self.episode = -1

    def reset(self, generator: torch.Generator) -> Tensor:
        self.episode += 1
        self.time = 0
        return torch.full((2, 1), float(self.episode))

    def step(self, action: Tensor) -> Step:
        self.time += 1
        length, terminal = LENGTHS[self.episode], TERMINAL[self.episode]
        observation = self.episode + length.clamp_max(self.time) / 10.0
        reward = SIGN * (self.episode + 1 + self.time / 10.0) * (self.time <= length)
        ended = self.time == length
        return Step(observation[:, None], reward, ended & terminal, ended & ~terminal, {"made_up": reward})


SCRIPT = EnvSpec("script", 1, 1, 3, 1, lambda tasks: tasks["number"][:, None])
TWO = Tasks("script", {"number": torch.arange(2.0, dtype=DOUBLE)})


@dataclass
class Watched:
    """What went into the core and came out of it, by call."""

    inputs: list[Tensor] = field(default_factory=list)
    waiting: list[list[bool]] = field(default_factory=list)
    before: list[Memory] = field(default_factory=list)
    after: list[Memory] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def of_world(self, world: int, what: list[Tensor]) -> Tensor:
        """Return the rows of one world, those left out in which it waited."""
        return torch.stack([rows[world] for rows, waits in zip(what, self.waiting, strict=True) if not waits[world]])


def watch(agent: Rl2, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Note every step of the agent's core from now on."""
    watched, original = Watched(), agent.network.core.step

    def step(inputs: Tensor, memory: Memory, waiting: Tensor | None = None) -> tuple[Tensor, Memory]:
        before = copy.deepcopy(memory)
        features, after = original(inputs, memory, waiting)
        watched.inputs.append(inputs.clone())
        watched.waiting.append([False] * len(inputs) if waiting is None else waiting.tolist())
        watched.before.append(before)
        watched.after.append(copy.deepcopy(after))
        watched.features.append(features)
        return features, after

    monkeypatch.setattr(agent.network.core, "step", step)
    return watched


def play(env: Any, actor: Actor, tasks: Tasks, episodes: int, seed: int = 0) -> list[Trajectories]:
    """Play a trial."""
    generator = seeded(seed)
    return [collect(env, actor, tasks, 1, generator, new_trial=number == 0) for number in range(episodes)]


def unscaled(inputs: Inputs) -> None:
    """Let what the network receives be as it is, as if numbers of mean 0 and deviation 1 had been met."""
    for moments in (inputs.observation, inputs.reward):
        moments.count, moments.square = torch.ones_like(moments.count), torch.ones_like(moments.square)
        moments.mean = torch.zeros_like(moments.mean)


def played_script(monkeypatch: pytest.MonkeyPatch, core: CoreName = "gru") -> tuple[Rl2, Watched, list[Trajectories]]:
    """Play the scripted trial with actions that count."""
    agent = make(replace(SMALL, tasks=2, core=core), SCRIPT)
    calls = itertools.count(1)

    def act(features: Tensor) -> Normal:
        mean = torch.tensor([[0.1], [-0.15]]) * next(calls)
        return Normal(mean, torch.full_like(mean, -math.inf))

    monkeypatch.setattr(agent.network, "act", act)
    unscaled(agent.inputs)
    watched = watch(agent, monkeypatch)
    return agent, watched, play(Script(), Actor(agent.network, agent.inputs, CPU), TWO, 3)


def collected(agent: Rl2, monkeypatch: pytest.MonkeyPatch) -> list[Trajectories]:
    """Return a list that fills with the episodes of the agent's training."""
    episodes: list[Trajectories] = []

    def watched(*arguments: Any, **options: Any) -> Trajectories:
        episodes.append(collect(*arguments, **options))
        return episodes[-1]

    monkeypatch.setattr(rollout, "collect", watched)
    return episodes


def mean_and_deviation(numbers: list[float]) -> tuple[float, float]:
    mean = sum(numbers) / len(numbers)
    return mean, math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))
