"""Learning to believe: steps of an encoder and its decoders up the evidence's lower bound of whole trials (elbo.py).

Every step takes some trials of a buffer of the latest ones. Of several ranks each computes some of them; their losses
add up to that of all, and all ranks take the same step.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.learning.decoding import Decoding
from metarl.learning.elbo import Bound, Chance, at, draw, kl_to_previous, spread_out
from metarl.learning.finite import check_parts
from metarl.learning.optimisers import load_optimiser
from metarl.learning.ppo import add_gradients, in_one_kernel
from metarl.learning.trial_buffer import TrialBuffer
from metarl.learning.trials import Trials
from metarl.nets.belief import BeliefCore, as_normal
from metarl.nets.policy import Normal
from metarl.ranks import Ranks
from metarl.types import Metrics, Params

LARGEST_NORM = 1.0
"""Gradients are shortened to this norm."""


@dataclass(frozen=True, kw_only=True)
class BeliefSettings:
    """How beliefs are learned."""

    kl_weight: float
    """β."""
    updates: int
    """Steps of an iteration."""
    trials: int
    """Of a step, V."""
    rate: float
    """Of Adam."""
    moments: int
    """Beliefs of a trial that its transitions are decoded by, at most."""
    steps: int
    """Transitions of a trial that are decoded, at most."""


class BeliefTraining:
    """Encoder and decoders in training.

    Args:
        settings: how.
        core: the encoder.
        decoding: the decoders, their targets and errors, and the scales of what is met.
        buffer: the trials.
        ranks: the processes that train together.
    """

    def __init__(
        self, settings: BeliefSettings, core: BeliefCore, decoding: Decoding, buffer: TrialBuffer, ranks: Ranks
    ) -> None:
        self.settings = settings
        self.core = core
        self.decoding = decoding
        self.buffer = buffer
        self.ranks = ranks
        self.parameters = [*core.parameters(), *decoding.decoders.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=settings.rate, fused=in_one_kernel(buffer.device))

    def learn(self, trials: Trials, finals: Float[Tensor, "M n O"], generator: torch.Generator) -> Metrics:
        """Put new trials into the buffer, and take some steps.

        Args:
            trials: of this rank.
            finals: the last observations of their episodes.
            generator: draws what is taken of the buffer, and noise.

        Returns:
            Means over the steps.

        Raises:
            NotFiniteError: a gradient is not finite; the parameters are as before its step.
        """
        settings = self.settings
        self.decoding.update(trials, finals, self.ranks)
        self.buffer.add(trials, finals, self.ranks)
        rows: list[Tensor] = []
        for _ in range(settings.updates):
            chance = draw(
                self.buffer.count,
                trials=settings.trials,
                moments=settings.moments,
                steps=settings.steps,
                latent=self.core.latent,
                generator=generator,
            )
            rows.append(self._step(chance))
        *parts, norm = torch.stack(rows).mean(0).tolist()
        names = (*(f"belief/{name}_error" for name in self.decoding.decoders), "belief/step_kl", "belief/std")
        return {**self.ranks.sum(dict(zip(names, parts, strict=True))), "belief/gradient_norm": norm}

    def bound(self, trials: Trials, finals: Float[Tensor, "N n O"], chance: Chance) -> Bound:
        """Compute the lower bound of N trials with its sign changed, differentiably."""
        lengths, longest = trials.lengths, trials.mask.shape[1]
        features = self.core(self.decoding.inputs.of(trials))
        belief = as_normal(features[..., self.core.shown :])
        moments, of_moments = spread_out(chance.moments, lengths + 1, longest + 1)
        steps, of_steps = spread_out(chance.steps, lengths, longest)
        mean, log_std = at(belief.mean, moments), at(belief.log_std, moments)
        latents = mean + log_std.exp() * chance.noise[:, : moments.shape[1]].to(mean)
        weights = (of_moments[:, :, None] * of_steps[:, None]).to(mean)
        errors = self.decoding.errors(latents, trials, finals, steps)
        real = torch.arange(longest + 1, device=lengths.device) <= lengths[:, None]
        return Bound(
            errors={name: (weights * error).sum((1, 2)) for name, error in errors.items()},
            kl=(kl_to_previous(belief) * real).sum(1),
            last=Normal(at(belief.mean, lengths[:, None]), at(belief.log_std, lengths[:, None])),
        )

    def _step(self, chance: Chance) -> Float[Tensor, " F"]:
        """Take a step; return this rank's part of the figures, and the norm of the gradient."""
        own, counted = chance.of(self.ranks)
        own = own.to(self.buffer.device)
        # Of all ranks, as if one had them all.
        longest = int(self.buffer.lengths[chance.rows].max())
        trials, finals = self.buffer.take(own.rows, longest)
        bound = self.bound(trials, finals, own)
        lengths = trials.lengths.to(trials.rewards)
        # Of all ranks, so that their losses add up to that of all trials.
        pairs, moments, count = self.ranks.sum(
            (
                counted * ((lengths + 1.0) * lengths).sum(),
                counted * (lengths + 1.0).sum(),
                counted * torch.ones_like(lengths).sum(),
            )
        )
        loss = counted * bound.loss(self.settings.kl_weight).sum() / pairs
        for leaf, gradient in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
            leaf.grad = gradient.contiguous()
        add_gradients(self.parameters, self.ranks)
        norm = nn.utils.clip_grad_norm_(self.parameters, LARGEST_NORM)
        # The only look at a step.
        if not math.isfinite(float(norm)):
            met: Params = {"rewards": trials.rewards, "observations": trials.observations}
            before: Params = {**dict(self.core.named_parameters()), **dict(self.decoding.decoders.named_parameters())}
            check_parts([("what was met,", met), ("the parameter", before)], "the belief's gradient is not finite")
        self.optimiser.step()
        errors = [counted * error.sum() / pairs for error in bound.errors.values()]
        spread = counted * bound.last.log_std.exp().mean((1, 2)).sum() / count
        return torch.stack((*errors, counted * bound.kl.sum() / moments, spread, norm)).detach()

    def state_dict(self) -> dict[str, Any]:
        """Return optimiser and buffer; the parameters are the network's."""
        return {"optimiser": deepcopy(self.optimiser.state_dict()), "buffer": self.buffer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore optimiser and buffer.

        Raises:
            ValueError: they do not fit.
        """
        # It may have been stored on another device.
        load_optimiser(self.optimiser, state["optimiser"], fused=in_one_kernel(self.buffer.device))
        self.buffer.load_state_dict(state["buffer"])
