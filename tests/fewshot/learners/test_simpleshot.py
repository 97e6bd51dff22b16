from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.fewshot.learners.simpleshot import SimpleShot, Transform
from tests.helpers.comparing_learners import (
    images,
    made,
    near,
    noise,
    plain_backbone,
    scores_of,
    support_of,
)
from tests.helpers.toys import DOUBLE


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
def test_simpleshot_transforms_features_and_takes_the_nearest_mean(transform: Transform) -> None:
    learner = made("simpleshot", images(backbone=plain_backbone()), transform=transform)
    assert isinstance(learner, SimpleShot)
    centre = learner.classifier.mean = 0.3 * torch.ones(6, dtype=DOUBLE)
    support, x = support_of([0, 1, 2, 1], 3), noise(2, 5, seed=1)
    scores = scores_of(learner, support, x)

    def transformed(features: Tensor) -> Tensor:
        if transform == "cl2n":
            features = features - centre
        return features if transform == "un" else features / features.norm(dim=-1, keepdim=True)

    kept, queries = (transformed(part) for part in learner.classifier.embedder(None).both(support.x, x))
    means = torch.stack((kept[:, 0], (kept[:, 1] + kept[:, 3]) / 2.0, kept[:, 2]), dim=1)
    distances = torch.cdist(queries, means).square()
    near((scores + distances) - (scores + distances)[..., :1], torch.zeros_like(scores))
