"""The GPU engine on cuda:1, while cuda:0 is the current device: streams, devices and graphs, with Warp's part noted."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metarl.envs.engines.gpu import CARRIED, WarpPhysics

SECOND = torch.device("cuda", 1)


class Stream(str):
    """A stream, as Warp knows it."""

    cuda_stream = 0


class Warp:
    """Notes what it is asked to do, and what is the current device and stream then."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.inside: list[str] = []
        self.torchs_stream = 1

    def note(self, call: str) -> None:
        self.calls.append(" in ".join((call, *reversed(self.inside))))

    @contextmanager
    def entered(self, name: str) -> Iterator[Any]:
        self.inside.append(name)
        yield SimpleNamespace(graph="the graph")
        self.inside.pop()

    def stream_from_torch(self, stream: Any) -> Stream:
        self.note(f"make Warp's of {stream.name}")
        known = Stream(stream.name)
        known.cuda_stream = stream.cuda_stream
        return known

    def device_from_torch(self, device: torch.device) -> str:
        return f"Warp's {device}"

    def Stream(self, device: str) -> str:
        return f"a stream of {device}"

    def ScopedStream(self, stream: str) -> Any:
        return self.entered(stream)

    def ScopedCapture(self, *, stream: str) -> Any:
        return self.entered(f"a capture on {stream}")

    def clone(self, array: str) -> str:
        return f"what was in {array}"

    def copy(self, target: str, source: str) -> None:
        self.note(f"{target} = {source}")

    def capture_launch(self, graph: str, *, stream: str) -> None:
        self.note(f"launch {graph} on {stream}")


@pytest.fixture
def warp(monkeypatch: pytest.MonkeyPatch) -> Warp:
    warp = Warp()

    def current_stream(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(cuda_stream=warp.torchs_stream, name=f"stream {warp.torchs_stream} of {device}")

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: warp.note(f"wait for {device}"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: warp.entered(f"current device {device}"))
    return warp


def physics_on_second(warp: Warp) -> WarpPhysics:
    physics = object.__new__(WarpPhysics)
    vars(physics).update(_wp=warp, device=SECOND, _known_stream=None)
    return physics


def test_physics_is_captured_and_launched_on_its_own_gpu(warp: Warp) -> None:
    physics = physics_on_second(warp)
    collected = []

    def run() -> None:
        collected.append(gc.isenabled())
        warp.note("run")

    launch = physics._graph(run, SimpleNamespace(**{name: name for name in CARRIED}))
    own = "stream 1 of cuda:1"
    assert warp.calls == [
        f"make Warp's of {own}",
        f"run in {own}",
        # That run was for its kernels to be compiled: worlds are where they were.
        *(f"{name} = what was in {name} in {own}" for name in CARRIED),
        "wait for cuda:1",
        "run in a capture on a stream of Warp's cuda:1 in a stream of Warp's cuda:1",
    ]
    # What the collection of garbage frees would spoil a capture.
    assert collected == [True, False]
    warp.calls.clear()
    launch()
    launch()
    warp.torchs_stream = 2
    launch()
    inside = "current device cuda:1"
    assert warp.calls == [
        f"make Warp's of {own} in {inside}",
        f"launch the graph on {own} in {inside}",
        f"launch the graph on {own} in {inside}",
        f"make Warp's of stream 2 of cuda:1 in {inside}",
        f"launch the graph on stream 2 of cuda:1 in {inside}",
    ]


def test_kernels_run_on_torchs_stream_of_the_worlds_gpu(warp: Warp) -> None:
    with physics_on_second(warp)._on_device():
        warp.note("a kernel")
    assert warp.calls[-1] == "a kernel in stream 1 of cuda:1"
