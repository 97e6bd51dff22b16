"""PEARL: its update in float64 beside a loop over tasks, what reaches the encoder, what is context, that it learns."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import metarl
from metarl.agents.pearl import Pearl, PearlConfig
from metarl.bench.pearl import TaskByTask
from metarl.envs import get
from metarl.envs.families.point_nav import PointNav
from metarl.envs.making import make_worlds
from metarl.errors import NotFiniteError, UserError
from metarl.evaluation.curve import adaptation_curve
from metarl.learning import rollout
from metarl.learning.replay import Steps
from metarl.learning.rollout import collect
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.types import Metrics, Tasks
from tests.helpers.run_folders import logged, saved
from tests.helpers.same import assert_same
from tests.helpers.stripes import Stripes
from tests.helpers.toys import DOUBLE, normal, seeded
from tests.helpers.trials import Ragged
from tests.learning.test_scaling import Told

POINT = PointNav(variant="short", horizon=6)
SMALL = PearlConfig(
    train_tasks=4,
    tasks=2,
    first_rounds=2,
    prior_rounds=2,
    posterior_rounds=2,
    updates=3,
    meta_batch=3,
    batch=8,
    context=5,
    latent=2,
    hidden=(8, 8),
    encoder_hidden=(8,),
    replay_steps=60,
)
SEEN = replace(Stripes().spec(), discrete=False, choices=())
CPU = torch.device("cpu")


def make(config: PearlConfig = SMALL, family: Any = POINT, *, double: bool = False, seed: int = 0) -> Pearl:
    """Return an agent none of whose parameters is special."""
    agent = Pearl(config, family.spec(), Streams(seed), CPU)
    params = {
        name: {
            key: value.detach() + 0.2 * normal(*value.shape, seed=i).to(value)
            for i, (key, value) in enumerate(part.items())
        }
        for name, part in agent.networks.params.items()
    }
    if double:
        params = {name: {key: value.double() for key, value in part.items()} for name, part in params.items()}
    agent.begin_with(params)
    return agent


def trained(
    config: PearlConfig = SMALL, family: Any = POINT, *, double: bool = False, iterations: int = 1
) -> tuple[Pearl, Metrics]:
    agent, streams = make(config, family, double=double), Streams(1)
    env = make_worlds(family, config.worlds, threads=1, dtype=DOUBLE if double else torch.float32)
    metrics: Metrics = {}
    for _ in range(iterations):
        metrics = agent.train_iteration(env, family.space.sample, streams)
    return agent, metrics


def drawn(agent: Pearl, seed: int = 3) -> tuple[Steps, Steps, Tensor, Tensor]:
    assert agent.replay is not None
    windows = agent.replay.windows(context=False), agent.replay.windows(context=True)
    return agent.draw(torch.tensor([2, 0, 3]), windows, seeded(seed))


# -- the update -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"chunk_steps": 16}, {"next_observations": True, "automatic_temperature": False}], ids=str
)
def test_updates_are_those_of_a_loop_over_tasks(settings: dict[str, Any]) -> None:
    agent, _ = trained(replace(SMALL, **settings, learning_rate=1e-2), Ragged(), double=True)
    loop = TaskByTask(agent)
    # The loop begins with optimisers that have taken no step.
    agent.begin_with(agent.networks.params)
    before = copy.deepcopy(agent.state_dict()["networks"])
    for seed in range(3):
        agent.learn(*drawn(agent, seed))
        loop.learn(*drawn(agent, seed))
    after = agent.networks.params
    expected = {**loop.params, "slow_v": loop.slow_v}
    first, second = expected.pop("q1"), expected.pop("q2")
    expected["q"] = {key: torch.stack((value, second[key])) for key, value in first.items()}
    assert set(expected) == set(after)
    for name, part in after.items():
        for key, value in part.items():
            torch.testing.assert_close(value, expected[name][key], rtol=1e-7, atol=1e-9)
        moved = any(not torch.equal(value, before[name][key]) for key, value in part.items())
        assert moved == (name != "temperature" or agent.config.automatic_temperature), name


def test_losses_of_v_and_of_the_policy_give_the_encoder_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _ = trained(double=True)
    encoder = agent.networks.leaves("encoder")
    found: list[list[Tensor | None]] = []

    def watched(which: int, losses: Iterable[Tensor]) -> None:
        (loss,) = losses
        found.append(list(torch.autograd.grad(loss, encoder, allow_unused=True, retain_graph=True)))

    monkeypatch.setattr(agent, "_descend", watched)
    agent.learn(*drawn(agent))
    of_q, of_the_rest = found
    assert all(gradient is not None and bool(gradient.any()) for gradient in of_q)
    assert of_the_rest == [None] * len(encoder)


def test_without_a_reward_of_z_the_kl_alone_draws_the_belief_to_the_prior() -> None:
    far = []
    for weight in (0.0, 30.0):
        agent, _ = trained(replace(SMALL, kl_weight=weight, learning_rate=1e-2, updates=60), double=True)
        _, context, *_ = drawn(agent)
        far.append(float(agent.networks.factors(context).kl_to_prior().detach().mean()))
    assert far[1] < 0.5 * far[0]


@pytest.mark.parametrize(("log_std", "rises"), [(-5.0, True), (-0.5, False)])
def test_the_temperature_rises_where_entropy_is_below_its_target(log_std: float, rises: bool) -> None:
    agent, _ = trained()
    with torch.no_grad():
        for value in agent.networks.leaves("policy"):
            value.zero_()
        agent.networks.params["policy"]["b2"][2:] = log_std
        agent.networks.params["temperature"]["log"].zero_()
    # With optimisers that have taken no step.
    agent.begin_with(agent.networks.params)
    entropy = float(agent.learn(*drawn(agent))[3])
    assert (entropy < -2.0) == rises
    assert (float(agent.networks.params["temperature"]["log"].detach()) > 0.0) == rises


# -- what is played ---------------------------------------------------------------------------------------------------


def test_an_iteration_plays_and_keeps_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, metrics = trained()
    assert agent.replay is not None
    # 4 tasks x 2 rounds, then 2 tasks x (2 + 2) rounds, of 6 steps.
    assert metrics["env/steps"] == metrics["replay/steps"] == 4 * 2 * 6 + 2 * 4 * 6
    assert sorted(agent.replay.held.tolist()) == [12, 12, 36, 36]
    # Context is of the prior alone, and of the last time.
    assert agent.replay.context.tolist() == [12] * 4
    told: list[Tensor] = []
    original = rollout.collect

    def watched(env: Any, policy: Any, *others: Any, **more: Any) -> Any:
        told.append(policy.z)
        return original(env, policy, *others, **more)

    monkeypatch.setattr(rollout, "collect", watched)
    streams = Streams(1)
    agent.train_iteration(make_worlds(POINT, 2, threads=1), POINT.space.sample, streams)
    assert len(told) == 4
    again = Streams(1)["rollout"]
    assert torch.equal(told[0], torch.randn(2, 2, generator=again))
    for tag in metrics:
        look_up(tag)


def test_time_limits_are_no_terminal_states_and_falls_are() -> None:
    agent, _ = trained(replace(SMALL, replay_steps=200), Ragged(), double=True)
    assert agent.replay is not None
    point, _ = trained()
    assert point.replay is not None
    terminal = [kept.rows[:, -1] for kept in (agent.replay, point.replay)]
    assert 0 < int(terminal[0].sum()) < int(agent.replay.added.sum())
    assert not bool(terminal[1].any())


def test_before_anything_was_met_all_is_shown_as_0() -> None:
    agent = make()
    observation = normal(3, 2).float()
    assert not bool(agent.networks.shown(observation).any())
    assert not bool(agent.networks.rewarded(observation[:, :1]).any())


def test_other_units_change_nothing_that_is_learned_bit_for_bit() -> None:
    expected, _ = trained(family=Told(), iterations=2)
    other, _ = trained(family=Told(position=2.0**10, reward=2.0**-20), iterations=2)
    assert_same(other.state_dict()["networks"], expected.state_dict()["networks"])


def test_a_family_of_few_tasks_plays_each_more_often() -> None:
    one = POINT.space.sample(1, "train", seeded())

    def few(count: int, split: str, generator: torch.Generator) -> Tasks:
        return one.repeat(count)

    agent, streams = make(replace(SMALL, tasks=3, train_tasks=5)), Streams(0)
    with pytest.raises(UserError, match=r"up to 72 steps of each of the 1 training tasks.*give --replay-steps 72 or"):
        agent.train_iteration(make_worlds(POINT, 3, threads=1), few, streams)
    agent = make(replace(SMALL, tasks=3, train_tasks=5, replay_steps=72))
    metrics = agent.train_iteration(make_worlds(POINT, 3, threads=1), few, streams)
    assert agent.tasks is not None
    assert len(agent.tasks) == 1
    assert metrics["env/steps"] == 3 * 6 * 6
    assert metrics["replay/steps"] == 72


# -- at test ----------------------------------------------------------------------------------------------------------


def test_its_curve_runs_over_episodes_and_the_third_has_the_belief() -> None:
    agent, _ = trained()
    tasks = POINT.space.sample(3, "test", seeded())
    env = make_worlds(POINT, 6, threads=1)
    curve = adaptation_curve(agent, env, tasks, steps=2, episodes=2, generator=seeded(1))
    assert curve.episodes == (0, 1, 2)
    assert not agent.pools
    assert agent.trial == 3


def test_at_test_the_belief_is_that_of_training() -> None:
    agent, _ = trained(replace(SMALL, next_observations=True), double=True)
    tasks = POINT.space.sample(2, "test", seeded())
    env = make_worlds(POINT, 2, threads=1, dtype=DOUBLE)
    learner = agent.start(tasks)
    played = collect(env, learner.policy, tasks, 1, seeded(1))
    mean, _ = learner.policy.look(played.final_observations[:, 0])
    after = torch.cat((played.observations[:, 0, 1:], played.final_observations), dim=1)
    reward = played.rewards[:, 0, :, None]
    met = Steps(played.observations[:, 0], played.actions[:, 0], reward, after, torch.zeros_like(reward))
    # All but the last step, after which nothing is shown.
    expected = agent.networks.factors(Steps(*(part[:, :-1] for part in met)))
    torch.testing.assert_close(mean, expected.mean)


# -- storage ----------------------------------------------------------------------------------------------------------


def test_it_resumes_bit_for_bit_with_its_replay(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__ if name != "iterations"
    }
    quiet: Any = {"threads": 1, "checkpoint_every": 1, "console": Console(quiet=True)}
    whole = metarl.train("pearl", "point-nav", horizon=6, iterations=4, out=tmp_path / "whole", **settings, **quiet)
    metarl.train("pearl", "point-nav", horizon=6, iterations=2, out=tmp_path / "parts", **settings, **quiet)
    assert saved(tmp_path / "parts", "last")["agent"]["replay"]["rows"].numel() > 0
    metarl.resume(tmp_path / "parts", iterations=4, console=Console(quiet=True))
    assert_same(saved(tmp_path / "parts", "last"), saved(tmp_path / "whole", "last"))
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    # It is what is evaluated, too.
    curve = metarl.evaluate(whole, tasks=3, episodes=1, probe=True, probe_tasks=10, threads=1)
    assert curve.arrays("pearl")["episodes"].tolist() == [0.0, 1.0, 2.0]
    assert curve.probes[0]["episodes"] == 3
    with pytest.raises(UserError, match="'pearl', whose learner has no `describe`: it cannot be exported"):
        metarl.export(whole, tmp_path / "policy")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("tasks", {}, "without what was played"),
        ("replay", {}, "without what was played"),
        ("tasks", {"goal": torch.zeros(4, 2)}, "not of finite numbers"),
        ("tasks", {"goal": torch.zeros(3, 2, dtype=DOUBLE)}, "of 3 tasks"),
        ("replay", {"rows": torch.zeros(1)}, "other entries"),
    ],
)
def test_a_stored_agent_that_does_not_fit_is_refused(part: str, value: Any, message: str) -> None:
    agent, _ = trained()
    state = {**agent.state_dict(), part: value}
    with pytest.raises(ValueError, match=message):
        make().load_state_dict(state)


def test_stored_tasks_of_another_family_are_refused() -> None:
    agent, _ = trained()
    with pytest.raises(ValueError, match="stored training tasks do not fit: Got tasks of point-nav@short with"):
        make().load_state_dict({**agent.state_dict(), "tasks": {"speed": torch.zeros(4, dtype=DOUBLE)}})


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("bandit", {}, r"pearl got bandit@\S+, whose actions are choices, and acts in numbers only: train rl2\."),
        (SEEN, {}, "pictures among its observations, which it does not encode: train rl2"),
        (
            "point-nav",
            {"replay_steps": 100},
            "Got --replay-steps 100, and an iteration plays up to 1000 of each of the 100 training tasks: give "
            "--replay-steps 1000",
        ),
        # 5 tasks of an iteration are 2 of which one is played three times, for 10 rounds of 200 steps.
        (
            "half-cheetah-dir",
            {"replay_steps": 5999},
            "plays up to 6000 of each of the 2 training tasks: give --replay-steps 6000 or more",
        ),
        (
            PointNav(variant="short", horizon=1).spec(),
            {"next_observations": True},
            "episodes end with their first step: leave it out",
        ),
    ],
    ids=["choices", "pictures", "replay", "few tasks", "one step"],
)
def test_what_it_cannot_be_trained_on_is_refused(family: Any, settings: dict[str, Any], message: str) -> None:
    spec = get(family).spec() if isinstance(family, str) else family
    with pytest.raises(UserError, match=message):
        Pearl(PearlConfig(**settings), spec, Streams(0), CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior_episodes": 0}, "--prior-episodes 0. It must be at least 1"),
        ({"prior_rounds": 0}, "--prior-rounds 0"),
        ({"updates": 0}, "--updates 0"),
        ({"latent": 0}, "--latent 0"),
        ({"discount": 1.5}, "--discount 1.5"),
        ({"target_rate": 0.0}, "--target-rate 0.0. It must be more than 0"),
        ({"replay_steps": 0}, "--replay-steps 0"),
    ],
)
def test_settings_outside_their_bounds_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PearlConfig(**settings)


def test_a_gpu_has_no_use_for_steps_at_a_time() -> None:
    assert PearlConfig().unused("pearl", POINT.spec(), CPU) == {}
    assert PearlConfig().unused("pearl", POINT.spec(), torch.device("cuda", 1)) == {"chunk_steps": "--device cpu"}


def test_a_replay_as_large_as_was_asked_for_is_enough_for_few_tasks() -> None:
    Pearl(PearlConfig(replay_steps=6000), get("half-cheetah-dir").spec(), Streams(0), CPU)


def test_tasks_that_ranks_cannot_share_out_are_refused() -> None:
    from metarl.ranks import Ranks

    with pytest.raises(UserError, match="Got 2 processes for 3 tasks"):
        Pearl(SMALL, POINT.spec(), Streams(0), CPU, Ranks(rank=0, size=2))


def test_a_training_that_ran_away_says_so() -> None:
    agent, _ = trained()
    with torch.no_grad():
        agent.networks.params["v"]["b0"].fill_(torch.nan)
    env = make_worlds(POINT, 2, threads=1)
    with pytest.raises(NotFiniteError, match="is not finite: its training has run away"):
        agent.train_iteration(env, POINT.space.sample, Streams(2))


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_to_find_the_goal_of_the_point() -> None:
    family = PointNav(variant="short", horizon=20)
    config = replace(
        SMALL,
        train_tasks=40,
        tasks=10,
        updates=300,
        meta_batch=10,
        batch=64,
        context=40,
        hidden=(64, 64),
        encoder_hidden=(64, 64),
        learning_rate=1e-3,
        replay_steps=5000,
    )
    agent, _ = trained(config, family, iterations=15)
    tasks = family.space.sample(40, "test", seeded())
    curve = adaptation_curve(agent, make_worlds(family, 40, threads=1), tasks, steps=2, episodes=1, generator=seeded(1))
    first, _, third = curve.returns.mean(1).tolist()
    assert third > first + 2.0
