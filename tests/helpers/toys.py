"""Small policies and made-up experience for the tests of the learning core, in float64."""

from __future__ import annotations

from typing import Any

import torch

from metarl.learning.experience import Batch, StochasticPolicy
from metarl.learning.inner import Loss, Rates
from metarl.nets.policy import MLP, Activation, CategoricalPolicy, GaussianPolicy
from metarl.types import Params

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=DOUBLE)


def gaussian(*, layer_norm: bool = False, activation: Activation = "tanh", hidden: int = 5) -> GaussianPolicy:
    """Return a policy for 3 observations and 2 actions."""
    network = MLP(inputs=3, hidden=(hidden, hidden), outputs=2, activation=activation, layer_norm=layer_norm)
    return GaussianPolicy(network=network, initial_std=0.8)


def categorical(*, layer_norm: bool = False) -> CategoricalPolicy:
    """Return a policy for 3 observations and 4 actions."""
    return CategoricalPolicy(network=MLP(inputs=3, hidden=(5,), outputs=4, layer_norm=layer_norm))


def init(policy: StochasticPolicy, seed: int = 0) -> Params:
    """Draw parameters of which none is special: no zero bias, no unit scale."""
    generator = seeded(seed)
    params = policy.init(generator, DOUBLE)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator, dtype=DOUBLE)
        for name, value in params.items()
    }


def near(params: Params, tasks: int, scale: float = 0.1, seed: int = 5) -> Params:
    """Return different parameters for every task, [M, ...]."""
    generator = seeded(seed)
    return {
        name: value + scale * torch.randn(tasks, *value.shape, generator=generator, dtype=DOUBLE)
        for name, value in params.items()
    }


def random_batch(tasks: int, episodes: int = 3, steps: int = 6, *, discrete: bool = False, seed: int = 1) -> Batch:
    """Return made-up data, [M, K, T, ...], with episodes of different lengths and ratios that are not 1."""
    generator = seeded(seed)
    size = (tasks, episodes, steps)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*size, *shape, generator=generator, dtype=DOUBLE)

    lengths = torch.randint(2, steps + 1, (tasks, episodes, 1), generator=generator)
    mask = (torch.arange(steps) < lengths).to(DOUBLE)
    actions = draw(2)
    if discrete:
        chosen = torch.randint(4, size, generator=generator)
        actions = torch.nn.functional.one_hot(chosen, 4).to(DOUBLE)
    return {
        "observations": draw(3) * mask.unsqueeze(-1),
        "actions": actions * mask.unsqueeze(-1),
        "advantages": draw() * mask,
        "weights": mask / mask.sum((1, 2), keepdim=True),
        "old_log_probs": (0.3 * draw() - 2.0) * mask,
    }


def task(values: Params, index: int) -> Params:
    """Return one task's part of a dict of tensors, without the task axis."""
    return {name: value[index] for name, value in values.items()}


def plain_adapt(loss: Loss, theta: Params, batches: list[Any], rates: Rates, *, first_order: bool = False) -> Params:
    """Adapt one task as one would on paper, sharing nothing with the project but the loss."""
    for batch in batches:
        gradients = torch.autograd.grad(loss(theta, batch), list(theta.values()), create_graph=True)
        if first_order:
            gradients = [gradient.detach() for gradient in gradients]
        theta = {name: value - rates[name] * g for (name, value), g in zip(theta.items(), gradients, strict=True)}
    return theta


def assert_params_close(first: Params, second: Params, atol: float = 1e-12) -> None:
    assert list(first) == list(second)
    for name in first:
        torch.testing.assert_close(
            first[name], second[name], rtol=0.0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
