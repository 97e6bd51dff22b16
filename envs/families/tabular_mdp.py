"""Tabular MDPs: random transitions and rewards between a few states. Exact probes of an agent that learns to plan.

An episode starts in state 0 and takes 10 steps; n episodes with the same task are a trial. Every task is an MDP drawn
from the prior that Bayesian methods assume, so that the best possible play of each is known by dynamic programming
(`metarl play` shows it beside posterior sampling).

| variant | states | actions | transitions P(·|s, a) | mean rewards r(s, a) | the reward of a step |
|---|---|---|---|---|---|
| rl2 (default) | 10 | 5 | flat Dirichlet | N(1, 1) | normal around r(s, a), standard deviation 1 |

Source: Duan et al. 2016 (RL2), section 3.2, after Osband et al. 2013. There are no out-of-distribution tasks: neither
distribution has ends.

| index | observation | unit |
|---|---|---|
| 0-9 | 1 for the present state, 0 for the others | 1 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from metarl.envs.family import Observable, State, Terms, TorchFamily
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks

REWARD_MEAN = 1.0
"""Mean over tasks of a mean reward r(s, a)."""
REWARD_STD = 1.0
"""Standard deviation over tasks of a mean reward r(s, a)."""


@dataclass(frozen=True, kw_only=True)
class TabularMdp(TorchFamily):
    """A finite MDP; rewards and transitions are the task.

    The task's values are flat, state-major: `reward[s * A + a]` is r(s, a), and the S numbers of `transition` from
    (s * A + a) * S on are P(·|s, a).
    """

    states: int
    """S."""
    actions: int
    """A."""
    variant: str
    name: str = "tabular-mdp"
    summary: str = "learn an unknown MDP of a few states over several episodes"
    source: str
    horizon: int = 10
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = field(init=False)
    action_high: tuple[float, ...] = field(init=False)
    action_unit: str = "the action taken"
    discrete: bool = True
    chances: int = 2
    remember: tuple[str, ...] = ("state",)
    observables: tuple[Observable, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "action_low", (0.0,) * self.actions)
        object.__setattr__(self, "action_high", (1.0,) * self.actions)
        rows = tuple(Observable(f"whether the state is {s}", f"state {s}", "1") for s in range(self.states))
        object.__setattr__(self, "observables", rows)
        pairs = self.states * self.actions
        reward = Parameter(
            name="reward",
            unit="",
            description="mean reward of every state and action",
            scale="normal",
            mean=REWARD_MEAN,
            std=REWARD_STD,
            size=pairs,
        )
        transition = Parameter(
            name="transition",
            unit="",
            description="where every state and action leads",
            scale="simplex",
            size=self.states,
            rows=pairs,
        )
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (reward, transition)))

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return state 0, step 0, and what chance will do in every step: to the transition and to the reward."""
        size = (len(tasks), self.horizon)
        zero = torch.zeros(len(tasks), 1, dtype=torch.float64)
        return {
            "state": zero,
            "step": zero.clone(),
            "turn": torch.rand(size, generator=generator, dtype=torch.float64),
            "noise": torch.randn(size, generator=generator, dtype=torch.float64),
        }

    def advance(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Move to a random next state."""
        rows = tasks["transition"].unflatten(1, (-1, self.states))
        pair = self._pair(state["state"], action)
        chances = rows.gather(1, pair[:, :, None].expand(-1, -1, self.states)).squeeze(1)
        # Worlds that have ended use no draw, and may step on.
        turn = state["turn"].gather(1, state["step"].long().clamp_max(self.horizon - 1))
        # Rounding may leave the last sum below 1, and so below the draw.
        # Added up one by one: on a GPU `cumsum` rounds otherwise in every run.
        sums = torch.stack(tuple(accumulate(chances[:, :-1].unbind(1))), 1)
        following = (sums <= turn).sum(1, keepdim=True).double()
        return {**state, "state": following, "step": state["step"] + 1.0}

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return the state, one-hot."""
        # Unlike `one_hot`, which looks at the states.
        return (state["state"] == torch.arange(self.states, device=state["state"].device)).double()

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return what the action gave in the state before it."""
        mean = tasks["reward"].gather(1, self._pair(before["state"], action)).squeeze(1)
        # The clamp is for worlds that have not begun, or that have ended and step on: nothing of theirs is used.
        noise = state["noise"].gather(1, (state["step"].long() - 1).clamp(0, self.horizon - 1)).squeeze(1)
        return {"sampled": mean + noise}

    def picture(self, state: State, tasks: Tasks, world: int, width: int, height: int) -> Image.Image:
        """Return the states as a ring of discs, from the top clockwise.

        The greener, the more its best action gives; the present state is blue. From each a line goes to where its best
        action leads most often.
        """
        image = Image.new("RGB", (width, height), "white")
        canvas = ImageDraw.Draw(image)
        best, action = tasks["reward"][world].unflatten(0, (self.states, self.actions)).max(1)
        rows = tasks["transition"][world].unflatten(0, (self.states, self.actions, self.states))
        leads_to = rows[torch.arange(self.states), action].argmax(1).tolist()
        radius = 0.4 * min(width, height)
        turns = [2.0 * math.pi * s / self.states for s in range(self.states)]
        points = [(width / 2 + radius * math.sin(turn), height / 2 - radius * math.cos(turn)) for turn in turns]
        for start, end in enumerate(leads_to):
            canvas.line((*points[start], *points[end]), fill="grey")
        size = 0.15 * radius
        for s, (x, y) in enumerate(points):
            rest = round(255 * (1.0 - min(max(best[s].item() / 4.0, 0.0), 1.0)))
            colour = "blue" if s == state["state"][world].item() else (rest, 255, rest)
            canvas.ellipse((x - size, y - size, x + size, y + size), fill=colour, outline="black")
        return image

    def _pair(self, state: Float[Tensor, "B 1"], action: Float[Tensor, "B A"]) -> Tensor:
        """Return the index s * A + a, [B, 1]."""
        return state.long() * self.actions + action.argmax(1, keepdim=True)


FAMILIES = (TabularMdp(variant="rl2", states=10, actions=5, source="Duan et al. 2016 (RL2)"),)
"""Default variant first."""
