"""A window over the last steps of an episode, and the encoder of what is in it (Kumar et al. 2021, RMA).

    embed each of the last 50 steps to 32 numbers -> convolutions over time, (kernel, stride) (8, 4), (5, 1), (5, 1)
    -> lengths 11, 7, 3 -> linear -> D

There are zeros where an episode has no steps yet.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from metarl.nets.memory import blank

WINDOW = 50
"""Steps, W."""
EMBEDDED = 32
"""Numbers of a step, and channels of the convolutions."""
CONVOLUTIONS = ((8, 4), (5, 1), (5, 1))
"""Kernel and stride of each."""


def lengths() -> tuple[int, ...]:
    """Return how many steps are left before the first convolution and after each."""
    found = [WINDOW]
    for kernel, stride in CONVOLUTIONS:
        found.append((found[-1] - kernel) // stride + 1)
    return tuple(found)


def windows(steps: Float[Tensor, "N T R"]) -> Float[Tensor, "N T W R"]:
    """Return for every step of N episodes the W steps before it, the last one at the end; a view where it can be."""
    return pad(steps[:, :-1], (0, 0, WINDOW, 0)).unfold(1, WINDOW, 1).transpose(2, 3)


def weights(step: int, outputs: int) -> int:
    """Return how many weights an encoder has.

    Args:
        step: numbers of a step, R.
        outputs: D.
    """
    between = sum(EMBEDDED * (EMBEDDED * kernel + 1) for kernel, _ in CONVOLUTIONS)
    return (step + 1) * EMBEDDED + between + (EMBEDDED * lengths()[-1] + 1) * outputs


class HistoryEncoder(nn.Module):
    """Makes D numbers of a window.

    Args:
        step: numbers of a step, R.
        outputs: D.
        generator: draws the weights.
    """

    def __init__(self, step: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.embed = blank(nn.Linear, step, EMBEDDED)
        self.convolutions = nn.ModuleList(
            blank(nn.Conv1d, EMBEDDED, EMBEDDED, kernel, stride=stride) for kernel, stride in CONVOLUTIONS
        )
        self.last = blank(nn.Linear, EMBEDDED * lengths()[-1], outputs)
        with torch.no_grad():
            for layer in (self.embed, *self.convolutions, self.last):
                weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
                # He-uniform; what it gives begins near zero.
                gain = 0.01 if layer is self.last else 6.0
                bound = math.sqrt(gain / weight[0].numel())
                weight.uniform_(-bound, bound, generator=generator)
                bias.zero_()

    def forward(self, window: Float[Tensor, "*N W R"]) -> Float[Tensor, "*N D"]:
        """Compute the D numbers of every window."""
        x = relu(self.embed(window)).flatten(0, -3).mT
        for convolution in self.convolutions:
            x = relu(convolution(x))
        return self.last(x.flatten(1)).unflatten(0, window.shape[:-2])
