"""An update by PPO on trials: advantages, the schedule of its iteration, and the passes over what was played."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.launches import Launches
from metarl.learning.ppo import Played, ppo_update
from metarl.learning.trial_advantages import Over, trial_advantages
from metarl.learning.trials import Trials
from metarl.nets.moments import Moments
from metarl.ranks import Ranks
from metarl.types import Metrics

Rows = Literal["steps", "trials"]
"""What minibatches are filled with: steps of all trials, or whole trials."""


@runtime_checkable
class PpoSettings(Protocol):
    """What an agent's config has to say of it; see `trial_advantages` and `ppo_update`."""

    @property
    def discount(self) -> float:
        """γ."""
        ...

    @property
    def trace(self) -> float:
        """λ."""
        ...

    @property
    def finite_horizon(self) -> bool:
        """Whether nothing follows a trial's end."""
        ...

    @property
    def advantages(self) -> Over:
        """What advantages are standardised over."""
        ...

    @property
    def clip(self) -> float:
        """ε."""
        ...

    @property
    def epochs(self) -> int:
        """Passes over all trials."""
        ...

    @property
    def minibatches(self) -> int:
        """Steps of the optimiser in a pass."""
        ...

    @property
    def learning_rate(self) -> float:
        """At the start."""
        ...

    @property
    def final_learning_rate(self) -> float:
        """At the end, with a straight line between."""
        ...

    @property
    def entropy(self) -> float:
        """β at the start."""
        ...

    @property
    def final_entropy(self) -> float:
        """β at the end, with a straight line between."""
        ...

    @property
    def value_weight(self) -> float:
        """C."""
        ...

    @property
    def max_gradient_norm(self) -> float:
        """Gradients are shortened to it."""
        ...

    @property
    def max_kl(self) -> float:
        """KL(π_old ‖ π) that ends an update early, nats."""
        ...


def update_on_trials(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    trials: Trials,
    generator: torch.Generator,
    config: PpoSettings,
    *,
    rows: Rows,
    inputs: Float[Tensor, "M L I"],
    log_probs: Float[Tensor, "M L"],
    values: Float[Tensor, "M moments"],
    returns: Moments,
    iteration: int,
    iterations: int,
    log_std: nn.Parameter | None,
    ranks: Ranks,
    launches: Launches | None,
) -> Metrics:
    """Improve a network in place, and take the returns of the trials into their moments.

    Args:
        network: inputs [N, L, I] -> action distribution and (scaled) values [N, L].
        optimiser: of its parameters; it gets the learning rate of the iteration.
        trials: M of them, of this rank.
        generator: draws the minibatches.
        config: what it is done by.
        rows: of minibatches; `trials` for a network with a memory.
        inputs: of the network at every step.
        log_probs: of the actions, under the policy that played.
        values: scaled, at every step and behind the last one, as the network gave them.
        returns: moments that values are scaled by.
        iteration: updates that were made before.
        iterations: updates over which learning rate and entropy weight go from their first values to their final ones.
        log_std: of the actions; None where they are choices.
        ranks: which of them have a share of the trials each.
        launches: where the graphs of the network's gradients are kept; None: they are not captured.

    Returns:
        The figures of the update.

    Raises:
        NotFiniteError: a gradient is not finite; the parameters are as before its step.
    """
    advantages, targets, explained = trial_advantages(
        trials,
        values,
        returns,
        discount=config.discount,
        trace=config.trace,
        finite_horizon=config.finite_horizon,
        over=config.advantages,
        ranks=ranks,
    )
    part = 1.0 - min(iteration / max(iterations, 1), 1.0)
    rate = config.final_learning_rate + part * (config.learning_rate - config.final_learning_rate)
    entropy_weight = config.final_entropy + part * (config.entropy - config.final_entropy)
    for group in optimiser.param_groups:
        group["lr"] = rate
    played = Played(
        inputs=inputs,
        actions=trials.actions,
        log_probs=log_probs,
        advantages=advantages,
        targets=targets,
        mask=trials.mask,
    )
    means, end = ppo_update(
        network,
        optimiser,
        played.by_step() if rows == "steps" else played,
        generator,
        clip=config.clip,
        epochs=config.epochs,
        minibatches=config.minibatches,
        max_kl=config.max_kl,
        value_weight=config.value_weight,
        entropy_weight=entropy_weight,
        max_gradient_norm=config.max_gradient_norm,
        ranks=ranks,
        launches=launches,
    )
    if log_std is not None:
        means["policy/std"] = float(log_std.detach().exp().mean())
    return {
        **means,
        **end,
        "update/learning_rate": rate,
        "update/entropy_weight": entropy_weight,
        "update/explained_variance": explained,
    }
