"""What `metarl bench gpu` does on a GPU alone, on a pretended cuda:1."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metarl.bench import gpu, limits, stepping
from metarl.bench.gpu import GpuConfig, describe_machine, iteration
from metarl.bench.stepping import gpu_figures
from metarl.envs import get
from metarl.envs.engines import in_torch
from tests.helpers.gpus import pretended_gpus

SECOND = torch.device("cuda", 1)


def test_the_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = {SECOND: SimpleNamespace(name="the second", total_memory=3 * 2**30)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties[device])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = describe_machine(SECOND)
    assert (found["device"], found["memory_gb"], found["cuda"]) == ("the second", 3.0, "13.0")


def test_a_product_ends_before_its_time_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.SIDES, "cuda", 8)
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0.0)
    waited: list[torch.device] = []
    with pretended_gpus(monkeypatch):
        monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
        assert limits.product(SECOND)() > 0.0
    assert waited == [SECOND]


def test_an_iteration_tells_what_memory_torch_took(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, torch.device]] = []

    def most(device: torch.device) -> int:
        asked.append(("most", device))
        return 3 * 2**20

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(("begin", device)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", most)
    monkeypatch.setattr(gpu, "get", lambda name: get("bandit"))
    monkeypatch.setattr(in_torch, "launches_on", lambda device: None)
    with pretended_gpus(monkeypatch):
        found = iteration("rl2", GpuConfig(tasks=2, episodes=1, rounds=1, horizon=1), SECOND, 1)
    assert found["torch_peak_mb"] == 3.0
    assert asked == [("begin", SECOND), ("most", SECOND)]


def test_steps_are_waited_for_and_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    seen: dict[str, Any] = {"busy": 0.5, "kernels": 7.0, "copies": {"HtoD": 1, "DtoH": 0}}
    monkeypatch.setattr(stepping, "profiled", lambda worlds, speed: seen)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(in_torch, "launches_on", lambda device: None)
    with pretended_gpus(monkeypatch):
        monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
        found = gpu_figures(get("point-nav"), 2, 2, 1, SECOND)
    assert found.items() >= seen.items()
    assert found["failures"] == 0
    # Before and after each of four rounds, and wherever memory is looked at.
    assert waited == [SECOND] * 10
