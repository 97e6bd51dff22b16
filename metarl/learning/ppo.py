"""PPO (Schulman et al. 2017): one update, of several passes over what was played, in minibatches.

    max_θ  mean_t  min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t) - c (V_t - target_t)² + β H_t,   ρ_t = π_θ / π_old

The rows of a minibatch are whole trials where the network has a memory, which is computed anew from its first step.
Where it has none they are single steps of all trials: steps of one trial are alike, and say little of other tasks. Of
several ranks each computes rows of its own; their losses add up to that of the minibatch, and all take the same step.

A GPU is given the gradient of a minibatch as one graph, and the host looks at it once before the step is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metarl.launches import Backend, Launch, Launches
from metarl.learning.finite import check_parts
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics, Params

MEANS = ("update/value_error", "update/clipped", "update/gradient_norm", "policy/entropy")
"""Figures that are means over the steps of the optimiser."""

Gradients = list[Tensor | None]
"""Of each parameter in its order; None where the loss does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """What an update learns from: M rows of L steps.

    Attributes:
        inputs: what the network is given.
        actions: as the policy gave them.
        log_probs: of the actions, under the policy that played.
        advantages: zero in the padding.
        targets: what the values should have been.
        mask: 1 for real steps.
    """

    inputs: Float[Tensor, "M L I"]
    actions: Float[Tensor, "M L A"]
    log_probs: Float[Tensor, "M L"]
    advantages: Float[Tensor, "M L"]
    targets: Float[Tensor, "M L"]
    mask: Float[Tensor, "M L"]

    def parts(self) -> list[Tensor]:
        """Return its tensors."""
        return [getattr(self, field.name) for field in fields(self)]

    def by_step(self) -> Played:
        """Return every step as a row of its own, M L of them; those of the padding have nothing real."""
        return Played(**{field.name: getattr(self, field.name).flatten(0, 1)[:, None] for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a step goes up.

    Attributes:
        network: inputs [N, L, I] -> action distribution and values [N, L].
        clip: ε.
        value_weight: c.
        max_gradient_norm: gradients are shortened to this norm.
        ranks: which of them have a share of the rows each.
    """

    network: nn.Module
    clip: float
    value_weight: float
    max_gradient_norm: float
    ranks: Ranks = ALONE

    def gradient(
        self, played: Played, rows: Int[Tensor, " N"], entropy_weight: float | Tensor
    ) -> tuple[Float[Tensor, " 5"], Gradients]:
        """Compute the gradient of a minibatch, without a look at the device.

        Args:
            played: by this rank.
            rows: of the minibatch, maybe none.
            entropy_weight: β.

        Returns:
            KL(π_old ‖ π) and the parts of this rank in `MEANS`; the gradients of the loss.
        """
        ranks = self.ranks
        mask = played.mask[rows]
        if not len(rows):
            # Some row, of which nothing counts: all ranks take part in every step.
            rows, mask = rows.new_zeros(1), torch.zeros_like(played.mask[:1])
        # Of all ranks, so that their losses add up to that of the minibatch.
        count = ranks.sum(mask.sum())
        distribution, value = self.network(played.inputs[rows])
        log_ratio = (distribution.log_prob(played.actions[rows]) - played.log_probs[rows]) * mask
        ratio = log_ratio.exp()
        # Schulman's estimate of KL(π_old ‖ π): never negative, and exact in the mean over actions of π_old.
        kl = ranks.sum(((ratio - 1.0 - log_ratio) * mask).sum().detach()) / count
        gain = (clipped_gain(ratio, played.advantages[rows], self.clip) * mask).sum() / count
        error = ((value - played.targets[rows]).square() * mask).sum() / count
        entropy = (distribution.entropy() * mask).sum() / count
        loss = -gain + self.value_weight * error - entropy_weight * entropy
        leaves = list(self.network.parameters())
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves, allow_unused=True), strict=True):
            leaf.grad = None if gradient is None else gradient.contiguous()
        add_gradients(leaves, ranks)
        norm = nn.utils.clip_grad_norm_(leaves, self.max_gradient_norm)
        outside = (((ratio - 1.0).abs() > self.clip) * mask).sum() / count
        # The norm is the same on all ranks, where the others are parts of a sum.
        figures = torch.stack((kl, error, outside, norm / ranks.size, entropy)).detach()
        return figures, [leaf.grad for leaf in leaves]


class LaunchedGradient:
    """The gradient of minibatches as one graph for each number of rows (see `metarl.launches`).

    Args:
        objective: what a step goes up.
        like: what is played has its form at every update.
        backend: what captures.
    """

    def __init__(self, objective: Objective, like: Played, backend: Backend) -> None:
        self.objective = objective
        self.played = Played(**{field.name: torch.empty_like(getattr(like, field.name)) for field in fields(like)})
        self.entropy_weight = like.mask.new_zeros(())
        # A pass has minibatches of two sizes at most; where episodes end early, each update has others.
        self.by_rows = Launches(backend, most=2)

    def begin(self, played: Played, entropy_weight: float) -> None:
        """Begin an update: put what it learns from where the graphs read it."""
        for there, here in zip(self.played.parts(), played.parts(), strict=True):
            there.copy_(here)
        self.entropy_weight.fill_(entropy_weight)

    def __call__(self, rows: Int[Tensor, " N"]) -> tuple[Float[Tensor, " 5"], Gradients]:
        """Compute what `Objective.gradient` does; it holds until the next call."""
        place, launch = self.by_rows.get(len(rows), partial(self._launch_of, rows))
        place.copy_(rows)
        return launch()

    def _launch_of(self, like: Int[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Launch[tuple[Tensor, Gradients]]]:
        """Return where the numbers of as many rows are to be put, and what is launched on them."""
        place = torch.empty_like(like)
        function = partial(self.objective.gradient, self.played, place, self.entropy_weight)
        return place, Launch(function, self.by_rows.backend)


def ppo_update(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    played: Played,
    generator: torch.Generator,
    *,
    clip: float,
    epochs: int,
    minibatches: int,
    max_kl: float,
    value_weight: float,
    entropy_weight: float,
    max_gradient_norm: float,
    ranks: Ranks = ALONE,
    launches: Launches | None = None,
) -> tuple[Metrics, Metrics]:
    """Improve a network in place.

    Args:
        network: inputs [N, L, I] -> action distribution and values [N, L].
        optimiser: of its parameters.
        played: by this rank.
        generator: draws the minibatches.
        clip: ε.
        epochs: passes over all rows.
        minibatches: steps of the optimiser in a pass.
        max_kl: the update ends early where KL(π_old ‖ π) has come to this, nats.
        value_weight: c.
        entropy_weight: β.
        max_gradient_norm: gradients are shortened to this norm.
        ranks: which of them have rows.
        launches: where the graphs of this network's gradients are kept; None: they are not captured.

    Returns:
        Means over the steps that were taken, none where none was; and how the update ended.

    Raises:
        NotFiniteError: a gradient is not finite; the parameters are as before the step.
    """
    objective = Objective(
        network=network, clip=clip, value_weight=value_weight, max_gradient_norm=max_gradient_norm, ranks=ranks
    )
    launched = None
    # What ranks send one another is not captured.
    if launches is not None and ranks.size == 1:
        form = (objective, *((part.shape, part.dtype) for part in played.parts()))
        launched = launches.get(form, lambda: LaunchedGradient(objective, played, launches.backend))
        launched.begin(played, entropy_weight)
    sums: Metrics = dict.fromkeys(MEANS, 0.0)
    steps, kl, enough = 0, 0.0, False
    for rows in shared_minibatches(played.mask, epochs, minibatches, generator, ranks):
        found, gradients = objective.gradient(played, rows, entropy_weight) if launched is None else launched(rows)
        # The only look at a step: at each the host waits for a GPU.
        kl, *figures = found.tolist()
        if kl > max_kl:
            enough = True
            break
        new: Metrics = dict(zip(MEANS, figures, strict=True))
        if not math.isfinite(new["update/gradient_norm"]):
            before: Params = dict(network.named_parameters())
            made: Params = {"advantages": played.advantages, "targets": played.targets}
            parts = [("what is made of the rewards,", made), ("the parameter", before)]
            check_parts(parts, "the policy gradient is not finite")
        for leaf, gradient in zip(network.parameters(), gradients, strict=True):
            leaf.grad = gradient
        optimiser.step()
        steps += 1
        sums = {name: total + new[name] for name, total in sums.items()}
    totals = ranks.sum(sums if steps else {})
    means = {name: total / steps for name, total in totals.items()}
    return means, {"update/kl": kl, "update/steps": float(steps), "update/early_stop": float(enough)}


def clipped_gain(ratio: Float[Tensor, "*N"], advantages: Float[Tensor, "*N"], clip: float) -> Float[Tensor, "*N"]:
    """Compute min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) of every step."""
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    return torch.minimum(ratio * advantages, clipped * advantages)


def shared_minibatches(
    mask: Float[Tensor, "M L"], epochs: int, minibatches: int, generator: torch.Generator, ranks: Ranks = ALONE
) -> Iterator[Int[Tensor, " N"]]:
    """Yield this rank's rows in every minibatch of every epoch, maybe none.

    Args:
        mask: of this rank's rows; each with a real step stands in one minibatch of an epoch, others in none.
        epochs: passes over all rows.
        minibatches: of a pass; fewer where there are fewer rows.
        generator: draws who is where; the same on all ranks.
        ranks: which of them have rows.
    """
    real = (mask > 0).any(1).nonzero().squeeze(1)
    own = len(real)
    first, everyone = ranks.place(own)
    for _ in range(epochs):
        order = torch.randperm(everyone, generator=generator)
        parts = order.tensor_split(min(minibatches, everyone))
        mine = [rows[(rows >= first) & (rows < first + own)] - first for rows in parts]
        yield from real[torch.cat(mine).to(mask.device)].split([len(rows) for rows in mine])


def in_one_kernel(device: torch.device) -> bool | None:
    """Return whether torch's optimiser is to take its step in one kernel: on a GPU, where many are slow to launch."""
    return True if device.type == "cuda" else None


def add_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Give every parameter the sum of its gradients over the ranks."""
    leaves = [value for value in parameters if value.grad is not None]
    for leaf, gradient in zip(leaves, ranks.sum([leaf.grad for leaf in leaves]), strict=True):
        leaf.grad = gradient
