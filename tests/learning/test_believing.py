"""Acting on a belief: where z comes from, what of an episode counts, and what is remembered."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from metarl.evaluation.remembering import Remembering
from metarl.learning.believing import Believer, Believing, Told
from metarl.learning.posterior import Factors
from metarl.learning.replay import Steps
from metarl.learning.soft import Squashed
from metarl.types import MemoryPolicy, Returning, SteadyPolicy
from tests.helpers.toys import DOUBLE, seeded

CPU = torch.device("cpu")


class Sums:
    """Acts by observation and z; a step has the factor of mean r and variance 1. Remembers what it was asked for."""

    device, latent = CPU, 1

    def __init__(self, *, looks_ahead: bool = False) -> None:
        self.looks_ahead = looks_ahead
        self.zs: list[Tensor] = []
        self.met: list[Steps] = []
        self.refreshed = 0

    def act(self, observation: Tensor, z: Tensor) -> Squashed:
        self.zs.append(z)
        return Squashed(observation + z, torch.zeros_like(observation))

    def key(self) -> Hashable:
        return self

    def refresh(self) -> None:
        self.refreshed += 1

    def factors(self, met: Steps, mask: Tensor) -> Factors:
        self.met.append(met)
        return Factors(mask.sum(1, keepdim=True), (met.reward.squeeze(-1) * mask).sum(1, keepdim=True))


def play(policy: Believing, rewards: list[list[float]], ends: list[list[bool]], generator: Any) -> None:
    """Play an episode: rewards and ends of every world at every step."""
    policy.begin_episode()
    for step, (reward, ended) in enumerate(zip(rewards, ends, strict=True)):
        policy.act(torch.full((len(reward), 1), float(step), dtype=DOUBLE), generator)
        policy.see(torch.tensor(reward, dtype=DOUBLE), torch.tensor(ended))


TWO = [[False, False], [True, True]]


def test_it_is_a_policy_that_remembers() -> None:
    policy = Believing(Sums(), 2)
    assert isinstance(Sums(), Believer)
    assert isinstance(policy, MemoryPolicy)
    assert isinstance(policy, Remembering)
    assert isinstance(policy, Returning)


def test_z_is_of_the_prior_twice_and_then_of_everything_that_was_met() -> None:
    brain, generator = Sums(), seeded()
    policy = Believing(brain, 2)
    for _ in range(4):
        play(policy, [[3.0, 5.0], [1.0, 7.0]], TWO, generator)
    first, second, third, fourth = (brain.zs[number] for number in (0, 2, 4, 6))
    again = seeded()
    noise = [torch.randn(2, 1, generator=again, dtype=DOUBLE) for _ in range(4)]
    torch.testing.assert_close(first, noise[0])
    torch.testing.assert_close(second, noise[1])
    means = torch.tensor([[2.0], [6.0]], dtype=DOUBLE)
    torch.testing.assert_close(third, means + noise[2] / 4**0.5)
    torch.testing.assert_close(fourth, means + noise[3] / 6**0.5)
    # One z an episode, and no noise beside it.
    assert all(brain.zs[number] is brain.zs[number + 1] for number in (0, 2, 4, 6))


def test_worlds_that_have_ended_tell_nothing_more() -> None:
    policy = Believing(Sums(), 1)
    play(policy, [[3.0, 5.0], [0.0, 7.0], [0.0, 9.0]], [[True, False], [False, False], [False, True]], seeded())
    mean, factors = policy.look(torch.zeros(2, 1, dtype=DOUBLE))
    assert mean.flatten().tolist() == [3.0, 7.0]
    assert factors is not None
    assert factors.precision.flatten().tolist() == [1.0, 3.0]


def test_what_came_after_the_last_step_is_not_known_to_it() -> None:
    brain = Sums(looks_ahead=True)
    policy = Believing(brain, 1)
    play(policy, [[3.0], [5.0], [7.0]], [[False], [False], [True]], seeded())
    policy.begin_episode()
    (met,) = brain.met
    assert met.reward.flatten().tolist() == [3.0, 5.0]
    assert met.observation.flatten().tolist() == [0.0, 1.0]
    assert met.next_observation.flatten().tolist() == [1.0, 2.0]
    # Of an episode of one step nothing is known: the belief stays the prior.
    short = Believing(brain, 1)
    play(short, [[3.0]], [[True]], seeded())
    assert short.look(torch.zeros(1, 1))[0].tolist() == [[0.0]]
    assert short.episodes == 1


def test_beginning_twice_is_beginning_once() -> None:
    policy = Believing(Sums(), 1)
    play(policy, [[3.0, 5.0], [1.0, 7.0]], TWO, seeded())
    for _ in range(3):
        policy.begin_episode()
    assert policy.episodes == 1
    assert policy.look(torch.zeros(2, 1))[0].flatten().tolist() == [2.0, 6.0]


def test_a_belief_is_carried_to_other_worlds_and_stays() -> None:
    policy = Believing(Sums(), 1)
    nothing = policy.carried(torch.tensor([1, 0]))
    assert nothing.factors is None
    play(policy, [[3.0, 5.0], [1.0, 7.0]], TWO, seeded())
    other = policy.carried(torch.tensor([1, 0]))
    assert other.episodes == 1
    assert other.look(torch.zeros(2, 1))[0].flatten().tolist() == [6.0, 2.0]
    assert policy.look(torch.zeros(2, 1))[0].flatten().tolist() == [2.0, 6.0]


def test_it_goes_back_to_where_it_was() -> None:
    policy, generator = Believing(Sums(), 1), seeded()
    play(policy, [[3.0, 5.0], [1.0, 7.0]], TWO, generator)
    kept = policy.keep()
    for _ in range(2):
        play(policy, [[30.0, 50.0], [10.0, 70.0]], TWO, generator)
        policy.go_back(kept)
    assert policy.episodes == 0
    assert policy.look(torch.zeros(2, 1))[0].flatten().tolist() == [2.0, 6.0]
    assert policy.episodes == 1


def test_what_is_shown_may_be_written_to_afterwards() -> None:
    brain = Sums()
    policy, observation, reward = Believing(brain, 1), torch.ones(1, 1, dtype=DOUBLE), torch.ones(1, dtype=DOUBLE)
    policy.begin_episode()
    ended = torch.tensor([True])
    policy.act(observation, seeded())
    policy.see(reward, ended)
    for given in (observation, reward, ended):
        given.zero_()
    policy.begin_episode()
    assert brain.met[0].observation.tolist() == [[[1.0]]]
    assert brain.met[0].reward.tolist() == [[[1.0]]]


def test_in_training_actions_are_drawn_with_the_z_that_was_told() -> None:
    z = torch.tensor([[0.5], [-0.5]], dtype=DOUBLE)
    action = Told(Sums(), z).act(torch.zeros(2, 1), seeded())
    noise = torch.randn(2, 1, generator=seeded(), dtype=DOUBLE)
    torch.testing.assert_close(action, (z + noise).tanh().float())


def test_what_is_captured_takes_over_z_and_scale() -> None:
    brain, zs = Sums(), (torch.tensor([[0.5], [-0.5]]), torch.tensor([[2.0], [1.0]]))
    first, second = (Told(brain, z) for z in zs)
    assert isinstance(first, SteadyPolicy)
    assert first.key(CPU) == second.key(CPU)
    assert first.key(torch.device("cuda", 1)) is None
    assert Told(brain, zs[0][:1]).key(CPU) != first.key(CPU)
    twin = first.twin(torch.zeros(2, 1))
    twin.take_over(second)
    assert torch.equal(twin.z, zs[1])
    assert zs[0].flatten().tolist() == [0.5, -0.5]
    assert brain.refreshed == 1
