"""Torch modules as people bring them, small."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from tests.helpers.toys import seeded

IMAGE = (1, 16, 16)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return a module with weights of its own, the same every time."""
    generator = seeded(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5)
    return module


def perceptron(inputs: int = 12, features: int = 16) -> nn.Module:
    return filled(nn.Sequential(nn.Flatten(), nn.Linear(inputs, features), nn.ReLU()))


def convolutions(width: int = 4, channels: int = 1, blocks: int = 4) -> nn.Module:
    """Return Conv4 as a torch module."""
    layers: list[nn.Module] = []
    for block in range(blocks):
        inputs = channels if block == 0 else width
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten())


class Recurrent(nn.Module):
    """Reads an item of 12 numbers four at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.lstm(x.unflatten(1, (3, 4)))[1][0][0])


class Attending(nn.Module):
    """A transformer layer over three parts of an item, whose fast attention has no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(4, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.into(x.unflatten(1, (3, 4)))[:, None].chunk(3, -1)
        return nnf.scaled_dot_product_attention(q, k, v).flatten(1)


class Unruly(nn.Module):
    """Does one thing wrong."""

    count: Tensor

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong
        self.linear = nn.Linear(12, 5)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> object:
        found = self.linear(x.mul_(2.0) if self.wrong == "input" else x)
        match self.wrong:
            case "random":
                return nnf.dropout(found, 0.5)
            case "batch":
                return found - found.mean(0)
            case "map":
                return found[:, :, None, None].expand(-1, -1, 3, 3)
            case "tuple":
                return (found,)
            case "whole":
                return found.long()
            case "infinite":
                return found / 0.0
            case "buffer":
                self.count += 1
            case "detached":
                return found.detach()
            case "one":
                return found[:, 0]
        return found
