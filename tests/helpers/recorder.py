"""Graphs of operations on a CPU, captured and replayed as CUDA's are: for tests of `metarl.launches`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from metarl.envs import chance
from metarl.launches import INDEXED, LOOKS

CPU = torch.device("cpu")
NOT_CAPTURED = LOOKS | {torch.ops.aten.lift_fresh.default}
"""What CUDA cannot capture; the last makes a tensor of Python's numbers, which would have to come from the host."""


@dataclass
class Recorder:
    """Captures as CUDA does: operations run no more than once they are replayed, on the memory that they were given.

    Attributes:
        device: where.
        captures: how many functions were captured.
        replays: how often parts were replayed.
        operations: of the last part that was captured.
    """

    device: torch.device = CPU
    captures: int = 0
    replays: int = 0
    operations: list[str] = field(default_factory=list)

    def recording(self, generators: Sequence[torch.Generator]) -> RecordedFunction:
        self.captures += 1
        return RecordedFunction(self, generators)


@dataclass
class RecordedFunction:
    recorder: Recorder
    generators: Sequence[torch.Generator]

    def begin(self) -> RecordedPart:
        return RecordedPart(self)


class RecordedPart(TorchDispatchMode):
    """What runs while it is open has no effect in the end, but for the tensors that it makes."""

    def __init__(self, function: RecordedFunction) -> None:
        super().__init__()
        self.recorder = function.recorder
        self.generators = [(generator, generator.get_state()) for generator in function.generators]
        self.steps: list[tuple[Any, Any, Any, Any]] = []
        self.made: set[int] = set()
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.__enter__()

    def __enter__(self) -> RecordedPart:
        # What CUDA captures is no work of the host's.
        self.of_host, chance.of_host = chance.of_host, lambda key: False
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        chance.of_host = self.of_host
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in NOT_CAPTURED:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        if func in INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1]):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func} with a mask")
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                position = func._schema.arguments.index(argument)
                written = args[position] if position < len(args) else kwargs.get(argument.name)
                for tensor in tree_leaves(written):
                    self._keep(tensor)
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not self._is_of(tensor, (args, kwargs)):
                self.made.add(tensor.untyped_storage().data_ptr())
        if torch.Tag.inplace_view not in func.tags:
            # With the shapes of now, which such an operation may change afterwards.
            self.steps.append((func, *tree_map(self._as_now, (args, kwargs, result))))
        return result

    @staticmethod
    def _as_now(value: Any) -> Any:
        return value.detach() if isinstance(value, Tensor) else value

    @staticmethod
    def _is_of(tensor: Tensor, given: Any) -> bool:
        """Whether a tensor is one of those given, or a part of one."""
        place = tensor.untyped_storage().data_ptr()
        return any(isinstance(x, Tensor) and x.untyped_storage().data_ptr() == place for x in tree_leaves(given))

    def _keep(self, tensor: Any) -> None:
        """Keep what a tensor was before the capture."""
        place = tensor.untyped_storage().data_ptr()
        if place not in self.made and place not in self.kept:
            whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            self.kept[place] = whole, whole.clone()

    def end(self) -> Callable[[], object]:
        self.__exit__(None, None, None)
        for whole, before in self.kept.values():
            whole.copy_(before)
        for generator, state in self.generators:
            generator.set_state(state)
        self.recorder.operations = [str(func) for func, *_ in self.steps]
        return self.replay

    def replay(self) -> None:
        self.recorder.replays += 1
        # Gradients are among the operations; a replay has none of its own.
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, result in self.steps:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                        old.copy_(new)
