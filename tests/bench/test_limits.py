"""What the machine can do at most: operations are counted as one would by hand, limits are measured."""

import pytest
import torch
from torch import nn

from metarl.bench import limits
from metarl.bench.limits import copy, operations, product


def test_operations_are_two_a_multiply_add():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert operations(lambda: left @ right) == 2 * 3 * 5 * 7
    assert operations(lambda: left + left) == 0
    image, kernel = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    assert operations(lambda: nn.functional.conv2d(image, kernel, padding=1)) == 2 * (2 * 4 * 8 * 8) * (3 * 3 * 3)


def test_operations_of_a_gru_and_its_backward_pass():
    gru, inputs = nn.GRU(4, 6, batch_first=True), torch.ones(2, 5, 4)
    forward = 2 * 2 * 5 * (3 * 6) * (4 + 6)
    assert operations(lambda: gru(inputs)) == forward
    # Backwards every product costs two: to its inputs and to its weights; the data and the first state need none.
    unneeded = 2 * 2 * 5 * (3 * 6) * 4 + 2 * 2 * (3 * 6) * 6
    assert operations(lambda: gru(inputs)[0].sum().backward()) == 3 * forward - unneeded


def test_limits_are_seconds_of_one_operation_and_of_one_byte(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0.0)
    assert 1e-15 < product()() < 1e-6
    assert 1e-13 < copy(1 << 20)() < 1e-6
