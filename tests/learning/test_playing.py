"""Collections whose steps are launched as one are the same collections."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents import config_class, make
from metarl.agents.maml_trpo import MamlTrpo
from metarl.agents.rl2 import Rl2
from metarl.devices import repeatable
from metarl.envs import get, make_worlds
from metarl.envs.engines.in_torch import TorchPhysics
from metarl.envs.family import Family, MujocoFamily, TorchFamily
from metarl.envs.horizon import with_horizon
from metarl.envs.worlds import Worlds
from metarl.learning.finetune import GradientLearner, TaskPolicy
from metarl.learning.playing import LaunchedPlaying, Playing, launched_playing
from metarl.learning.recall import Actor
from metarl.learning.rollout import collect
from metarl.learning.scaling import Scale
from metarl.seeding import Streams
from metarl.types import MetaAgent, SteadyPolicy, Trajectories
from tests.helpers.lockstep import worlds_together
from tests.helpers.recorder import CPU, Recorder
from tests.helpers.same import assert_same
from tests.helpers.toys import seeded
from tests.helpers.trials import Ragged

POINT = with_horizon(get("point-nav"), 9)
SMALL: dict[str, dict[str, Any]] = {
    "maml-trpo": {"tasks": 3, "episodes": 2},
    "oracle": {"tasks": 3, "episodes": 2},
    "rl2": {"tasks": 6, "episodes": 3, "minibatches": 2, "width": 8},
}


def agent_for(family: Family, name: str, device: torch.device = CPU, **options: Any) -> MetaAgent:
    config = config_class(name)(**SMALL[name], **options)
    return make(name, config, family.spec(), Streams(0), device)


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let agents collect on the CPU as they do on a GPU: without looking at each step if all episodes have ended."""

    def play(*arguments: Any, **options: Any) -> Trajectories:
        return collect(*arguments, **options, watch=False)

    for name, module in list(sys.modules.items()):
        if name.startswith("metarl.") and getattr(module, "collect", None) is collect:
            monkeypatch.setattr(module, "collect", play)


def trained(family: Family, name: str, worlds: Worlds, iterations: int, **options: Any) -> list[dict[str, float]]:
    agent, streams = agent_for(family, name, worlds.device, **options), Streams(0)
    metrics = [agent.train_iteration(worlds, family.space.sample, streams) for _ in range(iterations)]
    return [{k: v for k, v in m.items() if not k.startswith(("time", "speed"))} for m in metrics]


CASES = [
    ("point-nav", "maml-trpo", {}),
    ("point-nav", "oracle", {}),
    ("point-nav", "rl2", {}),
    ("bandit@bernoulli-5", "maml-trpo", {"scale_observations": False}),
    ("tabular-mdp", "rl2", {"core": "lstm"}),
    ("half-cheetah-vel@v5+mass", "maml-trpo", {}),
    ("hopper-rand-params", "rl2", {}),
]


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize(
    ("family", "name", "options"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_agents_are_trained_the_same(family: str, name: str, options: dict[str, Any]) -> None:
    chosen = get(family)
    chosen = with_horizon(chosen, min(9, chosen.horizon))
    recorder = Recorder()
    one, other = (trained(chosen, name, worlds_together(chosen, 6, r), 3, **options) for r in (None, recorder))
    assert one == other
    # RL2's inputs are other operations before anything was met.
    assert recorder.captures == (2 if name == "rl2" else 1)
    assert recorder.replays > 0


def assert_resumed_is_the_same(
    family: Family, name: str, options: dict[str, Any], make_env: Callable[[], Worlds]
) -> None:
    """Train without a stop, and with one after which agent, random streams and worlds are made anew."""
    found = []
    for stop in (False, True):
        worlds, streams = make_env(), Streams(0)
        agent = agent_for(family, name, worlds.device, **options)
        metrics: dict[str, float] = {}
        for iteration in range(2):
            if stop and iteration == 1:
                kept, drawn = agent.state_dict(), streams.state_dict()
                worlds, streams = make_env(), Streams(0)
                agent = agent_for(family, name, worlds.device, **options)
                agent.load_state_dict(kept)
                streams.load_state_dict(drawn)
            metrics = agent.train_iteration(worlds, family.space.sample, streams)
        found.append(({k: v for k, v in metrics.items() if not k.startswith(("time", "speed"))}, agent.state_dict()))
    assert_same(*found)


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize(
    ("family", "name", "options"),
    [
        ("point-nav", "maml-trpo", {}),
        ("tabular-mdp", "rl2", {"core": "lstm"}),
        ("half-cheetah-vel", "rl2", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_resumed_run_is_the_same_where_steps_are_launched(family: str, name: str, options: dict[str, Any]) -> None:
    chosen = with_horizon(get(family), 5)
    recorder = Recorder()
    assert_resumed_is_the_same(chosen, name, options, lambda: worlds_together(chosen, 6, recorder))
    # The worlds of after the stop are captured anew.
    assert recorder.captures == (4 if name == "rl2" else 3)


@pytest.mark.usefixtures("unwatched")
def test_a_policy_that_looks_acts_as_ever_in_launched_worlds() -> None:
    recorder = Recorder()
    one, other = (trained(POINT, "rl2", worlds_together(POINT, 6, r), 2, core="transformer") for r in (None, recorder))
    assert one == other
    # The worlds' step alone.
    assert recorder.captures == 1


def collections(worlds: Worlds, policy: Any, count: int, *, trial: bool = False) -> list[Trajectories]:
    family, generator = worlds.family, seeded(1)
    found, tasks = [], family.space.sample(worlds.num_worlds, "train", generator)
    for number in range(count):
        if not trial:
            tasks = family.space.sample(worlds.num_worlds, "train", generator)
        found.append(collect(worlds, policy, tasks, 1, generator, new_trial=not trial or number == 0, watch=False))
    return found


def tensors(played: Trajectories) -> dict[str, Tensor]:
    values = {field.name: getattr(played, field.name) for field in fields(played)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@pytest.mark.parametrize(
    "options",
    [{"core": "gru"}, {"core": "lstm"}, {"head": (3,), "head_observations": True}, {"core": "hyper", "head": (3,)}],
    ids=str,
)
def test_ragged_trials_are_the_same_and_their_owners(options: dict[str, Any]) -> None:
    family, seen = Ragged(), []
    for recorder in (None, Recorder()):
        agent = agent_for(family, "rl2", **options)
        policy = agent.start(family.space.sample(6, "train", seeded())).policy
        played = collections(worlds_together(family, 6, recorder), policy, 4, trial=True)
        assert isinstance(policy, Actor)
        assert policy.memory is not None
        seen.append([*(tensors(episodes) for episodes in played), dict(enumerate(policy.memory))])
        assert all(episodes.terms == again.terms for episodes, again in zip(played, played, strict=True))
    for one, other in zip(*seen, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name
    # Of different lengths, and later ones did not write into earlier ones.
    assert 0.0 < seen[0][0]["mask"].mean() < 1.0
    assert not torch.equal(seen[1][0]["actions"][..., 0, :], seen[1][1]["actions"][..., 0, :])


def test_a_policy_lends_its_numbers_to_the_launch_and_keeps_them() -> None:
    recorder = Recorder()
    worlds = worlds_together(POINT, 6, recorder)
    agents = [agent_for(POINT, "maml-trpo") for _ in range(2)]
    for number, agent in enumerate(agents):
        assert isinstance(agent, MamlTrpo)
        for value in agent.meta.values():
            value.add_(0.1 * number)
    for agent in agents:
        learner = agent.start(POINT.space.sample(6, "train", seeded()))
        assert isinstance(learner, GradientLearner)
        before = {name: value.clone() for name, value in learner.params.items()}
        launched = collections(worlds, learner.policy, 3)
        plain = collections(worlds_together(POINT, 6), learner.policy, 3)
        for one, other in zip(launched, plain, strict=True):
            assert all(torch.equal(value, tensors(other)[name]) for name, value in tensors(one).items())
        assert all(torch.equal(value, before[name]) for name, value in learner.params.items())
    assert recorder.captures == 1


def scales() -> list[Scale | None]:
    one = torch.ones(2, dtype=torch.float64)
    return [None, Scale(one, one, one, known=True), Scale(one.expand(6, 2), one.expand(6, 2), one, known=True)]


def test_keys_tell_operations_apart_and_not_numbers() -> None:
    policy = agent_for(POINT, "maml-trpo").start(POINT.space.sample(6, "train", seeded())).policy
    assert isinstance(policy, TaskPolicy)
    other = replace(policy, params={name: value + 1.0 for name, value in policy.params.items()}, _there={})
    assert policy.key(CPU) == other.key(CPU)
    changed = [replace(policy, scale=scale) for scale in scales()]
    changed += [replace(policy, scale=None, features=torch.ones(6, 2)), replace(policy, tasks=3, scale=None)]
    assert len({p.key(CPU) for p in changed}) == len(changed)
    agent = agent_for(POINT, "rl2")
    assert isinstance(agent, Rl2)
    actor = Actor(agent.network, agent.inputs, CPU)
    before = actor.key(CPU)
    assert before == Actor(agent.network, agent.inputs, CPU).key(CPU)
    agent.inputs.observation.update(torch.ones(1, 2))
    assert actor.key(CPU) != before
    assert actor.key(torch.device("cuda", 0)) is None
    # A network on another GPU than the worlds cannot be a part of their graph.
    there = Actor(agent.network, agent.inputs, torch.device("cuda", 1))
    assert there.key(torch.device("cuda", 1)) is not None
    assert there.key(torch.device("cuda", 0)) is None
    assert isinstance(actor, SteadyPolicy)


def test_what_is_launched_goes_where_it_can_be() -> None:
    policy = agent_for(POINT, "maml-trpo").start(POINT.space.sample(6, "train", seeded())).policy
    observation = torch.zeros(6, 2)
    assert launched_playing(worlds_together(POINT, 6), policy, observation) is None

    class Still:
        def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
            return torch.zeros(6, 2)

    worlds = worlds_together(POINT, 6, Recorder())
    assert launched_playing(worlds, Still(), observation) is None
    launched = launched_playing(worlds, policy, observation)
    assert isinstance(launched, LaunchedPlaying)
    assert launched_playing(worlds, policy, observation) is launched
    # What was captured is forgotten with the tensors that it works on.
    assert worlds.launches is not None
    worlds.launches.clear()
    assert launched_playing(worlds, policy, observation) is not launched


ELSEWHERE = torch.device("meta")


@pytest.mark.parametrize("name", ["maml-trpo", "oracle", "rl2"])
@pytest.mark.parametrize("family", ["point-nav", "bandit"])
def test_a_step_mixes_no_devices(name: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the device `meta` raise where others meet them, and where they are looked at."""
    chosen = get(family)
    assert isinstance(chosen, TorchFamily)
    # The check of types looks at it.
    monkeypatch.setattr(Worlds, "failures", 0)
    physics = TorchPhysics(chosen, 6, ELSEWHERE)
    worlds = Worlds(chosen, 6, physics)
    # Of a family that device is refused.
    worlds._step_is_right = worlds.drive._step_is_right = physics._advance_is_right = True
    agent = agent_for(chosen, name)
    policy: Any = agent.start(chosen.space.sample(6, "train", seeded())).policy
    if isinstance(agent, Rl2):
        agent.network.to(ELSEWHERE)
        policy = Actor(agent.network, agent.inputs, ELSEWHERE)
    worlds.set_tasks(chosen.space.sample(6, "train", seeded()))
    worlds._seen = worlds._in_place(chosen.space.sample(6, "train", seeded()))
    worlds.physics.apply(chosen.space.sample(6, "train", seeded()), None)
    observation = torch.zeros(6, worlds.observation_size, device=ELSEWHERE)
    twin = policy.twin(observation)
    twin.take_over(policy)
    playing = Playing(worlds, twin, seeded(), observation, steady=True)
    for _ in range(2):
        playing.step()
    assert playing.observations.device == ELSEWHERE


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(("family", "name", "options"), CASES[:5], ids=lambda v: v if isinstance(v, str) else "")
def test_on_a_gpu_agents_are_trained_the_same(family: str, name: str, options: dict[str, Any]) -> None:
    chosen = get(family)
    chosen = with_horizon(chosen, min(9, chosen.horizon))
    device, found = torch.device("cuda", torch.cuda.current_device()), []
    for launched in (False, True):
        worlds = make_worlds(chosen, 6, engine="gpu", device=device)
        kept = worlds.physics.launches
        assert kept is not None
        if not launched:
            worlds.physics.launches = None
        found.append(trained(chosen, name, worlds, 3, **options))
    assert any(isinstance(entry, LaunchedPlaying) and entry.step.captured for entry in kept._kept.values())
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True)


@pytest.mark.gpu
@pytest.mark.parametrize(("family", "name"), [("point-nav", "rl2"), ("half-cheetah-vel", "rl2")])
def test_on_a_gpu_a_resumed_run_is_the_same(family: str, name: str) -> None:
    chosen = with_horizon(get(family), 20)
    device = torch.device("cuda", torch.cuda.current_device())
    if isinstance(chosen, MujocoFamily):
        pytest.importorskip("mujoco_warp")
    with repeatable(on=True):
        assert_resumed_is_the_same(chosen, name, {}, lambda: make_worlds(chosen, 6, engine="gpu", device=device))
