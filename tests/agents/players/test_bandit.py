"""The rules that pull arms, and the beliefs that they stand on."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from metarl.agents.players.bandit import (
    EPSILON,
    UCB_SCALE,
    ArmLearner,
    Arms,
    BanditModel,
    epsilon_greedy,
    gittins,
    thompson,
    ucb1,
    ucb1_auer,
)
from metarl.agents.players.roster import make_player
from metarl.cli.play import model_of
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.learning.rollout import collect
from tests.helpers.players import episodes, two_tasks
from tests.helpers.toys import DOUBLE
from tests.helpers.toys import seeded as generator

BERNOULLI, GAUSSIAN = BanditModel(arms=2, rewards="bernoulli"), BanditModel(arms=2, rewards="gaussian")


def arms(total: list[float], pulls: list[float], *, gaussian: bool = False) -> Arms:
    """Return one task's arms, as a score sees them."""
    seen = [torch.tensor([[row]], dtype=DOUBLE) for row in (total, pulls)]
    return Arms(GAUSSIAN if gaussian else BERNOULLI, *seen)


def test_gittins_knows_when_its_trial_is_over() -> None:
    score = gittins(3)
    assert score(arms([1.0, 0.0], [1.0, 1.0]), 1, generator()).shape == (1, 1, 2)
    with pytest.raises(UserError, match="got pull 4 of a trial of 3"):
        score(arms([1.0, 0.0], [2.0, 1.0]), 1, generator())


def test_beliefs_about_normal_arms_of_uniform_mean_by_hand() -> None:
    model = BanditModel(arms=2, rewards="gaussian", means="uniform", noise=0.3)
    seen = Arms(model, *(torch.tensor([[row]], dtype=DOUBLE) for row in ([1.3, 0.0], [2.0, 0.0])))
    # The prior N(1/2, 1/12) counts as 12 x 0.09 pulls.
    assert seen.weight[0, 0].tolist() == pytest.approx([3.08, 1.08])
    assert seen.mean[0, 0].tolist() == pytest.approx([1.84 / 3.08, 0.5])
    drawn = seen.sample(40_000, generator())[0]
    assert drawn.mean(0).tolist() == pytest.approx([1.84 / 3.08, 0.5], abs=5e-3)
    assert drawn.std(0).tolist() == pytest.approx([0.3 / math.sqrt(3.08), math.sqrt(1 / 12)], rel=0.02)
    bonus = 0.3 * UCB_SCALE["gaussian"] * math.sqrt(2.0 * math.log(2.0))
    expected = [1.84 / 3.08 + bonus / math.sqrt(3.08), 0.5 + bonus / math.sqrt(1.08)]
    assert ucb1(seen, 1, generator())[0, 0].tolist() == pytest.approx(expected)


def test_ucb1_by_hand() -> None:
    seen = arms([2.0, 0.0, 0.0], [3.0, 1.0, 0.0])
    bonus = UCB_SCALE["bernoulli"] * math.sqrt(2.0 * math.log(4.0))
    expected = [3 / 5 + bonus / math.sqrt(5), 1 / 3 + bonus / math.sqrt(3), 1 / 2 + bonus / math.sqrt(2)]
    assert ucb1(seen, 1, generator())[0, 0].tolist() == pytest.approx(expected)
    normal = arms([2.0, -1.0], [3.0, 1.0], gaussian=True)
    bonus = UCB_SCALE["gaussian"] * math.sqrt(2.0 * math.log(4.0))
    assert ucb1(normal, 1, generator())[0, 0].tolist() == pytest.approx([0.5 + bonus / 2, -0.5 + bonus / math.sqrt(2)])
    auer = ucb1_auer(seen, 1, generator())[0, 0].tolist()
    assert auer == [
        pytest.approx(2 / 3 + math.sqrt(2 * math.log(4) / 3)),
        pytest.approx(math.sqrt(2 * math.log(4))),
        math.inf,
    ]


@pytest.mark.parametrize("family", ["bandit@bernoulli-10", "bandit@gaussian-10"])
def test_ucb1_of_auer_pulls_every_arm_once_first(family: str) -> None:
    probe = get(family)
    tasks = probe.space.sample(50, "test", generator())
    worlds, learner = make_worlds(probe, 50), make_player("ucb1-auer", model_of(probe), 20).start(tasks)
    for _ in range(10):
        learner = learner.learn(collect(worlds, learner.policy, tasks, 1, generator()))
    assert isinstance(learner, ArmLearner)
    assert (learner.arms.pulls == 1.0).all()


@pytest.mark.parametrize("gaussian", [False, True])
def test_thompson_draws_from_the_posterior(gaussian: bool) -> None:
    seen = arms([7.0, 0.0, 1.5 if gaussian else 1.0], [9.0, 0.0, 4.0], gaussian=gaussian)
    drawn = thompson(seen, 20_000, generator())
    assert drawn.shape == (1, 20_000, 3)
    for arm, (total, pulls) in enumerate(zip(seen.total[0, 0].tolist(), seen.pulls[0, 0].tolist(), strict=True)):
        posterior = (
            stats.norm(total / (pulls + 1.0), (pulls + 1.0) ** -0.5)
            if gaussian
            else stats.beta(1.0 + total, 1.0 + pulls - total)
        )
        assert stats.kstest(drawn[0, :, arm].numpy(), posterior.cdf).pvalue > 1e-3


def test_epsilon_greedy_explores_now_and_then() -> None:
    scores = epsilon_greedy(arms([0.0, 5.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0]), 20_000, generator())
    others = (scores.argmax(-1) != 1).double().mean().item()
    assert others == pytest.approx(0.75 * EPSILON, abs=4.0 * math.sqrt(0.075 / 20_000))


def test_beliefs_grow_with_experience() -> None:
    actions = torch.nn.functional.one_hot(torch.tensor([[0, 1, 1], [1, 1, 1]]), 2).float()[:, :, None]
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])[:, :, None]
    learner = make_player("thompson", BERNOULLI, 10).start(two_tasks())
    assert isinstance(learner, ArmLearner)
    later = learner.learn(episodes(actions, rewards)).learn(episodes(actions, rewards))
    assert isinstance(later, ArmLearner)
    assert later.arms.pulls.tolist() == [[2.0, 4.0], [0.0, 6.0]]
    assert later.arms.total.tolist() == [[2.0, 2.0], [0.0, 2.0]]
    # The learner itself is as it was.
    assert not learner.arms.pulls.any()
