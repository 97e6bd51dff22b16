"""The backbone for signals: items [channels, length], in one dimension what conv4 is in two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.parts.layers import Form, Precision, activate, convolve_and_pool, draw_layer
from metarl.fewshot.parts.norms import Norm
from metarl.types import Params

SHORTEST = 16
"""Least length of a signal: every block halves it."""


@dataclass(frozen=True, kw_only=True)
class Conv1d:
    """Four blocks of convolution, batch norm, ReLU and max pooling of two, and a mean over the time.

    The mean makes features that do not tell when something happened, and as few of them for long signals as for short
    ones. Convolutions have no bias: the norm behind them would take it out again.

    Attributes:
        item_shape: channels, length; at least 16 values long.
        width: channels of every block.
        kernel: values that a convolution sees at once; odd.
        channels_last: memory layout of the convolutions; the other one has a form for torch.vmap.
        precision: `bfloat16`: convolutions multiply in it; parameters, norms and sums stay as they are.
    """

    item_shape: tuple[int, ...]
    width: int = 64
    kernel: int = 5
    channels_last: bool = True
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if len(self.item_shape) != 2 or self.item_shape[1] < SHORTEST:
            raise UserError(
                f"Got items of shape {self.item_shape}, and conv1d takes signals (channels, length) of at least "
                f"{SHORTEST} values. Use --backbone mlp, or longer signals."
            )
        if self.width < 1:
            raise UserError(f"Got a width of {self.width} channels. Give at least 1.")

    @property
    def features(self) -> int:
        """Return F."""
        return self.width

    @property
    def norms(self) -> int:
        """Return 4."""
        return 4

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters: He-normal weights."""
        params: Params = {}
        for i in range(4):
            inputs = self.item_shape[0] if i == 0 else self.width
            params |= draw_layer(str(i), inputs, self.width, (1, self.kernel), generator, dtype)
        return params

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features."""
        # A signal is a picture of height 1.
        x = x.unsqueeze(-2)
        form = Form.of(x, by_task, self.precision)
        x = form.into(x, self.channels_last)
        for i in range(4):
            x = activate(convolve_and_pool(x, params, str(i), norm, i, form, pool=(1, 2)), 0.0)
        return form.out(x.mean((2, 3), keepdim=True))
