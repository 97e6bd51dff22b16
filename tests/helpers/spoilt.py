"""A family of one's own whose reward or observation is no number in one step of its last world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metarl.envs.family import Observable, State, Terms, TorchFamily
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks

GOAL = Parameter(name="goal", unit="m", description="where to go", scale="uniform", low=-1.0, high=1.0)


@dataclass(frozen=True, kw_only=True)
class Spoilt(TorchFamily):
    what: float
    place: Literal["reward", "observation", "start", "nowhere"]
    step: int = 4
    name: str = "spoilt"
    variant: str = "v1"
    summary: str = "follow a goal"
    source: str = "the tests"
    horizon: int = 10
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = (-1.0,)
    action_high: tuple[float, ...] = (1.0,)
    action_unit: str = "m"
    observables: tuple[Observable, ...] = (Observable("place", "-", "m"), Observable("time", "-", "s"))
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (GOAL,)))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Tensor]:
        start = torch.rand(len(tasks), 1, generator=generator, dtype=torch.float64)
        return {"place": start, "time": torch.zeros_like(start)}

    def advance(self, state: State, action: Tensor, tasks: Tasks) -> dict[str, Tensor]:
        return {"place": state["place"] + 0.1 * action, "time": state["time"] + 1.0}

    def _spoilt(self, value: Tensor, state: State, step: int) -> Tensor:
        last = torch.arange(len(value)) == len(value) - 1
        return torch.where((state["time"].squeeze(1) == step) & last, torch.full_like(value, self.what), value)

    def observe(self, state: State, tasks: Tasks) -> Tensor:
        place = state["place"].squeeze(1)
        if self.place in ("observation", "start"):
            place = self._spoilt(place, state, 0 if self.place == "start" else self.step)
        return torch.stack((state["time"].squeeze(1) / 10.0, place), 1)

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        near = -(state["place"].squeeze(1) - tasks["goal"]).abs()
        if self.place == "reward":
            near = self._spoilt(near, state, self.step)
        return {"cost": -0.1 * action.square().sum(1), "near": near}
