"""Acting with a memory: the same as learning sees it, how long it is remembered, and what a look at it changes."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from metarl.envs import make_worlds
from metarl.learning.recall import Actor
from metarl.learning.trials import Trials, join
from metarl.nets.memory import CoreName
from metarl.seeding import Streams
from metarl.types import Learner, MemoryPolicy
from tests.helpers.toys import seeded
from tests.helpers.trials import (
    CPU,
    LENGTHS,
    SCRIPT,
    SMALL,
    TWO,
    Ragged,
    Script,
    collected,
    make,
    play,
    played_script,
    watch,
)

CORES: tuple[CoreName, ...] = get_args(CoreName)


@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
@pytest.mark.parametrize(
    "options",
    [
        *({"core": core} for core in CORES),
        {"head": (3,), "head_observations": True},
        {"core": "transformer", "head_observations": True},
        {"core": "hyper", "head": (3,)},
    ],
    ids=str,
)
def test_acting_and_learning_agree(options: Any, discrete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged(discrete=discrete)
    agent = make(replace(SMALL, tasks=20, **options), family.spec())
    env, streams = make_worlds(family, 20, threads=1), Streams(1)
    # After one iteration, everything is scaled.
    agent.train_iteration(env, family.space.sample, streams)
    watched, episodes = watch(agent, monkeypatch), collected(agent, monkeypatch)
    inputs, network = copy.deepcopy(agent.inputs), copy.deepcopy(agent.network)
    measured: list[tuple[Tensor, Tensor]] = []
    original = agent._measure

    def measure(rows: Tensor, trials: Trials) -> tuple[Tensor, Tensor]:
        measured.append(original(rows, trials))
        return measured[-1]

    monkeypatch.setattr(agent, "_measure", measure)
    agent.train_iteration(env, family.space.sample, streams)

    assert env.failures > 0
    assert len({float(length) for episode in episodes for length in episode.mask.sum(2).flatten()}) == family.horizon
    assert all(0.0 < float(episode.terminated.double().mean()) < 1.0 for episode in episodes)
    trials = join(episodes)
    rows = inputs.of(trials)
    whole = network.core(rows)
    for world, length in enumerate(trials.lengths.tolist()):
        assert torch.equal(watched.of_world(world, watched.inputs), rows[world, :length])
        # One memory from the first step of the trial to its last, and none before.
        features = watched.of_world(world, watched.features)
        torch.testing.assert_close(features, whole[world, :length], rtol=0.0, atol=1e-5)
        log_probs = network.act(features).log_prob(trials.actions[world, :length])
        torch.testing.assert_close(measured[0][0][world, :length], log_probs, rtol=0.0, atol=1e-5)


# --- how long it is remembered -----------------------------------------------------------------------------------


@pytest.mark.parametrize("core", CORES)
def test_memory_lasts_a_trial_and_waiting_worlds_keep_theirs(core: CoreName, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, watched, _ = played_script(monkeypatch, core)
    for begun, first in zip(agent.network.core.begin(2), watched.before[0], strict=True):
        assert torch.equal(begun, first)
    for earlier, later in itertools.pairwise(range(len(watched.inputs))):
        for after, before in zip(watched.after[earlier], watched.before[later], strict=True):
            assert torch.equal(after, before)
    for waits, before, after in zip(watched.waiting, watched.before, watched.after, strict=True):
        for world in range(2):
            # A transformer says by its position how much of its cache counts.
            kept = [torch.equal(old[world], new[world]) for old, new in zip(before, after, strict=True)]
            assert kept[0] == waits[world]
            assert core == "transformer" or all(kept) == waits[world]


def test_every_iteration_and_every_start_begins_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent, env, streams = make(SMALL, family.spec()), make_worlds(family, 5, threads=1), Streams(1)
    watched = watch(agent, monkeypatch)
    for _ in range(2):
        first = len(watched.before)
        agent.train_iteration(env, family.space.sample, streams)
        assert not any(bool(part.any()) for part in watched.before[first])
        assert all(bool(part.any()) for part in watched.after[first])

    tasks = family.space.sample(5, "test", seeded(2))
    learners = [agent.start(tasks) for _ in range(2)]
    scores = []
    for learner in learners:
        assert isinstance(learner, Learner)
        policy = learner.policy
        assert isinstance(policy, Actor)
        assert isinstance(policy, MemoryPolicy)
        episodes = play(env, policy, tasks, 3)
        scores.append(torch.stack([episode.returns for episode in episodes]))
        # What was learned is in the memory, and goes on.
        assert learner.learn(episodes[-1]).policy is policy
        assert policy.memory is not None
    assert torch.equal(*scores)
    # With the memory of a whole trial, the same starts and noise give other actions.
    kept = learners[0].policy
    assert isinstance(kept, Actor)
    again = torch.stack([episode.returns for episode in play(env, kept, tasks, 3)])
    assert not torch.equal(again, scores[0])


@pytest.mark.parametrize("core", CORES)
def test_a_carried_policy_goes_on_as_the_world_it_comes_from(core: CoreName) -> None:
    agent = make(replace(SMALL, core=core), SCRIPT)
    actor, env = Actor(agent.network, agent.inputs, CPU), Script()
    play(env, actor, TWO, 2)
    order, observation = torch.tensor([1, 1]), torch.tensor([[0.3], [0.7]])
    kept = copy.deepcopy(actor.memory)
    carried = actor.carried(order)
    for policy in (carried, actor):
        policy.begin_episode()
    there, _ = carried.look(observation)
    here, _ = actor.look(observation)
    swapped, _ = actor.look(observation.flip(0))
    torch.testing.assert_close(there, torch.stack((swapped[1], here[1])), rtol=0.0, atol=1e-6)
    assert not torch.allclose(there[0], here[0])
    carried.act(observation, seeded())
    assert kept is not None
    assert actor.memory is not None
    assert all(torch.equal(*parts) for parts in zip(kept, actor.memory, strict=True)) or core == "transformer"
    torch.testing.assert_close(actor.look(observation)[0], here, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("core", CORES)
def test_a_look_changes_nothing(core: CoreName) -> None:
    agent = make(replace(SMALL, core=core), SCRIPT)
    runs = []
    for looks in (0, 2):
        actor, env, taken = Actor(agent.network, agent.inputs, CPU), Script(), []
        env.set_tasks(TWO)
        for lengths in LENGTHS:
            observation = env.reset(seeded())
            actor.begin_episode()
            for _ in range(int(lengths.max())):
                seen = [actor.look(observation + 1.0)[0] for _ in range(looks)]
                assert all(torch.equal(features, seen[0]) for features in seen)
                taken.append(actor.act(observation, seeded(len(taken))))
                step = env.step(taken[-1])
                actor.see(step.reward, step.terminated | step.truncated)
                observation = step.observation
        runs.append(torch.stack(taken))
    assert torch.equal(*runs)
