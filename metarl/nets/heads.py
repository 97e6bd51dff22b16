"""Heads: what makes actions and values of a memory's features h, and where that is wanted of the present observation o.

    perceptron   y = MLP(h), or MLP(o, h)
    Emitted      y = MLP_w(o) with w = b + W h: the memory emits all weights of a network that is given o alone

The second is a hypernetwork (Beck et al. 2023, arXiv 2309.14970). W begins with zeros, and b as the weights of an
ordinary network (Beck et al. 2022, arXiv 2210.11348): so at the start it is one network, whatever is remembered.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.memory import layers
from metarl.nets.memory import Core, Memory, blank


class BesideCore(Core):
    """A memory core whose features are the first numbers of its inputs, and the memory's features beside them.

    Args:
        core: the memory.
        shown: O, numbers of the inputs that are what is shown of the present observation.
    """

    def __init__(self, core: Core, shown: int) -> None:
        super().__init__()
        self.core = core
        self.shown = shown
        self.width, self.steady = shown + core.width, core.steady

    def begin(self, worlds: int) -> Memory:
        """Return the core's empty memory."""
        return self.core.begin(worlds)

    @torch.no_grad()
    def step(
        self, inputs: Float[Tensor, "B I"], memory: Memory, waiting: Bool[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Memory]:
        """Take in one moment."""
        features, memory = self.core.step(inputs, memory, waiting)
        return torch.cat((inputs[:, : self.shown], self.made_of(features)), dim=-1), memory

    def forward(self, inputs: Float[Tensor, "N L I"]) -> Float[Tensor, "N L H"]:
        """Compute the features of whole trials."""
        return torch.cat((inputs[..., : self.shown], self.made_of(self.core(inputs))), dim=-1)

    def made_of(self, features: Float[Tensor, "*N H"]) -> Float[Tensor, "*N F"]:
        """Return what stands beside the observation: the memory's features as they are."""
        return features


def perceptron(
    inputs: int, hidden: tuple[int, ...], outputs: int, *, gain: float, generator: torch.Generator
) -> nn.Linear | nn.Sequential:
    """Return linear layers with tanh between them; their weights begin orthogonal, the last one's times `gain`."""
    sizes = (inputs, *hidden, outputs)
    *first, last = (blank(nn.Linear, *pair) for pair in pairwise(sizes))
    with torch.no_grad():
        for layer in (*first, last):
            nn.init.orthogonal_(layer.weight, gain=gain if layer is last else 1.0, generator=generator)
            layer.bias.zero_()
    return nn.Sequential(*(part for layer in first for part in (layer, nn.Tanh())), last) if first else last


class Emitted(nn.Module):
    """A perceptron of the observation, whose weights a linear layer makes of the memory's features.

    Args:
        shown: O, numbers that it is given.
        width: H, features of the memory.
        hidden: its hidden layers, with tanh.
        outputs: J.
        gain: size of its last layer's weights at the start.
        generator: draws the weights that it has at the start.
    """

    def __init__(
        self, shown: int, width: int, hidden: tuple[int, ...], outputs: int, *, gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.sizes = (shown, *hidden, outputs)
        first = perceptron(shown, hidden, outputs, gain=gain, generator=generator)
        self.emit = blank(nn.Linear, width, layers(shown, hidden, outputs))
        with torch.no_grad():
            self.emit.weight.zero_()
            self.emit.bias.copy_(torch.cat([value.flatten() for value in first.parameters()]))

    def forward(self, features: Float[Tensor, "*N H"]) -> Float[Tensor, "*N J"]:
        """Compute the output of features as `BesideCore` gives them."""
        rows, shown = features.flatten(0, -2), self.sizes[0]
        numbers = [count for inputs, outputs in pairwise(self.sizes) for count in (inputs * outputs, outputs)]
        parts = self.emit(rows[:, shown:]).split(numbers, dim=1)
        x = rows[:, :shown, None]
        for number, (weight, bias) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
            x = x.tanh() if number > 0 else x
            x = torch.baddbmm(bias[..., None], weight.unflatten(1, (-1, x.shape[1])), x)
        return x[..., 0].unflatten(0, features.shape[:-1])
