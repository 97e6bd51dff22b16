"""How many tasks or trials are computed at a time: what stays in a CPU's cache, or fits into a GPU's memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from metarl.learning.experience import Batch
from metarl.nets.policy import stack
from metarl.types import Params

Objective = Callable[[Params, Batch], Tensor]
"""(parameters, data), both with a leading task axis M -> [M]."""
SHARE = 0.25
"""Of a GPU's memory, where no budget is given: the worlds, and other processes, need some too."""
ON_THE_WAY = 2.0
"""A backward pass takes this much more than what was kept for it: its gradients, beside that."""


class TasksAtATime:
    """Chooses the number of tasks.

    On a CPU it follows from the environment steps, on a GPU from the bytes that one task was measured to keep for a
    backward pass. It does not depend on what else is in memory at the moment: a run that is resumed has the same sums.

    Args:
        steps: environment steps at a time, on a CPU.
        memory: MB at a time, on a GPU; 0: a quarter of its memory.
    """

    def __init__(self, steps: int, memory: int) -> None:
        self.steps = steps
        self.memory = memory
        self._each: dict[Any, int] = {}

    def __call__(self, batch: Batch, params: Params, objective: Objective) -> int:
        """Return the number of tasks, at least one.

        Args:
            batch: the data, every tensor [M, K, T, ...].
            params: without a task axis.
            objective: what takes most memory of all that is computed of these tasks.
        """
        if steps_decide(batch):
            return tasks_at_a_time(batch, self.steps)
        tasks = len(batch["weights"])
        parts = math.ceil(tasks * ON_THE_WAY * self._bytes_of_a_task(batch, params, objective) / self._budget(batch))
        # Parts of one size: their kernels are those of one shape.
        return math.ceil(tasks / min(max(parts, 1), tasks))

    def _budget(self, batch: Batch) -> float:
        """Return the bytes that may be taken."""
        return self.memory * 1e6 or SHARE * memory_of(batch["weights"].device)

    def _bytes_of_a_task(self, batch: Batch, params: Params, objective: Objective) -> int:
        """Return the bytes that one task keeps for its backward pass, measured once for each shape of data."""
        key = tuple(value.shape[1:] for value in batch.values())
        if key not in self._each:
            leaves = {name: value.detach().requires_grad_() for name, value in stack(params, 1).items()}
            one = {name: value[:1] for name, value in batch.items()}
            self._each[key] = kept_bytes(lambda: objective(leaves, one), beside=batch.values())
        return self._each[key]


def steps_decide(batch: Batch) -> bool:
    """Tell whether the number follows from steps; if not, from memory."""
    return batch["weights"].is_cpu


def tasks_at_a_time(batch: Batch, steps: int) -> int:
    """Return how many tasks of the batch make at most `steps` environment steps, at least one."""
    episodes, length = batch["weights"].shape[1:]
    return max(1, steps // (episodes * length))


def tasks_of_a_test(device: torch.device) -> int:
    """Return how many tasks adapt at a time at test; 0 for all: a GPU takes them at once."""
    return 4 if device.type == "cpu" else 0


def passes(inputs: Tensor, minibatches: int) -> int:
    """Return in how many parts rows that are trained on in minibatches go through a network without gradients.

    On a CPU as many: a minibatch stays in its cache. A GPU takes hardly longer for more rows, and is given four
    minibatches at once: they need no more memory than one of which everything is kept for a backward pass.
    """
    return minibatches if inputs.is_cpu else math.ceil(minibatches / 4)


def memory_of(device: torch.device) -> int:
    """Return the bytes of a GPU, taken or free."""
    return torch.cuda.mem_get_info(device)[1]


def kept_bytes(function: Callable[[], object], beside: Iterable[Tensor] = ()) -> int:
    """Return the bytes that a function's graph keeps for a backward pass.

    Args:
        function: is called once.
        beside: tensors that are there anyway, and do not count.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return sum(kept.values()) - sum(kept.get(key, 0) for key in {x.untyped_storage().data_ptr() for x in beside})
