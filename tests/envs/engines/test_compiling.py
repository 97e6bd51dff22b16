"""Kernels compiled ahead, on Warp's CPU device, where the same path runs clang in place of NVRTC."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metarl.envs import make_worlds
from metarl.envs.physics import CPU
from metarl.system import locked

if importlib.util.find_spec("mujoco_warp") is None:
    pytest.skip("mujoco_warp is not installed (the extra `gpu`)", allow_module_level=True)

from metarl.envs.engines.compiling import LOCKS, Needed, load_all, needed
from metarl.envs.engines.loading import load

VARIED = "half-cheetah-vel@v5+mass+inertia=each+damping+friction+gravity+gain+range+damage"


@pytest.fixture
def warp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Warp with an empty cache."""
    found, _ = load()
    monkeypatch.setattr(found.config, "kernel_cache_dir", str(tmp_path))
    return found


def adds(warp: Any, number: float) -> Callable[[Any], None]:
    """Return what launches the kernel of `adding`."""
    kernel = adding(warp, number)

    def launch(values: Any) -> None:
        warp.launch(kernel, dim=2, inputs=[values], device="cpu")

    return launch


def adding(warp: Any, number: float) -> Any:
    """Return a kernel in a module of its own, which adds a number to an array."""

    def add(values: Any):
        values[warp.tid()] = values[warp.tid()] + number

    add.__annotations__ = {"values": warp.array(dtype=float)}
    return warp.Kernel(add, key=f"add_{number:.0f}", module=warp.Module(f"add_{number:.0f}", None))


def test_launches_are_noted_and_not_made(warp: Any) -> None:
    one, two, three = adds(warp, 1.0), adds(warp, 2.0), adds(warp, 3.0)
    values = warp.zeros(2, dtype=float, device="cpu")
    endless = warp.ones(1, dtype=int, device="cpu")

    def loops() -> None:
        warp.capture_while(endless, while_body=two, values=values)
        warp.capture_if(endless, on_true=one, on_false=three, values=values)

    load_before = warp.Module.load
    found = needed(warp, [lambda: one(values), loops])
    assert [entry.module.name for entry in found] == ["add_1", "add_2", "add_3"]
    assert values.numpy().tolist() == [0.0, 0.0]
    with pytest.raises(ZeroDivisionError):
        needed(warp, [lambda: print(1 // 0)])
    assert warp.Module.load is load_before


def test_what_a_gpu_asks_its_compiled_kernels_is_noted_too(warp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mujoco_warp does: on a GPU Warp compiles a kernel to tell how large its blocks should be."""
    kernel = adding(warp, 4.0)
    told = []
    assert needed(warp, [lambda: told.append(warp.get_suggested_block_size(kernel, "cpu"))]) == []
    monkeypatch.setattr(warp, "get_device", lambda device: SimpleNamespace(is_cuda=True))
    found = needed(warp, [lambda: told.append(warp.get_suggested_block_size(kernel, "cuda:0"))])
    assert found == [Needed(kernel.module, 256)]
    assert told == [(256, 1), (256, 1)]


@pytest.mark.warp_cpu
def test_what_is_missing_is_compiled_once_and_told(warp: Any, capsys: pytest.CaptureFixture[str]) -> None:
    values = warp.zeros(2, dtype=float, device="cpu")
    launch = adds(warp, 1.0)
    found = needed(warp, [lambda: launch(values)])
    assert load_all(warp, found, CPU, "some-robot") == 1
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    title = "metarl: compiling the kernels of some-robot for the GPU engine, once for each robot"
    assert lines[0] == f"{title}: 1 to do"
    assert lines[-1].startswith(f"{title}: 1 of 1 in ")
    assert found[0].in_cache(warp, CPU)
    assert load_all(warp, found, CPU, "some-robot") == 0
    assert capsys.readouterr().err == ""
    launch(values)
    assert values.numpy().tolist() == [1.0, 1.0]


def test_a_module_that_does_not_compile_ends_it(warp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = warp.zeros(2, dtype=float, device="cpu")
    launches = [adds(warp, float(number)) for number in range(50)]
    found = needed(warp, [partial(launch, values) for launch in launches])
    begun: list[str] = []

    def load_one(module: Any, *_: Any) -> None:
        begun.append(module.name)
        time.sleep(0.01)
        raise RuntimeError(f"{module.name} build failed")

    monkeypatch.setattr(warp.Module, "load", load_one)
    monkeypatch.setattr("metarl.envs.engines.compiling.resolve_threads", lambda threads: 2)
    with pytest.raises(RuntimeError, match=r"add_\d+ build failed"):
        load_all(warp, found, CPU, "some-robot")
    assert len(begun) < 50


def test_of_two_processes_one_compiles_and_the_other_waits(warp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = warp.zeros(2, dtype=float, device="cpu")
    launch = adds(warp, 1.0)
    (entry,) = needed(warp, [lambda: launch(values)])
    loaded: list[str] = []
    monkeypatch.setattr(warp.Module, "load", lambda module, *_: loaded.append(module.name))
    folder = Path(warp.config.kernel_cache_dir) / LOCKS
    folder.mkdir()
    with locked(folder / entry.module.get_module_identifier(entry.block_dim)):
        waits = threading.Thread(target=entry.load, args=(warp, CPU))
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
        assert loaded == []
    waits.join(10.0)
    assert loaded == ["add_1"]


def test_kernels_are_the_same_for_any_number_of_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what has been compiled for some worlds serves any other number of them."""
    found: list[set[str]] = []

    def noted(warp: Any, launches: list[Callable[[], None]]) -> list[Needed]:
        found.append({entry.module.get_module_identifier(entry.block_dim) for entry in needed(warp, launches)})
        raise InterruptedError

    monkeypatch.setattr("metarl.envs.engines.gpu.needed", noted)
    for worlds in (3, 800):
        with pytest.raises(InterruptedError):
            make_worlds(VARIED, worlds, engine="gpu")
    assert found[0] == found[1]
    assert any("nxn_broadphase" in name for name in found[0])


@pytest.mark.parametrize(
    "device",
    [pytest.param(CPU, marks=pytest.mark.warp_cpu), pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)],
    ids=str,
)
def test_nothing_is_compiled_after_the_worlds_are_made(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    warp, _ = load()
    worlds = make_worlds(VARIED, 4, engine="gpu", device=device)
    late: list[Needed] = []
    real = warp.Module.load

    def watched(module: Any, where: Any, block_dim: int, *rest: Any) -> Any:
        if (where.context if where.is_cuda else None, block_dim) not in module.execs:
            late.append(Needed(module, block_dim))
        return real(module, where, block_dim, *rest)

    monkeypatch.setattr(warp.Module, "load", watched)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        worlds.set_tasks(worlds.family.space.sample(4, "train", generator))
        worlds.reset(generator)
        worlds.step(torch.zeros(4, worlds.action_size, device=worlds.device))
    assert late == []
