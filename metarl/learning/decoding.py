"""What beliefs about a task are learned from: rewards and next states, decoded from latents of it.

A reward is told by what was seen before and after its step, and what was done; a next state by what was seen before and
what was done. So that units do not matter, rewards are decoded in deviations from their mean, and states as changes of
what is shown, in deviations of such changes. Rewards that are 0 or 1 may have logits in place of that (`bernoulli`). Of
pictures that have an encoder decoders see, and predict, means of 4 x 4 parts (`metarl.nets.pictures`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from metarl.errors import UserError
from metarl.learning.elbo import at
from metarl.learning.trials import LARGEST_INPUT, Inputs, Trials, observations_after
from metarl.nets.belief import Decoder
from metarl.nets.moments import Moments
from metarl.nets.pictures import Encoder
from metarl.ranks import Ranks
from metarl.types import EnvSpec

REWARD, STATE = "reward", "state"
"""What may be decoded."""
DECODER = (64, 32)
"""Units of a decoder's hidden layers."""


def make_decoders(names: tuple[str, ...], spec: EnvSpec, latent: int, generator: torch.Generator) -> nn.ModuleDict:
    """Return decoders with fresh weights.

    Args:
        names: what they decode.
        spec: the family's sizes, and the pictures that have an encoder.
        latent: D, numbers of z.
        generator: draws the weights.
    """
    seen, done = Encoder(spec.observation_size, spec.pictures).coarse_outputs, spec.action_size
    sizes = {REWARD: (2 * seen + done, 1), STATE: (seen + done, seen)}
    return nn.ModuleDict({name: Decoder(latent, sizes[name][0], DECODER, sizes[name][1], generator) for name in names})


class Decoding:
    """Targets of decoders, and their errors.

    Args:
        decoders: by what they decode.
        spec: the family's sizes, and the pictures that have an encoder.
        inputs: the scales of observations and rewards.
        bernoulli: whether rewards are decoded as logits.

    Attributes:
        changes: moments of the changes of what is shown.
    """

    def __init__(self, decoders: nn.ModuleDict, spec: EnvSpec, inputs: Inputs, *, bernoulli: bool) -> None:
        self.decoders = decoders
        self.inputs = inputs
        self.bernoulli = bernoulli
        self.encoder = Encoder(spec.observation_size, spec.pictures)
        self.changes = Moments(self.encoder.coarse_outputs)

    def check(self, trials: Trials) -> None:
        """Refuse rewards that have no such likelihood.

        Raises:
            UserError: a reward is to be decoded as 0 or 1, and is neither.
        """
        if self.bernoulli and REWARD in self.decoders:
            wrong = trials.rewards[(trials.rewards != 0.0) & (trials.rewards != 1.0)]
            if len(wrong):
                raise UserError(
                    f"Got a reward of {float(wrong[0]):g} with --reward-likelihood bernoulli, which takes 0 and 1. "
                    "Train anew with --reward-likelihood normal."
                )

    def update(self, trials: Trials, finals: Float[Tensor, "M n O"], ranks: Ranks) -> None:
        """Take in how what is shown changes, where that is decoded, of all ranks."""
        if STATE in self.decoders:
            before, after = self.seen(trials, finals)
            self.changes.update((after - before)[trials.mask > 0], ranks=ranks)

    def seen(
        self, trials: Trials, finals: Float[Tensor, "N n O"]
    ) -> tuple[Float[Tensor, "N L C"], Float[Tensor, "N L C"]]:
        """Return what decoders are shown of the observations before and after each step."""
        before, after = (self.inputs.shown(x) for x in (trials.observations, observations_after(trials, finals)))
        coarse = self.encoder.coarse
        return (coarse(before), coarse(after)) if self.encoder.pictures else (before, after)

    def errors(
        self,
        latents: Float[Tensor, "N T D"],
        trials: Trials,
        finals: Float[Tensor, "N n O"],
        steps: Int[Tensor, "N S"],
    ) -> dict[str, Float[Tensor, "N T S"]]:
        """Compute -log p, but for a factor and a constant, of some steps of each trial by each of its latents.

        Returns:
            By what is decoded: squared errors (means over the numbers of a state), or cross-entropies.
        """
        before, after = (at(x, steps) for x in self.seen(trials, finals))
        done = self.inputs.done(at(trials.actions, steps))
        found: dict[str, Tensor] = {}
        if REWARD in self.decoders:
            predicted = self.decoders[REWARD](latents, torch.cat((before, done, after), dim=-1)).squeeze(-1)
            rewards = at(trials.rewards[..., None], steps).squeeze(-1)[:, None].expand_as(predicted)
            if self.bernoulli:
                found[REWARD] = binary_cross_entropy_with_logits(predicted, rewards, reduction="none")
            else:
                found[REWARD] = (predicted - _scaled(rewards, self.inputs.reward)).square()
        if STATE in self.decoders:
            predicted = self.decoders[STATE](latents, torch.cat((before, done), dim=-1))
            found[STATE] = (predicted - _scaled(after - before, self.changes)[:, None]).square().mean(-1)
        return found


def _scaled(values: Float[Tensor, "*N"], moments: Moments) -> Float[Tensor, "*N"]:
    """Return values in deviations from their mean."""
    mean, deviation, _ = moments.on(values)
    return ((values - mean) / deviation).clamp(-LARGEST_INPUT, LARGEST_INPUT)
