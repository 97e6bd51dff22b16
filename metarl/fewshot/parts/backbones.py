"""Backbones: functional networks that turn items into features, under a stated batch-norm policy.

Items and parameters come in three forms, and mean the same in all of them:

    one task         items [n, *item],     parameters as they are
    shared           items [M, n, *item],  parameters as they are: M episodes through one network
    one set a task   items [M, n, *item],  parameters [M, ...]: grouped convolutions, batched matrix products

Batch norm never mixes episodes. What its mean and variance are taken over is the batch-norm policy, recorded with
every result:

    support        the support set alone, for support and queries: no query can influence a prediction (default)
    transductive   support and queries each over themselves: the queries of a test are seen together
    running        averages of training (`Norm.averages`)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as nnf

from metarl.errors import UserError, nearest
from metarl.nets.policy import ACTIVATIONS, MLP, Activation
from metarl.ranks import Ranks
from metarl.types import Params

BatchNorm = Literal["support", "transductive", "running"]
BackboneName = Literal["mlp", "conv4", "resnet12"]
Precision = Literal["float32", "bfloat16"]
EPSILON = 1e-5
"""Added to variances."""


class Moment(NamedTuple):
    """Mean and variance of one layer's channels, [C]; or [M, C], one for each episode."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Norm:
    """How batch norm takes its statistics in one pass.

    Attributes:
        policy: see the module.
        support: the first so many items are the support set, the others queries; 0: all of them are.
        averages: of every norm layer in order, for `running`; None: over all items of the pass, as while training.
        seen: where given, a list to which every layer adds the moments over all items of each episode. Only outside
            of function transforms.
        ranks: where given, items of the pass are those of all ranks: each has its part of one batch.
    """

    policy: BatchNorm = "support"
    support: int = 0
    averages: Sequence[Moment] | None = None
    seen: list[Moment] | None = field(default=None, compare=False)
    ranks: Ranks | None = None

    def __post_init__(self) -> None:
        if self.policy not in get_args(BatchNorm):
            raise UserError(f"Got the batch norm '{self.policy}'.{nearest(self.policy, get_args(BatchNorm))}")


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
            params |= _draw_layer(str(i), inputs, self.width, 3, generator, dtype)
        return params

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features."""
        form = _Form.of(x, by_task, self.precision)
        x = form.into(x, self.channels_last)
        for i in range(4):
            if self.stride:
                x = _normalise(_convolve(x, params[f"conv{i}"], form, stride=2), params, str(i), norm, i, form)
            else:
                x = _convolve_and_pool(x, params, str(i), norm, i, form)
            # The activation rises, so that it may stand behind the pooling, where it has a quarter of the work.
            x = _activate(x, self.slope)
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
                params |= _draw_layer(f"{i}_{j}", inputs if j == 0 else width, width, 3, generator, dtype)
            params |= _draw_layer(f"{i}_short", inputs, width, 1, generator, dtype)
            inputs = width
        return params

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features."""
        form = _Form.of(x, by_task, self.precision)
        x = form.into(x, self.channels_last)
        for i in range(4):
            short = _convolve(x, params[f"conv{i}_short"], form)
            short = _normalise(short, params, f"{i}_short", norm, 4 * i, form)
            for j in range(3):
                x = _convolve(x, params[f"conv{i}_{j}"], form)
                x = _normalise(x, params, f"{i}_{j}", norm, 4 * i + 1 + j, form)
                if j < 2:
                    x = _activate(x, self.slope)
            x = _activate(nnf.max_pool2d(x + short, 2), self.slope)
        return form.out(x.mean((2, 3), keepdim=True))


# -- layers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """How tasks lie in the four axes of a convolution: [outer * n, inner * C, H, W].

    Attributes:
        outer: episodes that share parameters, as parts of the first axis.
        items: n.
        inner: tasks with parameters of their own, as groups of channels.
        leading: whether items came with a task axis.
        precision: of convolutions.
    """

    outer: int
    items: int
    inner: int
    leading: bool
    precision: Precision

    @classmethod
    def of(cls, x: Tensor, by_task: bool, precision: Precision) -> _Form:
        if x.dim() == 4:
            return cls(1, x.shape[0], 1, leading=False, precision=precision)
        tasks, items = x.shape[:2]
        outer, inner = (1, tasks) if by_task else (tasks, 1)
        return cls(outer, items, inner, leading=True, precision=precision)

    def into(self, x: Tensor, channels_last: bool) -> Tensor:
        if self.leading:
            x = x.flatten(0, 1) if self.inner == 1 else x.transpose(0, 1).flatten(1, 2)
        if not channels_last:
            return x
        # By a copy: of a single channel torch would take either layout for the other, and go on with the slow one.
        return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)

    def parts(self, x: Tensor) -> Tensor:
        """Return [outer, n, inner, C, H, W]."""
        return x.unflatten(0, (self.outer, -1)).unflatten(2, (self.inner, -1))

    def out(self, x: Tensor) -> Tensor:
        """Return features, [M, n, F] or [n, F]."""
        if not self.leading:
            return x.flatten(1)
        x = self.parts(x).flatten(3)
        return x.squeeze(2) if self.inner == 1 else x.squeeze(0).transpose(0, 1)


def _convolve(x: Tensor, weight: Tensor, form: _Form, stride: int = 1) -> Tensor:
    groups = 1
    if weight.dim() == 5:
        weight, groups = weight.flatten(0, 1), form.inner
    dtype, padding = x.dtype, weight.shape[-1] // 2
    if form.precision == "bfloat16":
        x, weight = x.bfloat16(), weight.bfloat16()
    return nnf.conv2d(x, weight, stride=stride, padding=padding, groups=groups).to(dtype)


def _convolve_and_pool(x: Tensor, params: Params, layer: str, norm: Norm, number: int, form: _Form) -> Tensor:
    """Convolve, normalise, and take the maximum of every 2x2 places.

    A norm keeps the order of a channel's values, or turns it round where its scale is negative. So the pooling comes
    before the scaling, which then has a quarter of the work; where the scale is negative, it is that of -x.
    """
    weight, scale = params[f"conv{layer}"], params[f"scale{layer}"]
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
    x = _convolve(x, weight * sign[..., None, None, None], form)
    moment = _statistics(x, norm, number, form, sign)
    return _apply(nnf.max_pool2d(x, 2), moment, scale * sign, params[f"shift{layer}"], form)


def _normalise(x: Tensor, params: Params, layer: str, norm: Norm, number: int, form: _Form) -> Tensor:
    """Normalise the channels of one layer; see the module for the policies."""
    scale = params[f"scale{layer}"]
    moment = _statistics(x, norm, number, form, torch.ones_like(scale))
    return _apply(x, moment, scale, params[f"shift{layer}"], form)


def _statistics(x: Tensor, norm: Norm, number: int, form: _Form, sign: Tensor) -> Moment:
    """Return what one layer is normalised by, broadcastable to [outer, n, inner, C, H, W].

    Args:
        x: the layer's values, where `sign` is -1 with the sign changed.
        norm: averages, and the moments seen, are of the values as they are.
        number: of the layer.
        form: of x.
        sign: of every channel, 1 or -1.
    """
    parts = form.parts(x)
    if norm.seen is not None:
        mean, variance = (part.squeeze((1, 4, 5)).flatten(0, 1) for part in _moments(parts.detach(), norm.ranks))
        seen = Moment(mean * sign, variance)
        norm.seen.append(seen if form.leading else Moment(*(part.squeeze(0) for part in seen)))
    if norm.policy == "running" and norm.averages is not None:
        average = norm.averages[number]
        shape = (1, 1, -1, parts.shape[3], 1, 1)
        return Moment((average.mean * sign).view(shape), average.variance.view(shape))
    support = norm.support if 0 < norm.support < form.items and norm.policy != "running" else form.items
    found = _moments(parts[:, :support], norm.ranks)
    if norm.policy != "transductive" or support == form.items:
        return found
    halves = ((found, support), (_moments(parts[:, support:]), form.items - support))
    spread = [Moment(*(part.expand(-1, size, -1, -1, -1, -1) for part in half)) for half, size in halves]
    return Moment(*(torch.cat(pair, dim=1) for pair in zip(*spread, strict=True)))


def _moments(parts: Tensor, ranks: Ranks | None = None) -> Moment:
    """Return mean and variance of every channel over items and places, [outer, 1, inner, C, 1, 1]."""
    if ranks is not None and ranks.size > 1:
        own = _moments(parts)
        mean = ranks.mean_with_gradient(own.mean)
        return Moment(mean, ranks.mean_with_gradient(own.variance + (own.mean - mean).square()))
    if torch.compiler.is_compiling():
        # The compiler makes one pass of these by itself, and has no custom derivatives under vmap.
        mean = parts.mean((1, 4, 5), keepdim=True)
        return Moment(mean, (parts - mean).square().mean((1, 4, 5), keepdim=True))
    return Moment(*_Moments.apply(parts))


class _Moments(torch.autograd.Function):
    """Mean and variance over the axes 1, 4 and 5, with derivatives of any order that pass over x as seldom as can be.

    torch.var_mean takes ten times as long on a CPU, and its derivatives make a dozen tensors of the size of x.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean((1, 4, 5), keepdim=True)
        return mean, (x - mean).square().mean((1, 4, 5), keepdim=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[0])

    @staticmethod
    def backward(ctx: Any, *of_output: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        of_mean, of_variance = of_output
        items = x.shape[1] * x.shape[4] * x.shape[5]
        # Of the mean of (x - mean)²: 2 (x - mean) / items. With mean as a function of x, for the second derivative.
        slope = of_variance * (2.0 / items)
        return torch.addcmul(of_mean / items - slope * mean, x, slope)


def _apply(x: Tensor, moment: Moment, scale: Tensor, shift: Tensor, form: _Form) -> Tensor:
    """Return x as it came, normalised by given moments."""
    shape = (1, 1, form.inner if scale.dim() == 2 else 1, scale.shape[-1], 1, 1)
    factor = scale.view(shape) * (moment.variance + EPSILON).rsqrt()
    offset = shift.view(shape) - moment.mean * factor
    return torch.addcmul(offset, form.parts(x), factor).flatten(0, 1).flatten(1, 2)


def _activate(x: Tensor, slope: float) -> Tensor:
    return nnf.leaky_relu(x, slope) if slope else torch.relu(x)


def _draw_layer(
    name: str, inputs: int, outputs: int, size: int, generator: torch.Generator, dtype: torch.dtype
) -> Params:
    """Draw a convolution without bias, and the norm behind it."""
    deviation = math.sqrt(2.0 / (inputs * size * size))
    weight = torch.randn(outputs, inputs, size, size, generator=generator, dtype=torch.float64) * deviation
    return {
        f"conv{name}": weight.to(dtype),
        f"scale{name}": torch.ones(outputs, dtype=dtype),
        f"shift{name}": torch.zeros(outputs, dtype=dtype),
    }


def _check_image(item_shape: tuple[int, ...], smallest: int) -> None:
    """Refuse items that are no images, or too small ones."""
    if len(item_shape) != 3 or min(item_shape[1:]) < smallest:
        raise UserError(
            f"Got items of shape {item_shape}, and this backbone takes images (channels, height, width) of at least "
            f"{smallest} x {smallest} pixels. Use --backbone mlp, or larger images."
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
        name: `mlp`, `conv4` or `resnet12`.
        item_shape: of one item.
        width: channels of conv4; of the first block of resnet12, doubled by each of the others.
        hidden: units of the layers of an mlp.
        channels_last: memory layout of the convolutions.
        precision: of the convolutions.

    Raises:
        UserError: an unknown name, or a precision that an mlp has not.
    """
    if precision not in get_args(Precision):
        raise UserError(f"Unknown precision '{precision}'.{nearest(precision, get_args(Precision))}")
    if name == "mlp":
        if precision != "float32":
            raise UserError(f"Got the precision {precision} for an mlp, and only convolutions have it. Use float32.")
        return MlpBackbone(item_shape=item_shape, hidden=hidden)
    if name == "conv4":
        return Conv4(item_shape=item_shape, width=width, channels_last=channels_last, precision=precision)
    if name == "resnet12":
        widths = (width, 2 * width, 4 * width, 8 * width)
        return ResNet12(item_shape=item_shape, widths=widths, channels_last=channels_last, precision=precision)
    raise UserError(f"Unknown backbone '{name}'.{nearest(name, get_args(BackboneName))}")
