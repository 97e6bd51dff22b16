"""A family that is seen: which of three buttons pays, a bright stripe of a picture says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metarl.envs.family import Observable, State, Terms, TorchFamily
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Picture, Tasks
from tests.helpers.toys import DOUBLE

SIDE = 16
BAR = 6
"""Length of a bar."""


@dataclass(frozen=True, kw_only=True)
class Stripes(TorchFamily):
    """The observation is a number of no meaning, a picture [16, 16, 3] of unsigned bytes, and another such number."""

    kind: Literal["still", "noise", "bars"] = "still"
    """A task has a stripe of its own; or each step has another one, among random pixels; or each step has a bar in any
    place, and which way it lies says the button."""
    name: str = "stripes"
    variant: str = "test"
    summary: str = "press the button below the bright stripe"
    source: str = "this test"
    horizon: int = 5
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = (0.0,) * 3
    action_high: tuple[float, ...] = (1.0,) * 3
    action_unit: str = "the button pressed"
    discrete: bool = True
    remember: tuple[str, ...] = ("bright",)
    observables: tuple[Observable, ...] = tuple(Observable(f"number {i}", "-", "-") for i in range(2 + 3 * SIDE**2))
    pictures: tuple[Picture, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        picture = Picture(first=1, shape=(SIDE, SIDE, 3), channels=(2,), largest=255.0)
        object.__setattr__(self, "pictures", (picture,))
        goal = Parameter(name="goal", unit="", description="the bright stripe", scale="uniform", low=0.0, high=3.0)
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (goal,)))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Tensor]:
        size = (len(tasks), self.horizon + 1)
        bright = tasks["goal"][:, None].floor().expand(size)
        if self.kind != "still":
            bright = torch.randint(0, 3, size, generator=generator).double()
        seen = torch.randint(0, 200, (len(tasks), 3 * SIDE**2), generator=generator).double()
        place = torch.randint(0, SIDE - BAR, (len(tasks), 2), generator=generator).double()
        other = torch.randn(len(tasks), 2, generator=generator).double()
        return {"bright": bright.clone(), "noise": seen, "place": place, "other": other}

    def advance(self, state: State, action: Tensor, tasks: Tasks) -> dict[str, Tensor]:
        place = (state["place"] + torch.tensor([3.0, 7.0])).remainder(SIDE - BAR)
        return {**state, "bright": state["bright"].roll(-1, 1), "noise": state["noise"].roll(7, 1), "place": place}

    def observe(self, state: State, tasks: Tasks) -> Tensor:
        pixels = state["noise"].view(-1, SIDE, SIDE, 3) * (self.kind == "noise")
        bright, side = state["bright"][:, :1, None], torch.arange(SIDE)
        row, column = side[:, None] - state["place"][:, :1, None], side - state["place"][:, 1:, None]
        if self.kind == "bars":
            inside = (row >= 0) & (row < BAR) & (column >= 0) & (column < BAR)
            along = torch.where(bright == 1.0, column, row - column)
            lit = inside & (torch.where(bright == 0.0, row, along) == 0.0)
        else:
            lit = (side.div(5, rounding_mode="floor").clamp_max(2) == bright).expand(-1, SIDE, -1)
        pixels = torch.where(lit[..., None], torch.tensor(255.0, dtype=DOUBLE), pixels).flatten(1)
        return torch.cat((state["other"][:, :1], pixels, state["other"][:, 1:]), 1)

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        return {"press": (action.argmax(1) == before["bright"][:, 0]).double()}
