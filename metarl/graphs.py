"""What captures on a GPU: the CUDA graphs of a function, and the protocols that they stand for.

A function is captured in parts, one graph each: what torch cannot capture runs between two of them (launches.py).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class Part(Protocol):
    """A part of a function that torch captures in one go."""

    def end(self) -> Callable[[], object]:
        """End its capture, and return what replays it."""
        ...


@runtime_checkable
class Recording(Protocol):
    """The capture of a whole function, part by part. Parts share their memory, and are replayed in their order."""

    def begin(self) -> Part:
        """Begin to capture: from now on nothing runs."""
        ...


@runtime_checkable
class Backend(Protocol):
    """What captures, on a device."""

    @property
    def device(self) -> torch.device:
        """The device."""
        ...

    def recording(self, generators: Sequence[torch.Generator]) -> Recording:
        """Return a new recording of a function that draws from these generators."""
        ...


@dataclass(frozen=True)
class CudaGraphs:
    """CUDA graphs on a device."""

    device: torch.device

    def recording(self, generators: Sequence[torch.Generator]) -> CudaRecording:
        """Return a recording with a stream and memory of its own."""
        return CudaRecording(self.device, generators)


class CudaRecording:
    """The CUDA graphs of one function."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators
        self.device = device
        # CUDA's default stream cannot be captured.
        self.stream = torch.cuda.Stream(device)
        self.memory = torch.cuda.graph_pool_handle()

    def begin(self) -> CudaPart:
        """Begin to capture the next graph."""
        return CudaPart(self)


class CudaPart:
    """One CUDA graph."""

    def __init__(self, recording: CudaRecording) -> None:
        self.recording = recording
        torch.cuda.synchronize(recording.device)
        # With its stream, the device becomes the current one: torch keeps graphs, pools and generators' states there.
        self._on_stream = torch.cuda.stream(recording.stream)
        self._on_stream.__enter__()
        try:
            self.graph = torch.cuda.CUDAGraph()
            for generator in recording.generators:
                self.graph.register_generator_state(generator)
            # Other threads, such as TensorBoard's, may go on.
            self.graph.capture_begin(pool=recording.memory, capture_error_mode="thread_local")
        except BaseException:
            self._leave(spoiled=True)
            raise

    def end(self) -> Callable[[], object]:
        """End the capture."""
        try:
            self.graph.capture_end()
        except BaseException:
            self._leave(spoiled=True)
            raise
        self._leave(spoiled=False)
        # Torch begins a capture by writing on its stream that random numbers start at 0, and a replay by writing on
        # another where they are: without a wait the first may come last, and numbers be drawn a second time.
        torch.cuda.synchronize(self.recording.device)
        return self.graph.replay

    def _leave(self, *, spoiled: bool) -> None:
        self._on_stream.__exit__(None, None, None)
        if spoiled:
            for generator in self.recording.generators:
                # Torch still takes it for one of a capture; a copy of where it is draws on.
                generator.graphsafe_set_state(generator.clone_state())


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Hold Python's garbage collection off: what it frees on a GPU would spoil a capture that is under way."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
