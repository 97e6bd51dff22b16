"""CUDA's graphs: how torch.cuda is called, and on a GPU what comes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.graphs import CudaGraphs
from metarl.launches import Launch, apart


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a CUDA in the place of torch's that notes how it is called; begin or end fails where `calls` says so."""
    calls: list[str] = []

    def note(name: str) -> None:
        calls.append(name)
        if f"{name} fails" in calls:
            raise RuntimeError(f"CUDA error: {name}")

    class Graph:
        def __init__(self) -> None:
            note("graph")

        def register_generator_state(self, generator: torch.Generator) -> None:
            note("register")

        def capture_begin(self, *, pool: str, capture_error_mode: str) -> None:
            note(f"begin {pool} {capture_error_mode}")

        def capture_end(self) -> None:
            note("end")

        def replay(self) -> None:
            note("replay")

    class OnStream:
        def __init__(self, stream: str) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            note(f"on {self.stream}")

        def __exit__(self, *error: object) -> None:
            note(f"off {self.stream}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: note(f"wait for {device}"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "stream", OnStream)
    return calls


ONE = [
    "wait for cuda:1",
    # From here on cuda:1 is the current device, where torch keeps what belongs to the graph.
    "on stream of cuda:1",
    "graph",
    "register",
    "begin pool thread_local",
    "end",
    "off stream of cuda:1",
    # What was written on its stream is written before a replay on another.
    "wait for cuda:1",
]


def test_parts_of_a_cuda_graph_share_memory_and_stream(calls: list[str]) -> None:
    def function() -> None:
        apart(lambda: calls.append("apart"))

    launch = Launch(function, CudaGraphs(torch.device("cuda", 1)), (torch.Generator(),))
    launch()
    launch()
    assert calls == ["apart", "apart"]
    calls.clear()
    launch()
    assert calls == [*ONE, *ONE, "replay", "apart", "replay"]
    calls.clear()
    launch()
    assert calls == ["replay", "apart", "replay"]


@pytest.mark.parametrize("fault", ["begin pool thread_local", "end"])
def test_after_a_failed_capture_torch_is_on_its_own_stream_again(calls: list[str], fault: str) -> None:
    class Drawing(torch.Generator):
        """A copy of it is no part of a capture, as torch's of a GPU."""

        def graphsafe_set_state(self, state: torch.Generator) -> torch.Generator:
            calls.append("free again")
            return self

    ran = []
    launch = Launch(lambda: ran.append(1), CudaGraphs(torch.device("cuda", 1)), (Drawing(),))
    calls.append(f"{fault} fails")
    for _ in range(4):
        launch()
    assert calls[-2:] == ["off stream of cuda:1", "free again"]
    assert calls.count("on stream of cuda:1") == calls.count("off stream of cuda:1") == 1
    # A capture ran nothing: what it was for is run after it.
    assert len(ran) == (4 if fault == "begin pool thread_local" else 5)
    assert launch.refused


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_on_a_gpu_replays_are_the_function() -> None:
    device, results = torch.device("cuda", torch.cuda.current_device()), []
    for backend in (None, CudaGraphs(device)):
        generator = torch.Generator(device).manual_seed(1)
        x, between = torch.zeros(1000, device=device), []

        def function(x: Tensor = x, generator: torch.Generator = generator, between: list[int] = between) -> Tensor:
            noise = torch.randn(1000, generator=generator, device=device)
            apart(lambda: between.append(1))
            return x.mul_(0.5).add_(noise)

        launch = function if backend is None else Launch(function, backend, (generator,))
        results.append([launch().clone() for _ in range(6)])
        # What the memory of a graph holds is not handed out again.
        results[-1].append(torch.full((1000,), 7.0, device=device))
        assert len(between) == 6
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    assert results[0][0].std() > 0.9


@pytest.mark.gpu
def test_on_a_gpu_the_first_replay_draws_what_comes_next_however_busy_the_stream_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, seen = torch.device("cuda", torch.cuda.current_device()), []

    class Late(torch.cuda.CUDAGraph):
        def capture_begin(self, *arguments: Any, **options: Any) -> None:
            # What torch writes on this stream has to wait for a tenth of a second.
            torch.cuda._sleep(200_000_000)
            super().capture_begin(*arguments, **options)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Late)
    for backend in (None, CudaGraphs(device)):
        generator = torch.Generator(device).manual_seed(1)

        def draw(generator: torch.Generator = generator) -> Tensor:
            return torch.randn(100, generator=generator, device=device)

        launch = draw if backend is None else Launch(draw, backend, (generator,))
        seen.append([launch().clone() for _ in range(5)])
    assert all(torch.equal(*pair) for pair in zip(*seen, strict=True))


@pytest.mark.gpu
def test_on_a_gpu_a_failed_capture_falls_back() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    x = torch.zeros(3, device=device)
    generators = [torch.Generator(device).manual_seed(0) for _ in range(2)]

    def function() -> Tensor:
        noise = torch.rand(3, generator=generators[0], device=device)
        # A wait that no operation of torch shows.
        torch.cuda.synchronize(device)
        return x.add_(noise)

    launch, total = Launch(function, CudaGraphs(device), (generators[0],)), torch.zeros(3, device=device)
    for _ in range(5):
        total += torch.rand(3, generator=generators[1], device=device)
        assert torch.equal(launch(), total)
    assert launch.refused
