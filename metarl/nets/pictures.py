"""An encoder of pictures: what stands in the place of their pixels among the numbers that a network is given.

    pixels 0..1 -> convolutions, 3 x 3 with stride 2 (16, then 32 channels), relu -> linear -> 64 features, relu

There are at least two convolutions, and as many as it takes until no side is longer than 8. All numbers that are no
pixels stay as they are, in their order. Parameters are a dict and may have leading task axes, as in policy.py: the
convolutions of M tasks are one convolution of M groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, relu

from metarl.nets.memory import Core, Memory
from metarl.nets.policy import Network, affine
from metarl.types import EnvSpec, Params, Picture

CHANNELS = (16, 32)
"""Of the first convolution, and of all others."""
LONGEST_SIDE = 8
"""Of what the convolutions leave."""
FEATURES = 64
"""Of a picture."""
COARSE = 4
"""Longest side of a picture made coarse."""


def with_pictures(spec: EnvSpec, encoded: bool) -> EnvSpec:
    """Return the sizes of a family as an agent has them that encodes its pictures, or takes pixels as numbers."""
    return spec if encoded else replace(spec, pictures=())


def pixels_in_bounds(
    shown: Float[Tensor, "*N O"], observations: Float[Tensor, "*N O"], pictures: tuple[Picture, ...]
) -> Float[Tensor, "*N O"]:
    """Return what is shown of observations, with pixels brought to 0..1 by their bounds."""
    if not pictures:
        return shown
    shown = shown.clone()
    for picture in pictures:
        pixels = slice(picture.first, picture.first + picture.size)
        shown[..., pixels] = observations[..., pixels] / picture.largest
    return shown


@dataclass(frozen=True)
class Encoder:
    """Puts features in the place of pixels.

    Attributes:
        inputs: I, numbers of a row; what stands behind the observation stays as it is too.
        pictures: where the pixels are, in 0..1.
    """

    inputs: int
    pictures: tuple[Picture, ...]

    @property
    def _others(self) -> int:
        return self.inputs - sum(picture.size for picture in self.pictures)

    @property
    def outputs(self) -> int:
        """J, numbers of a row with features in it."""
        return self._others + FEATURES * len(self.pictures)

    @property
    def coarse_outputs(self) -> int:
        """Numbers of a row with coarse pictures in it."""
        return self._others + sum(math.prod(_coarse(picture)) for picture in self.pictures)

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters: He-uniform weights, zero biases."""
        params: Params = {}

        def draw(name: str, *shape: int, inputs: int) -> None:
            unit = torch.rand(*shape, generator=generator, dtype=torch.float64)
            params[f"{name}_w"] = ((unit * 2.0 - 1.0) * math.sqrt(6.0 / inputs)).to(dtype)

        for number, picture in enumerate(self.pictures):
            channels, *sides = _sides(picture)
            for layer in range(_convolutions(picture)):
                width = CHANNELS[min(layer, 1)]
                name = f"picture{number}_conv{layer}"
                draw(name, width, channels, 3, 3, inputs=9 * channels)
                params[f"{name}_b"] = torch.zeros(width, dtype=dtype)
                channels, sides = width, [_halved(side) for side in sides]
            left = channels * math.prod(sides)
            draw(f"picture{number}_linear", left, FEATURES, inputs=left)
            params[f"picture{number}_linear_b"] = torch.zeros(FEATURES, dtype=dtype)
        return params

    def __call__(self, params: Params, rows: Float[Tensor, "*N I"]) -> Float[Tensor, "*N J"]:
        """Return the rows with features in the place of pixels; parameters may have leading task axes, as the rows."""
        parts = []
        for number, part in enumerate(self._parts(rows)):
            # Numbers and pixels by turns.
            if number % 2 == 0:
                parts.append(part)
                continue
            name = f"picture{number // 2}"
            for layer in range(_convolutions(self.pictures[number // 2])):
                part = relu(convolve(part, params[f"{name}_conv{layer}_w"], params[f"{name}_conv{layer}_b"]))
            parts.append(relu(affine(part.flatten(-3), params[f"{name}_linear_w"], params[f"{name}_linear_b"])))
        return torch.cat(parts, dim=-1)

    def coarse(self, rows: Float[Tensor, "*N I"]) -> Float[Tensor, "*N J"]:
        """Return the rows with pictures of at most 4 x 4 pixels in the place of the pictures: means of their parts."""
        parts = []
        for number, part in enumerate(self._parts(rows)):
            if number % 2 == 0:
                parts.append(part)
                continue
            size = _coarse(self.pictures[number // 2])[1:]
            pooled = adaptive_avg_pool2d(part.flatten(0, -4), size)
            parts.append(pooled.reshape(*part.shape[:-3], math.prod(pooled.shape[1:])))
        return torch.cat(parts, dim=-1)

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield numbers [..., n], which may be none, and pictures [..., C, H, W] by turns."""
        at = 0
        for picture in self.pictures:
            yield rows[..., at : picture.first]
            at = picture.first + picture.size
            pixels = rows[..., picture.first : at].unflatten(-1, picture.shape)
            axes = len(picture.shape)
            sides = [axis for axis in range(axes) if axis not in picture.channels]
            order = [axis - axes for axis in (*picture.channels, *sides)]
            pixels = pixels.permute(*range(rows.dim() - 1), *(pixels.dim() + axis for axis in order))
            yield pixels.reshape(*rows.shape[:-1], *_sides(picture))
        yield rows[..., at:]


def _sides(picture: Picture) -> tuple[int, int, int]:
    """Return channels (of all pictures of a stack), height and width."""
    height, width = (size for axis, size in enumerate(picture.shape) if axis not in picture.channels)
    return picture.size // (height * width), height, width


def _coarse(picture: Picture) -> tuple[int, int, int]:
    """Return channels, height and width of the picture made coarse."""
    channels, height, width = _sides(picture)
    return channels, min(height, COARSE), min(width, COARSE)


def _halved(side: int) -> int:
    """Return what a convolution leaves of a side."""
    return (side + 1) // 2


def _convolutions(picture: Picture) -> int:
    """Return how many there are."""
    count, longest = 0, max(_sides(picture)[1:])
    while count < 2 or longest > LONGEST_SIDE:
        count, longest = count + 1, _halved(longest)
    return count


def convolve(
    x: Float[Tensor, "*N C H W"], weight: Float[Tensor, "*M D C 3 3"], bias: Float[Tensor, "*M D"]
) -> Float[Tensor, "*N D h w"]:
    """Convolve with stride 2 and a border of zeros; the leading task axes of weight and bias are also those of x."""
    tasks = weight.shape[:-4]
    groups, own = math.prod(tasks), x.shape[len(tasks) : -3]
    side_by_side = x.reshape(groups, math.prod(own), *x.shape[-3:]).transpose(0, 1).flatten(1, 2)
    y = conv2d(side_by_side, weight.flatten(0, -4), bias.flatten(), stride=2, padding=1, groups=groups)
    return y.unflatten(1, (groups, -1)).transpose(0, 1).reshape(*tasks, *own, *weight.shape[-4:-3], *y.shape[-2:])


@dataclass(frozen=True, kw_only=True)
class Seeing:
    """A network of policy.py behind an encoder.

    Attributes:
        encoder: observation with pixels in 0..1 -> the network's input.
        network: the rest.
    """

    encoder: Encoder
    network: Network

    @property
    def outputs(self) -> int:
        """Output size."""
        return self.network.outputs

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters."""
        return self.network.init(generator, dtype) | self.encoder.init(generator, dtype)

    def __call__(self, params: Params, x: Float[Tensor, "*batch N I"]) -> Float[Tensor, "*batch N J"]:
        """Compute the output; parameters may have leading task axes."""
        return self.network(params, self.encoder(params, x))


class SeeingCore(Core):
    """A memory core behind an encoder: it remembers features, no pixels.

    Args:
        encoder: inputs with pixels in 0..1 -> the core's inputs.
        core: the rest.
        generator: draws the encoder's weights.
    """

    def __init__(self, encoder: Encoder, core: Core, generator: torch.Generator) -> None:
        super().__init__()
        self.width, self.steady = core.width, core.steady
        self.encoder = encoder
        self.core = core
        self.weights = nn.ParameterDict(encoder.init(generator))

    def begin(self, worlds: int) -> Memory:
        """Return the core's empty memory."""
        return self.core.begin(worlds)

    @torch.no_grad()
    def step(
        self, inputs: Float[Tensor, "B I"], memory: Memory, waiting: Bool[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Memory]:
        """Take in one moment."""
        return self.core.step(self.encoder(dict(self.weights.items()), inputs), memory, waiting)

    def forward(self, inputs: Float[Tensor, "N L I"]) -> Float[Tensor, "N L H"]:
        """Compute the features of whole trials."""
        return self.core(self.encoder(dict(self.weights.items()), inputs))
