"""What all few-shot learners that compare features promise, and those that begin with a classifier."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.data import from_arrays
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.learners import LEARNERS, config_class, make
from metarl.fewshot.parts.backbones import Conv4, MlpBackbone
from metarl.fewshot.parts.comparing import EpisodicLearner
from metarl.fewshot.parts.learner import FewShotLearner, Setting
from metarl.fewshot.parts.norms import BatchNorm
from metarl.fewshot.parts.scores import accuracy, task_loss
from metarl.seeding import Streams
from tests.helpers.comparing_learners import (
    CLASSES,
    CLASSIFIERS,
    CPU,
    EPISODIC,
    IMAGE,
    KINDS,
    SHAPE,
    images,
    made,
    near,
    noise,
    scores_of,
    shapes,
    support_of,
)
from tests.helpers.same import assert_same
from tests.helpers.toys import DOUBLE, seeded


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("name", LEARNERS)
def test_every_entry_makes_a_learner_of_its_name_with_its_default_settings(name: str) -> None:
    learner = make(name, config_class(name)(), images(torch.float32), Streams(0), CPU)
    assert isinstance(learner, FewShotLearner)
    assert learner.name == name


@pytest.mark.parametrize("name", LEARNERS)
def test_data_of_other_items_are_refused(name: str) -> None:
    """As where a backbone was made by hand for [channels, 1, length], and the data are signals [channels, length]."""
    setting = Setting(shape=SHAPE, backbone=MlpBackbone(item_shape=(2, 1, 6)), classes=CLASSES)
    learner = make(name, config_class(name)(), setting, Streams(0), CPU)
    items, classes = torch.randn(600, 2, 1, 6, generator=seeded()), torch.arange(600) // 15
    with pytest.raises(UserError, match=r"Got arrays with items \(2, 6\), and a backbone of items \(2, 1, 6\)"):
        learner.update(from_arrays(items, classes, layout="nchw"), 0)
    learner.update(from_arrays(items, classes, layout="plain"), 0)


def test_an_unknown_learner_and_a_config_of_another_are_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown learner 'protos'\. Did you mean 'proto'"):
        config_class("protos")
    with pytest.raises(UserError, match=r"Got a ProtoConfig for siamese\. Give a SiameseConfig"):
        make("siamese", config_class("proto")(), images(), Streams(0), CPU)


def test_regression_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="this data has none"):
        made(kind, images(outputs=1, classes=0))


# -- predictions ------------------------------------------------------------------------------------------------------


def test_ways_and_shots_at_test_are_free(kind: str) -> None:
    learner = made(kind, images())
    for y, way in (([0, 1, 2], 3), ([1, 0, 1, 1, 0], 2), ([*range(12)] * 2, 12), ([0], 1)):
        scores = scores_of(learner, support_of(y, way), noise(2, 7, seed=1))
        assert scores.shape == (2, 7, way)
        assert scores.dtype == DOUBLE
        assert bool(scores.isfinite().all())
        assert not scores.requires_grad


def test_tasks_at_once_and_one_at_a_time_give_the_same(kind: str) -> None:
    learner = made(kind, images())
    support, x = support_of([0, 1, 2, 2, 1, 0, 2], 3, tasks=3), noise(3, 5, seed=1)
    alone = [
        scores_of(learner, Support(x=support.x[m : m + 1], y=support.y[m : m + 1], way=3), x[m : m + 1])
        for m in range(3)
    ]
    near(scores_of(learner, support, x), torch.cat(alone))


def test_a_query_never_changes_anothers_scores_but_where_the_policy_is_transductive(kind: str) -> None:
    learner = made(kind, images())
    support, x = support_of([0, 1, 2, 1], 3), noise(2, 5, seed=1)
    changed = torch.cat((10.0 * x[:, :1] + 3.0, x[:, 1:]), dim=1)

    def difference(policy: BatchNorm | None) -> float:
        first, second = (scores_of(learner, support, queries, policy)[:, 1:] for queries in (x, changed))
        return float((first - second).abs().max())

    assert difference(None) == difference("support") < 1e-12
    assert difference("transductive") > 1e-4


def test_queries_may_come_in_parts(kind: str) -> None:
    learner = made(kind, images())
    predictor, x = learner.fit(support_of([0, 1, 2, 1], 3)), noise(2, 5, seed=1)
    near(torch.cat((predictor.predict(x[:, :2]), predictor.predict(x[:, 2:])), dim=1), predictor.predict(x))


def test_other_names_for_the_classes_permute_the_scores(kind: str) -> None:
    learner = made(kind, images())
    support, x = support_of([0, 1, 2, 3, 3, 1], 4), noise(2, 5, seed=1)
    other = torch.tensor([2, 0, 3, 1])
    renamed = replace(support, y=other[support.y])
    near(scores_of(learner, renamed, x)[..., other], scores_of(learner, support, x))


def test_before_training_random_labels_are_hit_by_chance(kind: str) -> None:
    learner = made(kind, images())
    tasks, queries = 300, 10
    support = support_of([0, 1, 2, 3, 4], 5, tasks)
    y = torch.randint(5, (tasks, queries), generator=seeded(3))
    hits = torch.cat(
        [
            accuracy(scores_of(learner, replace(support, x=support.x[rows], y=support.y[rows]), x), y[rows])
            for rows, x in zip(torch.arange(tasks).split(50), noise(tasks, queries, seed=1).split(50), strict=True)
        ]
    )
    # Four standard errors, by episodes.
    assert abs(float(hits.mean()) - 0.2) < 4.0 * float(hits.std()) / tasks**0.5


def episodes(tasks: int = 2) -> Episodes:
    y = torch.arange(3).repeat_interleave(2).expand(tasks, -1)
    return Episodes(support=support_of([0, 1, 2, 1], 3, tasks), query_x=noise(tasks, 6, seed=1), query_y=y)


def test_there_is_a_loss_for_every_episode(kind: str) -> None:
    assert made(kind, images()).loss(episodes()).shape == (2,)


@pytest.mark.parametrize("policy", ["support", "transductive", "running"])
@pytest.mark.parametrize("kind", EPISODIC)
def test_the_gradient_of_the_loss_is_its_finite_difference(kind: str, policy: BatchNorm) -> None:
    learner = made(kind, images(batch_norm=policy))
    assert isinstance(learner, EpisodicLearner)
    given = episodes()
    gradients = torch.autograd.grad(learner.loss(given).mean(), list(learner.params.values()))
    directions = [torch.randn(value.shape, generator=seeded(5), dtype=DOUBLE) for value in learner.params.values()]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    sides = []
    for step in (1e-6, -1e-6):
        moved = {
            name: (value + step * direction).detach()
            for (name, value), direction in zip(learner.params.items(), directions, strict=True)
        }
        before, learner.params = learner.params, moved
        sides.append(float(learner.loss(given).mean()))
        learner.params = before
    assert slope == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_loss_of_a_classifier_is_that_of_fit_and_predict(kind: str) -> None:
    learner, given = made(kind, images()), episodes()
    near(learner.loss(given), task_loss(scores_of(learner, given.support, given.query_x), given.query_y, 3))


def vectors(classes: int, seed: int, signal: int = 6, items: int = 12) -> ClassSplit:
    """Return vectors of which the first numbers tell the class, and the others, ten times as large, tell nothing."""
    generator = seeded(seed)
    tells = torch.randn(classes, 1, signal, generator=generator)
    tells = tells + 0.2 * torch.randn(classes, items, signal, generator=generator)
    hides = 6.0 * torch.randn(classes, items, signal, generator=generator)
    return ClassSplit(
        items=torch.cat((tells, hides), dim=-1).flatten(0, 1),
        sizes=torch.full((classes,), items),
        names=tuple(f"{seed}-{n}" for n in range(classes)),
    )


def hidden_signal() -> ClassData:
    return ClassData(name="hidden", splits={"train": vectors(80, 0), "test": vectors(20, 1)})


def score(learner: FewShotLearner, data: ClassData, shape: EpisodeShape) -> float:
    test = data.episodes("test", range(100), shape, 0)
    return float(accuracy(learner.fit(test.support).predict(test.query_x), test.query_y).mean())


UPDATES = {"logistic": 100} | dict.fromkeys(
    ("matching", "matching full_context", "siamese", "siamese l1", "relation", "r2d2"), 150
)
"""Those that learn in fewer updates than the others."""


@pytest.mark.parametrize(
    "kind",
    [kind if kind in ("proto", "simpleshot") else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
    indirect=True,
)
def test_each_learns_what_tells_classes_apart(kind: str) -> None:
    data = hidden_signal()
    setting = Setting(shape=SHAPE, backbone=MlpBackbone(item_shape=(12,), hidden=(32, 32)), classes=80)
    learner = made(kind, setting)
    shape = EpisodeShape(way=5, shot=1, query=5)
    before = score(learner, data, shape)
    metrics = [learner.update(data, number) for number in range(UPDATES.get(kind, 300))]
    after = score(learner, data, shape)
    assert before < 0.45
    assert after > 0.7
    assert metrics[-1]["train/loss"] < 0.7 * metrics[0]["train/loss"]
    # Untrained learners are below it with half as many classes.
    assert score(learner, data, EpisodeShape(way=10, shot=3, query=5)) > 0.6


@pytest.mark.parametrize("policy", ["support", "running"])
def test_training_that_was_interrupted_goes_on_bit_for_bit(kind: str, policy: BatchNorm) -> None:
    data = shapes()
    setting = images(torch.float32, batch_norm=policy)
    whole, first = (made(kind, setting) for _ in range(2))
    for number in range(3):
        whole.update(data, number)
    first.update(data, 0)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    # What was saved does not change with the learner.
    first.update(data, 1)
    # Another seed: everything has to come from the file.
    file.seek(0)
    name = kind.split()[0]
    second = make(name, config_class(name)(**KINDS[kind]), setting, Streams(1), CPU)
    second.load_state_dict(torch.load(file, weights_only=True))
    for number in range(1, 3):
        second.update(data, number)
    assert_same(second.state_dict(), whole.state_dict())
    test = data.episodes("train", range(3), SHAPE, 1)
    torch.testing.assert_close(
        scores_of(second, test.support, test.query_x),
        scores_of(whole, test.support, test.query_x),
        rtol=0.0,
        atol=0.0,
    )


def test_a_state_of_another_network_is_refused(kind: str) -> None:
    learner, other = made(kind, images()), made(kind, images(backbone=Conv4(item_shape=IMAGE, width=5)))
    with pytest.raises(ValueError, match="use its own settings"):
        learner.load_state_dict(other.state_dict())


def test_averages_of_training_are_needed_and_used_by_the_running_policy(kind: str) -> None:
    data = shapes()
    test = data.episodes("train", range(2), SHAPE, 1)
    learner = made(kind, images(torch.float32, batch_norm="running"))
    with pytest.raises(UserError, match="no averages"):
        learner.fit(test.support)
    for number in range(2):
        learner.update(data, number)
    scores = scores_of(learner, test.support, test.query_x)
    assert (scores - scores_of(learner, test.support, test.query_x, "support")).abs().max() > 1e-4
