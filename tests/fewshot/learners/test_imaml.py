from __future__ import annotations

import torch

from metarl.fewshot.learners.imaml import Imaml, ImamlConfig
from metarl.fewshot.parts.norms import Norm
from metarl.seeding import Streams
from metarl.types import Params
from tests.helpers.stepping_learners import (
    CPU,
    Lines,
    flat,
    regression,
    shaken,
)
from tests.helpers.toys import DOUBLE


def test_imaml_gives_the_gradient_of_the_proximal_optimum() -> None:
    """With an inner problem solved to its end, the implicit gradient is that of the unrolled loop."""
    kind = regression()
    config = ImamlConfig(tasks=3, inner_steps=400, inner_rate=0.1, strength=3.0, cg_iterations=60, cg_damping=0.0)
    learner = shaken(Imaml(config, kind, Streams(0), CPU))
    episodes = Lines().episodes("train", range(3), kind.shape, 0)
    gradient, _, _ = learner.meta_gradient(episodes)

    leaves = {name: value.detach().clone().requires_grad_() for name, value in learner.params.items()}
    total = torch.zeros((), dtype=DOUBLE)
    for task in range(3):
        x, y = episodes.support.x[task], episodes.support.y[task]
        params: Params = dict(leaves)
        for _ in range(400):
            near = sum(((params[name] - leaves[name]) ** 2).sum() for name in params)
            loss = (learner.model(params, x, Norm()) - y).square().mean() + 1.5 * near
            gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {n: value - 0.1 * g for (n, value), g in zip(params.items(), gradients, strict=True)}
        scores = learner.model(params, episodes.query_x[task], Norm())
        total = total + (scores - episodes.query_y[task]).square().mean() / 3.0
    expected = torch.autograd.grad(total, list(leaves.values()))
    torch.testing.assert_close(flat(gradient), torch.cat([g.flatten() for g in expected]), rtol=1e-6, atol=1e-8)
