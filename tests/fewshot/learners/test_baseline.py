from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import generator_of
from metarl.fewshot.learners.baseline import Baseline
from metarl.fewshot.parts.learner import Stepwise
from metarl.fewshot.parts.scores import task_loss
from tests.helpers.comparing_learners import images, made, near, noise, plain_backbone, scores_of, support_of
from tests.helpers.same import assert_same
from tests.helpers.toys import DOUBLE


def test_baselines_head_is_what_torchs_sgd_makes_of_a_linear_layer() -> None:
    learner = made("baseline", images(backbone=plain_backbone()), epochs=3)
    assert isinstance(learner, Baseline)
    support, x = support_of([0, 1, 2, 1, 0, 2, 2], 3), noise(2, 5, seed=1)
    scores = scores_of(learner, support, x)
    embedder = learner.classifier.embedder(None)
    for m in range(2):
        layer = nn.Linear(6, 3, dtype=DOUBLE)
        for weight in layer.parameters():
            nn.init.zeros_(weight)
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9, dampening=0.9, weight_decay=1e-3)
        features, queries = (part[m] for part in embedder.both(support.x, x))
        order = iter(_orders(learner, 7, 3))
        for _ in range(3):
            for rows in next(order).split(4):
                optimiser.zero_grad()
                nn.functional.cross_entropy(layer(features[rows]), support.y[m, rows]).backward()
                optimiser.step()
        near(scores[m], layer(queries).detach(), 1e-12)


def _orders(learner: Baseline, size: int, epochs: int) -> list[Tensor]:
    generator = generator_of(0, learner.setting.seed, "order of support items")
    return [torch.randperm(size, generator=generator) for _ in range(epochs)]


@pytest.mark.parametrize("kind", ["baseline", "baseline++"])
def test_the_path_of_a_baseline_goes_from_chance_to_what_fit_gives(kind: str) -> None:
    learner = made(kind, images(), epochs=4)
    stepwise: object = learner
    assert isinstance(stepwise, Stepwise)
    support, x = support_of([0, 1, 2, 1, 0], 3), noise(2, 5, seed=1)
    path = stepwise.path(support, 6)
    assert len(path) == 7
    first = path[0].predict(x)
    near(first, first[..., :1].expand_as(first))
    near(path[4].predict(x), scores_of(learner, support, x), 0.0)
    losses = [float(task_loss(p.predict(support.x), support.y, 3).mean()) for p in path]
    assert losses == sorted(losses, reverse=True)


def test_fitting_a_head_changes_neither_the_backbone_nor_torchs_generator() -> None:
    learner = made("baseline", images())
    before, generator = learner.state_dict(), torch.get_rng_state()
    with torch.no_grad():
        scores_of(learner, support_of([0, 1], 2), noise(2, 3))
    assert_same(learner.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_cosine_heads_do_not_see_how_long_features_are() -> None:
    learner = made("baseline++", images(backbone=plain_backbone()))
    support, x = support_of([0, 1, 2], 3), noise(2, 5, seed=1)
    before = scores_of(learner, support, x)
    # Without biases the network is homogeneous.
    learner.classifier.params = {
        name: value if name.startswith("head") or value.dim() == 1 else 3.0 * value
        for name, value in learner.classifier.params.items()
    }
    near(scores_of(learner, support, x), before)
    assert before.abs().max() <= learner.config.scale
