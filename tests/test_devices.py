"""Which device a name means, without a GPU: torch's answers about CUDA are replaced."""

from __future__ import annotations

import pytest
import torch

from metarl.devices import numbered, resolve_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch tell of two GPUs, of which the second is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda:1")
    assert numbered(torch.device("cuda:0")) == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert resolve_device("cuda") == numbered(torch.device("cuda")) == torch.device("cuda:0")
