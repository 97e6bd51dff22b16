"""VariBAD as an agent: who learns from what, what a belief remembers, storage, odd sizes, bad input, that it learns."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

import metarl
from metarl.agents.varibad import Varibad, VaribadConfig
from metarl.api.film import before_and_after
from metarl.api.runs import draw_tasks
from metarl.deployment.manifest import exported
from metarl.envs import get, make_worlds
from metarl.envs.families.bandit import Bandit
from metarl.envs.family import State, Terms
from metarl.errors import UserError
from metarl.evaluation.probe import memories
from metarl.learning.recall import Actor
from metarl.learning.trials import final_observations, join
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import MetaAgent, Tasks
from tests.helpers.toys import seeded
from tests.helpers.trials import CPU, Ragged, play

SMALL = VaribadConfig(
    tasks=5,
    episodes=3,
    width=4,
    hidden=(6,),
    latent=2,
    minibatches=2,
    epochs=2,
    iterations=4,
    entropy=0.1,
    belief_updates=2,
    belief_trials=3,
    buffer=8,
    decoded_moments=4,
    decoded_steps=4,
)


def make(family: Any, config: VaribadConfig = SMALL, seed: int = 0) -> Varibad:
    return Varibad(config, family.spec(), Streams(seed), CPU)


def train(agent: Varibad, family: Any, iterations: int = 1, seed: int = 0) -> dict[str, float]:
    env, streams = make_worlds(family, agent.config.tasks, threads=1), Streams(seed)
    metrics: dict[str, float] = {}
    for _ in range(iterations):
        metrics = agent.train_iteration(env, family.space.sample, streams)
    return metrics


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


# --- who learns from what ----------------------------------------------------------------------------------------


def test_varibad_policy_loss_gives_the_encoder_no_gradient() -> None:
    family = Ragged()
    agent = make(family)
    train(agent, family)
    episodes = play(make_worlds(family, 5, threads=1), agent.start(tasks_of(family, 5)).policy, tasks_of(family, 5), 3)
    core, decoders, head = (weights(part) for part in parts_of(agent))
    for leaf in agent.network.parameters():
        leaf.grad = None
    agent._update(join(episodes), seeded(1))
    assert all(leaf.grad is None for part in parts_of(agent)[:2] for leaf in part.parameters())
    assert same(weights(agent.network.core), core)
    assert not any(torch.equal(value, head[name]) for name, value in weights(agent.network.head).items())
    # Nor does the bound change the policy.
    head = weights(agent.network.head)
    for leaf in agent.network.head.parameters():
        leaf.grad = None
    agent.belief_training.learn(join(episodes), final_observations(episodes), seeded(2))
    assert all(leaf.grad is None for leaf in agent.network.head.parameters())
    assert same(weights(agent.network.head), head)
    assert not same(weights(agent.network.core), core)
    assert not same(weights(agent.network.decoders), decoders)


def parts_of(agent: Varibad) -> tuple[torch.nn.Module, ...]:
    return agent.network.core, agent.network.decoders, agent.network.head


def tasks_of(family: Any, count: int) -> Tasks:
    return family.space.sample(count, "test", seeded(7))


def test_every_number_of_the_policys_input_is_told_apart_by_ppo() -> None:
    family = Ragged()
    agent = make(family)
    train(agent, family, 2)
    first = agent.network.head.policy["w0"].grad
    assert first is not None
    assert first.shape == (2 + 2 * 2, 6)
    assert bool((first.abs().sum(1) > 0.0).all())


# --- what a belief remembers -------------------------------------------------------------------------------------


def test_varibad_first_belief_of_a_trial_does_not_depend_on_the_trial_before(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent = make(family)
    train(agent, family)
    fresh = copy.deepcopy(agent)
    env, tasks = make_worlds(family, 5, threads=1), tasks_of(family, 5)
    play(env, agent.start(tasks).policy, tasks, 3)
    observation = torch.tensor([[0.5, -1.0], [2.0, 0.1]])
    looks = [one.start(tasks).policy.look(observation)[0] for one in (agent, fresh)]
    assert torch.equal(*looks)
    assert looks[0].shape == (2, 4)
    # In training neither: each trial begins with an empty memory, and with no action, reward or end.
    begun: list[tuple[Any, Tensor]] = []
    step = agent.network.core.step

    def watched(inputs: Tensor, memory: Any, waiting: Tensor | None = None) -> Any:
        begun.append((copy.deepcopy(memory), inputs.clone()))
        return step(inputs, memory, waiting)

    monkeypatch.setattr(agent.network.core, "step", watched)
    for _ in range(2):
        begun.clear()
        train(agent, family)
        (hidden,), inputs = begun[0]
        assert not bool(hidden.any())
        assert not bool(inputs[:, 2:].any())


def test_varibad_memory_survives_an_episodes_end() -> None:
    family = Ragged()
    agent = make(family)
    train(agent, family)
    tasks = tasks_of(family, 5)
    policy = agent.start(tasks).policy
    episodes = play(make_worlds(family, 5, threads=1), policy, tasks, 3)
    trials = join(episodes)
    assert bool((trials.ended.sum(1) == 3).all())
    # Behind the trial, which its episodes' ends did not cut: what one pass over all of it gives.
    policy.begin_episode()
    found = policy.look(trials.final)[0]
    with torch.no_grad():
        whole = agent.network.remembered(agent.network.core(agent.inputs.of(trials)))
    expected = whole[torch.arange(5), trials.lengths]
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)
    # A memory that began anew with the last episode would believe something else.
    anew = agent.start(tasks).policy.look(trials.final)[0]
    assert bool(((found - anew).abs().max(1).values > 1e-3).all())


def test_a_probe_is_given_the_belief() -> None:
    family = Ragged()
    agent = make(family)
    train(agent, family)
    looks = memories(agent, make_worlds(family, 3, threads=1), tasks_of(family, 4), seeded())
    assert looks.shape == (4, 4, 2 * agent.config.latent)
    assert not torch.equal(looks[0], looks[1])


# --- what is decoded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "varies"),
    [
        ("point-nav", False),
        ("bandit", False),
        ("half-cheetah-vel", False),
        ("half-cheetah-vel+mass", True),
        ("half-cheetah-vel+noise", True),
        ("point-nav+switch=3..9", False),
        ("walker2d-rand-params", True),
        ("push-shape", True),
        ("tabular-mdp", True),
    ],
)
def test_next_states_are_decoded_where_the_family_says_that_dynamics_vary(family: str, varies: bool) -> None:
    spec = get(family).spec()
    assert spec.dynamics_vary is varies
    assert VaribadConfig().decodes(spec) == (("reward", "state") if varies else ("reward",))
    assert VaribadConfig(decode="reward").decodes(spec) == ("reward",)
    assert VaribadConfig(decode="state").decodes(spec) == ("state",)
    assert VaribadConfig(decode="both").decodes(spec) == ("reward", "state")


# --- storage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"core": "lstm", "decode": "reward"}, {"core": "transformer"}])
def test_state_goes_round_and_training_goes_on_bit_for_bit(options: dict[str, Any]) -> None:
    family, config = Ragged(), replace(SMALL, **options)
    agent = make(family, config)
    train(agent, family, 2)
    state = agent.state_dict()
    kept = copy.deepcopy(state)
    restored = make(family, config, seed=99)
    assert not same(restored.state_dict(), state)
    restored.load_state_dict(state)
    assert same(restored.state_dict(), state)
    for learner in (agent, restored):
        train(learner, family, seed=5)
        # What was stored stays as it was, whoever goes on from it.
        assert same(state, kept)
    assert same(restored.state_dict(), agent.state_dict())
    assert not same(agent.state_dict(), state)


def test_a_state_that_does_not_fit_is_refused() -> None:
    agent = make(Ragged())
    state = agent.state_dict()
    with pytest.raises(ValueError, match="stored network does not fit"):
        make(Ragged(), replace(SMALL, latent=3)).load_state_dict(state)
    with pytest.raises(ValueError, match="stored moments have 1 numbers, these 4"):
        agent.load_state_dict({**state, "beliefs": state["reward"]})


# --- odd sizes, bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bandit", {"episodes": 1, "reward_likelihood": "bernoulli"}),
        ("bandit", {"tasks": 1, "minibatches": 1, "advantages": "task", "belief_trials": 8}),
        ("bandit+switch=1..2", {"core": "lstm", "decode": "state"}),
        ("tabular-mdp", {"core": "transformer", "layers": 2, "width": 3, "max_kl": 1e-12}),
        (Ragged(), {"tasks": 1, "minibatches": 1, "buffer": 3, "finite_horizon": True, "kl_weight": 0.0}),
        (Ragged(), {"decoded_moments": 1, "decoded_steps": 1, "latent": 1, "hidden": ()}),
        (Ragged(longest=1, discrete=True), {"episodes": 1}),
        (Ragged(horizon=1), {"width": 2, "iterations": 0, "buffer": 3}),
    ],
)
def test_it_runs_whatever_the_sizes(family: Any, options: dict[str, Any]) -> None:
    family = get(family) if isinstance(family, str) else family
    config = replace(SMALL, **options)
    agent: MetaAgent = make(family, config)
    assert (agent.trial, agent.pools, config.worlds) == (config.episodes, False, config.tasks)
    assert isinstance(agent, Varibad)
    metrics = train(agent, family, 2)
    for name, value in metrics.items():
        look_up(name)
        assert math.isfinite(value), name
    assert 0.0 < metrics["time/belief"] < metrics["time/update"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "--tasks 0.* at least 1"),
        ({"latent": 0}, "--latent 0.* at least 1"),
        ({"width": 1}, "--width 1.* at least 2"),
        ({"belief_updates": 0}, "--belief-updates 0.* at least 1"),
        ({"belief_trials": 0}, "--belief-trials 0.* at least 1"),
        ({"belief_trials": 9, "buffer": 8}, "--belief-trials 9 for --buffer 8.* a buffer of as many, or fewer trials"),
        ({"decoded_moments": 0}, "--decoded-moments 0.* at least 1"),
        ({"decoded_steps": 0}, "--decoded-steps 0.* at least 1"),
        ({"belief_rate": 0.0}, "--belief-rate 0.0.* more than 0"),
        ({"kl_weight": -0.1}, "--kl-weight -0.1.* at least 0"),
        ({"minibatches": 6, "tasks": 5, "minibatches_of": "trials"}, "--minibatches 6 for --tasks 5.*as many trials"),
        ({"hidden": (4, 0)}, "hidden"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(Ragged(), VaribadConfig(**options))


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("decode", "rewards", "reward"), ("reward_likelihood", "bernouli", "bernoulli")],
)
def test_misspelt_names_are_refused(name: str, value: str, near: str) -> None:
    config = VaribadConfig()
    # Past the type check of the tests, which a user's program does not have.
    object.__setattr__(config, name, value)
    with pytest.raises(UserError, match=f"got {name}='{value}'. Did you mean '{near}'"):
        config.__post_init__()


def test_every_number_among_the_settings_is_checked() -> None:
    for setting in fields(VaribadConfig):
        if isinstance(setting.default, float):
            for value in (math.nan, math.inf):
                options: dict[str, Any] = {setting.name: value}
                with pytest.raises(UserError, match=f"--{setting.name.replace('_', '-')} {value}"):
                    VaribadConfig(**options)


def test_rewards_without_a_likelihood_are_refused_with_advice_that_works() -> None:
    family, config = Ragged(), replace(SMALL, reward_likelihood="bernoulli")
    with pytest.raises(UserError, match=r"Got a reward of .* --reward-likelihood bernoulli.*likelihood normal"):
        train(make(family, config), family)
    train(make(family, replace(config, reward_likelihood="normal")), family)


def test_an_export_is_refused_in_a_line() -> None:
    family = Ragged()
    agent = make(family)
    train(agent, family)
    with pytest.raises(UserError, match=r"^Got a run of varibad, [^\n]* Export a run of rl2, [^\n]*$"):
        exported(agent, family, {})


def test_a_run_is_evaluated_probed_and_played_from_its_folder(tmp_path: Path) -> None:
    small = {"tasks": 4, "minibatches": 1, "width": 4, "hidden": (4,), "belief_updates": 1, "buffer": 30}
    run = metarl.train("varibad", "point-nav+horizon=4", iterations=1, threads=1, out=tmp_path / "run", **small)
    loaded = metarl.load(run.folder)
    assert same(loaded.agent.state_dict(), run.agent.state_dict())
    found = metarl.evaluate(loaded, probe=True, probe_tasks=10, tasks=3, episodes=2, threads=1)
    assert found.arrays("varibad")["episodes"].tolist() == [0.0, 1.0]
    assert [probe["agent"] for probe in found.probes] == ["varibad"]
    task = draw_tasks(run.family, 1, "test", 0)
    clips = before_and_after(loaded.agent, run.family, task, steps=1, episodes=2, seed=0, size=(64, 48))
    assert [clip.caption for clip in clips] == ["episode 1 of the trial", "episode 2 of the trial"]
    with pytest.raises(UserError, match="Export a run of rl2"):
        metarl.export(loaded, tmp_path / "policy", onnx="no")
    assert not (tmp_path / "policy").exists()


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


def test_it_learns_to_adapt() -> None:
    family = Doors(rewards="bernoulli", arms=2, source="this test")
    config = VaribadConfig(
        **{"tasks": 100, "episodes": 6, "width": 16, "hidden": (16,), "latent": 2, "iterations": 15},
        **{"learning_rate": 1e-2, "belief_rate": 1e-2, "belief_updates": 10, "belief_trials": 100},
    )
    agent = make(family, config)
    train(agent, family, config.iterations)
    tasks = family.space.sample(300, "test", seeded(1))
    policy = agent.start(tasks).policy
    assert isinstance(policy, Actor)
    pulls = [float(played.returns.mean()) for played in play(make_worlds(family, 300, threads=1), policy, tasks, 6)]
    # Any door gives half a reward, whoever does not remember gets no more; the good one gives .9.
    assert pulls[0] == pytest.approx(0.5, abs=0.1)
    assert pulls[-1] > 0.7
    assert sum(pulls) > 4.0
