"""How many tasks are computed at a time: by steps on a CPU, by measured bytes where memory decides."""

from __future__ import annotations

import pytest
import torch

from metarl.learning import chunks
from metarl.learning.chunks import TasksAtATime, kept_bytes, tasks_at_a_time
from metarl.learning.experience import Batch, surrogate
from metarl.types import Params
from tests.helpers.toys import gaussian, init, random_batch

TASKS = 10
POLICY = gaussian()


def test_what_a_function_keeps_is_counted_once_and_without_its_data() -> None:
    data, weight = torch.randn(7, 3), torch.randn(3, 5, requires_grad=True)
    # Kept for the gradient of the square: the product, twice; for that of the product: the data.
    assert kept_bytes(lambda: (data @ weight).square(), beside=[data]) == 7 * 5 * 4
    assert kept_bytes(lambda: (data @ weight).square()) == 7 * 5 * 4 + 7 * 3 * 4
    # A view of data is data too.
    assert kept_bytes(lambda: (data[:2] @ weight).square(), beside=[data]) == 2 * 5 * 4


def test_on_a_cpu_steps_decide() -> None:
    batch = random_batch(TASKS, episodes=3, steps=6)
    assert [tasks_at_a_time(batch, steps) for steps in (1, 18, 35, 36, 10**6)] == [1, 1, 1, 2, 55555]

    def never(params: Params, batch: Batch) -> torch.Tensor:
        raise AssertionError("nothing is measured on a CPU")

    assert TasksAtATime(36, 1)(batch, init(POLICY), never) == 2
    # torch's device without memory or speed is no CPU.
    assert not chunks.steps_decide({name: value.to("meta") for name, value in batch.items()})


def test_on_a_gpu_memory_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, params = random_batch(TASKS), init(POLICY)
    measured = []

    def objective(params: Params, batch: Batch) -> torch.Tensor:
        measured.append(len(batch["weights"]))
        return surrogate(POLICY)(params, batch)

    leaves = {name: value[None].requires_grad_() for name, value in params.items()}
    one = {name: value[:1] for name, value in batch.items()}
    each = 2.0 * kept_bytes(lambda: surrogate(POLICY)(leaves, one), beside=batch.values())
    monkeypatch.setattr(chunks, "steps_decide", lambda batch: False)
    at_a_time = TasksAtATime(1, 0)
    # A quarter of the device's memory holds 10, 9.5, 4.5 and half a task: one part, two of 5, three of 4, single ones.
    for fit, expected in ((10.001, 10), (9.5, 5), (4.5, 4), (0.5, 1)):
        monkeypatch.setattr(chunks, "memory_of", lambda _, fit=fit: int(4 * fit * each))
        assert at_a_time(batch, params, objective) == expected
    # One task is measured, once for each shape.
    assert measured == [1]
    assert at_a_time(random_batch(TASKS, steps=7), params, objective) == 1
    assert measured == [1, 1]
    # A budget that is given counts instead.
    assert TasksAtATime(1, 10**6)(batch, params, objective) == 10


def test_a_gpu_has_all_its_memory_whoever_takes_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {torch.device("cuda", 1): (3, 80)}[device])
    assert chunks.memory_of(torch.device("cuda", 1)) == 80
