"""Acting with a memory, which is what adapts at test time; there is nothing else to learn then.

Every agent that adapts in its memory is a `TrialLearner` once trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.learning.trials import Inputs
from metarl.nets.memory import Core, Memory
from metarl.nets.policy import Distribution
from metarl.ranks import ALONE, Ranks
from metarl.types import Trajectories

REMEMBERED = ("memory", "_action", "_reward", "_ended", "_waiting")
"""What an actor remembers of its worlds."""


@runtime_checkable
class ActingNetwork(Protocol):
    """A network whose memory core gives the features that actions are drawn by."""

    core: Core

    def act(self, features: Float[Tensor, "*N H"]) -> Distribution:
        """Compute the action distribution from the core's features."""
        ...


class Actor:
    """The policy in the worlds of a trial, with what each of them remembers (see `metarl.types.MemoryPolicy`).

    Attributes:
        memory: of every world; None before the first step of the trial.
        ranks: which of them have a share of the worlds each, as these B.
    """

    def __init__(self, network: ActingNetwork, inputs: Inputs, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.network = network
        self.inputs = inputs
        self.device = device
        self.ranks = ranks
        self.memory: Memory | None = None
        self._waiting: Tensor | None = None

    def begin_episode(self) -> None:
        """Let all worlds take part again."""
        self._waiting = None

    @torch.no_grad()
    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Take in a moment and draw an action."""
        features, self.memory = self.look(observation)
        action = self.network.act(features).sample(generator, self.ranks).to(observation.device)
        if self._waiting is None:
            self._action = action
        else:
            self._action = torch.where(self._waiting[:, None], self._action, action)
        return action

    @torch.no_grad()
    def look(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B H"], Memory]:
        """Return the features at a moment and the memory after it, and stay as before it."""
        memory = self.memory
        if memory is None:
            worlds = len(observation)
            memory = self.network.core.begin(worlds)
            self._action = observation.new_zeros(worlds, self.inputs.action_size)
            self._reward = observation.new_zeros(worlds)
            self._ended = observation.new_zeros(worlds)
        inputs = self.inputs(observation, self._action, self._reward, self._ended).to(self.device)
        waiting = None if self._waiting is None else self._waiting.to(self.device)
        return self.network.core.step(inputs, memory, waiting)

    def carried(self, order: Int[Tensor, " B"]) -> Actor:
        """Return the policy with everything that world `order[i]` remembers in world i; this one keeps its own."""
        other = Actor(self.network, self.inputs, self.device, self.ranks)
        if self.memory is not None:
            other.memory = tuple(part[order.to(part.device)] for part in self.memory)
            other._action, other._reward, other._ended = (x[order] for x in (self._action, self._reward, self._ended))
        if self._waiting is not None:
            other._waiting = self._waiting[order]
        return other

    def keep(self) -> dict[str, Any]:
        """Return everything that is remembered, copied."""
        kept = {name: value for name, value in vars(self).items() if name in REMEMBERED}
        return tree_map(lambda part: part.clone() if isinstance(part, Tensor) else part, kept)

    def go_back(self, kept: Mapping[str, Any]) -> None:
        """Remember what was kept, and nothing that came after it."""
        vars(self).update(tree_map(lambda part: part.clone() if isinstance(part, Tensor) else part, dict(kept)))

    def see(self, reward: Float[Tensor, " B"], ended: Bool[Tensor, " B"]) -> None:
        """Keep the rest of the triple for the next moment."""
        if self._waiting is None:
            self._reward, self._ended = reward, ended.to(reward)
            # To look would make the host wait for a GPU.
            self._waiting = ended if ended.is_cuda or bool(ended.any()) else None
        else:
            self._reward = torch.where(self._waiting, self._reward, reward)
            self._ended = torch.where(self._waiting, self._ended, ended.to(reward))
            self._waiting = self._waiting | ended


@dataclass(frozen=True)
class TrialLearner:
    """M new tasks being learned in memory (see `metarl.types.Learner`).

    What was learned is in the memory of the policy that made the experience; there is nothing to compute from it.
    """

    policy: Actor

    def learn(self, experience: Trajectories) -> TrialLearner:
        """Return the learner: its memory has the experience already."""
        return self
