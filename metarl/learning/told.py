"""Acting on what one is told of the task, if anything; there is nothing to learn from experience at test."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.devices import numbered
from metarl.learning.description import Description
from metarl.learning.trials import Inputs
from metarl.nets.latent import LatentNetwork
from metarl.ranks import ALONE, Ranks
from metarl.types import EnvSpec, Policy, Trajectories


class ToldPolicy:
    """Acts in M*K worlds on what it is told of their M tasks (see `metarl.types.SteadyPolicy`).

    Args:
        network: the policy; its weights may change.
        inputs: how observations are shown to it.
        told: of every task, P numbers; none for a policy that is told nothing.
        device: where the network lives.
        ranks: which of them have a share of the tasks each, as these M.
    """

    def __init__(
        self,
        network: LatentNetwork,
        inputs: Inputs,
        told: Float[Tensor, "M P"],
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.network, self.inputs, self.device, self.ranks = network, inputs, device, ranks
        self.told = told.to(device)

    @torch.no_grad()
    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Draw an action in every world."""
        seen = self.network.see(self.inputs.shown(observation).to(self.device))
        of_world = self.told[:, None].expand(-1, len(observation) // len(self.told), -1).flatten(0, 1).to(seen)
        drawn = self.network.act(seen, self.network.latent(of_world)).sample(generator, self.ranks)
        return drawn.to(observation.device)

    def key(self, device: torch.device) -> Hashable | None:
        """Return what tells its operations; None where worlds and network are on two devices."""
        if numbered(self.device) != numbered(device):
            return None
        return type(self), self.network, self.inputs.key(), self.told.shape, self.ranks

    def twin(self, observation: Float[Tensor, "B O"]) -> ToldPolicy:
        """Return a policy with numbers of its own; the network is the same one."""
        return ToldPolicy(self.network, self.inputs, self.told.clone(), self.device, self.ranks)

    def take_over(self, other: ToldPolicy) -> None:
        """Take over what another policy is told, with the inputs' scale of now."""
        self.inputs.refresh()
        self.told.copy_(other.told)


@dataclass(frozen=True)
class FixedLearner:
    """M tasks with a policy that no experience changes (see `metarl.types.Learner`).

    Attributes:
        policy: acts; what it finds out is in its own window.
        told: the policy as plain data, for a family's sizes.
    """

    policy: Policy
    told: Callable[[EnvSpec], Description] = field(repr=False)

    def learn(self, experience: Trajectories) -> FixedLearner:
        """Return the learner."""
        return self

    def describe(self, spec: EnvSpec) -> Description:
        """Return the policy, told as plain data (see `metarl.learning.description`)."""
        return self.told(spec)
