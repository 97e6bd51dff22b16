"""Tasks that are played by somebody who does not know them, beside what would have been best for one who does.

Agents that learn from the best actions need a family that says them (`EnvSpec.optimal_action`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.learning.trials import Trials
from metarl.nets.policy import chosen_by
from metarl.ranks import Ranks
from metarl.types import EnvSpec, SampleTasks, Tasks

TENTHS = 11
"""Probabilities of doing what another task asks for: 0, .1, ..., 1."""


def check_best_is_known(agent: str, spec: EnvSpec, known: Iterable[EnvSpec]) -> None:
    """Refuse a family that does not say its optimal action.

    Args:
        agent: that learns from it.
        spec: the family's.
        known: those of all families, to name the ones that do.

    Raises:
        UserError: names them.
    """
    if spec.optimal_action is None:
        able = dict.fromkeys(some.family.partition("@")[0] for some in known if some.optimal_action is not None)
        others = f", or another family ({', '.join(able)})" if able else ""
        raise UserError(
            f"Got {spec.family} for {agent}, which learns from the optimal action in every state, and this family does "
            f"not say it: train rl2{others}."
        )


def best_actions(spec: EnvSpec, trials: Trials, tasks: Tasks) -> Float[Tensor, "M L A"]:
    """Return the optimal action at every step of M trials, as an agent would give it; anything in the padding."""
    assert spec.optimal_action is not None
    seen = trials.observations
    every = tasks.repeat(seen.shape[1]).to(seen.device)
    return spec.optimal_action(seen.flatten(0, 1), every).unflatten(0, seen.shape[:2]).to(seen)


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """Plays M tasks, each in a world of its own, without knowing them (see `metarl.types.Policy`).

    At every step, with the probability that a trial has, it does what is best in the present state for another task;
    else it chooses by probabilities that a trial has, or takes numbers within the bounds, any of them.

    Attributes:
        spec: the family's.
        others: the other tasks.
        trust: the probabilities of doing what these ask for.
        logits: of what it chooses else.
        ranks: which of them have a share of the tasks each, as these M.
    """

    spec: EnvSpec
    others: Tasks
    trust: Float[Tensor, "M 1"]
    logits: Float[Tensor, "M A"]
    ranks: Ranks

    @classmethod
    def drawn(
        cls, spec: EnvSpec, count: int, sample_tasks: SampleTasks, generator: torch.Generator, ranks: Ranks
    ) -> Stranger:
        """Draw who plays this rank's share of so many trials."""
        trust = torch.randint(TENTHS, (count, 1), generator=generator) / (TENTHS - 1)
        # Dirichlet(1): exponential numbers over their sum, which logits need not be divided by.
        logits = torch.empty(count, spec.action_size).exponential_(generator=generator).log()
        others = sample_tasks(count, "train", generator).select(ranks.rows(count))
        return cls(spec=spec, others=others, trust=ranks.own(trust), logits=ranks.own(logits), ranks=ranks)

    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Draw an action in every world."""
        assert self.spec.optimal_action is not None
        if self.spec.choices:
            other = chosen_by(self.logits.to(observation), self.spec.choices).sample(generator, self.ranks)
        else:
            other = 2.0 * self._chance(self.logits, generator).to(observation) - 1.0
        best = self.spec.optimal_action(observation, self.others.to(observation.device)).to(observation)
        trusts = self._chance(self.trust, generator) < self.trust
        return torch.where(trusts.to(observation.device), best, other)

    def _chance(self, like: Float[Tensor, "M N"], generator: torch.Generator) -> Float[Tensor, "M N"]:
        """Draw numbers of 0..1 for the worlds of all ranks, and return those of its own, on the CPU."""
        shape = self.ranks.whole(like.shape)
        return self.ranks.own(torch.rand(shape, generator=generator, device=generator.device)).to(like.device)
