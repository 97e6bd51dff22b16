"""What the tests on pretended GPUs rest on (helpers/gpus.py): whatever mixes devices raises there, as on CUDA."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.helpers.gpus import pretended_gpus

SECOND = torch.device("cuda", 1)


def test_a_pretended_gpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpus(monkeypatch):
        x = torch.tensor([1.0, 2.0], device=SECOND, requires_grad=True)
        (gradient,) = torch.autograd.grad((x * torch.arange(2, device="cuda:1")).sum(), x)
        assert x.is_cuda
        assert (x.device, gradient.device, x.cpu().device) == (SECOND, SECOND, torch.device("cpu"))
        assert gradient.tolist() == [0.0, 1.0]
        assert torch.func.vmap(lambda row: 2.0 * row)(x[:, None]).tolist() == [[2.0], [4.0]]
        noise = torch.randn(2, device=SECOND, generator=torch.Generator(SECOND).manual_seed(0))
        x.detach().unsqueeze_(0).copy_(torch.tensor([[3.0, 4.0]]))
        assert x.tolist() == [3.0, 4.0]
        drawn = noise.tolist()
    assert drawn == torch.randn(2, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        (lambda x: x + torch.ones(2), "mixes cpu and cuda:1"),
        (lambda x: torch.cat([x, torch.ones(2, device="cuda:0")]), "mixes cuda:0 and cuda:1"),
        (lambda x: torch.where(x > 0.0, x, torch.zeros(2)), "mixes cpu and cuda:1"),
        (lambda x: torch.ones(2)[x.long()], "mixes cpu and cuda:1"),
        (lambda x: torch.nn.Linear(2, 2)(x), "mixes cpu and cuda:1"),
        (lambda x: x.normal_(generator=torch.Generator()), "on cuda:1 draws from a generator on cpu"),
        (lambda x: x.to("cuda"), "a GPU without a number"),
        (lambda x: torch.Generator("cuda"), "a GPU without a number"),
        (lambda x: x.numpy(), "copy it to the host first"),
    ],
)
def test_what_cuda_refuses_a_pretended_gpu_refuses(
    mix: Callable[[Tensor], object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretended_gpus(monkeypatch), pytest.raises((RuntimeError, AssertionError, TypeError), match=says):
        mix(torch.ones(2, device=SECOND))
