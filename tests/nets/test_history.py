"""The window of an episode's last steps by hand, and its encoder beside a plain loop in float64."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import relu

from metarl.nets.history import CONVOLUTIONS, WINDOW, HistoryEncoder, lengths, weights, windows
from tests.helpers.toys import DOUBLE, normal, seeded


def test_lengths_are_50_11_7_3() -> None:
    assert lengths() == (50, 11, 7, 3)
    encoder = HistoryEncoder(4, 2, seeded())
    shapes: list[int] = []
    for convolution in encoder.convolutions:
        convolution.register_forward_hook(lambda _, __, made: shapes.append(made.shape[-1]))
    assert encoder(torch.zeros(3, 50, 4)).shape == (3, 2)
    assert shapes == [11, 7, 3]
    assert encoder.last.in_features == 96
    assert sum(value.numel() for value in encoder.parameters()) == weights(4, 2)


def test_a_window_has_the_steps_before_and_zeros_before_the_first() -> None:
    steps = torch.arange(1.0, 61.0)[None, :, None]
    found = windows(steps)
    assert found.shape == (1, 60, WINDOW, 1)
    assert found[0, 0].sum() == 0.0
    assert found[0, 2, :, 0].tolist() == [*[0.0] * 48, 1.0, 2.0]
    assert found[0, 55, :, 0].tolist() == [float(number) for number in range(6, 56)]


def test_it_is_a_plain_loop_over_steps() -> None:
    encoder = HistoryEncoder(3, 2, seeded(1)).double()
    with torch.no_grad():
        for number, value in enumerate(encoder.parameters()):
            value.copy_(0.3 * normal(*value.shape, seed=number))
    window = normal(2, WINDOW, 3, seed=9)
    rows = [relu(encoder.embed(window[:, step])) for step in range(WINDOW)]
    for convolution, (kernel, stride) in zip(encoder.convolutions, CONVOLUTIONS, strict=True):
        assert isinstance(convolution, nn.Conv1d)
        made = []
        for start in range(0, len(rows) - kernel + 1, stride):
            total = convolution.bias[None]  # pyright: ignore[reportOptionalSubscript]
            for place in range(kernel):
                total = total + rows[start + place] @ convolution.weight[:, :, place].T
            made.append(relu(total))
        rows = made
    # Channels first, as a convolution leaves them.
    expected = encoder.last(torch.stack(rows, dim=2).flatten(1))
    torch.testing.assert_close(encoder(window), expected)
    assert encoder(window.expand(4, 2, WINDOW, 3)).shape == (4, 2, 2)
    assert expected.dtype == DOUBLE
