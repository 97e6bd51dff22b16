"""A trained policy told as plain data, to be computed elsewhere: inputs, layers, distribution, and how it adapts.

    input = parts side by side, each clip((value - mean) / divisor, -limit, limit)
    output = layers, one after the other (metarl/nets/layers.py)
    action ~ Normal(output, exp(log_std)), in -1..1 of the bounds; or a choice by its logits

A learner that can be told has a method `describe`; metarl/deployment makes a folder of what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from metarl.nets.layers import Layer
from metarl.types import EnvSpec

Source = Literal["observation", "action", "reward", "ended", "task"]
"""Of the present moment the observation, of the step before it action, reward and end; what the policy is told of its
task."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Numbers that are put beside others to make the network's input."""

    of: Source
    """What they are of."""
    size: int
    """How many."""
    mean: Float[Tensor, " N"] | None = None
    """Taken off, float64."""
    divisor: Float[Tensor, " N"] | None = None
    """Divided by after that, float64."""
    limit: float | None = None
    """Cut off there after that."""


@dataclass(frozen=True, kw_only=True)
class GradientSteps:
    """Adaptation by policy-gradient steps on whole episodes (`metarl.learning.finetune.GradientLearner`)."""

    rate: float | None
    """α of every parameter; None where each has its own."""
    layers: tuple[Layer, ...] = ()
    """α of the weights of every layer, with its kinds and names, where each has its own."""
    log_std: Float[Tensor, " A"] | None = None
    """α of the logarithm of the standard deviations, where each has its own and actions are numbers."""
    later: float
    """Factor on α after the first step."""
    discount: float
    """γ per step."""
    trace: float
    """λ of the advantages."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """A policy."""

    inputs: tuple[Part, ...]
    """What its network is given, in this order."""
    layers: tuple[Layer, ...]
    """Its network."""
    log_std: Float[Tensor, " A"] | None = None
    """Logarithm of the standard deviations, where actions are numbers."""
    least_log_std: float | None = None
    """It counts as this at least."""
    steps: GradientSteps | None = None
    """How it adapts by gradients; None for one that adapts in its memory, or not at all."""


@runtime_checkable
class Describable(Protocol):
    """A learner whose policy can be told."""

    def describe(self, spec: EnvSpec) -> Description:
        """Return the policy as it begins with a new task.

        Args:
            spec: sizes of the family that it was trained on.

        Raises:
            UserError: a part of it has no description.
        """
        ...
