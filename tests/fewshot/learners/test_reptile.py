from __future__ import annotations

import pytest
import torch

from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.parts.norms import Norm
from metarl.seeding import Streams
from tests.helpers.stepping_learners import (
    CPU,
    Lines,
    regression,
    shaken,
)


def test_reptiles_update_by_hand() -> None:
    """Two tasks, two Adam steps with β1 = 0, then half a step towards their mean."""
    config = ReptileConfig(
        iterations=4, tasks=2, train_shot=6, inner_steps=2, inner_batch=6, inner_rate=0.02, outer_step=0.8
    )
    learner = shaken(Reptile(config, regression(), Streams(0), CPU))
    before = {name: value.clone() for name, value in learner.params.items()}
    number = 2
    metrics = learner.update(Lines(), number)

    # The whole task is one minibatch, so that the order of its items has no influence.
    episodes = Lines().episodes("train", [4, 5], EpisodeShape(shot=5, query=1), 0)
    ends = []
    for task in range(2):
        x = torch.cat((episodes.support.x[task], episodes.query_x[task]))
        y = torch.cat((episodes.support.y[task], episodes.query_y[task]))
        params = dict(before)
        square = {name: torch.zeros_like(value) for name, value in params.items()}
        for step in (1, 2):
            leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
            loss = (learner.model(leaves, x, Norm()) - y).square().mean()
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            for name, g in zip(params, gradients, strict=True):
                square[name] = 0.999 * square[name] + 0.001 * g**2
                deviation = (square[name] / (1.0 - 0.999**step)).sqrt()
                params[name] = params[name] - 0.02 * g / (deviation + 1e-8)
        ends.append(params)
    # ε falls from 0.8 to 0 over 4 updates, and this is the third.
    for name, value in learner.params.items():
        mean = (ends[0][name] + ends[1][name]) / 2.0
        torch.testing.assert_close(value, before[name] + 0.4 * (mean - before[name]), rtol=1e-9, atol=1e-12)
    assert metrics["update/outer_step"] == pytest.approx(0.4)
