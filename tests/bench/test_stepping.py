"""What the benchmark of the GPU engine measures of steps."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metarl.bench import stepping
from metarl.bench.gpu import engine_line, print_engines
from metarl.bench.stepping import (
    Stepping,
    covered,
    deterministic_figures,
    gpu_figures,
    profiled,
    used_memory,
    with_own_models,
)
from metarl.envs import get
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.physics import CPU

CHEETAH = "half-cheetah-vel@v5"


def test_every_world_gets_a_model_of_its_own() -> None:
    assert with_own_models(get(CHEETAH)).full_name == f"{CHEETAH}+mass"
    assert with_own_models(get("walker2d-rand-params")) is get("walker2d-rand-params")
    assert with_own_models(get("point-nav")) is get("point-nav")


@pytest.mark.parametrize("engine", ["cpu", pytest.param("gpu", id="gpu-on-the-cpu", marks=pytest.mark.warp_cpu)])
def test_physics_alone_goes_through_the_states_of_whole_steps(engine: str) -> None:
    if engine == "gpu":
        pytest.importorskip("mujoco_warp")
    worlds = Stepping(get(CHEETAH), 3, 4, engine, CPU, 1)
    ends = []
    for play in (worlds.whole, worlds.physics):
        assert play() > 0.0
        ends.append(worlds.env.physics.state["qpos"].clone())
        if engine == "gpu":
            # Physics alone leaves out the copy of the state.
            physics: Any = worlds.env.physics
            ends[-1] = physics._views["qpos"].clone()
    assert torch.equal(ends[0], ends[1])
    assert isinstance(worlds.env.physics, MujocoPhysics) == (engine == "cpu")


def test_time_that_kernels_share_counts_once() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.0)]) == 4.0
    assert covered([]) == 0.0


def event(name: str, start: float, end: float, device: str = "CUDA") -> SimpleNamespace:
    return SimpleNamespace(
        name=name, device_type=SimpleNamespace(name=device), time_range=SimpleNamespace(start=start, end=end)
    )


def test_busy_time_kernels_and_copies_are_read_from_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        event("step_kernel", 0.0, 100.0),
        event("other_kernel", 50.0, 150.0),
        event("Memcpy HtoD (Pageable -> Device)", 200.0, 900.0),
        event("Memcpy DtoD (Device -> Device)", 200.0, 900.0),
        event("Memset (Device)", 200.0, 900.0),
        event("aten::add", 0.0, 900.0, "CPU"),
    ]

    class Profile:
        def __init__(self, **_: Any) -> None:
            pass

        def __enter__(self) -> Profile:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def events(self) -> list[SimpleNamespace]:
            return events

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    played = Stepping(get("point-nav"), 2, 4, "cpu", CPU, 1)
    # 4 steps of 2 worlds at 16,000 a second take 500 us, kernels 150 of them.
    assert profiled(played, 16_000.0) == {
        "busy": pytest.approx(0.3),
        "kernels": 0.5,
        "copies": {"HtoD": 1, "DtoH": 0},
    }


def test_a_device_that_is_too_small_is_told_and_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(stepping, "Stepping", full)
    found = gpu_figures(get(CHEETAH), 65_536, 4, 1, CPU)
    assert "20.00 GiB" in found["problem"]
    cores = {"threads": 1, "env_steps_per_second": 1e4, "physics_alone": 2e4, "efficiency": 1.0}
    fine = {"env_steps_per_second": 9e5, "of_physics": 0.95, "physics_alone": 1e6, "memory_mb": 204.0, "failures": 3}
    fine |= {"busy": 0.7, "kernels": 612.0, "copies": {"HtoD": 2, "DtoH": 1}}
    row = {"family": CHEETAH, "gpu": {4096: fine, 65_536: found}, "cpu": [cores], "over_cpu": 90.0}
    row["deterministic"] = {"worlds": 4096, "times_as_long": 1.163}
    assert "4096: 900,000 (95%)" in engine_line(row)
    assert "with --deterministic 1.16 times as long; CPU engine" in engine_line(row)
    monkeypatch.setenv("COLUMNS", "240")
    print_engines({"machine": {"device": "a GPU"}, "engines": [row]})
    shown = capsys.readouterr().out
    for text in ("70%", "612", "2/1", "90.0", "50%", "20.00 GiB", "1.16"):
        assert text in shown
    row["deterministic"] = deterministic_figures(get(CHEETAH), 65_536, 4, 1, CPU)
    assert "with --deterministic the memory of the device does not suffice" in engine_line(row)
    print_engines({"machine": {"device": "a GPU"}, "engines": [row]})
    assert "1.16" not in capsys.readouterr().out
    monkeypatch.setattr(stepping, "Stepping", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        gpu_figures(get(CHEETAH), 2, 4, 1, CPU)
    monkeypatch.setattr(stepping, "Stepping", lambda *_: (_ for _ in ()).throw(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        gpu_figures(get(CHEETAH), 2, 4, 1, CPU)


def test_worlds_are_made_and_stepped_as_with_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stepped with the option, worlds take twice as long here."""

    class Worlds:
        def __init__(self, *_: Any) -> None:
            self.deterministic = torch.are_deterministic_algorithms_enabled()

        def whole(self) -> float:
            assert torch.are_deterministic_algorithms_enabled() == self.deterministic
            return 500.0 if self.deterministic else 1000.0

    monkeypatch.setattr(stepping, "Stepping", Worlds)
    assert deterministic_figures(get(CHEETAH), 7, 4, 2, CPU) == {"worlds": 7, "times_as_long": 2.0}


def test_memory_is_what_is_taken_once_nobody_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worlds:
        """They refer to themselves, as worlds on a GPU do by what they launch."""

        def __init__(self) -> None:
            self.itself = self

    taken: list[Any] = [Worlds()]
    held = weakref.ref(taken[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20 * (7 if held() is None else 4), 2**23))
    assert used_memory(torch.device("cuda", 0)) == 4.0
    taken.clear()
    assert used_memory(torch.device("cuda", 0)) == 1.0
    assert used_memory(CPU) == 0.0
