"""The networks of a soft actor-critic that is told a latent z beside the observation, and the encoder that makes z.

encoder  (s, a, r[, s']) -> a Gaussian factor of z (posterior.py)
policy   (s, z) -> means and logarithms of deviations of the actions (soft.py)
Q1, Q2   (s, z, a) -> a number each;   V, and its slow copy: (s, z) -> a number
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.learning.posterior import Factors, factors_of
from metarl.learning.replay import Steps
from metarl.learning.soft import Squashed, squashed
from metarl.nets.moments import Moments
from metarl.nets.policy import MLP
from metarl.types import EnvSpec, Params

LARGEST_SHOWN = 10.0
"""Scaled observations and rewards are cut off there."""
FIRST_GAIN = 0.01
"""Scale of the initial weights of last layers: small, so that training starts near zero actions and values."""


class ActorCritic:
    """Encoder, policy, two Q, V and its slow copy, and the scale of what they are shown.

    Attributes:
        params: of each by name; those of the two Q stand together, with a leading axis of 2.
        observation, reward: moments of all that the training has met.
    """

    def __init__(self, config: Any, spec: EnvSpec, device: torch.device, generator: torch.Generator) -> None:
        self.device, self.latent, self.looks_ahead = device, config.latent, config.next_observations
        told, hidden = spec.observation_size + config.latent, config.hidden
        met = spec.observation_size * (1 + config.next_observations) + spec.action_size + 1
        self.encoder = MLP(inputs=met, hidden=config.encoder_hidden, outputs=2 * config.latent, activation="relu")
        head = MLP(inputs=told, hidden=hidden, outputs=1, activation="relu", output_gain=FIRST_GAIN)
        self.v, self.q = head, replace(head, inputs=told + spec.action_size)
        self.policy = replace(head, outputs=2 * spec.action_size)
        self.observation, self.reward = Moments(spec.observation_size), Moments(1)
        first, second = (self.q.init(generator) for _ in range(2))
        made = {
            "encoder": self.encoder.init(generator),
            "q": {name: torch.stack((value, second[name])) for name, value in first.items()},
            "v": self.v.init(generator),
            "policy": self.policy.init(generator),
            "temperature": {"log": torch.zeros(1)},
        }
        made["slow_v"] = {name: value.clone() for name, value in made["v"].items()}
        self.begin_with(made)

    def begin_with(self, params: dict[str, Params]) -> None:
        """Take over parameters, as copies."""
        self.params = {
            name: {key: value.detach().to(self.device, copy=True) for key, value in part.items()}
            for name, part in params.items()
        }
        for name in ("encoder", "q", "v", "policy", "temperature"):
            for value in self.params[name].values():
                value.requires_grad_()

    def leaves(self, *names: str) -> list[Tensor]:
        """Return the parameters of some networks."""
        return [value for name in names for value in self.params[name].values()]

    def key(self) -> Hashable:
        """Return what decides which operations acting takes."""
        return self, self.observation.known

    def refresh(self) -> None:
        """Bring what acting uses on a device up to date."""
        self.observation.refresh()

    def shown(self, observation: Float[Tensor, "*N O"]) -> Float[Tensor, "*N O"]:
        """Return observations as they are shown to all networks; 0 before anything was met."""
        if not self.observation.known:
            return torch.zeros_like(observation)
        mean, deviation, _ = self.observation.on(observation)
        return ((observation - mean) / deviation).clamp(-LARGEST_SHOWN, LARGEST_SHOWN)

    def rewarded(self, reward: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 1"]:
        """Return rewards in units of their root mean square; 0 before anything was met."""
        return reward / self.reward.on(reward)[2] if self.reward.known else torch.zeros_like(reward)

    def factors(self, met: Steps, mask: Float[Tensor, "*M n"] | None = None) -> Factors:
        """Compute what n steps tell of each task."""
        reward = self.rewarded(met.reward).clamp(-LARGEST_SHOWN, LARGEST_SHOWN)
        parts = [self.shown(met.observation), met.action, reward]
        if self.looks_ahead:
            parts.append(self.shown(met.next_observation))
        inputs = torch.cat(parts, dim=-1)
        output = self.encoder(self.params["encoder"], inputs.flatten(0, -2))
        return factors_of(output.unflatten(0, inputs.shape[:-1]), mask)

    def act(self, observation: Float[Tensor, "B O"], z: Float[Tensor, "B L"]) -> Squashed:
        """Compute the action distribution."""
        return self.policy_of(torch.cat((self.shown(observation), z), dim=-1))

    def policy_of(self, told: Float[Tensor, "R I"]) -> Squashed:
        """Compute the action distribution from observations as they are shown, and z."""
        return squashed(self.policy(self.params["policy"], told))

    def q_of(self, told: Float[Tensor, "R I"], action: Float[Tensor, "R A"]) -> Float[Tensor, "2 R"]:
        """Compute both Q."""
        inputs = torch.cat((told, action), dim=-1)
        return self.q(self.params["q"], inputs.expand(2, -1, -1)).squeeze(-1)

    def v_of(self, told: Float[Tensor, "R I"], which: str = "v") -> Float[Tensor, " R"]:
        """Compute V, or its slow copy."""
        return self.v(self.params[which], told).squeeze(-1)
