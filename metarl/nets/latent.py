"""A policy that acts on what it sees and on z, a few numbers that stand for the task; with its critic.

    z = μ(e) of what is told, e      π(x, z)      V(x, e)

The critic is a network of its own, which is told e itself: no error of a value moves μ.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.nets.layers import Layer, of_told
from metarl.nets.pictures import Encoder, Seeing
from metarl.nets.policy import MLP, Activation, Distribution, Normal, chosen_by
from metarl.types import EnvSpec

ACT_GAIN = 0.01
"""Scale of the policy's last initial weights: small, so that training starts near zero actions, or even chances."""


class Perceptron(nn.Module):
    """A multi-layer perceptron with its weights."""

    def __init__(self, network: MLP, generator: torch.Generator) -> None:
        super().__init__()
        self.network = network
        self.weights = nn.ParameterDict(network.init(generator))

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N J"]:
        """Compute the output."""
        return self.network(dict(self.weights.items()), x)


class LatentNetwork(nn.Module):
    """Policy with μ, and critic; an encoder of pictures for both.

    Args:
        spec: the family's sizes, and the pictures that have an encoder.
        told: P, numbers of e; 0 for a policy that is told nothing.
        latent: D, numbers of z; 0 then.
        encoder: hidden layers of μ, with relu.
        hidden: those of policy and critic.
        activation: of these.
        initial_std: σ of the actions at the start.
        generator: draws the weights.
    """

    def __init__(
        self,
        spec: EnvSpec,
        told: int,
        *,
        latent: int,
        encoder: tuple[int, ...],
        hidden: tuple[int, ...],
        activation: Activation,
        initial_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.choices = spec.choices
        self.observed = spec.observation_size
        self.eye = Encoder(spec.observation_size, spec.pictures)
        self.sight = nn.ParameterDict(self.eye.init(generator))
        self.encoder = None
        if told:
            mu = MLP(inputs=told, hidden=encoder, outputs=latent, activation="relu")
            self.encoder = Perceptron(mu, generator)

        def perceptron(beside: int, outputs: int, gain: float) -> Perceptron:
            inputs = self.eye.outputs + beside
            mlp = MLP(inputs=inputs, hidden=hidden, outputs=outputs, activation=activation, output_gain=gain)
            return Perceptron(mlp, generator)

        self.policy = perceptron(latent, spec.action_size, ACT_GAIN)
        self.value = perceptron(told, 1, 1.0)
        self.log_std = None
        if not spec.discrete:
            self.log_std = nn.Parameter(torch.full((spec.action_size,), initial_std).log())

    def see(self, shown: Float[Tensor, "*N O"]) -> Float[Tensor, "*N J"]:
        """Return observations as they are shown, with features in the place of pixels."""
        return self.eye(dict(self.sight.items()), shown) if self.eye.pictures else shown

    def latent(self, told: Float[Tensor, "*N P"]) -> Float[Tensor, "*N D"]:
        """Compute z = μ(e); of nothing, nothing."""
        return told if self.encoder is None else self.encoder(told)

    def act(self, seen: Float[Tensor, "*N J"], latent: Float[Tensor, "*N D"]) -> Distribution:
        """Compute the action distribution."""
        output = self.policy(torch.cat((seen, latent), dim=-1))
        return chosen_by(output, self.choices) if self.log_std is None else Normal(output, self.log_std.expand(1, -1))

    def forward(self, inputs: Float[Tensor, "N L I"]) -> tuple[Distribution, Float[Tensor, "N L"]]:
        """Compute action distributions and values of observations as they are shown, with e beside them."""
        seen, told = self.see(inputs[..., : self.observed]), inputs[..., self.observed :]
        value = self.value(torch.cat((seen, told), dim=-1)).squeeze(-1)
        return self.act(seen, self.latent(told)), value

    def layers(self) -> tuple[Layer, ...]:
        """Return the way from observation and e to the actions as layers.

        Raises:
            UserError: there is an encoder of pictures.
        """
        policy, mu = self.policy.network, self.encoder
        return of_told(
            (Seeing(encoder=self.eye, network=policy) if self.eye.pictures else policy, dict(self.policy.weights)),
            None if mu is None else (mu.network, dict(mu.weights)),
        )
