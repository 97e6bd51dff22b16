"""Functions of a GPU that are launched as graphs: captured once, and from then on started with a single call.

A small kernel takes as long to launch as to run. A `Launch` runs its function twice as it is, captures it at the third
call, and replays what it captured from then on. A replay runs the same kernels on the same memory, so what the function
reads and changes has to stay where it is, and Python's part of it takes place no more:

* what it changes, it changes in place (`copy_`, `out=`);
* it takes no decision from a tensor, and takes nothing from the host;
* what it returns is written anew by the next call.

What torch cannot capture, such as a graph of Warp's own, is launched between two graphs: see `apart`.
A function that looks at the device, or that torch cannot capture, runs as it is at every call; the log says so
(`metarl.launches`, level DEBUG).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metarl.devices import numbered
from metarl.graphs import Backend, CudaGraphs, Recording, nothing_collected

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST = 4
"""Launches that are kept at a time."""

_aten: Any = torch.ops.aten
LOOKS = frozenset(
    {
        _aten._local_scalar_dense.default,
        _aten.equal.default,
        _aten.is_nonzero.default,
        _aten.masked_select.default,
        _aten.nonzero.default,
        _aten.repeat_interleave.Tensor,
        _aten._unique2.default,
    }
)
"""Operations that wait for the device."""
INDEXED = frozenset({_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default})
"""Operations that do where an index is a mask."""
COPIES = frozenset({_aten.copy_.default, _aten._to_copy.default})


class _Capture:
    """A capture that is under way."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.parts: list[Callable[[], object]] = []
        self._part = recording.begin()

    def apart(self, run: Callable[[], object]) -> None:
        self.end()
        self.parts.append(run)
        self._part = self.recording.begin()

    def end(self) -> None:
        self.parts.append(self._part.end())


_captures: list[_Capture] = []
"""The one that is under way, if any."""
_running: list[Launch[Any]] = []
"""The launch whose function runs now, or is captured; others that it calls are a part of it."""


_apart: list[Callable[[], object]] = []
"""What runs apart now."""


def apart(run: Callable[[], object]) -> None:
    """Run what torch cannot capture; where a launch is being captured, at every replay, at this place of it."""
    if _captures:
        _captures[-1].apart(run)
        return
    _apart.append(run)
    try:
        run()
    finally:
        _apart.pop()


def under_way() -> bool:
    """Return whether this runs as a part of a launch."""
    return bool(_running)


class Launch(Generic[T]):
    """A function that is captured at its third call and replayed from then on (see the module).

    Args:
        function: takes nothing, and returns tensors, in any structure: they hold until the next call.
        backend: what captures.
        generators: those on the device that the function draws from.
    """

    def __init__(self, function: Callable[[], T], backend: Backend, generators: Sequence[torch.Generator] = ()) -> None:
        self.function = function
        self.backend = backend
        self.generators = generators
        self.refused = False
        self._plain_calls = 0
        self._parts: list[Callable[[], object]] | None = None
        self._result: T

    @property
    def captured(self) -> bool:
        """Whether the next call is a replay."""
        return self._parts is not None

    def __call__(self) -> T:
        """Run the function, or replay it."""
        if _running or self.refused:
            return self.function()
        if self._plain_calls < 2:
            return self._plain()
        if self._parts is None and not self._capture():
            return self.function()
        for part in self._parts or ():
            part()
        return self._result

    def _plain(self) -> T:
        """Run the function: once for its kernels to be compiled and its constants copied, then to see if it looks."""
        self._plain_calls += 1
        _running.append(self)
        try:
            if self._plain_calls == 1:
                return self.function()
            with Watch(self.backend.device) as watch:
                result = self.function()
        finally:
            _running.pop()
        if watch.found:
            self._refuse(f"it uses {', '.join(sorted(watch.found))}")
        return result

    def _capture(self) -> bool:
        """Capture the function; return whether that went well."""
        _running.append(self)
        try:
            with nothing_collected():
                capture = _Capture(self.backend.recording(self.generators))
                _captures.append(capture)
                try:
                    self._result = self.function()
                except BaseException:
                    # The error that led to it says more than that the capture is spoiled.
                    with _silenced():
                        capture.end()
                    raise
                finally:
                    _captures.pop()
                capture.end()
        except RuntimeError as error:
            self._refuse(str(error).strip().splitlines()[0])
            return False
        finally:
            _running.pop()
        self._parts = capture.parts
        return True

    def _refuse(self, reason: str) -> None:
        self.refused = True
        log.debug("%s is launched kernel by kernel: %s", getattr(self.function, "__qualname__", self.function), reason)


@contextmanager
def _silenced() -> Iterator[None]:
    """Leave out what torch raises at the end of a capture that has failed before."""
    try:
        yield
    except RuntimeError as error:
        log.debug("the capture ended with: %s", str(error).strip().splitlines()[0])


class Watch(TorchDispatchMode):
    """Notes what cannot be captured in the operations that run under it.

    Args:
        device: on which to capture; the host may look at its own tensors.

    Attributes:
        found: names of operations that wait for the device, copy from one device to another, or meet other ranks.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        result = func(*args, **(kwargs or {}))
        if _apart:
            return result
        places = {x.device for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)}
        if func in COPIES and len(places) > 1:
            self.found.add(f"{func} between {' and '.join(sorted(map(str, places)))}")
        elif func.namespace == "c10d":
            # NCCL's could be captured, but the ranks would have to agree on it.
            self.found.add(f"{func} with other ranks")
        elif self.device in places:
            if func in LOOKS:
                self.found.add(str(func))
            elif func in INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1]):
                self.found.add(f"{func} with a mask")
        return result


class Launches:
    """The launches that work on the same tensors, by what tells them apart. A copy has none of them.

    Args:
        backend: what captures.
        most: that are kept at a time; the oldest goes.
    """

    def __init__(self, backend: Backend, most: int = MOST) -> None:
        self.backend = backend
        self.most = most
        self._kept: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when the key was new."""
        if key not in self._kept:
            while len(self._kept) >= self.most:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = make()
        return self._kept[key]

    def clear(self) -> None:
        """Forget all: the tensors are others now."""
        self._kept.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled without what is kept."""
        return type(self), (self.backend, self.most)


def launches_on(device: torch.device, most: int = MOST) -> Launches | None:
    """Return where the launches on a device are kept; None where nothing can be captured."""
    return Launches(CudaGraphs(numbered(device)), most) if device.type == "cuda" else None


def copied(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of tensors on one device, made by a single kernel.

    Args:
        tensors: of any shapes and types.
    """
    # Those with the largest elements first, so that all lie at multiples of their size.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    rows = [tensors[i].reshape(-1).view(torch.uint8) for i in order]
    parts = torch.cat(rows).split([len(row) for row in rows])
    found = list(tensors)
    for i, part in zip(order, parts, strict=True):
        found[i] = part.view(tensors[i].dtype).view(tensors[i].shape)
    return found
