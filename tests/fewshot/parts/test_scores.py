from __future__ import annotations

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.parts.scores import class_weights, nearness
from tests.helpers.toys import DOUBLE, normal

TASKS, WAY, FEATURES, QUERIES = 3, 4, 5, 6


def test_nearness_is_the_negative_squared_distance_up_to_what_all_classes_share() -> None:
    points, queries = normal(TASKS, WAY, FEATURES), normal(TASKS, QUERIES, FEATURES, seed=9)
    full = -(queries[:, :, None] - points[:, None]).square().sum(-1)
    short = nearness(queries, points)
    torch.testing.assert_close(short - short[..., :1], full - full[..., :1], rtol=0.0, atol=1e-12)


def test_a_support_set_without_an_item_of_some_class_is_refused() -> None:
    with pytest.raises(UserError, match="none of some class"):
        class_weights(torch.tensor([[0, 0, 2]]), 3, DOUBLE)
