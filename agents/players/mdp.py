"""Reference players of tabular MDPs: belief about transitions and rewards, and the MDP that is planned for.

Transitions have the posterior Dirichlet(1 + counts); a mean reward r(s, a), after n rewards of sum x, the posterior
N((m + x) / (1 + n), 1 / (1 + n)) from the prior N(m, 1) and noise N(0, 1). Plans are made for the T steps of an episode
by backward induction.

| player | plans for |
|---|---|
| psrl | an MDP drawn from the posterior at the start of every episode (Osband et al. 2013); prior mean m = 0 |
| psrl-true-prior | the same with the m that the tasks are drawn with, 1 |
| certainty | the posterior's mean MDP, m = 1 |

RL2 (Duan et al. 2016, section 3.2) publishes 138.1 for PSRL in 10 episodes. That is what m = 0 gives, the default of
the public code TabulaRL. The true prior, m = 1, gives 134: it explores more than pays in so few episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from metarl.agents.players.gamma import draw_gamma
from metarl.types import Learner, Policy, Tasks, Trajectories


@dataclass(frozen=True, kw_only=True)
class MdpModel:
    """What a player knows of an MDP before the first episode. Transitions are flat Dirichlet, the noise is N(0, 1)."""

    states: int
    """S; an observation is the state, one-hot."""
    actions: int
    """A."""
    horizon: int
    """T."""
    reward_mean: float
    """Mean of the prior N(reward_mean, 1) of every mean reward."""


class Mdps(NamedTuple):
    """B MDPs."""

    transition: Tensor
    """P(s' | s, a), [B, S, A, S]."""
    reward: Tensor
    """r(s, a), [B, S, A]."""

    def repeat(self, episodes: int) -> Mdps:
        """Return every MDP K times in a row."""
        return Mdps(*(x.repeat_interleave(episodes, 0) for x in self))

    def plan(self, horizon: int) -> tuple[Int[Tensor, "T B S"], Float[Tensor, "B S"]]:
        """Compute the best action in every step and state, and the value of the first step, by backward induction."""
        value = torch.zeros_like(self.reward[:, :, 0])
        best = []
        for _ in range(horizon):
            ahead = (self.transition.flatten(1, 2) @ value[:, :, None]).view_as(self.reward)
            value, action = (self.reward + ahead).max(2)
            best.append(action)
        return torch.stack(best[::-1]), value


class MdpBelief(NamedTuple):
    """What was seen of M MDPs, and the prior mean of their rewards."""

    counts: Tensor
    """Transitions seen, [M, S, A, S]."""
    total: Tensor
    """Sum of rewards, [M, S, A]."""
    prior_mean: float

    @property
    def mean(self) -> Mdps:
        """Posterior mean."""
        transition = self.counts + 1.0
        reward = (self.total + self.prior_mean) / (self.counts.sum(3) + 1.0)
        return Mdps(transition / transition.sum(3, keepdim=True), reward)

    def sample(self, episodes: int, generator: torch.Generator) -> Mdps:
        """Draw K MDPs from each posterior: B = M*K, task-major."""
        counts = self.counts.repeat_interleave(episodes, 0)
        transition = draw_gamma(counts + 1.0, generator)
        mean = self.mean.reward.repeat_interleave(episodes, 0)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        reward = mean + noise / (counts.sum(3) + 1.0).sqrt()
        return Mdps(transition / transition.sum(3, keepdim=True), reward)

    def learn(self, experience: Trajectories) -> MdpBelief:
        """Return the belief after more episodes."""
        before = experience.observations.double() * experience.mask.double()[..., None]
        after = torch.cat((experience.observations[:, :, 1:], experience.final_observations[:, :, None]), 2).double()
        actions = experience.actions.double()
        counts = torch.einsum("mkts,mkta,mktz->msaz", before, actions, after)
        total = torch.einsum("mkts,mkta,mkt->msa", before, actions, experience.rewards.double())
        return self._replace(counts=self.counts + counts, total=self.total + total)


Choose = Callable[[MdpBelief, int, torch.Generator], Mdps]
"""(belief about M tasks, K, generator) -> the B = M*K MDPs to plan for."""


def sampled(belief: MdpBelief, episodes: int, generator: torch.Generator) -> Mdps:
    """Plan for a draw from the posterior."""
    return belief.sample(episodes, generator)


def certain(belief: MdpBelief, episodes: int, generator: torch.Generator) -> Mdps:
    """Plan for the posterior mean."""
    return belief.mean.repeat(episodes)


class PlanPolicy:
    """Follows a plan that is made at the start of every episode; all worlds are at the same step.

    Args:
        draw: (B, generator) -> the B MDPs to plan for.
        horizon: T.
    """

    def __init__(self, draw: Callable[[int, torch.Generator], Mdps], horizon: int) -> None:
        self._draw = draw
        self._horizon = horizon
        self._step, self._actions = 0, 0
        self._best = torch.empty(0)

    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Return the planned action, one-hot."""
        if self._step == 0:
            mdps = self._draw(len(observation), generator)
            self._actions = mdps.reward.shape[2]
            self._best, _ = mdps.plan(self._horizon)
        state = observation.argmax(1, keepdim=True)
        action = self._best[self._step].gather(1, state).squeeze(1)
        self._step = (self._step + 1) % self._horizon
        return one_hot(action, self._actions).to(observation)


@dataclass(frozen=True)
class MdpLearner:
    """A player in the middle of a trial.

    Attributes:
        belief: what is known.
        choose: what to plan for.
        horizon: T.
    """

    belief: MdpBelief
    choose: Choose
    horizon: int

    @property
    def policy(self) -> Policy:
        """The policy of the next episode."""

        def draw(worlds: int, generator: torch.Generator) -> Mdps:
            return self.choose(self.belief, worlds // len(self.belief.counts), generator)

        return PlanPolicy(draw, self.horizon)

    def learn(self, experience: Trajectories) -> Learner:
        """Return the learner that has seen the episodes."""
        return replace(self, belief=self.belief.learn(experience))


def mdp_players(model: MdpModel) -> dict[str, Callable[[Tasks], Learner]]:
    """Return how each player begins, by name."""

    def begin(choose: Choose, prior_mean: float, tasks: Tasks) -> Learner:
        size = (len(tasks), model.states, model.actions)
        counts = torch.zeros(*size, model.states, dtype=torch.float64)
        return MdpLearner(MdpBelief(counts, torch.zeros(size, dtype=torch.float64), prior_mean), choose, model.horizon)

    def clairvoyant(tasks: Tasks) -> Learner:
        known = true_mdps(model, tasks)
        return begin(lambda belief, episodes, generator: known.repeat(episodes), 0.0, tasks)

    return {
        "psrl": partial(begin, sampled, 0.0),
        "psrl-true-prior": partial(begin, sampled, model.reward_mean),
        "certainty": partial(begin, certain, model.reward_mean),
        "clairvoyant": clairvoyant,
    }


def true_mdps(model: MdpModel, tasks: Tasks) -> Mdps:
    """Return the MDPs that the tasks are."""
    pairs = (model.states, model.actions)
    return Mdps(tasks["transition"].unflatten(1, (*pairs, -1)), tasks["reward"].unflatten(1, pairs))
