"""A belief about the task: what a memory makes of a trial so far, what decoders make of it, and who acts on it.

    q(z | trial so far) = Normal(μ, σ),   (μ, log σ) linear in the features of a memory core

A decoder is asked of many pairs at once, of T beliefs and L transitions of the same trial: its first layer is a sum of
one product of each belief and one of each transition, and only the small layers behind it meet pairs.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from metarl.nets.heads import BesideCore
from metarl.nets.memory import Core, blank
from metarl.nets.moments import Moments
from metarl.nets.pictures import Encoder, Seeing
from metarl.nets.policy import MLP, Distribution, Network, Normal, chosen_by
from metarl.types import EnvSpec

BELIEF_GAIN = 0.1
"""Scale of the initial weights of (μ, log σ): beliefs begin near the prior N(0, 1)."""
ACT_GAIN = 0.01
"""Scale of the policy's last initial weights: small, so that training starts near zero actions, or even chances."""
LARGEST_SHOWN = 10.0
"""Scaled beliefs are cut off there, deviations."""
LEAST_DEVIATION = 0.1
"""Of beliefs that policy and values tell apart, where the prior's is 1: what differs by less changes more from one
update of the encoder to the next, and would be all that they saw."""


class BeliefCore(BesideCore):
    """A memory core whose features are what is shown of the present observation, and (μ, log σ) beside it.

    Args:
        core: the memory.
        shown: O, numbers of the observation, the first ones of the inputs.
        latent: D, numbers of z.
        generator: draws the weights.
    """

    def __init__(self, core: Core, shown: int, latent: int, generator: torch.Generator) -> None:
        super().__init__(core, shown)
        self.latent, self.width = latent, shown + 2 * latent
        self.belief = blank(nn.Linear, core.width, 2 * latent)
        with torch.no_grad():
            nn.init.orthogonal_(self.belief.weight, gain=BELIEF_GAIN, generator=generator)
            self.belief.bias.zero_()

    def made_of(self, features: Float[Tensor, "*N H"]) -> Float[Tensor, "*N F"]:
        """Return (μ, log σ)."""
        return self.belief(features)


def as_normal(believed: Float[Tensor, "*N R"]) -> Normal:
    """Return the distribution q of z that (μ, log σ) are."""
    mean, log_std = believed.chunk(2, dim=-1)
    return Normal(mean, log_std)


class Decoder(nn.Module):
    """What is predicted of transitions by one who takes z for the task.

    Args:
        latent: D.
        inputs: X, numbers of a transition.
        hidden: units of the first layer and of the second.
        outputs: Y, numbers that are predicted.
        generator: draws the weights.
    """

    def __init__(
        self, latent: int, inputs: int, hidden: tuple[int, int], outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        first, second = hidden
        self.of_latent = blank(nn.Linear, latent, first)
        self.of_transition = blank(nn.Linear, inputs, first, bias=False)
        self.middle = blank(nn.Linear, first, second)
        self.last = blank(nn.Linear, second, outputs)
        with torch.no_grad():
            for layer in (self.of_latent, self.of_transition, self.middle, self.last):
                # The first two are one layer.
                entering = latent + inputs if layer in (self.of_latent, self.of_transition) else layer.in_features
                bound = math.sqrt(3.0 / entering)
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()

    def forward(self, latents: Float[Tensor, "N T D"], transitions: Float[Tensor, "N L X"]) -> Float[Tensor, "N T L Y"]:
        """Predict every transition of a trial by every latent of it."""
        first = self.of_latent(latents)[:, :, None] + self.of_transition(transitions)[:, None]
        return self.last(relu(self.middle(relu(first))))


class Head(nn.Module):
    """Policy and values, each a perceptron of its own, on what is shown of an observation and a belief.

    Beliefs are shown in deviations from the mean of those so far (`show_beliefs`); as 0 before there are any.

    Args:
        spec: the family's sizes, and the pictures that have an encoder.
        latent: D.
        hidden: units of the hidden layers.
        initial_std: of the actions, where they are numbers.
        generator: draws the weights.
    """

    belief_mean: Tensor
    belief_scale: Tensor

    def __init__(
        self, spec: EnvSpec, latent: int, hidden: tuple[int, ...], initial_std: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.choices = spec.choices
        self.shown = spec.observation_size
        for name in ("belief_mean", "belief_scale"):
            self.register_buffer(name, torch.zeros(2 * latent), persistent=False)
        encoder = Encoder(spec.observation_size + 2 * latent, spec.pictures)

        def made(outputs: int, gain: float) -> Network:
            network = MLP(inputs=encoder.outputs, hidden=hidden, outputs=outputs, output_gain=gain)
            return Seeing(encoder=encoder, network=network) if spec.pictures else network

        self.networks = made(spec.action_size, ACT_GAIN), made(1, 1.0)
        self.policy, self.value = (nn.ParameterDict(network.init(generator)) for network in self.networks)
        self.log_std = None
        if not spec.discrete:
            self.log_std = nn.Parameter(torch.full((spec.action_size,), initial_std).log())

    def show_beliefs(self, beliefs: Moments) -> None:
        """Show beliefs by these moments from now on; in place, so that a captured step does too."""
        self.belief_mean.copy_(beliefs.mean)
        scale = 1.0 / beliefs.deviation.clamp_min(LEAST_DEVIATION)
        self.belief_scale.copy_(scale if beliefs.known else torch.zeros_like(scale))

    def seen(self, features: Float[Tensor, "*N H"]) -> Float[Tensor, "*N H"]:
        """Return what policy and values are given of the core's features."""
        beliefs = (features[..., self.shown :] - self.belief_mean) * self.belief_scale
        return torch.cat((features[..., : self.shown], beliefs.clamp(-LARGEST_SHOWN, LARGEST_SHOWN)), dim=-1)

    def chosen(self, seen: Float[Tensor, "*N H"]) -> Distribution:
        """Compute the action distribution of what is seen."""
        output = self.networks[0](dict(self.policy.items()), seen)
        return chosen_by(output, self.choices) if self.log_std is None else Normal(output, self.log_std.expand(1, -1))

    def valued(self, seen: Float[Tensor, "*N H"]) -> Float[Tensor, "*N"]:
        """Compute the (scaled) values of what is seen."""
        return self.networks[1](dict(self.value.items()), seen).squeeze(-1)

    def forward(self, features: Float[Tensor, "N L H"]) -> tuple[Distribution, Float[Tensor, "N L"]]:
        """Compute the action distributions and the (scaled) values."""
        seen = self.seen(features)
        return self.chosen(seen), self.valued(seen)
