"""RL2 as an agent: its schedules, tasks that switch, storage, odd sizes, bad input, and that it learns."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from metarl.agents.rl2 import Rl2, Rl2Config, Rl2Core
from metarl.envs import get, make_worlds
from metarl.envs.families.bandit import Bandit
from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import State, Terms
from metarl.envs.modifiers.apply import with_switch
from metarl.errors import NotFiniteError, UserError
from metarl.learning.recall import Actor
from metarl.learning.rollout import collect
from metarl.nets.moments import Moments
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import MetaAgent, Tasks
from tests.helpers.toys import seeded
from tests.helpers.trials import CPU, SMALL, Ragged, collected, make, play

CORES: tuple[Rl2Core, ...] = get_args(Rl2Core)


def test_rates_and_entropy_fall_in_a_straight_line() -> None:
    config = replace(
        SMALL, iterations=4, learning_rate=0.01, final_learning_rate=0.002, entropy=0.1, final_entropy=0.3, epochs=1
    )
    family = Ragged()
    agent, env, streams = make(config, family.spec()), make_worlds(family, 5, threads=1), Streams(0)
    rates, weights = [], []
    for _ in range(6):
        metrics = agent.train_iteration(env, family.space.sample, streams)
        rates.append(metrics["update/learning_rate"])
        weights.append(metrics["update/entropy_weight"])
        assert [group["lr"] for group in agent.optimiser.param_groups] == [rates[-1]]
    # A run that is made longer goes on with the last ones.
    assert rates == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002, 0.002])
    assert weights == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3, 0.3])


# --- tasks that switch -------------------------------------------------------------------------------------------


def test_the_task_switches_at_its_step_of_the_whole_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PointNav(variant="short", horizon=4)
    family = with_switch(plain, 1, 10)
    config = replace(SMALL, tasks=40)
    agent, env, streams = make(config, family.spec()), make_worlds(family, 40, threads=1), Streams(3)
    episodes = collected(agent, monkeypatch)
    for _ in range(2):
        episodes.clear()
        agent.train_iteration(env, family.space.sample, streams)
        tasks = episodes[0].tasks
        assert all(episode.tasks is tasks for episode in episodes)
        done = torch.zeros(40)
        after = 0
        for episode in episodes:
            mask = episode.mask.squeeze(1)
            final = episode.final_observations
            for t in range(mask.shape[1]):
                real = mask[:, t] > 0
                last = (mask.sum(1) == t + 1)[:, None]
                position = torch.where(last, final[:, 0], episode.observations[:, 0, min(t + 1, mask.shape[1] - 1)])
                later = done >= tasks["switch_step"]
                goal = torch.where(later[:, None], tasks["later_goal"], tasks["goal"])
                expected = -(position - goal).norm(dim=1)
                torch.testing.assert_close(episode.rewards[real, 0, t].double(), expected[real], rtol=0.0, atol=1e-5)
                done += mask[:, t]
                after += int((later & real).sum())
        assert 0 < after < int(done.sum())
        # Some switch in each of the three episodes.
        assert {int(step) // 4 for step in tasks["switch_step"]} == {0, 1, 2}


# --- storage -----------------------------------------------------------------------------------------------------


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


def trained(config: Rl2Config, iterations: int, seed: int = 0) -> Rl2:
    family = Ragged()
    agent, env, streams = (
        Rl2(config, family.spec(), Streams(seed), CPU),
        make_worlds(family, 5, threads=1),
        Streams(seed),
    )
    for _ in range(iterations):
        agent.train_iteration(env, family.space.sample, streams)
    return agent


@pytest.mark.parametrize("core", CORES)
def test_state_goes_round_and_training_goes_on_bit_for_bit(core: Rl2Core) -> None:
    config = replace(SMALL, core=core)
    agent = trained(config, 2)
    state = agent.state_dict()
    kept = copy.deepcopy(state)
    restored = Rl2(config, Ragged().spec(), Streams(99), CPU)
    assert not same(restored.state_dict(), state)
    restored.load_state_dict(state)
    assert same(restored.state_dict(), state)
    for learner in (agent, restored):
        learner.train_iteration(make_worlds(Ragged(), 5, threads=1), Ragged().space.sample, Streams(5))
        # What was stored stays as it was, whoever goes on from it.
        assert same(state, kept)
    assert same(restored.state_dict(), agent.state_dict())
    assert not same(agent.state_dict(), state)


def test_moments_are_part_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent, env = make(SMALL, family.spec()), make_worlds(family, 5, threads=1)
    episodes = collected(agent, monkeypatch)
    agent.train_iteration(env, family.space.sample, Streams(0))
    real = [episode.mask > 0 for episode in episodes]
    rewards = torch.cat([episode.rewards[rows] for episode, rows in zip(episodes, real, strict=True)]).double()
    seen = torch.cat([episode.observations[rows] for episode, rows in zip(episodes, real, strict=True)]).double()
    state = agent.state_dict()
    assert state["iteration"] == 1
    assert state["reward"]["count"].tolist() == [len(rewards)]
    assert state["observation"]["count"].tolist() == [len(rewards)] * 2
    lengths = torch.stack([episode.mask.sum((1, 2)) for episode in episodes]).sum(0)
    assert state["returns"]["count"].tolist() == [int((lengths > t).sum()) for t in range(15)]
    torch.testing.assert_close(state["reward"]["square"], rewards.square().mean()[None])
    torch.testing.assert_close(state["observation"]["mean"], seen.mean(0))
    for name in ("observation", "reward", "returns"):
        restored = make(SMALL, family.spec())
        restored.load_state_dict(copy.deepcopy(state))
        held: Moments = restored.returns if name == "returns" else getattr(restored.inputs, name)
        assert same(held.state_dict(), state[name])


def test_a_state_that_does_not_fit_is_refused() -> None:
    agent = Rl2(SMALL, Ragged().spec(), Streams(0), CPU)
    state = agent.state_dict()
    with pytest.raises(ValueError, match="stored network does not fit"):
        Rl2(replace(SMALL, width=8), Ragged().spec(), Streams(0), CPU).load_state_dict(state)
    with pytest.raises(ValueError, match="stored moments have 1 numbers, these 2"):
        agent.load_state_dict({**state, "observation": state["reward"]})


def test_the_seed_decides_everything() -> None:
    first, second, other = (trained(SMALL, 2, seed) for seed in (1, 1, 2))
    assert same(first.state_dict(), second.state_dict())
    weights = [agent.network.core.get_parameter("cells.weight_hh_l0") for agent in (first, other)]
    assert not torch.equal(*weights)


# --- odd sizes, bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bandit", {"episodes": 1}),
        ("bandit", {"episodes": 1, "tasks": 1, "minibatches": 1}),
        ("bandit", {"tasks": 1, "minibatches": 1, "advantages": "task"}),
        ("bandit", {"minibatches": 5}),
        ("bandit+switch=1..2", {"core": "lstm"}),
        ("tabular-mdp", {"core": "transformer", "layers": 2, "width": 3}),
        ("tabular-mdp", {"finite_horizon": True, "max_kl": 1e-12}),
        (Ragged(), {"tasks": 1, "minibatches": 1}),
        (Ragged(), {"core": "transformer", "width": 2}),
        (Ragged(), {"width": 2, "iterations": 0}),
        (Ragged(longest=1), {"core": "transformer"}),
        (Ragged(longest=1, discrete=True), {"episodes": 1}),
        (Ragged(horizon=1), {"core": "lstm", "width": 2}),
        ("bandit", {"head": (3, 2), "core": "transformer"}),
        (Ragged(), {"head": (1,), "head_observations": True, "tasks": 1, "minibatches": 1}),
        ("tabular-mdp", {"head_observations": True, "minibatches": 5}),
        ("bandit+switch=1..2", {"core": "hyper", "width": 2}),
        (Ragged(longest=1), {"core": "hyper", "head": (3, 2)}),
    ],
)
def test_it_runs_whatever_the_sizes(family: Any, options: dict[str, Any]) -> None:
    family = get(family) if isinstance(family, str) else family
    config = replace(SMALL, **options)
    agent: MetaAgent = Rl2(config, family.spec(), Streams(0), CPU)
    assert (agent.trial, agent.pools, config.worlds) == (config.episodes, False, config.tasks)
    env, streams = make_worlds(family, config.worlds, threads=1), Streams(0)
    for _ in range(2):
        metrics = agent.train_iteration(env, family.space.sample, streams)
        for name, value in metrics.items():
            look_up(name)
            assert math.isfinite(value), name
        assert 0.0 <= metrics["time/policy"] <= metrics["time/collect"]


def test_metrics_are_those_of_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent = make(SMALL, family.spec())
    episodes = collected(agent, monkeypatch)
    metrics = agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    returns = [float(episode.rewards.sum()) / 5 for episode in episodes]
    assert metrics["return/pre"] == pytest.approx(returns[0])
    assert metrics["return/post"] == pytest.approx(returns[2])
    assert metrics["return/gain"] == pytest.approx(returns[2] - returns[0])
    assert metrics["return/trial"] == pytest.approx(sum(returns))
    assert metrics["env/steps"] == sum(episode.steps for episode in episodes)
    assert metrics["episode/length"] == pytest.approx(episodes[2].steps / 5)
    assert metrics["episode/terminated"] == pytest.approx(float(episodes[2].terminated.double().mean()))
    assert metrics["update/steps"] == 4.0


def test_a_transformer_remembers_its_trials_to_the_last_step_and_no_longer() -> None:
    family = PointNav(variant="short", horizon=3)
    agent = make(replace(SMALL, core="transformer", tasks=2, episodes=2), family.spec())
    env, tasks = make_worlds(family, 2, threads=1), family.space.sample(2, "test", seeded(0))
    agent.train_iteration(env, family.space.sample, Streams(0))
    learner = agent.start(tasks)
    assert isinstance(learner.policy, Actor)
    assert sum(episode.steps for episode in play(env, learner.policy, tasks, 2)) == 12
    # Behind its 2 episodes of 3 steps there is room for one moment more.
    with pytest.raises(UserError, match=r"remembers 7 steps.*evaluate fewer or shorter episodes"):
        collect(env, learner.policy, tasks, 1, seeded(1), new_trial=False)


@dataclass(frozen=True, kw_only=True)
class Broken(Bandit):
    """The reward of the first world is not a number."""

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        reward = super().reward_terms(before, state, action, tasks)["pull"].clone()
        reward[0] = torch.nan
        return {"pull": reward}


def test_rewards_that_are_not_numbers_end_the_training_and_spoil_nothing() -> None:
    family = Broken(rewards="gaussian", arms=2, source="this test")
    agent = Rl2(SMALL, family.spec(), Streams(0), CPU)
    before = copy.deepcopy(agent.network.state_dict())
    with pytest.raises(NotFiniteError, match=r"gave the reward nan \(pull\) after 1 steps of an episode in world 0"):
        agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    assert same(dict(agent.network.state_dict()), dict(before))


def test_worlds_that_do_not_fit_are_refused() -> None:
    agent = Rl2(SMALL, Ragged().spec(), Streams(0), CPU)
    with pytest.raises(UserError, match="5 tasks for 6 worlds"):
        agent.train_iteration(make_worlds(Ragged(), 6, threads=1), Ragged().space.sample, Streams(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "--iterations -1.* at least 0"),
        ({"tasks": 0}, "--tasks 0.* at least 1"),
        ({"episodes": 0}, "--episodes 0.* at least 1"),
        ({"width": 1}, "--width 1.* at least 2"),
        ({"layers": 0}, "--layers 0.* at least 1"),
        ({"discount": 1.1}, "--discount 1.1.* at most 1"),
        ({"discount": -0.1}, "--discount -0.1.* at least 0"),
        ({"trace": 1.1}, "--trace 1.1.* at most 1"),
        ({"trace": float("nan")}, "--trace nan"),
        ({"clip": 0.0}, "--clip 0.0.* more than 0"),
        ({"epochs": 0}, "--epochs 0.* at least 1"),
        ({"minibatches": 0}, "--minibatches 0.* at least 1"),
        ({"minibatches": 6, "tasks": 5}, "--minibatches 6 for --tasks 5.*as many trials"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0.* more than 0"),
        ({"final_learning_rate": -1.0}, "--final-learning-rate -1.0.* at least 0"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1.* at least 0"),
        ({"entropy": -0.1}, "--entropy -0.1.* at least 0"),
        ({"final_entropy": float("inf")}, "--final-entropy inf.* finite"),
        ({"value_weight": -0.5}, "--value-weight -0.5.* at least 0"),
        ({"max_gradient_norm": 0.0}, "--max-gradient-norm 0.0.* more than 0"),
        ({"max_kl": 0.0}, "--max-kl 0.0.* more than 0"),
        ({"initial_std": 0.0}, "--initial-std 0.0.* more than 0"),
        ({"head": (4, 0)}, "--head 4 0. Give each hidden layer at least 1 unit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rl2Config(**options)


@pytest.mark.parametrize(("name", "value", "near"), [("core", "gruu", "gru"), ("advantages", "tasks", "task")])
def test_misspelt_names_are_refused(name: str, value: str, near: str) -> None:
    config = Rl2Config()
    # Past the type check of the tests, which a user's program does not have.
    object.__setattr__(config, name, value)
    with pytest.raises(UserError, match=f"got {name}='{value}'. Did you mean '{near}'"):
        config.__post_init__()


def test_every_number_among_the_settings_is_checked() -> None:
    for setting in fields(Rl2Config):
        if isinstance(setting.default, float):
            for value in (math.nan, math.inf):
                options: dict[str, Any] = {setting.name: value}
                with pytest.raises(UserError, match=f"--{setting.name.replace('_', '-')} {value}"):
                    Rl2Config(**options)


# --- learning ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Doors(Bandit):
    """Two doors: behind one there is a reward nine times of ten, behind the other once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        door = Parameter(name="good", unit="", description="the good door", scale="choice", choices=(0.0, 1.0))
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (door,)))

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        mean = 0.1 + 0.8 * (one_hot(tasks["good"].long(), 2) * action).sum(1)
        return {"pull": (state["chance"][:, 0] < mean).double()}


@pytest.mark.parametrize(
    "core", [core if core in ("gru", "hyper") else pytest.param(core, marks=pytest.mark.slow) for core in CORES]
)
def test_it_learns_to_adapt(core: Rl2Core) -> None:
    family = Doors(rewards="bernoulli", arms=2, source="this test")
    config = Rl2Config(tasks=100, episodes=6, core=core, width=16, iterations=12, epochs=4, learning_rate=1e-2)
    agent, streams = Rl2(config, family.spec(), Streams(0), CPU), Streams(0)
    worlds = make_worlds(family, config.tasks, threads=1)
    for _ in range(config.iterations):
        agent.train_iteration(worlds, family.space.sample, streams)
    tasks = family.space.sample(300, "test", seeded(1))
    learner = agent.start(tasks)
    assert isinstance(learner.policy, Actor)
    episodes = play(make_worlds(family, 300, threads=1), learner.policy, tasks, config.episodes)
    pulls = [float(episode.returns.mean()) for episode in episodes]
    # Any door gives half a reward, whoever does not remember gets no more; the good one gives .9.
    assert pulls[0] == pytest.approx(0.5, abs=0.1)
    assert pulls[-1] > 0.7
    assert sum(pulls) > 4.2
