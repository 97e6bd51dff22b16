"""Observations as networks are shown them: by mean and deviation of what was met, whatever the unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents import config_class, make
from metarl.agents.multitask import Multitask, MultitaskConfig
from metarl.agents.rl2 import Rl2
from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import State, Terms
from metarl.envs.making import make_worlds
from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.learning.scaling import Scaler, shown
from metarl.seeding import Streams
from metarl.types import Tasks, Trajectories
from tests.helpers.same import assert_same
from tests.helpers.toys import DOUBLE, assert_params_close, normal, seeded

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Told(PointNav):
    """The point, told in other units: positions are multiplied and shifted, rewards multiplied."""

    variant: str = "short"
    horizon: int = 6
    position: float = 1.0
    shift: float = 0.0
    reward: float = 1.0

    def observe(self, state: State, tasks: Tasks) -> Tensor:
        return super().observe(state, tasks) * self.position + self.shift

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        terms = super().reward_terms(before, state, action, tasks)
        return {name: self.reward * value for name, value in terms.items()}


SMALL: dict[str, dict[str, Any]] = {
    "maml-trpo": {"tasks": 3, "episodes": 4, "hidden": (6,), "learn_rates": True},
    "multitask": {"tasks": 3, "episodes": 4, "hidden": (6,)},
    "oracle": {"tasks": 3, "episodes": 4, "hidden": (6,)},
    "rl2": {"tasks": 4, "episodes": 2, "width": 8, "minibatches": 2, "entropy": 0.01},
}


def trained(name: str, family: Told, dtype: torch.dtype = torch.float32, iterations: int = 2, **settings: Any) -> Any:
    config = config_class(name)(**{**SMALL[name], **settings})
    streams = Streams(0)
    agent = make(name, config, family.spec(), streams, CPU)
    if dtype is DOUBLE:
        for part in ("meta", "params"):
            if hasattr(agent, part):
                setattr(agent, part, {key: value.double() for key, value in getattr(agent, part).items()})
        if isinstance(agent, Rl2):
            agent.network.double()
    env = make_worlds(family, config.worlds, threads=1, dtype=dtype)
    for _ in range(iterations):
        agent.train_iteration(env, family.space.sample, streams)
    return agent


def learned(agent: Any) -> dict[str, Tensor]:
    state = agent.state_dict()
    return next(state[part] for part in ("meta", "params", "network") if part in state)


@pytest.mark.parametrize("name", SMALL)
def test_other_units_change_nothing_that_is_learned_bit_for_bit(name: str) -> None:
    expected = learned(trained(name, Told()))
    start = learned(trained(name, Told(), iterations=0))
    assert any(not torch.equal(expected[part], start[part]) for part in start)
    for family in (Told(position=2.0**10, reward=2.0**-20), Told(position=2.0**-20, reward=2.0**10)):
        assert_params_close(learned(trained(name, family)), expected, atol=0.0)


@pytest.mark.parametrize("name", SMALL)
def test_neither_does_a_constant_offset(name: str) -> None:
    # As a temperature has, in kelvin. Advantages move with rewards that are no power of two; conjugate gradients and
    # Adam make rounding errors of 1e-16 larger: without bound where the Fisher matrix of so few steps is singular.
    settings: dict[str, Any] = {} if name == "rl2" else {"damping": 1e-2}
    expected = learned(trained(name, Told(), DOUBLE, **settings))
    other = learned(trained(name, Told(position=100.0, shift=273.15, reward=1e-3), DOUBLE, **settings))
    assert_params_close(other, expected, atol={"multitask": 1e-3, "maml-trpo": 1e-3}.get(name, 1e-6))


def test_without_the_scale_the_unit_counts() -> None:
    first, second = (
        learned(trained("maml-trpo", Told(position=unit), scale_observations=False)) for unit in (1.0, 1024.0)
    )
    assert any(not torch.equal(first[part], second[part]) for part in first)


def test_an_agent_that_met_nothing_adapts_alike_in_every_unit() -> None:
    returns = []
    for family in (Told(), Told(position=2.0**10, reward=2.0**10)):
        agent = trained("multitask", family, iterations=0, inner_rate=0.5)
        tasks = family.space.sample(3, "test", seeded(1))
        env, generator, learner = make_worlds(family, 12, threads=1), seeded(2), agent.start(tasks)
        assert not learner.scale.known
        for _ in range(3):
            episodes = collect(env, learner.policy, tasks, 4, generator)
            learner = learner.learn(episodes)
            returns.append(episodes.returns / family.reward)
        # Every task has the scale of its own episodes.
        assert learner.scale.mean.shape == (3, 2)
    for first, second in zip(returns[:3], returns[3:], strict=True):
        assert torch.equal(first, second)


def episodes_of(seed: int) -> Trajectories:
    """Return 2 tasks' 3 episodes of up to 4 steps, one of them shorter."""
    mask = torch.ones(2, 3, 4, dtype=DOUBLE)
    mask[0, 1, 2:] = 0.0
    tasks = Told().space.sample(2, "train", seeded(0))
    return Trajectories(
        observations=(5.0 + 2.0 * normal(2, 3, 4, 2, seed=seed)) * mask[..., None],
        actions=torch.zeros(2, 3, 4, 2, dtype=DOUBLE),
        rewards=torch.zeros(2, 3, 4, dtype=DOUBLE),
        mask=mask,
        terminated=torch.zeros(2, 3, dtype=torch.bool),
        final_observations=normal(2, 3, 2, seed=seed),
        tasks=tasks,
    )


def test_the_scale_is_that_of_all_real_steps_and_stands_still() -> None:
    scaler, first, second = Scaler(Told().spec()), episodes_of(1), episodes_of(2)
    blind = scaler.scale
    assert blind is not None
    assert not blind.known
    assert not blind(first.observations).any()
    scaler.update([first, second])
    scale = scaler.scale
    assert scale is not None
    rows = torch.cat([episodes.observations[episodes.mask > 0] for episodes in (first, second)])
    wanted = (first.observations - rows.mean(0)) / (3.0 * rows.std(0, correction=0)) * first.mask[..., None]
    before = shown(scale, first).observations
    torch.testing.assert_close(before, wanted)
    assert float(shown(scale, replace(first, observations=1e6 * first.observations)).observations.max()) == 5.0
    scaler.update([first])
    assert torch.equal(shown(scale, first).observations, before)
    assert not torch.equal(shown(scaler.scale, first).observations, before)


def test_the_scale_is_stored_and_asked_for() -> None:
    agent = trained("multitask", Told())
    restored = Multitask(agent.config, Told().spec(), Streams(9), CPU, name="multitask")
    restored.load_state_dict(agent.state_dict())
    assert_same(restored.state_dict(), agent.state_dict())
    assert agent.state_dict()["observation"]["count"].tolist() == [3 * 12 * 6.0] * 2
    bare = trained("multitask", Told(), scale_observations=False)
    assert "observation" not in bare.state_dict()
    with pytest.raises(ValueError, match="no scale of observations in it: use scale_observations=False"):
        restored.load_state_dict(bare.state_dict())


def test_the_warm_up_is_played_once_and_counted() -> None:
    config = MultitaskConfig(**SMALL["multitask"])
    agent, streams = Multitask(config, Told().spec(), Streams(0), CPU, name="multitask"), Streams(0)
    env = make_worlds(Told(), config.worlds, threads=1)
    steps = [agent.train_iteration(env, Told().space.sample, streams)["env/steps"] for _ in range(2)]
    assert steps == [2 * 12 * 6, 12 * 6]


def test_observations_too_large_for_a_baseline_are_refused_and_rl2_takes_them() -> None:
    spec = replace(Told().spec(), observation_size=84 * 84)
    for name in ("maml-trpo", "multitask", "oracle"):
        with pytest.raises(UserError, match=rf"{name} got observations of 7056 numbers.* or train rl2"):
            make(name, config_class(name)(**SMALL[name]), spec, Streams(0), CPU)
        make(name, config_class(name)(**SMALL[name]), replace(spec, observation_size=21 * 21), Streams(0), CPU)
    make("rl2", config_class("rl2")(**SMALL["rl2"]), spec, Streams(0), CPU)
