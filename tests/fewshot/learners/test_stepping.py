"""What all few-shot learners that take gradient steps promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.fewshot.episodes import EpisodeShape, Support
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.parts.backbones import Conv4
from metarl.fewshot.parts.learner import FewShotLearner, Stepwise
from metarl.fewshot.parts.norms import BatchNorm
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.fewshot.parts.scores import task_loss
from metarl.seeding import Streams
from tests.helpers.stepping_learners import (
    CPU,
    IMAGE,
    MAKERS,
    POLICIES,
    SHAPE,
    Lines,
    Noise,
    flat,
    regression,
    setting,
)


@pytest.mark.parametrize("name", MAKERS)
def test_learners_keep_to_the_interface(name: str) -> None:
    learner = MAKERS[name](setting())
    assert isinstance(learner, FewShotLearner)
    assert isinstance(learner, Stepwise)


@pytest.mark.parametrize(
    "name",
    [name if name in ("maml", "reptile") else pytest.param(name, marks=pytest.mark.slow) for name in MAKERS],
)
def test_lines_are_learned(name: str) -> None:
    kind = regression(shot=8)
    learner = MAKERS[name](kind)
    test = Lines().episodes("test", range(60), kind.shape, 1)

    def error() -> float:
        return float(task_loss(learner.fit(test.support).predict(test.query_x), test.query_y, 0).mean())

    # Slopes have variance 1: an answer that knows nothing of the task is off by 2 in the mean.
    for number in range(150):
        assert learner.update(Lines(), number)["train/loss"] >= 0.0
    assert error() < 1.0


@pytest.mark.parametrize("name", MAKERS)
def test_before_adaptation_answers_are_chance(name: str) -> None:
    learner = MAKERS[name](setting())
    episodes = Noise().episodes("test", range(60), SHAPE, 0)
    right = learner.path(episodes.support, 0)[0].predict(episodes.query_x).argmax(-1) == episodes.query_y
    # 360 answers among 3 classes: four standard errors.
    assert float(right.double().mean()) == pytest.approx(1.0 / 3.0, abs=0.1)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_tasks_do_not_influence_one_another(name: str, policy: BatchNorm) -> None:
    learner = MAKERS[name](setting(policy))
    learner.update(Noise(), 0)
    episodes = Noise().episodes("test", range(3), SHAPE, 0)
    together = learner.fit(episodes.support).predict(episodes.query_x)
    for task in range(3):
        support = Support(
            x=episodes.support.x[task : task + 1], y=episodes.support.y[task : task + 1], way=episodes.support.way
        )
        alone = learner.fit(support).predict(episodes.query_x[task : task + 1])
        torch.testing.assert_close(alone[0], together[task], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_queries_do_not_influence_one_another_unless_they_may(name: str) -> None:
    episodes = Noise().episodes("test", range(2), SHAPE, 0)
    changed = episodes.query_x.clone()
    changed[:, 0] += 3.0
    for policy in POLICIES:
        learner = MAKERS[name](setting(policy))
        learner.update(Noise(), 0)
        predictor = learner.fit(episodes.support)
        first, second = predictor.predict(episodes.query_x)[:, 1:], predictor.predict(changed)[:, 1:]
        assert torch.equal(first, second) == (policy != "transductive")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("way", [2, 3, 7])
def test_any_number_of_ways_and_shots_at_test(name: str, way: int) -> None:
    learner = MAKERS[name](setting())
    learner.update(Noise(), 0)
    episodes = Noise().episodes("test", range(2), EpisodeShape(way=way, shot=3, query=1), 0)
    assert learner.fit(episodes.support).predict(episodes.query_x).shape == (2, way, way)


@pytest.mark.parametrize("name", MAKERS)
def test_classes_in_a_fixed_image_are_told_apart_after_adaptation(name: str) -> None:
    """Support and queries are the same images: a learner that adapts knows them again."""
    kind = setting(backbone=Conv4(item_shape=IMAGE, width=8))
    learner = MAKERS[name](kind)
    if name == "meta-sgd":
        learner = Maml(MamlConfig(tasks=4, inner_rate=0.4, rates="parameter"), kind, Streams(0), CPU)
    episodes = Noise().episodes("test", range(8), SHAPE, 0)
    path = learner.path(episodes.support, 40)
    accuracies = [
        float((path[k].predict(episodes.support.x).argmax(-1) == episodes.support.y).double().mean()) for k in (0, 40)
    ]
    assert accuracies[0] < 0.6 < 0.9 < accuracies[1]


@pytest.mark.parametrize("name", [*MAKERS, "step norm"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_learner_goes_on_bit_for_bit(name: str, policy: BatchNorm) -> None:
    def fresh() -> Any:
        if name == "step norm":
            optimiser = OptimiserConfig(halve_every=2, clip=1.0)
            config = MamlConfig(tasks=2, inner_steps=2, rates="step", step_norm=True, optimiser=optimiser)
            return Maml(config, setting(policy), Streams(0), CPU)
        return MAKERS[name](setting(policy))

    straight, first, second = fresh(), fresh(), fresh()
    for number in range(3):
        straight.update(Noise(), number)
        if number < 1:
            first.update(Noise(), number)
    second.load_state_dict(first.state_dict())
    for number in range(1, 3):
        second.update(Noise(), number)
    assert torch.equal(flat(straight.params), flat(second.params))
    support = Noise().episodes("test", range(2), SHAPE, 0)
    answers = [learner.fit(support.support).predict(support.query_x) for learner in (straight, second)]
    assert torch.equal(*answers)


@pytest.mark.parametrize("name", MAKERS)
def test_foreign_states_are_refused(name: str) -> None:
    wide = MAKERS[name](setting(backbone=Conv4(item_shape=IMAGE, width=4)))
    with pytest.raises(ValueError, match="use its own settings"):
        MAKERS[name](setting()).load_state_dict(wide.state_dict())
