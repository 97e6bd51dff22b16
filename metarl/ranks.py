"""Training by several processes: each has a share of the tasks, and means over all of them are taken explicitly.

`torchrun` starts the processes, its ranks. All of them draw the same random numbers and take the same outer steps; a
rank plays, and learns from, its own share of every meta-batch:

    rank r of R has the tasks  r * M / R  to  (r + 1) * M / R - 1  of M

Noise is drawn for all tasks and each rank takes its rows, so that the episodes are those of one process with all the
tasks, whatever R is. Gradients, Fisher products, losses and statistics are means, or sums, over the ranks; parameters
and optimisers are replicas, which are compared at every checkpoint.

There is no wrapper around a network: its hooks would not fit gradients that are taken inside of the inner loop.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# torch imports this when it first needs its compiler's parts, and what is imported then keeps the process group for
# good: its threads would still run when Python ends, and now and then abort the process.
import torch.distributed.nn
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from metarl.devices import device_problem, numbered
from metarl.errors import UserError

T = TypeVar("T")
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun sets."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that train together, and which of them this one is.

    Alone, everything here returns what it was given, and nothing is sent.

    Attributes:
        rank: this one's number, from 0.
        size: how many there are, R.
        local: how many of them this machine has.
    """

    rank: int = 0
    size: int = 1
    local: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    # -- shares -------------------------------------------------------------------------------------------------------

    def share(self, count: int) -> int:
        """Return how many of `count` tasks each rank has.

        Raises:
            UserError: they cannot be shared out equally.
        """
        if count % self.size:
            allowed = [str(ranks) for ranks in range(1, min(count, 64) + 1) if count % ranks == 0]
            raise UserError(
                f"Got {self.size} processes for {count} tasks of a meta-batch (or items of a batch), which all must "
                f"have the same share. Start {', '.join(allowed)} processes, or change the tasks of a new run."
            )
        return count // self.size

    def rows(self, count: int) -> range:
        """Return the numbers of this rank's tasks among `count`; raise as `share`."""
        share = self.share(count)
        return range(self.rank * share, (self.rank + 1) * share)

    def whole(self, shape: torch.Size) -> tuple[int, ...]:
        """Return the shape of what all ranks have together, where this one has rows of the given shape."""
        return (self.size * shape[0], *shape[1:])

    def own(self, rows: Shaped[Tensor, "all *any"]) -> Shaped[Tensor, "own *any"]:
        """Return this rank's rows of what all have together."""
        if self.size == 1:
            return rows
        mine = self.rows(len(rows))
        return rows[mine.start : mine.stop]

    def gathered(self, rows: Shaped[Tensor, "own *any"]) -> Shaped[Tensor, "all *any"]:
        """Return the rows of all ranks in their order, where each gives as many: the opposite of `own`."""
        if self.size == 1:
            return rows
        whole = rows.new_zeros(self.whole(rows.shape))
        self.own(whole).copy_(rows)
        # Every place has one number that is not 0.
        return self.sum(whole)

    def place(self, count: int) -> tuple[int, int]:
        """Return how many rows the ranks before this one have, and how many all have, where this one has `count`."""
        if self.size == 1:
            return 0, count
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = count
        each = self.sum(counts).tolist()
        return sum(each[: self.rank]), sum(each)

    # -- means and sums -----------------------------------------------------------------------------------------------

    def sum(self, values: T) -> T:
        """Return the sum over all ranks of tensors or numbers, alone or in dicts, lists and tuples; without gradients.

        Raises:
            UserError: another rank is gone.
        """
        if self.size == 1:
            return values
        leaves, form = tree_flatten(values)
        tensors = [torch.as_tensor(leaf, dtype=None if isinstance(leaf, Tensor) else torch.float64) for leaf in leaves]
        # What has one type goes as one message.
        kinds = list(dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors))
        for kind in kinds:
            places = [i for i, tensor in enumerate(tensors) if (tensor.dtype, tensor.device) == kind]
            joined = torch.cat([tensors[i].detach().reshape(-1) for i in places])
            _sent(dist.all_reduce, joined)
            for i, piece in zip(places, joined.split([tensors[i].numel() for i in places]), strict=True):
                tensors[i] = piece.view(tensors[i].shape)
        found = [
            tensor if isinstance(leaf, Tensor) else float(tensor) for leaf, tensor in zip(leaves, tensors, strict=True)
        ]
        return tree_unflatten(found, form)

    def mean(self, values: T) -> T:
        """Return the mean over all ranks; the rest as in `sum`. Shares are equal: it is the mean over all tasks."""
        if self.size == 1:
            return values
        leaves, form = tree_flatten(self.sum(values))
        return tree_unflatten([leaf / self.size for leaf in leaves], form)

    def mean_with_gradient(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks, and let the gradients of all of their losses go back to it."""
        return value if self.size == 1 else _Mean.apply(self, value)

    def largest(self, number: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        _sent(dist.all_reduce, found, op=dist.ReduceOp.MAX)
        return int(found)

    # -- together -----------------------------------------------------------------------------------------------------

    def once(self, function: Callable[[], T]) -> T:
        """Let the first rank call a function, and return what it returned on all of them; the others wait for it.

        Args:
            function: returns plain data.

        Raises:
            UserError: it raised one, or an OSError: then all ranks do.
        """
        if self.size == 1:
            return function()
        answer: list[Any] = [None, None]
        raised: UserError | OSError | None = None
        if self.first:
            try:
                answer[0] = function()
            except (UserError, OSError) as error:
                answer[1], raised = str(error), error
        _sent(dist.broadcast_object_list, answer, src=0)
        if raised is not None:
            raise raised
        if answer[1] is not None:
            raise UserError(answer[1])
        return answer[0]

    def assert_replicated(self, state: Any) -> None:
        """Compare what all ranks must have alike, bit for bit.

        Args:
            state: tensors and plain data, nested in dicts, lists and tuples.

        Raises:
            UserError: something differs; names it.
        """
        if self.size == 1:
            return
        mine = dict(_digests(state, ""))
        everyone: list[dict[str, str]] = [{} for _ in range(self.size)]
        _sent(dist.all_gather_object, everyone, mine)
        for rank, theirs in enumerate(everyone):
            differ = [name for name in {**everyone[0], **theirs} if everyone[0].get(name) != theirs.get(name)]
            if differ:
                more = f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""
                raise UserError(
                    f"'{differ[0]}'{more} is not the same on the ranks 0 and {rank}, and must be. Use machines of one "
                    "kind, with the same versions"
                )


class _Mean(torch.autograd.Function):
    """Mean over ranks; the sum of the ranks' losses has the mean of their gradients as its own."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, value: Tensor) -> Tensor:
        ctx.ranks = ranks
        return ranks.mean(value)

    @staticmethod
    def backward(ctx: Any, *of_mean: Tensor) -> tuple[None, Tensor]:
        return None, ctx.ranks.mean(of_mean[0])


ALONE = Ranks()
"""The only process of a training."""


@contextmanager
def join(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone in a process that it did not start.

    Args:
        device: where the networks live, as `metarl.devices.resolve_device` returns it: a GPU of this rank's own.

    Raises:
        UserError: the environment is not torchrun's, or the others cannot be reached.
    """
    if started() == 1:
        yield ALONE
        return
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise UserError(
            f"Got WORLD_SIZE={os.environ['WORLD_SIZE']} without {', '.join(missing)} in the environment. Start several "
            "processes with torchrun, or unset WORLD_SIZE."
        )
    rank, size, _, local = (int(os.environ[name]) for name in NEEDED[:4])
    if device.type == "cuda":
        torch.cuda.set_device(numbered(device))
    # Numbers and plain data go by gloo in either case.
    _sent(dist.init_process_group, "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    ranks = Ranks(rank=rank, size=size, local=local)
    yield ranks
    # Nobody leaves while another still listens. After an error nothing is waited for: the others see that this is gone.
    ranks.sum(0.0)
    dist.destroy_process_group()


def started() -> int:
    """Return how many processes torchrun started; 1 where it did not."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or size == "0":
        raise UserError(f"Got WORLD_SIZE={size} in the environment. torchrun sets it to 1 or more: unset it.")
    return int(size)


def _sent(collective: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Call a function in which all ranks take part.

    Raises:
        UserError: one of them is gone.
        RuntimeError: this one's GPU failed.
    """
    try:
        collective(*arguments, **options)
    except RuntimeError as error:
        first, _, last = str(error).strip().partition("Last error:")
        # What a GPU did wrong is told by whatever comes next.
        if device_problem(error) is not None or first.startswith("CUDA error"):
            raise
        # NCCL says at the end what was wrong.
        reason = ": ".join(part.strip().splitlines()[0] for part in (first, last) if part.strip())
        raise UserError(f"another process of this training has ended, or cannot be reached ({reason})") from error


def _digests(state: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the name of everything in a nested state, with what tells it from others."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _digests(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from _digests(value, f"{name}.{number}" if name else str(number))
    elif isinstance(state, Tensor):
        content = state.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        yield name, f"{tuple(state.shape)} {state.dtype} {hashlib.sha256(content).hexdigest()}"
    else:
        yield name, repr(state)
