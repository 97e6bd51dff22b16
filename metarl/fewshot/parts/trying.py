"""Somebody's torch module, tried before anything is trained: what is wrong with it as a backbone, in one line."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metarl.errors import UserError
from metarl.problems import in_words

PROBED = 3
"""Items that a backbone is tried on."""
CLOSE = 1e-3
"""Features are the same if they differ by less, in units of the largest."""


class Explained:
    """Turns what somebody's module raises into one line."""

    def __init__(self, name: str, x: Tensor) -> None:
        self.name, self.x = name, x

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, UserError | KeyboardInterrupt):
            raise UserError(
                f"{self.name} failed on {self.x.dtype} items {list(self.x.shape)}, {in_words(error)}. Give one that "
                f"takes items of the shape {list(self.x.shape[1:])}."
            ) from error


def copied(module: nn.Module, name: str) -> nn.Module:
    """Return a copy on the CPU, in float32 and in eval mode, out of the wrappers that torch puts around modules."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    module = cast(nn.Module, getattr(module, "_orig_mod", module))
    if isinstance(module, torch.jit.ScriptModule):
        raise UserError(f"{name} is a TorchScript module, whose weights cannot be replaced. Give the module itself.")
    if any(is_lazy(value) for value in (*module.parameters(), *module.buffers())):
        raise UserError(f"{name} has lazy layers that have no weights yet. Call it once with a batch of items.")
    if any(value.is_meta for value in (*module.parameters(), *module.buffers())):
        raise UserError(f"{name} has weights on the meta device, which have no values. Load them first.")
    try:
        made = copy.deepcopy(module)
    except Exception as error:
        raise UserError(f"{name} cannot be copied, {in_words(error)}. Give one that copy.deepcopy takes.") from error
    return made.to("cpu", torch.float32).eval()


@torch.no_grad()
def probed(module: nn.Module, name: str, items: Tensor) -> Tensor:
    """Return the features of some items; refuse a module that does not give features of an item alone."""
    before = {key: value.clone() for key, value in module.named_buffers()}
    with Explained(name, items):
        found, again, first = (module(x) for x in (items.clone(), items.clone(), items[:1].clone()))
    if not isinstance(found, Tensor):
        raise UserError(f"{name} gave {type(found).__name__}. Give one tensor of features, [items, F].")
    shape = list(found.shape)
    if found.dim() < 2 or len(found) != PROBED or found.shape[1] != found.numel() // PROBED or not found.numel():
        raise UserError(
            f"{name} gave {shape} for {PROBED} items. Give features [{PROBED}, F] (or [{PROBED}, F, 1, 1]): "
            "end it with nn.Flatten(), or a pooling."
        )
    if not found.is_floating_point() or not bool(found.isfinite().all()):
        what = f"numbers of the type {found.dtype}" if not found.is_floating_point() else "NaN or infinity"
        raise UserError(f"{name} gave {what} for random items. Give finite float features.")
    if not torch.equal(found, again):
        raise UserError(
            f"{name} gave other features for the same items a second time. Take the randomness out of its forward: "
            "F.dropout(x, training=self.training), or nn.Dropout."
        )
    if not near(found[:1], first):
        raise UserError(
            f"{name} gave an item other features when it came with others. Features must depend on one item alone: use "
            "nn.BatchNorm, which follows --batch-norm, or nn.GroupNorm."
        )
    changed = [key for key, value in module.named_buffers() if not torch.equal(value, before[key])]
    if changed:
        raise UserError(f"{name} changes its buffer '{changed[0]}' when it is called. Let forward change nothing.")
    return found.flatten(1)


def made_up(shape: tuple[int, ...]) -> Tensor:
    """Return made-up items, always the same."""
    return torch.randn(PROBED, *shape, generator=torch.Generator().manual_seed(0))


def near(first: Tensor, second: Tensor) -> bool:
    """Tell whether features are the same but for rounding."""
    return bool((first - second).abs().max() <= CLOSE * second.abs().max().clamp_min(1e-6))
