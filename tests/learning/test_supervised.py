"""Steps down a mean error beside a plain loop, in float64."""

from __future__ import annotations

import copy

import torch
from torch import nn

from metarl.learning.ppo import shared_minibatches
from metarl.learning.supervised import descend
from tests.helpers.toys import DOUBLE, normal, seeded


def test_its_steps_are_those_of_a_plain_loop_over_real_steps() -> None:
    network = nn.Linear(2, 1, dtype=DOUBLE)
    with torch.no_grad():
        network.weight.copy_(normal(1, 2))
        network.bias.fill_(0.3)
    other = copy.deepcopy(network)
    inputs, targets = normal(5, 3, 2, seed=1), normal(5, 3, seed=2)
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]).double()
    found = descend(
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        lambda rows: (network(inputs[rows]).squeeze(-1) - targets[rows]).square(),
        mask,
        seeded(),
        epochs=2,
        minibatches=2,
    )
    losses = []
    for rows in shared_minibatches(mask, 2, 2, seeded()):
        real = mask[rows] > 0
        loss = (other(inputs[rows][real]).squeeze(-1) - targets[rows][real]).square().mean()
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(other.parameters()))
        with torch.no_grad():
            for leaf, gradient in zip(other.parameters(), gradients, strict=True):
                leaf -= 0.1 * gradient
    assert len(losses) == 4
    assert abs(found - sum(losses) / 4) < 1e-12
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
