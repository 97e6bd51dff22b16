"""Backbones: functional networks that turn items into features, under a stated batch-norm policy.

Items and parameters come in three forms, and mean the same in all of them:

    one task         items [n, *item],     parameters as they are
    shared           items [M, n, *item],  parameters as they are: M episodes through one network
    one set a task   items [M, n, *item],  parameters [M, ...]: grouped convolutions, batched matrix products

Policies of batch norm are those of metarl/fewshot/parts/norms.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as nnf

from metarl.errors import UserError, nearest
from metarl.fewshot.parts.conv1d import Conv1d
from metarl.fewshot.parts.layers import Form, Precision, activate, convolve, convolve_and_pool, draw_layer, normalise
from metarl.fewshot.parts.norms import Norm
from metarl.memory import layers
from metarl.nets.policy import ACTIVATIONS, MLP, Activation
from metarl.types import Params

BackboneName = Literal["mlp", "conv4", "resnet12", "conv1d", "identity"]


@runtime_checkable
class Backbone(Protocol):
    """A network from items to features.

    Attributes:
        item_shape: of one item.
        features: numbers that come out for an item, F.
        norms: its batch-norm layers.
    """

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Return the shape of one item."""
        ...

    @property
    def features(self) -> int:
        """Return F."""
        ...

    @property
    def norms(self) -> int:
        """Return the number of batch-norm layers."""
        ...

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters."""
        ...

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features.

        Args:
            params: as `init` gives them; every one with a leading task axis M if `by_task`.
            x: items, with the support set first where the policy asks for it.
            norm: how statistics are taken.
            by_task: parameters have a task axis.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class MlpBackbone:
    """A multi-layer perceptron over flattened items, with an activation behind every layer; without batch norm.

    Attributes:
        item_shape: of one item.
        hidden: units of the layers.
        activation: behind each of them.
    """

    item_shape: tuple[int, ...]
    hidden: tuple[int, ...] = (40, 40)
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        if not self.hidden or not self.item_shape:
            raise UserError(f"Got items {self.item_shape} and hidden layers {self.hidden}. Give at least one of each.")

    @property
    def features(self) -> int:
        """Return F: the units of the last layer."""
        return self.hidden[-1]

    @property
    def norms(self) -> int:
        """Return 0."""
        return 0

    @property
    def _network(self) -> MLP:
        # Its output is the last hidden layer, before the activation.
        return MLP(
            inputs=math.prod(self.item_shape),
            hidden=self.hidden[:-1],
            outputs=self.hidden[-1],
            activation=self.activation,
        )

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters."""
        return self._network.init(generator, dtype)

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features."""
        return ACTIVATIONS[self.activation](self._network(params, x.flatten(-len(self.item_shape))))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """No network: items are features already, such as those of a pretrained network.

    Attributes:
        item_shape: of one item, which is flattened.
    """

    item_shape: tuple[int, ...]

    @property
    def features(self) -> int:
        """Return F: the numbers of an item."""
        return math.prod(self.item_shape)

    @property
    def norms(self) -> int:
        """Return 0."""
        return 0

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Return no parameters."""
        return {}

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Return the numbers of the items."""
        return x.flatten(-len(self.item_shape))


@dataclass(frozen=True, kw_only=True)
class Conv4:
    """Four blocks of 3x3 convolution, batch norm, ReLU and 2x2 max pooling (Vinyals et al. 2016).

    Convolutions have no bias: the norm behind them would take it out again.

    Attributes:
        item_shape: channels, height, width; at least 16 pixels high and wide.
        width: channels of every block.
        stride: convolutions with stride 2 in place of the pooling, as in MAML's Omniglot network.
        slope: of the activation below 0 (a leaky ReLU where it is not 0).
        channels_last: memory layout of the convolutions, which is the faster one but has no form for torch.vmap.
        precision: `bfloat16`: convolutions multiply in it; parameters, norms and sums stay as they are.
    """

    item_shape: tuple[int, ...]
    width: int = 64
    stride: bool = False
    slope: float = 0.0
    channels_last: bool = True
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        _check_image(self.item_shape, smallest=9 if self.stride else 16)
        if self.width < 1:
            raise UserError(f"Got a width of {self.width} channels. Give at least 1.")

    @property
    def features(self) -> int:
        """Return F."""
        height, width = self.item_shape[1:]
        for _ in range(4):
            height, width = ((height + 1) // 2, (width + 1) // 2) if self.stride else (height // 2, width // 2)
        return self.width * height * width

    @property
    def norms(self) -> int:
        """Return 4."""
        return 4

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters: He-normal weights."""
        params: Params = {}
        for i in range(4):
            inputs = self.item_shape[0] if i == 0 else self.width
            params |= draw_layer(str(i), inputs, self.width, (3, 3), generator, dtype)
        return params

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features."""
        form = Form.of(x, by_task, self.precision)
        x = form.into(x, self.channels_last)
        for i in range(4):
            if self.stride:
                x = normalise(convolve(x, params[f"conv{i}"], form, stride=2), params, str(i), norm, i, form)
            else:
                x = convolve_and_pool(x, params, str(i), norm, i, form)
            # The activation rises, so that it may stand behind the pooling, where it has a quarter of the work.
            x = activate(x, self.slope)
        return form.out(x)


@dataclass(frozen=True, kw_only=True)
class ResNet12:
    """Four residual blocks of three convolutions, and a mean over the picture (Oreshkin et al. 2018; no dropout).

    Attributes:
        item_shape: channels, height, width; at least 16 pixels high and wide.
        widths: channels of the blocks.
        slope: of the leaky ReLU below 0.
        channels_last: memory layout of the convolutions, which is the faster one but has no form for torch.vmap.
        precision: `bfloat16`: convolutions multiply in it; parameters, norms and sums stay as they are.
    """

    item_shape: tuple[int, ...]
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    slope: float = 0.1
    channels_last: bool = True
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        _check_image(self.item_shape, smallest=16)

    @property
    def features(self) -> int:
        """Return F."""
        return self.widths[-1]

    @property
    def norms(self) -> int:
        """Return 16: in every block that of the shortcut, then those of its three convolutions."""
        return 16

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters: He-normal weights."""
        params: Params = {}
        inputs = self.item_shape[0]
        for i, width in enumerate(self.widths):
            for j in range(3):
                params |= draw_layer(f"{i}_{j}", inputs if j == 0 else width, width, (3, 3), generator, dtype)
            params |= draw_layer(f"{i}_short", inputs, width, (1, 1), generator, dtype)
            inputs = width
        return params

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features."""
        form = Form.of(x, by_task, self.precision)
        x = form.into(x, self.channels_last)
        for i in range(4):
            short = convolve(x, params[f"conv{i}_short"], form)
            short = normalise(short, params, f"{i}_short", norm, 4 * i, form)
            for j in range(3):
                x = convolve(x, params[f"conv{i}_{j}"], form)
                x = normalise(x, params, f"{i}_{j}", norm, 4 * i + 1 + j, form)
                if j < 2:
                    x = activate(x, self.slope)
            x = activate(nnf.max_pool2d(x + short, 2), self.slope)
        return form.out(x.mean((2, 3), keepdim=True))


def _check_image(item_shape: tuple[int, ...], smallest: int) -> None:
    """Refuse items that are no images, or too small ones."""
    if len(item_shape) != 3 or min(item_shape[1:]) < smallest:
        advice = "conv1d for signals, or mlp" if len(item_shape) == 2 else "mlp, or larger images"
        raise UserError(
            f"Got items of shape {item_shape}, and this backbone takes images (channels, height, width) of at least "
            f"{smallest} x {smallest} pixels. Use --backbone {advice}."
        )


def make_backbone(
    name: BackboneName,
    item_shape: tuple[int, ...],
    *,
    width: int = 64,
    hidden: tuple[int, ...] = (40, 40),
    channels_last: bool = True,
    precision: Precision = "float32",
) -> Backbone:
    """Return a backbone by name.

    Args:
        name: `mlp`, `conv4`, `resnet12`, `conv1d` or `identity`.
        item_shape: of one item.
        width: channels of conv4 and conv1d; of the first block of resnet12, doubled by each of the others.
        hidden: units of the layers of an mlp.
        channels_last: memory layout of the convolutions.
        precision: of the convolutions.

    Raises:
        UserError: an unknown name, or a precision that an mlp has not.
    """
    if precision not in get_args(Precision):
        raise UserError(f"Unknown precision '{precision}'.{nearest(precision, get_args(Precision))}")
    if name in ("mlp", "identity") and precision != "float32":
        raise UserError(f"Got the precision {precision} for {name}, and only convolutions have it. Use float32.")
    if name == "identity":
        return Identity(item_shape=item_shape)
    if name == "mlp":
        return MlpBackbone(item_shape=item_shape, hidden=hidden)
    if name == "conv4":
        return Conv4(item_shape=item_shape, width=width, channels_last=channels_last, precision=precision)
    if name == "resnet12":
        widths = (width, 2 * width, 4 * width, 8 * width)
        return ResNet12(item_shape=item_shape, widths=widths, channels_last=channels_last, precision=precision)
    if name == "conv1d":
        return Conv1d(item_shape=item_shape, width=width, channels_last=channels_last, precision=precision)
    raise UserError(f"Unknown backbone '{name}'.{nearest(name, get_args(BackboneName))}")


def backbone_size(name: str, item_shape: tuple[int, ...], width: int, hidden: tuple[int, ...]) -> tuple[int, int]:
    """Reckon a backbone that is still to be made: its weights, and the numbers that it keeps of an item in training.

    Args:
        name: as in `make_backbone`; of one's own nothing is known.
        item_shape: of one item.
        width: as in `make_backbone`.
        hidden: as in `make_backbone`.
    """
    if name == "mlp":
        return layers(math.prod(item_shape), hidden[:-1], max(hidden, default=0)), 2 * sum(hidden)
    places = math.prod(item_shape[1:])
    if name == "resnet12":
        # Of each block the results of its convolutions, norms and activations; the next has a quarter of the places.
        kept = sum(14 * width * 2**i * places // 4**i for i in range(4))
        return 9 * width * item_shape[0] + 2100 * width * width, kept
    if name in ("conv4", "conv1d"):
        return 9 * width * (item_shape[0] + 3 * width), 3 * width * places
    return 0, 0
