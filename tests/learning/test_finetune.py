from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metarl.agents.multitask import Multitask, MultitaskConfig
from metarl.envs.families.point_nav import PointNav
from metarl.envs.making import make_worlds
from metarl.learning.experience import inner_loss, prepare
from metarl.learning.finetune import GradientLearner, TaskPolicy, with_features
from metarl.learning.rollout import collect
from metarl.nets.policy import MLP, Categorical, Normal
from metarl.seeding import Streams
from metarl.types import Tasks
from tests.helpers.toys import (
    DOUBLE,
    assert_params_close,
    categorical,
    gaussian,
    init,
    near,
    normal,
    plain_adapt,
    seeded,
    task,
)

POINT = PointNav(variant="short", horizon=8)
CPU = torch.device("cpu")


def test_every_task_acts_by_its_own_parameters() -> None:
    policy, tasks, worlds = gaussian(), 2, 40_000
    params, row = near(init(policy), tasks, scale=0.5), normal(2, 1, 3)
    observations = row.expand(2, worlds, 3).flatten(0, 1)
    actions = TaskPolicy(policy, params, tasks).act(observations, seeded(0)).unflatten(0, (2, worlds))
    for index in range(tasks):
        output = policy(task(params, index), row[index])
        assert isinstance(output, Normal)
        spread = output.log_std.exp()[0]
        error = spread / worlds**0.5
        assert bool(((actions[index].mean(0) - output.mean[0]).abs() < 4.0 * error).all())
        torch.testing.assert_close(actions[index].std(0), spread, rtol=0.02, atol=0.0)


def test_discrete_actions_have_their_probabilities() -> None:
    policy, tasks, worlds = categorical(), 2, 40_000
    params, row = near(init(policy), tasks, scale=0.5), normal(2, 1, 3)
    observations = row.expand(2, worlds, 3).flatten(0, 1)
    actions = TaskPolicy(policy, params, tasks).act(observations, seeded(0)).unflatten(0, (2, worlds))
    assert ((actions == 0.0) | (actions == 1.0)).all()
    assert (actions.sum(2) == 1.0).all()
    for index in range(tasks):
        output = policy(task(params, index), row[index])
        assert isinstance(output, Categorical)
        wanted = output.logits.softmax(-1)[0]
        bound = 4.0 * (wanted * (1.0 - wanted) / worlds).sqrt()
        assert ((actions[index].mean(0) - wanted).abs() < bound).all()


def test_features_are_appended_to_every_observation() -> None:
    told = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=DOUBLE)
    observations = normal(2, 3, 5, 1).float()
    extended = with_features(observations, told)
    assert extended.dtype == torch.float32
    assert torch.equal(extended[..., :1], observations)
    assert torch.equal(extended[..., 1:], told.float()[:, None, None].expand(2, 3, 5, 2))


def learner(later: float = 0.5, chunk: int = 0) -> tuple[GradientLearner, Tasks]:
    network = replace(gaussian(), network=MLP(inputs=2, hidden=(5, 5), outputs=2))
    tasks = POINT.space.sample(5, "test", seeded(1))
    params = near(init(network), 5)
    rates = {name: 0.3 + 0.1 * normal(*value.shape[1:]) for name, value in params.items()}
    start = GradientLearner(
        network=network,
        params=params,
        rates=rates,
        later=later,
        estimator="lvc",
        discount=0.9,
        trace=1.0,
        chunk=chunk,
    )
    return start, tasks


@pytest.mark.parametrize("chunk", [0, 2])
def test_learning_is_a_plain_gradient_step_shorter_after_the_first(chunk: int) -> None:
    start, tasks = learner(chunk=chunk)
    env, generator = make_worlds(POINT, 20, dtype=DOUBLE), seeded(0)
    current = start
    for factor in (1.0, 0.5, 0.5):
        episodes = collect(env, current.policy, tasks, 4, generator)
        following = current.learn(episodes)
        batch, _ = prepare(episodes, start.network, current.params, discount=0.9, trace=1.0)
        rates = {name: factor * rate for name, rate in start.rates.items()}
        for index in range(5):
            leaves = {n: v.clone().requires_grad_() for n, v in task(current.params, index).items()}
            expected = plain_adapt(inner_loss(start.network, "lvc"), leaves, [task(batch, index)], rates)
            assert_params_close(task(following.params, index), expected)
        current = following
    assert (start.steps, current.steps) == (0, 3)


def test_learning_changes_no_earlier_learner() -> None:
    start, tasks = learner()
    kept = {name: value.clone() for name, value in start.params.items()}
    start.learn(collect(make_worlds(POINT, 20, dtype=DOUBLE), start.policy, tasks, 4, seeded(0)))
    assert_params_close(start.params, kept, atol=0.0)


def mean_return(agent: Multitask, tasks: Tasks) -> float:
    env = make_worlds(POINT, len(tasks) * 10)
    return float(collect(env, agent.start(tasks).policy, tasks, 10, seeded(7)).returns.mean())


def test_an_oracle_learns_what_no_blind_policy_can() -> None:
    config = MultitaskConfig(tasks=10, episodes=10, hidden=(32, 32), max_kl=0.05)
    tasks = POINT.space.sample(40, "test", seeded(0))
    blind = -8.0 * float(tasks["goal"].norm(dim=1).mean())
    returns = {}
    for name in ("oracle", "multitask"):
        streams = Streams(0)
        agent = Multitask(config, POINT.spec(), streams, CPU, name=name)
        env = make_worlds(POINT, 100)
        for _ in range(30):
            agent.train_iteration(env, POINT.space.sample, streams)
        returns[name] = mean_return(agent, tasks)
    assert returns["oracle"] > 0.4 * blind
    assert returns["multitask"] < 0.95 * blind


def test_a_multitask_agent_goes_round() -> None:
    config = MultitaskConfig(tasks=3, episodes=4, hidden=(8,))
    agents = [Multitask(config, POINT.spec(), Streams(seed), CPU, name="oracle") for seed in (0, 1)]
    agents[0].train_iteration(make_worlds(POINT, 12), POINT.space.sample, Streams(3))
    agents[1].load_state_dict(agents[0].state_dict())
    for agent in agents:
        agent.train_iteration(make_worlds(POINT, 12), POINT.space.sample, Streams(5))
    assert_params_close(agents[0].params, agents[1].params, atol=0.0)
    blind = Multitask(config, POINT.spec(), Streams(0), CPU, name="multitask")
    with pytest.raises(ValueError, match="use its own settings"):
        blind.load_state_dict(agents[0].state_dict())
