"""Convolutional layers for tasks that share parameters, and for tasks that each have their own.

Tasks are held in the four axes of one convolution (`Form`): episodes that share parameters are further items, tasks
with parameters of their own are groups of channels; on a GPU those are items too (metarl/fewshot/parts/products.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as nnf

from metarl.fewshot.parts.norms import EPSILON, Moment, Norm, moments_of
from metarl.fewshot.parts.products import convolve_by_products
from metarl.types import Params

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Form:
    """How tasks lie in the four axes of a convolution: [outer * n, inner * C, H, W].

    Attributes:
        outer: episodes that share parameters, or tasks with their own on a GPU, as parts of the first axis.
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
    def of(cls, x: Tensor, by_task: bool, precision: Precision) -> Form:
        """Return the form of items, [n, C, H, W] or [M, n, C, H, W]; parameters are the tasks' own if `by_task`."""
        if x.dim() == 4:
            return cls(1, x.shape[0], 1, leading=False, precision=precision)
        tasks, items = x.shape[:2]
        outer, inner = (1, tasks) if by_task and not by_products(x) else (tasks, 1)
        return cls(outer, items, inner, leading=True, precision=precision)

    def into(self, x: Tensor, channels_last: bool) -> Tensor:
        """Return items in the four axes."""
        if self.leading:
            x = x.flatten(0, 1) if self.inner == 1 else x.transpose(0, 1).flatten(1, 2)
        if not channels_last:
            return x
        # By a copy: of a single channel torch would take either layout for the other, and go on with the slow one.
        return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)

    def parts(self, x: Tensor) -> Tensor:
        """Return [outer, n, inner, C, H, W]."""
        return x.unflatten(0, (self.outer, -1)).unflatten(2, (self.inner, -1))

    def channels(self, value: Tensor) -> Tensor:
        """Return numbers of every channel, [C] or [M, C] of each task, broadcastable to the parts."""
        tasks = value.shape[0] if value.dim() == 2 else 1
        outer, inner = (tasks, 1) if self.inner == 1 else (1, tasks)
        return value.view(outer, 1, inner, value.shape[-1], 1, 1)

    def out(self, x: Tensor) -> Tensor:
        """Return features, [M, n, F] or [n, F]."""
        if not self.leading:
            return x.flatten(1)
        x = self.parts(x).flatten(3)
        return x.squeeze(2) if self.inner == 1 else x.squeeze(0).transpose(0, 1)


def convolve(x: Tensor, weight: Tensor, form: Form, stride: int = 1) -> Tensor:
    """Convolve with the weights [out, in, h, w] of all tasks, or [M, out, in, h, w] of each; h and w are odd."""
    dtype, padding = x.dtype, (weight.shape[-2] // 2, weight.shape[-1] // 2)
    if form.precision == "bfloat16":
        x, weight = x.bfloat16(), weight.bfloat16()
    groups = 1
    if weight.dim() == 5:
        if form.inner == 1 and by_products(x):
            return convolve_by_products(x, weight, stride).to(dtype)
        weight, groups = weight.flatten(0, 1), form.inner
    return nnf.conv2d(x, weight, stride=stride, padding=padding, groups=groups).to(dtype)


def by_products(x: Tensor) -> bool:
    """Tell whether tasks with weights of their own are convolved by matrix products; if not, in groups of channels."""
    return x.is_cuda


def convolve_and_pool(
    x: Tensor, params: Params, layer: str, norm: Norm, number: int, form: Form, pool: tuple[int, int] = (2, 2)
) -> Tensor:
    """Convolve, normalise, and take the maximum of every `pool` places.

    A norm keeps the order of a channel's values, or turns it round where its scale is negative. So the pooling comes
    before the scaling, which then has a quarter of the work; where the scale is negative, it is that of -x.
    """
    weight, scale = params[f"conv{layer}"], params[f"scale{layer}"]
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
    x = convolve(x, weight * sign[..., None, None, None], form)
    moment = statistics(x, norm, number, form, sign)
    return apply(nnf.max_pool2d(x, pool), moment, scale * sign, params[f"shift{layer}"], form)


def normalise(x: Tensor, params: Params, layer: str, norm: Norm, number: int, form: Form) -> Tensor:
    """Normalise the channels of one layer under a policy (see metarl/fewshot/parts/norms.py)."""
    scale = params[f"scale{layer}"]
    moment = statistics(x, norm, number, form, torch.ones_like(scale))
    return apply(x, moment, scale, params[f"shift{layer}"], form)


def statistics(x: Tensor, norm: Norm, number: int, form: Form, sign: Tensor) -> Moment:
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
        mean, variance = (part.squeeze((1, 4, 5)).flatten(0, 1) for part in moments_of(parts.detach(), norm.ranks))
        seen = Moment(mean * sign, variance)
        norm.seen.append(seen if form.leading else Moment(*(part.squeeze(0) for part in seen)))
    if norm.policy == "running" and norm.averages is not None:
        average = norm.averages[number]
        return Moment(form.channels(average.mean * sign), form.channels(average.variance))
    support = norm.support if 0 < norm.support < form.items and norm.policy != "running" else form.items
    found = moments_of(parts[:, :support], norm.ranks)
    if norm.policy != "transductive" or support == form.items:
        return found
    halves = ((found, support), (moments_of(parts[:, support:]), form.items - support))
    spread = [Moment(*(part.expand(-1, size, -1, -1, -1, -1) for part in half)) for half, size in halves]
    return Moment(*(torch.cat(pair, dim=1) for pair in zip(*spread, strict=True)))


def apply(x: Tensor, moment: Moment, scale: Tensor, shift: Tensor, form: Form, epsilon: float = EPSILON) -> Tensor:
    """Return x as it came, normalised by given moments."""
    factor = form.channels(scale) * (moment.variance + epsilon).rsqrt()
    offset = form.channels(shift) - moment.mean * factor
    return torch.addcmul(offset, form.parts(x), factor).flatten(0, 1).flatten(1, 2)


def activate(x: Tensor, slope: float) -> Tensor:
    """Return a ReLU of x, leaky where the slope is not 0."""
    return nnf.leaky_relu(x, slope) if slope else torch.relu(x)


def draw_layer(
    name: str, inputs: int, outputs: int, size: tuple[int, int], generator: torch.Generator, dtype: torch.dtype
) -> Params:
    """Draw a convolution without bias, whose kernel has a height and a width, and the norm behind it."""
    deviation = math.sqrt(2.0 / (inputs * math.prod(size)))
    weight = torch.randn(outputs, inputs, *size, generator=generator, dtype=torch.float64) * deviation
    return {
        f"conv{name}": weight.to(dtype),
        f"scale{name}": torch.ones(outputs, dtype=dtype),
        f"shift{name}": torch.zeros(outputs, dtype=dtype),
    }
