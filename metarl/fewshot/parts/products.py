"""Convolutions of tasks that each have their own weights, as batched matrix products; with derivatives of any order.

    y = C(x) w          C(x): the patch of x around every place as a row
    ∂/∂x: the same convolution of y's cotangent, with w turned round        ∂/∂w: C(x)ᵀ of y's cotangent

Both derivatives are bilinear as well, and theirs are again these two. So a second-order meta-gradient has as few
kernels as it can: torch takes the second derivative of a grouped convolution group by group, which are thousands of
them for the tasks of a meta-batch. Patches are made anew when they are needed, since they take nine times the memory
of what they are made of.

Layout: items [M, n, H, W, C], weights [M, h, w, C, O], with h and w odd, stride 1, and zeros around the picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf


def convolve_by_products(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Convolve the items of M tasks, [M * n, C, H, W] channels last, with weights [M, O, C, h, w] of each."""
    tasks = weight.shape[0]
    items = x.permute(0, 2, 3, 1).unflatten(0, (tasks, -1))
    y = _convolve(items, weight.permute(0, 3, 4, 2, 1))
    if stride > 1:
        y = y[:, :, ::stride, ::stride]
    return y.flatten(0, 1).permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    return _Convolved.apply(x, weight)


def _correlate(x: Tensor, y: Tensor, size: tuple[int, int]) -> Tensor:
    return _Correlated.apply(x, y, size)


class _Convolved(torch.autograd.Function):
    """(x [M, n, H, W, C], w [M, h, w, C, O]) -> [M, n, H, W, O]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = torch.bmm(patches(x, (weight.shape[1], weight.shape[2])), weight.flatten(1, 3))
        return y.unflatten(1, x.shape[1:4])

    @staticmethod
    def backward(ctx: Any, *of_y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        size = weight.shape[1], weight.shape[2]
        of_x = _convolve(of_y[0], turned(weight)) if ctx.needs_input_grad[0] else None
        return of_x, _correlate(x, of_y[0], size) if ctx.needs_input_grad[1] else None


class _Correlated(torch.autograd.Function):
    """(x [M, n, H, W, C], y [M, n, H, W, O]) -> the weights' cotangent [M, h, w, C, O]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, y)
        weight = torch.bmm(patches(x, size).mT, y.flatten(1, 3))
        return weight.unflatten(1, (*size, x.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *of_weight: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y = ctx.saved_tensors
        of_x = _convolve(y, turned(of_weight[0])) if ctx.needs_input_grad[0] else None
        return of_x, _convolve(x, of_weight[0]) if ctx.needs_input_grad[1] else None, None


def patches(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the patches around all places as rows, [M, n H W, h w C]."""
    height, width = size
    if size != (1, 1):
        rows, columns = height // 2, width // 2
        x = nnf.pad(x, (0, 0, columns, columns, rows, rows))
        # [M, n, H, W, C, h, w], a view.
        x = x.unfold(2, height, 1).unfold(3, width, 1).permute(0, 1, 2, 3, 5, 6, 4)
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3], -1)


def turned(weight: Tensor) -> Tensor:
    """Return the weights of the convolution that is the transpose of another: turned round, in and out exchanged."""
    return weight.flip(1, 2).transpose(3, 4)
