"""Bringing an optimiser to what a checkpoint holds."""

from __future__ import annotations

import sys
from copy import deepcopy
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

ENTRIES = {
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}
"""What each keeps of a parameter."""
LARGEST = sys.float_info.max


def load_optimiser(optimiser: Optimizer, state: dict[str, Any], **settings: Any) -> None:
    """Restore an optimiser's `state_dict()`, which PyTorch would take whatever its shapes and numbers are.

    Of the settings of its groups the learning rate alone is restored: the others are those of the run.

    Args:
        optimiser: changed in place.
        state: what was stored.
        settings: of every group, in place of those that were stored.

    Raises:
        ValueError: it is not one of such an optimiser with such parameters.
    """
    groups = [group for group in state["param_groups"] if isinstance(group, dict)]
    now = optimiser.state_dict()["param_groups"]
    if len(groups) != len(now) or not all(map(_alike, groups, now)):
        raise ValueError("the stored optimiser has other settings")
    params = [param for group in optimiser.param_groups for param in group["params"]]
    if not set(state["state"]) <= set(range(len(params))):
        raise ValueError("the stored optimiser has other parameters")
    needed = ENTRIES.get(type(optimiser))
    for number, entries in state["state"].items():
        if needed is not None and set(entries) != needed:
            raise ValueError(f"the stored optimiser has {sorted(map(str, entries))} where {sorted(needed)} are needed")
        for name, value in entries.items():
            like = params[number]
            fits = isinstance(value, Tensor) and (
                (value.shape, value.dtype) == (like.shape, like.dtype) or (name == "step" and value.dim() == 0)
            )
            if not fits or not bool(value.isfinite().all()):
                raise ValueError(f"the stored optimiser has {name} that does not fit")
    restored = [{**new, "lr": group["lr"], **settings} for group, new in zip(groups, now, strict=True)]
    optimiser.load_state_dict(deepcopy({"state": state["state"], "param_groups": restored}))


def _alike(group: dict[str, Any], now: dict[str, Any]) -> bool:
    """Tell whether settings are of the same kinds; another version of PyTorch may have more or fewer of them."""
    for name, value in now.items():
        stored = group.get(name, value)
        pair = name == "betas"
        if pair and not (isinstance(stored, list | tuple) and len(stored) == 2):
            return False
        numbers: list[Any] = [stored] if isinstance(value, float) else list(stored) if pair else []
        # Compared, not converted: a whole number may have more digits than a float can.
        if not all(isinstance(number, float | int) and -LARGEST <= number <= LARGEST for number in numbers):
            return False
        if name == "params" and stored != value:
            return False
        if isinstance(value, bool | NoneType) and not isinstance(stored, bool | NoneType):
            return False
    return {"params", "lr"} <= set(group)
