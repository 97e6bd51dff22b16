"""Heads: what stands beside a memory's features, and networks whose weights the memory emits, by plain loops."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from metarl.nets.heads import BesideCore, Emitted, perceptron
from metarl.nets.memory import CoreName, make_core
from tests.helpers.toys import normal, seeded

SHOWN, WIDTH = 2, 4


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_features_are_what_is_shown_and_what_the_memory_gives(name: CoreName) -> None:
    memory = make_core(name, inputs=5, width=WIDTH, layers=1, context=7, generator=seeded()).double()
    core = BesideCore(memory, SHOWN)
    assert (core.width, core.steady) == (SHOWN + WIDTH, memory.steady)
    inputs = normal(3, 7, 5)
    whole = core(inputs)
    assert torch.equal(whole[..., :SHOWN], inputs[..., :SHOWN])
    assert torch.equal(whole[..., SHOWN:], memory(inputs))
    remembered = core.begin(3)
    for moment in range(7):
        features, remembered = core.step(inputs[:, moment], remembered, torch.zeros(3, dtype=torch.bool))
        torch.testing.assert_close(features, whole[:, moment], rtol=0.0, atol=1e-13)
        assert not features.requires_grad


def plain_emitted(head: Emitted, features: Tensor) -> Tensor:
    """Return the output at one moment, number by number."""
    x, numbers = list(features[: head.sizes[0]]), iter(head.emit.weight @ features[head.sizes[0] :] + head.emit.bias)
    for layer, (inputs, outputs) in enumerate(pairwise(head.sizes)):
        x = [value.tanh() for value in x] if layer > 0 else x
        weight = [[next(numbers) for _ in range(inputs)] for _ in range(outputs)]
        x = [sum((w * value for w, value in zip(row, x, strict=True)), start=next(numbers)) for row in weight]
    return torch.stack(x)


@pytest.mark.parametrize("hidden", [(), (3,), (3, 2)])
def test_emitted_weights_are_used_as_in_plain_loops(hidden: tuple[int, ...]) -> None:
    head = Emitted(SHOWN, WIDTH, hidden, 2, gain=0.5, generator=seeded()).double()
    assert head.emit.out_features == sum((rows + 1) * columns for rows, columns in pairwise((SHOWN, *hidden, 2)))
    with torch.no_grad():
        for number, value in enumerate(head.parameters()):
            value.add_(0.5 * normal(*value.shape, seed=number))
    features, slopes = normal(2, 3, SHOWN + WIDTH), normal(2, 3, 2, seed=1)
    leaves = [features.requires_grad_(), *head.parameters()]
    plain = torch.stack([torch.stack([plain_emitted(head, row) for row in rows]) for rows in features])
    given = head(features)
    torch.testing.assert_close(given, plain, rtol=0.0, atol=1e-13)
    ours = torch.autograd.grad((given * slopes).sum(), leaves)
    for gradient, expected in zip(ours, torch.autograd.grad((plain * slopes).sum(), leaves), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0.0, atol=1e-12)
    assert all(bool(gradient.ne(0.0).all()) for gradient in ours)


@pytest.mark.parametrize("hidden", [(), (3,)])
def test_at_the_start_it_is_one_ordinary_network_whatever_is_remembered(hidden: tuple[int, ...]) -> None:
    head = Emitted(SHOWN, WIDTH, hidden, 2, gain=0.5, generator=seeded(1))
    ordinary = perceptron(SHOWN, hidden, 2, gain=0.5, generator=seeded(1))
    features = normal(6, SHOWN + WIDTH).float()
    torch.testing.assert_close(head(features), ordinary(features[:, :SHOWN]), rtol=0.0, atol=1e-6)
    other = torch.cat((features[:, :SHOWN], normal(6, WIDTH, seed=2).float()), dim=1)
    assert torch.equal(head(features), head(other))
    # It is not stuck there: what is remembered has an influence after a step.
    gradient = torch.autograd.grad(head(features).square().sum(), [head.emit.weight])[0]
    assert bool(gradient.abs().amax(1).gt(0.0).all())


def test_a_perceptron_begins_orthogonal_and_with_its_last_layer_small() -> None:
    head = perceptron(6, (4, 3), 2, gain=0.01, generator=seeded())
    assert isinstance(head, nn.Sequential)
    linears = [part for part in head if isinstance(part, nn.Linear)]
    assert [type(part) for part in head] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    for linear, gain in zip(linears, (1.0, 1.0, 0.01), strict=True):
        product = linear.weight @ linear.weight.mT
        torch.testing.assert_close(product, gain**2 * torch.eye(len(product)), rtol=0.0, atol=1e-6)
        assert not linear.bias.any()
    x = normal(5, 6).float()
    assert 0.0 < float(head(x).detach().abs().max()) < 0.01 * math.sqrt(3.0)
    assert type(perceptron(6, (), 2, gain=1.0, generator=seeded())) is nn.Linear
