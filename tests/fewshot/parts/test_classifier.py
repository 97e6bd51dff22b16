from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes, EpisodeShape
from metarl.fewshot.parts.classifier import Classifier
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.seeding import Streams
from tests.helpers.comparing_learners import (
    CLASSES,
    CLASSIFIERS,
    CPU,
    IMAGE,
    images,
    made,
    shapes,
)


class EpisodesOnly:
    """A source without batches."""

    name = "episodes only"
    item_shape = IMAGE
    outputs = 0

    def episodes(self, split: str, numbers: Any, shape: EpisodeShape, seed: int) -> Episodes:
        raise AssertionError("classifiers ask for batches")

    def describe(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_needs_classes_and_batches(kind: str) -> None:
    with pytest.raises(UserError, match="or no one list of them"):
        made(kind, images(classes=0))
    with pytest.raises(UserError, match="gives episodes only"):
        made(kind, images()).update(EpisodesOnly(), 0)


def test_a_classifier_keeps_the_mean_of_its_features_and_the_moments_of_its_norms() -> None:
    data = shapes()
    classifier = Classifier(
        "x",
        images(torch.float32),
        batch_size=16,
        optimiser=OptimiserConfig(learning_rate=0.0),
        cosine_scale=0.0,
        streams=Streams(0),
        device=CPU,
    )
    metrics = [classifier.update(data, number) for number in range(60)][-1]
    assert set(metrics) == {"train/loss", "train/accuracy", "update/gradient_norm", "update/learning_rate"}
    assert classifier.mean is not None
    everything = data.items("train", torch.arange(CLASSES * 6))
    features = classifier.embedder("transductive").both(everything[None, :0], everything[None])[1][0]
    torch.testing.assert_close(classifier.mean, features.mean(0), rtol=0.0, atol=0.15)
    assert len(classifier.moments.averages or ()) == 4
    state = classifier.state_dict()
    classifier.load_state_dict(state)
    for name, wrong, says in (
        ("mean", [0.0], "mean of the features is no row"),
        ("mean", torch.tensor([float("inf")]), "mean of the features is no row"),
        ("moments", [state["moments"][0][:1]], "no pairs of tensors"),
        ("moments", {"0": state["moments"][0]}, "no pairs of tensors"),
        ("moments", [(state["moments"][0][0], 1.0)], "no pairs of tensors"),
    ):
        with pytest.raises(ValueError, match=says):
            classifier.load_state_dict(state | {name: wrong})
