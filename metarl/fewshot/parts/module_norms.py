"""The batch norms of a torch module under the policies of metarl/fewshot/parts/norms.py.

In a copy of the module every batch norm gives way to one that takes its statistics by episode. Parameters keep their
names. Statistics of the module's own training are not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from metarl.errors import UserError
from metarl.fewshot.parts.layers import Form, apply, statistics
from metarl.fewshot.parts.norms import Norm


@dataclass
class Pass:
    """What the norms of a module need to know of the pass that they are in.

    Attributes:
        norm: how statistics are taken.
        tasks: episodes, which lie one after the other in the first axis.
        items: of each of them.
        leading: whether items came with a task axis.
        count: norms that were passed, by which the next one knows its place.
    """

    norm: Norm = field(default_factory=Norm)
    tasks: int = 1
    items: int = 1
    leading: bool = False
    count: int = 0


class EpisodeNorm(nn.Module):
    """A batch norm that takes its statistics by episode.

    Args:
        original: in whose place it stands.
        present: the pass, which all norms of a module share.
    """

    def __init__(self, original: BatchNorm, present: Pass) -> None:
        super().__init__()
        self.channels, self.epsilon = original.num_features, original.eps
        self.weight, self.bias = original.weight, original.bias
        self.present = present

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, [rows, channels, ...]: items, or several rows of every item next to each other."""
        present = self.present
        number, present.count = present.count, present.count + 1
        rows = present.tasks * present.items
        if x.dim() < 2 or x.shape[0] % rows:
            raise UserError(
                f"A batch norm of the backbone got {tuple(x.shape)} for {rows} items. Its first axis must be items, or "
                "several rows of each."
            )
        each = x.shape[0] // rows
        form = Form(present.tasks, each * present.items, 1, leading=present.leading, precision="float32")
        norm = replace(present.norm, support=each * present.norm.support)
        four = x.flatten(2)[..., None] if x.dim() > 2 else x[..., None, None]
        ones = four.new_ones(self.channels)
        scale = ones if self.weight is None else self.weight
        shift = torch.zeros_like(ones) if self.bias is None else self.bias
        moment = statistics(four, norm, number, form, ones)
        return apply(four, moment, scale, shift, form, self.epsilon).view(x.shape)


def swap_norms(module: nn.Module, present: Pass) -> nn.Module:
    """Return a module, changed in place, whose batch norms take their statistics by episode."""
    made: dict[int, EpisodeNorm] = {}

    def of(norm: nn.Module) -> EpisodeNorm:
        return made.setdefault(id(norm), EpisodeNorm(cast(BatchNorm, norm), present))

    if isinstance(module, BatchNorm):
        return of(module)
    # A list: what is changed is not walked through at the same time.
    for parent in list(module.modules()):
        # Not named_children, which leaves out a second name of the same child.
        for name, child in list(parent._modules.items()):
            if isinstance(child, BatchNorm):
                setattr(parent, name, of(child))
    return module
