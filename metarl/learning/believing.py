"""Acting on a belief about the task: a latent z, drawn for every episode, from the prior or from what was met.

While an agent is trained it is told its z. At test the policy comes to a belief by itself: what it met in an episode
becomes factors (posterior.py) when the next one begins. There is nothing else to learn then.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.devices import numbered
from metarl.learning.posterior import Factors
from metarl.learning.replay import Steps
from metarl.learning.soft import Squashed
from metarl.ranks import ALONE, Ranks
from metarl.types import Trajectories

REMEMBERED = ("factors", "episodes", "_met", "_z", "_waiting")
"""What a policy remembers of its worlds."""


@runtime_checkable
class Believer(Protocol):
    """The networks of an agent with a belief.

    Attributes:
        device: where they live.
        latent: size of z, L.
        looks_ahead: whether the observation after a step is a part of what is told of the task.
    """

    device: torch.device
    latent: int
    looks_ahead: bool

    def act(self, observation: Float[Tensor, "B O"], z: Float[Tensor, "B L"]) -> Squashed:
        """Compute the action distribution."""
        ...

    def factors(self, met: Steps, mask: Float[Tensor, "B T"]) -> Factors:
        """Compute what some steps of each world tell of its task."""
        ...

    def key(self) -> Hashable:
        """Return what decides which operations `act` takes."""
        ...

    def refresh(self) -> None:
        """Bring what `act` uses on a device up to date."""
        ...


def drawn(generator: torch.Generator, like: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Return standard normal noise of a tensor's form; of several ranks it is drawn for all, in the first axis."""
    noise = torch.randn(ranks.whole(like.shape), generator=generator, dtype=like.dtype, device=generator.device)
    return ranks.own(noise).to(like.device)


@dataclass(frozen=True)
class Told:
    """The policy in training: it draws actions, with a z that it was told.

    Attributes:
        believer: its networks.
        z: of every world.
        ranks: which of them have a share of the worlds each, as these B.
    """

    believer: Believer
    z: Float[Tensor, "B L"]
    ranks: Ranks = ALONE

    @torch.no_grad()
    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Draw an action in every world."""
        distribution = self.believer.act(observation.to(self.z), self.z)
        return distribution.sample(drawn(generator, distribution.mean, self.ranks))[0].to(observation)

    # -- a step that is captured (see `metarl.types.SteadyPolicy`) ----------------------------------------------------

    def key(self, device: torch.device) -> Hashable | None:
        """Return what tells its operations; None where the worlds are on another device than the networks."""
        if numbered(self.z.device) != numbered(device):
            return None
        return type(self), self.believer.key(), self.z.shape, self.ranks

    def twin(self, observation: Float[Tensor, "B O"]) -> Told:
        """Return a policy with a z of its own; the networks are the same ones."""
        return Told(self.believer, self.z.clone(), self.ranks)

    def take_over(self, other: Told) -> None:
        """Copy the z of another policy, with the scale of now."""
        self.believer.refresh()
        self.z.copy_(other.z)


class Believing:
    """The policy at test: the mode of its actions, with a z of its own (see `metarl.types.MemoryPolicy`).

    Args:
        believer: its networks.
        prior_episodes: of a trial, in which z is drawn from the prior whatever was met.

    Attributes:
        factors: what was met in all episodes before this one; None before the second.
        episodes: that were played.
    """

    def __init__(self, believer: Believer, prior_episodes: int) -> None:
        self.believer = believer
        self.prior_episodes = prior_episodes
        self.factors: Factors | None = None
        self.episodes = 0
        self._met: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        self._z: Tensor | None = None
        self._waiting: Tensor | None = None

    def begin_episode(self) -> None:
        """Take in what was met in the episode before, and let z be drawn anew."""
        self._take_in()
        self._z = self._waiting = None

    @torch.no_grad()
    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Return the mode of the actions; the first call of an episode draws z."""
        believer = self.believer
        # What is given may be written to by the next step.
        seen = observation.to(believer.device, copy=True)
        if self._z is None:
            noise = drawn(generator, seen.new_empty(len(seen), believer.latent))
            believes = self.factors is not None and self.episodes >= self.prior_episodes
            self._z = self._mean(noise) + self.factors.variance.sqrt() * noise if believes and self.factors else noise
        action = believer.act(seen, self._z).mode
        self._seen, self._done = seen, action
        return action.to(observation)

    def see(self, reward: Float[Tensor, " B"], ended: Bool[Tensor, " B"]) -> None:
        """Note what followed from the last action."""
        device = self.believer.device
        self._met.append((self._seen, self._done, reward.to(device, copy=True), self._waiting))
        ended = ended.to(device, copy=True)
        self._waiting = ended if self._waiting is None else self._waiting | ended

    @torch.no_grad()
    def look(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B L"], Factors | None]:
        """Return the mean of the belief about each world's task, and what it is made of."""
        self._take_in()
        return self._mean(observation.new_zeros(len(observation), self.believer.latent)), self.factors

    def carried(self, order: Int[Tensor, " B"]) -> Believing:
        """Return the policy with the belief of world `order[i]` in world i; this one keeps its own."""
        self._take_in()
        other = Believing(self.believer, self.prior_episodes)
        other.episodes = self.episodes
        if self.factors is not None:
            other.factors = Factors(*(part[order.to(part.device)] for part in self.factors))
        return other

    def keep(self) -> dict[str, Any]:
        """Return everything that is remembered; nothing of it is ever changed in place."""
        return {
            name: list(value) if name == "_met" else value for name, value in vars(self).items() if name in REMEMBERED
        }

    def go_back(self, kept: Mapping[str, Any]) -> None:
        """Remember what was kept, and nothing that came after it."""
        vars(self).update({**kept, "_met": list(kept["_met"])})

    def _mean(self, zeros: Tensor) -> Tensor:
        """Return the mean of the belief; that of the prior where nothing was met."""
        return torch.zeros_like(zeros) if self.factors is None else self.factors.mean

    @torch.no_grad()
    def _take_in(self) -> None:
        """Make factors of the steps of the last episode."""
        if not self._met:
            return
        observations, actions, rewards, waited = zip(*self._met, strict=True)
        self._met = []
        self.episodes += 1
        # What came after the last step is not shown to a policy.
        count = len(actions) - 1 if self.believer.looks_ahead else len(actions)
        if not count:
            return
        seen = torch.stack(observations, 1)
        after = seen[:, 1:] if self.believer.looks_ahead else seen
        reward = torch.stack(rewards, 1)[:, :count, None].to(seen)
        met = Steps(seen[:, :count], torch.stack(actions, 1)[:, :count], reward, after, torch.zeros_like(reward))
        mask = torch.stack([reward.new_ones(len(seen)) if w is None else (~w).to(reward) for w in waited[:count]], 1)
        factors = self.believer.factors(met, mask)
        self.factors = factors if self.factors is None else self.factors.and_also(factors)


@dataclass(frozen=True)
class BeliefLearner:
    """M new tasks being learned in a belief (see `metarl.types.Learner`): the policy has all that was learned."""

    policy: Believing

    def learn(self, experience: Trajectories) -> BeliefLearner:
        """Return the learner: its policy has the experience already."""
        return self
