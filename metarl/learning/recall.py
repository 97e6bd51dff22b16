"""Acting with a memory, which is what adapts at test time; there is nothing else to learn then.

Every agent that adapts in its memory is a `TrialLearner` once trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from metarl.devices import numbered
from metarl.learning.description import Description
from metarl.learning.trials import Inputs
from metarl.nets.layers import Layer
from metarl.nets.memory import Core, Memory
from metarl.nets.policy import Distribution
from metarl.ranks import ALONE, Ranks
from metarl.types import EnvSpec, Trajectories

REMEMBERED = ("memory", "_action", "_reward", "_ended", "_waiting")
"""What an actor remembers of its worlds."""


class ActingNetwork(nn.Module, ABC):
    """A network whose memory core gives the features that actions are drawn by.

    Attributes:
        core: the memory.
    """

    core: Core

    @abstractmethod
    def act(self, features: Float[Tensor, "*N H"]) -> Distribution:
        """Compute the action distribution from the core's features."""
        ...

    @abstractmethod
    def told(self) -> tuple[tuple[Layer, ...], Tensor | None]:
        """Return the way from inputs to actions as layers, and log σ of the actions; None where they are choices.

        Raises:
            UserError: a part of it has no description.
        """
        ...

    def remembered(self, features: Float[Tensor, "*N H"]) -> Float[Tensor, "*N R"]:
        """Return what the memory gives among the core's features. Default: all of them."""
        return features


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
        # Whether all that is remembered stays in its place, so that a step can be captured.
        self._steady = False

    def begin_episode(self) -> None:
        """Let all worlds take part again."""
        self._waiting = None

    @torch.no_grad()
    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Take in a moment and draw an action."""
        features, memory = self._moment(observation)
        action = self.network.act(features).sample(generator, self.ranks).to(observation.device)
        done = action if self._waiting is None else torch.where(self._waiting[:, None], self._action, action)
        if self._steady:
            assert self.memory is not None
            for place, value in zip((*self.memory, self._action), (*memory, done), strict=True):
                place.copy_(value)
        else:
            self.memory, self._action = memory, done
        return action

    @torch.no_grad()
    def look(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B H"], Memory]:
        """Return what is in memory at a moment, and the memory after it, and stay as before it."""
        features, memory = self._moment(observation)
        return self.network.remembered(features), memory

    def _moment(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B H"], Memory]:
        """Return the features at a moment and the memory after it, and stay as before it."""
        memory = self._begun(observation) if self.memory is None else self.memory
        inputs = self.inputs(observation, self._action, self._reward, self._ended).to(self.device)
        waiting = None if self._waiting is None else self._waiting.to(self.device)
        return self.network.core.step(inputs, memory, waiting)

    def _begun(self, observation: Float[Tensor, "B O"]) -> Memory:
        """Let no moment have been before this one, and return the memory of that."""
        worlds = len(observation)
        self._action = observation.new_zeros(worlds, self.inputs.action_size)
        self._reward = observation.new_zeros(worlds)
        self._ended = observation.new_zeros(worlds)
        return self.network.core.begin(worlds)

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
        if self._steady:
            assert self._waiting is not None
            torch.where(self._waiting, self._reward, reward, out=self._reward)
            torch.where(self._waiting, self._ended, ended.to(reward), out=self._ended)
            self._waiting |= ended
        elif self._waiting is None:
            self._reward, self._ended = reward, ended.to(reward)
            # To look would make the host wait for a GPU.
            self._waiting = ended if ended.is_cuda or bool(ended.any()) else None
        else:
            self._reward = torch.where(self._waiting, self._reward, reward)
            self._ended = torch.where(self._waiting, self._ended, ended.to(reward))
            self._waiting = self._waiting | ended

    # -- a step that is captured (see `metarl.types.SteadyPolicy`) ----------------------------------------------------

    def key(self, device: torch.device) -> Hashable | None:
        """Return what tells its operations; None where the core's are not the same at every step."""
        if not self.network.core.steady or numbered(self.device) != numbered(device):
            return None
        return type(self), self.network, self.inputs.key(), self.ranks

    def twin(self, observation: Float[Tensor, "B O"]) -> Actor:
        """Return an actor whose memory stays in its place; the network is the same one."""
        other = Actor(self.network, self.inputs, self.device, self.ranks)
        # A core may give one tensor for two that are still the same.
        other.memory = tuple(part.clone() for part in other._begun(observation))
        other._waiting = torch.zeros(len(observation), dtype=torch.bool, device=observation.device)
        other._steady = True
        return other

    def take_over(self, other: Actor) -> None:
        """Remember what another actor in as many worlds remembers, with the inputs' scale of now."""
        self.inputs.refresh()
        if other.memory is None:
            nothing = map(torch.zeros_like, (self._action, self._reward, self._ended))
            values = (*self.network.core.begin(len(self._reward)), *nothing)
        else:
            values = (*other.memory, other._action, other._reward, other._ended)
        if not self._steady:
            *memory, self._action, self._reward, self._ended = (value.clone() for value in values)
            self.memory = tuple(memory)
            self._waiting = None if other._waiting is None else other._waiting.clone()
            return
        assert self.memory is not None
        assert self._waiting is not None
        for place, value in zip((*self.memory, self._action, self._reward, self._ended), values, strict=True):
            place.copy_(value)
        if other._waiting is None:
            self._waiting.zero_()
        else:
            self._waiting.copy_(other._waiting)


@dataclass(frozen=True)
class TrialLearner:
    """M new tasks being learned in memory (see `metarl.types.Learner`).

    What was learned is in the memory of the policy that made the experience; there is nothing to compute from it.
    """

    policy: Actor

    def learn(self, experience: Trajectories) -> TrialLearner:
        """Return the learner: its memory has the experience already."""
        return self

    def describe(self, spec: EnvSpec) -> Description:
        """Return the policy that remembers nothing yet, told as plain data (see `metarl.learning.description`)."""
        layers, log_std = self.policy.network.told()
        return Description(inputs=self.policy.inputs.described(), layers=layers, log_std=log_std)
