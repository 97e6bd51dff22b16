"""Reference players of bandits: belief about every arm, and the rule that scores arms by it.

A player pulls the arm of the highest score, among equals the first. After n pulls with rewards of sum s, an arm's
belief is its posterior: Beta(1 + s, 1 + n - s) for a Bernoulli arm with mean U[0, 1], N(s / (n + 1), 1 / (n + 1)) for
a normal arm with mean N(0, 1) and noise N(0, 1). The prior counts as 2 pulls with one success, or as 1 pull with
reward 0. For a normal arm with mean U[0, 1] and noise σ it is taken for N(1/2, 1/12), as DPT's paper does (Lee et al.
2023): 12 σ² pulls with reward 1/2.

| player | score of an arm |
|---|---|
| gittins | finite-horizon Gittins index for the rest of the trial (`gittins_indices`); nearly optimal; Bernoulli only |
| thompson | a draw from the posterior (Thompson 1933) |
| ucb1 | posterior mean + c √(2 ln t / n), t pulls so far, n with the prior's: the form of RL2, which tuned c |
| ucb1-auer | mean + √(2 ln t / n) of the pulls alone, every arm once first (Auer et al. 2002) |
| greedy | posterior mean |
| epsilon-greedy | posterior mean, or with probability ε any arm |

RL2 is Duan et al. 2016, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from metarl.agents.players.gamma import draw_gamma
from metarl.agents.players.gittins import gittins_indices
from metarl.errors import UserError
from metarl.types import Learner, Policy, Tasks, Trajectories

UCB_SCALE = {"bernoulli": 0.2, "gaussian": 0.5}
"""c of `ucb1`, from multiples of 0.1: the best for Bernoulli arms at 100 pulls (as RL2 has it), for normal arms good at
10 and at 100 where the noise is 1."""
EPSILON = 0.1
"""ε of `epsilon-greedy`."""
MOST_PULLS = 200
"""Longest trial that Gittins indices are computed for (14 s): time and memory grow with its cube."""


@dataclass(frozen=True, kw_only=True)
class BanditModel:
    """What a player knows of a bandit before the first pull."""

    arms: int
    """k."""
    rewards: Literal["bernoulli", "gaussian"]
    """Distribution of an arm's reward."""
    means: Literal["", "uniform", "normal"] = ""
    """Distribution of its mean: U[0, 1], or N(0, 1), which Gaussian ones have unless given."""
    noise: float = 1.0
    """Standard deviation of a Gaussian reward."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", self.means or ("uniform" if self.rewards == "bernoulli" else "normal"))

    @property
    def prior(self) -> tuple[float, float]:
        """Return the pulls that the prior counts as, and the mean of their rewards."""
        if self.rewards == "bernoulli":
            return 2.0, 0.5
        return (12.0 * self.noise**2, 0.5) if self.means == "uniform" else (self.noise**2, 0.0)


class Arms(NamedTuple):
    """What was seen of the k arms of M tasks; [M, 1, k] to play K episodes of each, every one the same belief."""

    model: BanditModel
    total: Tensor
    """Sum of the rewards."""
    pulls: Tensor
    """Number of pulls."""

    @property
    def weight(self) -> Tensor:
        """Pulls, and those that the prior stands for."""
        return self.pulls + self.model.prior[0]

    @property
    def mean(self) -> Tensor:
        """Posterior mean."""
        pulls, mean = self.model.prior
        return (self.total + pulls * mean) / self.weight

    def sample(self, episodes: int, generator: torch.Generator) -> Float[Tensor, "M K A"]:
        """Draw means from the posterior, anew for each of K episodes."""
        mean, weight = (x.expand(-1, episodes, -1) for x in (self.mean, self.weight))
        if self.model.rewards == "gaussian":
            noise = self.model.noise * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
            return mean + noise / weight.sqrt()
        wins, losses = draw_gamma(torch.stack((mean * weight, (1.0 - mean) * weight)), generator)
        return wins / (wins + losses)


Score = Callable[[Arms, int, torch.Generator], Tensor]
"""(arms [M, 1, k], K, generator) -> scores [M, K or 1, k]."""


def thompson(arms: Arms, episodes: int, generator: torch.Generator) -> Tensor:
    """Score by a draw from the posterior."""
    return arms.sample(episodes, generator)


def greedy(arms: Arms, episodes: int, generator: torch.Generator) -> Tensor:
    """Score by the posterior mean."""
    return arms.mean


def epsilon_greedy(arms: Arms, episodes: int, generator: torch.Generator) -> Tensor:
    """Score by the posterior mean, or sometimes at random."""
    mean = arms.mean.expand(-1, episodes, -1)
    explore = torch.rand(mean[..., :1].shape, generator=generator) < EPSILON
    return torch.where(explore, torch.rand(mean.shape, generator=generator, dtype=mean.dtype), mean)


def ucb1(arms: Arms, episodes: int, generator: torch.Generator) -> Tensor:
    """Score by posterior mean and bonus."""
    time = arms.pulls.sum(-1, keepdim=True).clamp_min(1.0)
    scale = UCB_SCALE[arms.model.rewards] * arms.model.noise
    return arms.mean + scale * (2.0 * time.log() / arms.weight).sqrt()


def ucb1_auer(arms: Arms, episodes: int, generator: torch.Generator) -> Tensor:
    """Score by empirical mean and bonus, without a prior."""
    time = arms.pulls.sum(-1, keepdim=True).clamp_min(1.0)
    pulls = arms.pulls.clamp_min(1.0)
    scores = arms.total / pulls + (2.0 * time.log() / pulls).sqrt()
    return torch.where(arms.pulls > 0.0, scores, math.inf)


def gittins(trial: int) -> Score:
    """Return the score by the Gittins index for the rest of a trial of so many pulls."""
    indices = gittins_indices(trial)

    def score(arms: Arms, episodes: int, generator: torch.Generator) -> Tensor:
        spent = int(arms.pulls[0, 0].sum())
        if spent >= trial:
            raise UserError(f"got pull {spent + 1} of a trial of {trial}: make the player with a longer trial")
        table = indices[trial - spent]
        return table[arms.total.long(), (arms.pulls - arms.total).long()]

    return score


@dataclass(frozen=True)
class ArmPolicy:
    """Pulls the arm of the highest score in M*K worlds.

    Attributes:
        arms: what is known, [M, k].
        score: the rule.
    """

    arms: Arms
    score: Score

    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Return the arm to pull, one-hot."""
        tasks, size = self.arms.total.shape
        episodes = len(observation) // tasks
        arms = self.arms._replace(total=self.arms.total[:, None], pulls=self.arms.pulls[:, None])
        best = self.score(arms, episodes, generator).argmax(-1).expand(tasks, episodes)
        return one_hot(best.reshape(-1), size).to(observation)


@dataclass(frozen=True)
class ArmLearner:
    """A player in the middle of a trial (see `ArmPolicy`)."""

    arms: Arms
    score: Score

    @property
    def policy(self) -> Policy:
        """The policy of the next pull."""
        return ArmPolicy(self.arms, self.score)

    def learn(self, experience: Trajectories) -> Learner:
        """Return the learner that has seen the pulls."""
        actions = experience.actions.double()
        total = self.arms.total + (actions * experience.rewards.double()[..., None]).sum((1, 2))
        return replace(self, arms=self.arms._replace(total=total, pulls=self.arms.pulls + actions.sum((1, 2))))


def bandit_players(model: BanditModel, trial: int) -> dict[str, Callable[[Tasks], Learner]]:
    """Return how each player begins that plays trials of so many pulls, by name."""

    def begin(score: Score, tasks: Tasks) -> Learner:
        nothing = torch.zeros(len(tasks), model.arms, dtype=torch.float64)
        return ArmLearner(Arms(model, nothing, nothing), score)

    found: dict[str, Callable[[Tasks], Learner]] = {}
    if model.rewards == "bernoulli" and trial <= MOST_PULLS:
        found["gittins"] = lambda tasks: begin(gittins(trial), tasks)
    scores = (thompson, ucb1, ucb1_auer, greedy, epsilon_greedy)
    found |= {score.__name__.replace("_", "-"): partial(begin, score) for score in scores}
    found["clairvoyant"] = lambda tasks: begin(lambda arms, episodes, generator: tasks["mean"][:, None], tasks)
    return found
