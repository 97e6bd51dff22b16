"""Bandits: k arms of unknown mean reward. Exact probes of an agent that learns from experience (`bandit`).

One episode is one pull, and n episodes with the same task are a trial of n pulls: the adaptation curve of this family
is the reward of every pull. The best that can be had is known (`metarl play` shows Gittins indices and others).

| variant | arms | an arm's mean reward | the reward of a pull | source |
|---|---|---|---|---|
| bernoulli-5 (default), bernoulli-10, bernoulli-50 | 5, 10, 50 | U[0, 1] | 1 with this probability, else 0 | RL2 |
| gaussian-5, gaussian-10 | 5, 10 | N(0, 1) | normal around it, standard deviation 1 | 10-armed testbed |
| dpt23 | 5 | U[0, 1] | normal around it, standard deviation 0.3 | DPT |

RL2 is Duan et al. 2016, section 3.1; the 10-armed testbed is that of Sutton & Barto 2018, section 2.3; DPT is Lee et
al. 2023, whose trials are 500 pulls. There are no out-of-distribution tasks: a probability has nowhere else to be, a
normal no ends.

| index | observation | unit |
|---|---|---|
| 0 | constant 0: there is nothing to see but rewards | 1 |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from torch import Tensor

from metarl.envs.family import Observable, State, Terms, TorchFamily
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks


@dataclass(frozen=True, kw_only=True)
class Bandit(TorchFamily):
    """Arms to choose from; the reward is drawn from the arm's distribution."""

    rewards: Literal["bernoulli", "gaussian"]
    """Distribution of an arm's reward around its mean."""
    arms: int
    """k."""
    means: Literal["", "uniform", "normal"] = ""
    """Distribution of the arms' mean rewards: U[0, 1], or N(0, 1), which Gaussian ones have unless given."""
    noise: float = 1.0
    """Standard deviation of a Gaussian reward."""
    variant: str = ""
    """Distribution and number of arms unless given."""
    name: str = "bandit"
    summary: str = "find the best of several arms; an episode is one pull"
    source: str
    horizon: int = 1
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = field(init=False)
    action_high: tuple[float, ...] = field(init=False)
    action_unit: str = "the arm pulled"
    discrete: bool = True
    chances: int = 1
    observables: tuple[Observable, ...] = (Observable("constant 0", "-", "1"),)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", self.means or ("uniform" if self.rewards == "bernoulli" else "normal"))
        object.__setattr__(self, "variant", self.variant or f"{self.rewards}-{self.arms}")
        object.__setattr__(self, "action_low", (0.0,) * self.arms)
        object.__setattr__(self, "action_high", (1.0,) * self.arms)
        text = "mean reward of every arm"
        if self.means == "uniform":
            mean = Parameter(name="mean", unit="", description=text, scale="uniform", low=0.0, high=1.0, size=self.arms)
        else:
            mean = Parameter(name="mean", unit="", description=text, scale="normal", mean=0.0, std=1.0, size=self.arms)
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (mean,)))

    @property
    def dynamics_vary(self) -> bool:
        """Only the reward differs."""
        return False

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return what chance will do in every pull of the episode, the number of pulls and the last arm: none."""
        draw = torch.rand if self.rewards == "bernoulli" else torch.randn
        chance = draw(len(tasks), self.horizon, generator=generator, dtype=torch.float64)
        none = torch.zeros(len(tasks), 1, dtype=torch.float64)
        return {"chance": chance, "pulls": none, "arm": none - 1.0}

    def advance(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Count the pull."""
        arm = action.argmax(1, keepdim=True).double()
        return {"chance": state["chance"], "pulls": state["pulls"] + 1.0, "arm": arm}

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return nothing worth seeing."""
        return torch.zeros_like(state["pulls"])

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return what the arm gave."""
        mean = (tasks["mean"] * action).sum(1)
        # The clamp is for worlds that have not begun, or that have ended and step on: nothing of theirs is used.
        chance = state["chance"].gather(1, (state["pulls"].long() - 1).clamp(0, self.horizon - 1)).squeeze(1)
        return {"pull": (chance < mean).double() if self.rewards == "bernoulli" else mean + self.noise * chance}

    def optimal_action(self, observation: Float[Tensor, "B O"], tasks: Tasks) -> Float[Tensor, "B A"]:
        """Return the arm of the highest mean; of several choices the best of each."""
        parts = tasks["mean"].split(list(self.choices), 1)
        return torch.cat([torch.zeros_like(part).scatter(1, part.argmax(1, keepdim=True), 1.0) for part in parts], 1)

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which worlds have made their pulls: nothing follows, so this is no time limit."""
        return state["pulls"].squeeze(1) >= self.horizon

    def picture(self, state: State, tasks: Tasks, world: int, width: int, height: int) -> Image.Image:
        """Return a bar of every arm's mean reward, that of the arm last pulled in blue, others grey."""
        image = Image.new("RGB", (width, height), "white")
        canvas = ImageDraw.Draw(image)
        low, high = (0.0, 1.0) if self.means == "uniform" else (-3.0, 3.0)

        def row(mean: float) -> float:
            return height * (0.95 - 0.9 * (min(max(mean, low), high) - low) / (high - low))

        step = width / self.arms
        for arm, mean in enumerate(tasks["mean"][world].tolist()):
            top, bottom = sorted((row(mean), row(0.0)))
            colour = "blue" if arm == state["arm"][world].item() else "grey"
            canvas.rectangle(((arm + 0.1) * step, top, (arm + 0.9) * step, bottom), fill=colour)
        canvas.line((0.0, row(0.0), width, row(0.0)), fill="black")
        return image


RL2 = "Duan et al. 2016 (RL2)"
TESTBED = "Sutton & Barto 2018 (10-armed testbed)"
FAMILIES = (
    *(Bandit(rewards="bernoulli", arms=arms, source=RL2) for arms in (5, 10, 50)),
    *(Bandit(rewards="gaussian", arms=arms, source=TESTBED) for arms in (5, 10)),
    Bandit(rewards="gaussian", arms=5, means="uniform", noise=0.3, variant="dpt23", source="Lee et al. 2023 (DPT)"),
)
"""Default variant first."""
