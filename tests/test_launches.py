"""Launches, on a recorder that stands for CUDA's graphs (helpers/recorder.py)."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from metarl.graphs import CudaGraphs
from metarl.launches import MOST, Launch, Launches, apart, copied, launches_on, under_way
from tests.helpers.recorder import CPU, Recorder
from tests.helpers.toys import seeded


class Counter:
    """Adds to a number that stays in its place, and notes when Python takes part."""

    def __init__(self) -> None:
        self.total = torch.zeros(2)
        self.added = torch.ones(2)
        self.python = 0

    def __call__(self) -> dict[str, Tensor]:
        self.python += 1
        self.total += self.added
        return {"twice": 2.0 * self.total}


def test_a_function_runs_twice_and_is_captured_and_replayed_from_then_on() -> None:
    counter, recorder = Counter(), Recorder()
    launch = Launch(counter, recorder)
    for number in range(1, 7):
        counter.added.fill_(number)
        result = launch()
        assert torch.equal(result["twice"], 2.0 * torch.full((2,), sum(range(1, number + 1))))
        assert launch.captured == (number > 2)
    # Twice as it is, and once to be captured.
    assert (counter.python, recorder.captures, recorder.replays) == (3, 1, 4)


def test_random_numbers_are_those_of_a_function_that_is_not_captured() -> None:
    drawn = []
    for backend in (None, Recorder()):
        generator = seeded(3)

        def draw(generator: torch.Generator = generator) -> Tensor:
            return torch.randn(3, generator=generator)

        function = draw if backend is None else Launch(draw, backend, (generator,))
        drawn.append(torch.stack([function().clone() for _ in range(5)]))
    assert torch.equal(*drawn)
    assert drawn[0].unique().numel() == 15


def test_what_torch_cannot_capture_runs_at_its_place_in_every_replay() -> None:
    said, x, recorder = [], torch.zeros(()), Recorder()

    def function() -> Tensor:
        x.add_(1.0)
        apart(lambda: said.append(x.item()))
        return x.mul_(10.0)

    launch = Launch(function, recorder)
    for _ in range(4):
        launch()
    assert said == [1.0, 11.0, 111.0, 1111.0]
    # Two parts, twice.
    assert (x.item(), recorder.replays) == (11110.0, 4)


def test_a_launch_in_a_launch_is_a_part_of_it() -> None:
    recorder, x = Recorder(), torch.zeros(())
    inner = Launch(lambda: x.add_(1.0), recorder)

    def function() -> None:
        assert under_way()
        inner()
        x.mul_(2.0)

    outer = Launch(function, recorder)
    assert not under_way()
    for _ in range(5):
        outer()
    assert (x.item(), recorder.captures) == (62.0, 1)
    assert not inner.captured


LOOKS: dict[str, Callable[[Tensor], object]] = {
    "_local_scalar_dense": lambda x: x.sum().item(),
    "nonzero": lambda x: x.nonzero(),
    "index.Tensor with a mask": lambda x: x[x > 0.0],
    "index_put_.default with a mask": lambda x: x.index_put_((x < 0.0,), torch.zeros(())),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_function_that_looks_is_not_captured_and_the_log_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    x, recorder = torch.ones(2), Recorder()

    def looking() -> Tensor:
        LOOKS[name](x)
        return x.add_(1.0)

    launch = Launch(looking, recorder)
    with caplog.at_level(logging.DEBUG, "metarl.launches"):
        for number in range(5):
            assert launch()[0] == number + 2.0
    assert recorder.captures == 0
    assert launch.refused
    (record,) = caplog.records
    assert "looking is launched kernel by kernel: it uses" in record.getMessage()
    assert name in record.getMessage()


def test_a_capture_that_fails_is_tried_once_and_leaves_the_state_right(caplog: pytest.LogCaptureFixture) -> None:
    x, recorder = torch.zeros(()), Recorder()

    def function() -> Tensor:
        x.add_(1.0)
        # Made on the host at every call, which only the capture itself notices.
        return x.mul_(torch.tensor(2.0))

    launch = Launch(function, recorder)
    with caplog.at_level(logging.DEBUG, "metarl.launches"):
        for _ in range(5):
            launch()
    assert (x.item(), recorder.captures, launch.refused) == (62.0, 1, True)
    (record,) = caplog.records
    assert "operation not permitted when stream is capturing: aten.lift_fresh" in record.getMessage()
    assert not under_way()


def test_a_capture_that_ends_with_another_error_tells_the_first(caplog: pytest.LogCaptureFixture) -> None:
    class Spoiled(Recorder):
        def recording(self, generators: Any) -> Any:
            return self

        def begin(self) -> Any:
            return self

        def end(self) -> Any:
            raise RuntimeError("the capture is spoiled")

    calls = []

    def function() -> int:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("not while capturing")
        return len(calls)

    launch = Launch(function, Spoiled())
    with caplog.at_level(logging.DEBUG, "metarl.launches"):
        assert [launch() for _ in range(4)] == [1, 2, 4, 5]
    said = [record.getMessage() for record in caplog.records]
    assert said[0].endswith("the capture ended with: the capture is spoiled")
    assert said[1].endswith("kernel by kernel: not while capturing")


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_error_of_the_function_itself_is_raised(call: int) -> None:
    calls = []

    def function() -> None:
        calls.append(1)
        if len(calls) == call:
            raise ValueError("mine")

    launch = Launch(function, Recorder())
    for number in range(1, 5):
        if number == call:
            with pytest.raises(ValueError, match="mine"):
                launch()
        else:
            launch()
        assert not under_way()


def test_garbage_collection_waits_for_a_capture() -> None:
    seen = []

    def function() -> None:
        seen.append(gc.isenabled())

    launch = Launch(function, Recorder())
    assert gc.isenabled()
    for _ in range(4):
        launch()
    assert seen == [True, True, False]
    assert gc.isenabled()
    gc.disable()
    try:
        again = Launch(function, Recorder())
        for _ in range(3):
            again()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_copies_have_all_types_and_no_shared_memory() -> None:
    given = [
        torch.tensor([True, False, True]),
        torch.arange(6.0).reshape(2, 3),
        torch.tensor(2.5, dtype=torch.float64),
        torch.arange(6.0, dtype=torch.float64).reshape(2, 3).t(),
        torch.tensor([7]),
    ]
    found = copied(given)
    for mine, its in zip(found, given, strict=True):
        assert mine.dtype == its.dtype
        assert torch.equal(mine, its)
    for its in given:
        its.zero_()
    assert [float(mine.double().sum()) for mine in found] == [2.0, 15.0, 2.5, 15.0, 7.0]


def test_launches_are_kept_by_key_and_only_a_few() -> None:
    launches = Launches(Recorder())
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number

    for number in (0, 1, 0, 1, *range(2, MOST + 1)):
        assert launches.get(number, lambda number=number: make(number)) == number
    assert made == [*range(MOST + 1)]
    # The oldest went.
    launches.get(0, lambda: make(100))
    assert made[-1] == 100
    launches.clear()
    launches.get(0, lambda: make(101))
    assert made[-1] == 101


def test_a_copy_has_no_launches() -> None:
    launches = Launches(CudaGraphs(torch.device("cuda", 0)))
    launches.get("x", lambda: 1)
    for other in (copy.deepcopy(launches), pickle.loads(pickle.dumps(launches))):
        assert other.backend == launches.backend
        assert other.get("x", lambda: 2) == 2


def test_only_a_gpu_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launches_on(CPU) is None
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    current = launches_on(torch.device("cuda"))
    assert current is not None
    assert current.backend == CudaGraphs(torch.device("cuda", 3))
    there = launches_on(torch.device("cuda", 1))
    assert there is not None
    assert there.backend == CudaGraphs(torch.device("cuda", 1))


def test_what_meets_other_ranks_is_not_captured(tmp_path: Path) -> None:
    x, recorder = torch.ones(3), Recorder()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        launch = Launch(lambda: dist.all_reduce(x), recorder)
        for _ in range(4):
            launch()
    finally:
        dist.destroy_process_group()
    assert launch.refused
    assert recorder.captures == 0
