"""Functions of tensors that a GPU is given as one graph (metarl/launches.py), whatever tensors they are called with.

A meta-update has thousands of kernels, with Python's and autograd's work for each of them; they take less time to run
than to launch. A graph reads and writes always the same memory: what it is called with is copied there, and what it
found is copied from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.launches import Launch, Launches
from metarl.types import Params

T = TypeVar("T")


class Replayed(Generic[T]):
    """A function of parameters and data, captured once for each form of them; a function that cannot be runs as it is.

    Args:
        function: returns tensors, in any structure. Its result follows from its arguments alone.
        launches: where what was captured is kept.
    """

    def __init__(self, function: Callable[[Params, Params], T], launches: Launches) -> None:
        self.function = function
        self.launches = launches

    def __call__(self, params: Params, data: Mapping[str, Tensor]) -> T:
        """Return what the function returns, in tensors of their own."""
        given = (params, data)
        form = tuple((name, value.shape, value.dtype) for part in given for name, value in part.items())
        place, launch = self.launches.get(form, lambda: self._placed(params, data))
        with torch.no_grad():
            for there, here in zip(place, given, strict=True):
                for name, value in here.items():
                    there[name].copy_(value)
        result = launch()
        return tree_map(torch.clone, result) if launch.captured else result

    def _placed(self, params: Params, data: Mapping[str, Tensor]) -> tuple[tuple[Params, Params], Launch[T]]:
        """Return memory for the arguments, and the function on what is there."""
        own, its = (
            {name: torch.empty_like(value, memory_format=torch.contiguous_format) for name, value in part.items()}
            for part in (params, data)
        )
        return (own, its), Launch(lambda: self.function(own, its), self.launches.backend)
