"""Nested states of checkpoints, compared bit for bit."""

from __future__ import annotations

from typing import Any

import torch


def assert_same(first: Any, second: Any) -> None:
    """Compare tensors and plain data, nested in dicts, lists and tuples; of dicts also the order."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second
