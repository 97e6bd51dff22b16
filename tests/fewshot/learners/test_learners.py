"""What all few-shot learners that compare features promise, and those that begin with a classifier."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support, generator_of
from metarl.fewshot.learners import LEARNERS, config_class, make
from metarl.fewshot.learners.baseline import Baseline
from metarl.fewshot.learners.simpleshot import SimpleShot, Transform
from metarl.fewshot.parts.backbones import Backbone, BatchNorm, Conv4, MlpBackbone, Norm
from metarl.fewshot.parts.classifier import Classifier
from metarl.fewshot.parts.comparing import EpisodicLearner
from metarl.fewshot.parts.learner import (
    FewShotLearner,
    Optimiser,
    OptimiserConfig,
    Setting,
    Stepwise,
    accuracy,
    task_loss,
)
from metarl.seeding import Streams
from tests.helpers.toys import DOUBLE, normal, seeded

CPU = torch.device("cpu")
IMAGE = (1, 16, 16)
CLASSES = 30
SHAPE = EpisodeShape(way=5, shot=1, query=3)

KINDS: dict[str, dict[str, Any]] = {
    "proto": {},
    "matching": {},
    "matching full_context": {"full_context": True, "steps": 2},
    "siamese": {},
    "siamese l1": {"distance": "l1"},
    "relation": {},
    "r2d2": {},
    "logistic": {},
    "baseline": {},
    "baseline++": {},
    "simpleshot": {},
}
"""Learners, with settings behind a space where a learner is here twice."""
EPISODIC = [kind for kind in KINDS if kind.split()[0] not in ("baseline", "baseline++", "simpleshot")]
CLASSIFIERS = [kind for kind in KINDS if kind not in EPISODIC]


def made(kind: str, setting: Setting, **options: Any) -> Any:
    name = kind.split()[0]
    return make(name, config_class(name)(**KINDS[kind], **options), setting, Streams(0), CPU)


def images(dtype: torch.dtype = DOUBLE, **settings: Any) -> Setting:
    """Return a setting with a small network that has norms."""
    backbone = Conv4(item_shape=IMAGE, width=4)
    return Setting(**{"shape": SHAPE, "backbone": backbone, "classes": CLASSES, "dtype": dtype, **settings})


def noise(tasks: int, size: int, seed: int = 0) -> Tensor:
    return normal(tasks, size, *IMAGE, seed=seed)


def support_of(y: list[int], way: int, tasks: int = 2, seed: int = 0) -> Support:
    """Return support sets of noise, all with the same labels."""
    return Support(x=noise(tasks, len(y), seed), y=torch.tensor(y).expand(tasks, -1), way=way)


def scores_of(learner: FewShotLearner, support: Support, x: Tensor, policy: BatchNorm | None = None) -> Tensor:
    return learner.fit(support, policy).predict(x)


def near(first: Tensor, second: Tensor, close: float = 1e-9) -> None:
    torch.testing.assert_close(first, second, rtol=0.0, atol=close)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# -- the registry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_every_entry_makes_a_learner_of_its_name_with_its_default_settings(name: str) -> None:
    learner = make(name, config_class(name)(), images(torch.float32), Streams(0), CPU)
    assert isinstance(learner, FewShotLearner)
    assert learner.name == name


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


# -- losses -----------------------------------------------------------------------------------------------------------


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


# -- training ---------------------------------------------------------------------------------------------------------


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


def test_each_learns_what_tells_classes_apart(kind: str) -> None:
    data = hidden_signal()
    setting = Setting(shape=SHAPE, backbone=MlpBackbone(item_shape=(12,), hidden=(32, 32)), classes=80)
    learner = made(kind, setting)
    shape = EpisodeShape(way=5, shot=1, query=5)
    before = score(learner, data, shape)
    # The logistic head takes its time.
    metrics = [learner.update(data, number) for number in range(100 if kind == "logistic" else 300)]
    after = score(learner, data, shape)
    assert before < 0.45
    assert after > 0.7
    assert metrics[-1]["train/loss"] < 0.7 * metrics[0]["train/loss"]
    # Untrained learners are below it with half as many classes.
    assert score(learner, data, EpisodeShape(way=10, shot=3, query=5)) > 0.6


def shapes() -> ClassData:
    """Return noisy images of classes."""
    shape, generator = (CLASSES, 6, *IMAGE), seeded(8)
    items = torch.randn(CLASSES, 1, *IMAGE, generator=generator) + 0.5 * torch.randn(shape, generator=generator)
    names = tuple(f"class {n}" for n in range(CLASSES))
    split = ClassSplit(items=items.flatten(0, 1), sizes=torch.full((CLASSES,), 6), names=names)
    return ClassData(name="shapes", splits={"train": split})


@pytest.mark.parametrize("policy", ["support", "running"])
def test_training_that_was_interrupted_goes_on_bit_for_bit(kind: str, policy: BatchNorm) -> None:
    data = shapes()
    setting = images(torch.float32, batch_norm=policy)
    whole, first = (made(kind, setting) for _ in range(2))
    for number in range(4):
        whole.update(data, number)
    for number in range(2):
        first.update(data, number)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    # What was saved does not change with the learner.
    first.update(data, 2)
    # Another seed: everything has to come from the file.
    file.seek(0)
    name = kind.split()[0]
    second = make(name, config_class(name)(**KINDS[kind]), setting, Streams(1), CPU)
    second.load_state_dict(torch.load(file, weights_only=True))
    for number in range(2, 4):
        second.update(data, number)
    assert_same(second.state_dict(), whole.state_dict())
    test = data.episodes("train", range(3), SHAPE, 1)
    torch.testing.assert_close(
        scores_of(second, test.support, test.query_x),
        scores_of(whole, test.support, test.query_x),
        rtol=0.0,
        atol=0.0,
    )


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


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


# -- episodes of training ---------------------------------------------------------------------------------------------


def test_training_has_the_ways_that_were_asked_for_as_far_as_there_are_classes() -> None:
    assert made("proto", images()).shape(0) == EpisodeShape(way=20, shot=1, query=3)
    assert made("proto", images(), train_way=0).shape(0).way == 5
    assert made("proto", images(classes=12)).shape(0).way == 12
    assert made("proto", images(classes=0)).shape(0).way == 20


def test_training_shots_are_random_where_that_is_asked_for() -> None:
    setting = images(shape=EpisodeShape(way=5, shot=4, query=3))
    shots = [made("r2d2", setting, min_shot=2).shape(number).shot for number in range(200)]
    assert {shot: shots.count(shot) > 40 for shot in shots} == {2: True, 3: True, 4: True}
    assert {made("r2d2", setting).shape(number).shot for number in range(20)} == {4}
    with pytest.raises(UserError, match="--min-shot 5 and --shot 4"):
        made("r2d2", setting, min_shot=5)


# -- Baseline and SimpleShot ------------------------------------------------------------------------------------------


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


def plain_backbone() -> Backbone:
    return MlpBackbone(item_shape=IMAGE, hidden=(6,))


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


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_outer_step_does_not_depend_on_the_layout_of_the_gradient(name: Literal["adam", "sgd"]) -> None:
    start, gradient = normal(4, 3, 5, 5), normal(4, 3, 5, 5, seed=1)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        params = {"weight": start.clone()}
        optimiser = Optimiser(OptimiserConfig(optimiser=name, learning_rate=0.1), params)
        for number in range(3):
            optimiser.step({"weight": gradient.contiguous(memory_format=layout)}, number)
        found.append(params["weight"].detach())
    assert torch.equal(*found)


def test_convolutions_in_bfloat16_are_near_those_in_float32() -> None:
    params = Conv4(item_shape=(1, 28, 28), width=8).init(torch.Generator().manual_seed(0))
    x = torch.rand(2, 10, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    exact, coarse = (
        Conv4(item_shape=(1, 28, 28), width=8, precision=precision)(params, x, Norm(support=5))
        for precision in ("float32", "bfloat16")
    )
    assert coarse.dtype == torch.float32
    error = (coarse - exact).norm() / exact.norm()
    assert 1e-4 < float(error) < 5e-2


def test_a_norm_whose_scale_is_negative_may_come_behind_the_pooling() -> None:
    backbone = Conv4(item_shape=(1, 16, 16), width=3)
    params = backbone.init(torch.Generator().manual_seed(0), torch.float64)
    for layer in range(4):
        params[f"scale{layer}"] = torch.tensor([-1.5, 0.5, 0.0], dtype=torch.float64)
        params[f"shift{layer}"] = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    x = normal(6, 1, 16, 16)
    wanted = x
    for layer in range(4):
        wanted = nn.functional.conv2d(wanted, params[f"conv{layer}"], padding=1)
        scale, shift = params[f"scale{layer}"], params[f"shift{layer}"]
        wanted = nn.functional.batch_norm(wanted, None, None, scale, shift, training=True)
        wanted = nn.functional.max_pool2d(wanted.relu(), 2)
    assert torch.allclose(backbone(params, x, Norm("transductive")), wanted.flatten(1), atol=1e-12)
