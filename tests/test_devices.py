"""Which device a name means, and what is said of one that cannot be used; torch's answers about CUDA are replaced."""

from __future__ import annotations

import pytest
import torch

from metarl.devices import check_device, device_problem, numbered, resolve_device
from metarl.errors import UserError
from metarl.ranks import join


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch tell of two GPUs, of which the second is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda:1")
    assert resolve_device("cuda:0") == numbered(torch.device("cuda:0")) == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert resolve_device("cuda") == numbered(torch.device("cuda")) == torch.device("cuda:0")


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:-1", "cuda:x", "cuda:01", "cpu:0", "..."])
def test_names_of_no_device_are_refused(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"Unknown device '{name}'.* Choose from: auto, cpu, cuda, cuda:0, cuda:1, \.\.\."
    ):
        check_device(name)
    check_device("cuda:12")


@pytest.mark.usefixtures("two_gpus")
def test_a_number_that_no_gpu_here_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"'cuda:2', but torch finds 2 here, from cuda:0 to cuda:1"):
        resolve_device("cuda:2")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


def test_without_a_gpu_the_cpu_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(
            UserError, match=rf"'{name}', but torch finds no CUDA device here. Use --device cpu or auto"
        ):
            resolve_device(name)


@pytest.mark.usefixtures("two_gpus")
def test_every_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda", rank)
        with pytest.raises(UserError, match=r"'cuda:0' for 2 processes of this machine.* Use --device cuda: "):
            resolve_device("cuda:0")
    # Two of each of two machines: a number is as good as the local rank.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with pytest.raises(UserError, match=r"Got 3 processes on a machine with 2 GPUs.* as many as there are GPUs"):
            resolve_device("cuda")


@pytest.mark.usefixtures("two_gpus")
def test_ranks_on_gpus_send_what_is_there_by_nccl_and_the_rest_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "node0")
    done: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr("torch.distributed.init_process_group", done.append)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda x: done.append(x.device))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: done.append("left"))
    with join(resolve_device("cuda")) as ranks:
        assert (ranks.rank, ranks.size, ranks.local) == (3, 4, 2)
    # The GPU is this process's before anything is sent; the last message is a number, which has no GPU.
    assert done == [torch.device("cuda:1"), "cpu:gloo,cuda:nccl", torch.device("cpu"), "left"]


FULL = "memory of the device does not suffice"
TAKEN = "device cannot be used"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of"),
            FULL,
        ),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"), FULL),
        (RuntimeError("Failed to allocate 8589934592 bytes on device 'cuda:0'"), FULL),
        (torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCompile with"), TAKEN),
        (RuntimeError('Failed to acquire primary context for device "cuda:1"'), TAKEN),
        (RuntimeError("Found no NVIDIA driver on your system. Please check"), TAKEN),
    ],
)
def test_a_device_that_is_full_or_taken_is_told_in_a_line(error: RuntimeError, says: str) -> None:
    problem = device_problem(error)
    assert problem is not None
    assert says in problem
    assert "--device" in problem
    assert "\n" not in problem
    assert str(error).split("\n")[0] in problem


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Failed to allocate 12 bytes on device 'cpu'"),
    ],
)
def test_other_errors_are_left_as_they_are(error: RuntimeError) -> None:
    assert device_problem(error) is None
