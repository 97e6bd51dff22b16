"""Plans and beliefs about MDPs, against exact values."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from metarl.agents.players.mdp import MdpBelief, MdpLearner, MdpModel, Mdps
from metarl.agents.players.roster import make_player
from metarl.cli.play import model_of
from metarl.envs import get
from tests.helpers.players import episodes
from tests.helpers.toys import DOUBLE
from tests.helpers.toys import seeded as generator

TINY = MdpModel(states=2, actions=2, horizon=3, reward_mean=1.0)


def random_mdps(count: int, model: MdpModel = TINY) -> Mdps:
    size = (count, model.states, model.actions)
    rows = torch.rand(*size, model.states, generator=generator(), dtype=DOUBLE)
    return Mdps(rows / rows.sum(3, keepdim=True), torch.randn(size, generator=generator(1), dtype=DOUBLE))


def test_plans_are_the_best_of_all_policies() -> None:
    mdps = random_mdps(5)
    best, value = mdps.plan(3)
    # Every choice of an action in 3 steps x 2 states, evaluated from each of the two states.
    choices = [torch.tensor(choice).reshape(3, 2) for choice in itertools.product((0, 1), repeat=6)]
    for mdp in range(5):
        found = torch.stack([evaluate(mdps, mdp, choice) for choice in choices])
        torch.testing.assert_close(value[mdp], found.max(0).values)
        torch.testing.assert_close(value[mdp], evaluate(mdps, mdp, best[:, mdp]))


def evaluate(mdps: Mdps, mdp: int, choice: Tensor) -> Tensor:
    """Return the exact value of a deterministic policy [T, S], forward in time from either state."""
    values = []
    for start in (0, 1):
        chance, value = torch.zeros(2, dtype=DOUBLE), 0.0
        chance[start] = 1.0
        for actions in choice:
            value += sum(chance[s] * mdps.reward[mdp, s, actions[s]] for s in (0, 1))
            chance = torch.stack([chance[s] * mdps.transition[mdp, s, actions[s]] for s in (0, 1)]).sum(0)
        values.append(torch.as_tensor(value))
    return torch.stack(values)


def test_transitions_and_rewards_are_counted() -> None:
    # Task 0, one episode: 0 -a1-> 1 -a0-> 1 -a0-> 0.
    observations = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]], [[[1.0, 0.0]] * 3]])
    final = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    actions = torch.tensor([[[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]], [[[1.0, 0.0]] * 3]])
    rewards = torch.tensor([[[2.0, 3.0, 5.0]], [[1.0, 1.0, 1.0]]])
    belief = MdpBelief(torch.zeros(2, 2, 2, 2, dtype=DOUBLE), torch.zeros(2, 2, 2, dtype=DOUBLE), 0.5)
    seen = belief.learn(episodes(actions, rewards, observations, final))
    assert seen.counts[0].tolist() == [[[0, 0], [0, 1]], [[1, 1], [0, 0]]]
    assert seen.counts[1].tolist() == [[[2, 1], [0, 0]], [[0, 0], [0, 0]]]
    assert seen.total[0].tolist() == [[0, 2], [8, 0]]
    mean = seen.mean
    assert mean.transition[1, 0, 0].tolist() == pytest.approx([3 / 5, 2 / 5])
    # Prior mean 0.5 counts as one reward.
    assert mean.reward[0].tolist() == [[0.5, 1.25], [pytest.approx(8.5 / 3), 0.5]]
    assert not belief.counts.any()


def test_psrl_samples_the_posterior() -> None:
    counts = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [6.0, 2.0]]]], dtype=DOUBLE)
    belief = MdpBelief(counts, 2.0 * counts.sum(3), 0.0)
    drawn = belief.sample(20_000, generator())
    for s, a in itertools.product((0, 1), (0, 1)):
        alpha, beta = (counts[0, s, a] + 1.0).tolist()
        visits = counts[0, s, a].sum().item()
        first = stats.kstest(drawn.transition[:, s, a, 0].numpy(), stats.beta(alpha, beta).cdf)
        normal = stats.norm(2.0 * visits / (visits + 1.0), (visits + 1.0) ** -0.5)
        assert min(first.pvalue, stats.kstest(drawn.reward[:, s, a].numpy(), normal.cdf).pvalue) > 1e-3
    torch.testing.assert_close(drawn.transition.sum(3), torch.ones(20_000, 2, 2, dtype=DOUBLE))


def test_a_plan_is_made_once_an_episode() -> None:
    probe = get("tabular-mdp")
    tasks = probe.space.sample(4, "test", generator())
    learner = make_player("psrl", model_of(probe), 10).start(tasks)
    assert isinstance(learner, MdpLearner)
    policy, random, state = learner.policy, generator(), torch.eye(10)[[2, 2, 7, 7]]
    start = random.get_state()
    actions = [policy.act(state, random) for _ in range(10)]
    spent = random.get_state()
    assert not torch.equal(spent, start)
    again = [policy.act(state, random) for _ in range(2)]
    assert not torch.equal(random.get_state(), spent)
    assert all((action.sum(1) == 1.0).all() for action in actions + again)
    # After one act of the second episode, the second one draws nothing.
    before = random.get_state()
    policy.act(state, random)
    assert torch.equal(random.get_state(), before)
