from __future__ import annotations

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot import EpisodeShape, predict, score
from metarl.fewshot.manifest import make as make_manifest
from metarl.fewshot.measure import measure
from tests.helpers.tiny_fewshot import SHAPE, untrained, vectors


def test_score_is_mean_and_interval() -> None:
    data = vectors()
    proto = untrained("proto")
    found = score(proto, data, episodes=100)
    values = measure(proto, data, make_manifest(data, "test", 100, SHAPE, 0)).values
    assert found.estimate == pytest.approx(values.mean().item())
    assert found.lower < found.estimate < found.upper
    assert score(proto, data, episodes=100, shape=EpisodeShape(way=2, shot=5, query=3)).estimate > found.estimate


def test_predict_answers_with_the_labels_given() -> None:
    data = vectors()
    part = data.split("test")
    support, queries = part.items[: 12 * 3 : 12], part.items[1 : 12 * 3 : 12]
    answers, probabilities = predict(untrained("proto"), data, support.numpy(), ["c", "a", "b"], queries.numpy())
    assert set(answers) <= {"a", "b", "c"}
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))
    # The items themselves are answered right, whatever the learner.
    answers, _ = predict(untrained("proto"), data, support, ["c", "a", "b"], support)
    assert answers == ["c", "a", "b"]
    with pytest.raises(UserError, match="Got 3 items and 2 labels"):
        predict(untrained("proto"), data, support, ["c", "a"], queries)
    with pytest.raises(UserError, match=r"items of the shape \(11,\), and vectors has \(12,\)"):
        predict(untrained("proto"), data, support[:, 1:], ["c", "a", "b"], queries)
    with pytest.raises(UserError, match=r"torch\.uint8, and vectors has torch\.float32"):
        predict(untrained("proto"), data, support.to(torch.uint8), ["c", "a", "b"], queries)
