"""PPO's update, by hand and as RL2 takes it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metarl.agents.rl2 import Rl2, Rl2Config
from metarl.envs import make_worlds
from metarl.learning.ppo import clipped_gain, shared_minibatches
from metarl.learning.trials import Trials
from metarl.seeding import Streams
from metarl.types import Metrics
from tests.helpers.toys import seeded
from tests.helpers.trials import SMALL, Ragged, make


def test_the_gain_is_clipped_by_hand() -> None:
    ratio = torch.tensor([1.5, 1.1, 0.5, 1.5, 0.5, 0.9])
    advantages = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    # Beyond 1 ± .2 nothing more is gained, but what is lost counts in full.
    expected = torch.tensor([2.4, 2.2, 1.0, -3.0, -1.6, -1.8])
    torch.testing.assert_close(clipped_gain(ratio, advantages, 0.2), expected)


def test_every_row_is_in_one_minibatch_of_an_epoch() -> None:
    mask = torch.arange(21.0).view(7, 3)
    found = list(shared_minibatches(mask, 2, 3, seeded(1)))
    assert [len(rows) for rows, _ in found] == [3, 2, 2] * 2
    assert all(torch.equal(mask[rows], of_rows) for rows, of_rows in found)
    epochs = [torch.cat([rows for rows, _ in found[first : first + 3]]).tolist() for first in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 2
    assert epochs[0] != epochs[1]


def test_gradients_are_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent = make(replace(SMALL, max_gradient_norm=0.01, max_kl=100.0), family.spec())
    norms = []
    step = agent.optimiser.step

    def watched_step() -> None:
        grads = [p.grad.flatten() for p in agent.network.parameters() if p.grad is not None]
        norms.append(float(torch.cat(grads).norm()))
        step()

    monkeypatch.setattr(agent.optimiser, "step", watched_step)
    metrics = agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)
    assert metrics["update/gradient_norm"] > 0.05


def one_iteration(config: Rl2Config) -> tuple[Rl2, Metrics]:
    family = Ragged()
    agent = make(config, family.spec())
    return agent, agent.train_iteration(make_worlds(family, config.tasks, threads=1), family.space.sample, Streams(0))


def steps_of(agent: Rl2) -> set[int]:
    """How often the optimiser has moved the parameters."""
    return {int(state["step"]) for state in agent.optimiser.state.values()}


def test_an_update_ends_at_its_divergence() -> None:
    whole, metrics = one_iteration(replace(SMALL, learning_rate=0.05, max_kl=100.0))
    assert (metrics["update/early_stop"], metrics["update/steps"], steps_of(whole)) == (0.0, 4.0, {4})
    assert 0.0 < metrics["update/kl"] <= 100.0

    short, metrics = one_iteration(replace(SMALL, learning_rate=0.05, max_kl=1e-4))
    steps = int(metrics["update/steps"])
    assert 1 <= steps < 4
    assert (metrics["update/early_stop"], steps_of(short)) == (1.0, {steps})
    assert metrics["update/kl"] > 1e-4


def test_divergence_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent = make(replace(SMALL, minibatches=1), family.spec())
    before = copy.deepcopy(agent.network.state_dict())
    seen: list[Trials] = []
    original = agent._measure

    def measure(rows: Tensor, trials: Trials) -> tuple[Tensor, Tensor]:
        seen.append(trials)
        log_probs, values = original(rows, trials)
        # log π_old - log π is .5 in the first two trials, and -.2 in the others.
        return log_probs + torch.tensor([0.5, 0.5, -0.2, -0.2, -0.2])[:, None], values

    monkeypatch.setattr(agent, "_measure", measure)
    metrics = agent.train_iteration(make_worlds(family, 5, threads=1), family.space.sample, Streams(0))
    lengths = seen[0].lengths.tolist()
    first, others = sum(lengths[:2]), sum(lengths[2:])
    by_hand = (first * (math.exp(-0.5) - 1.0 + 0.5) + others * (math.exp(0.2) - 1.0 - 0.2)) / (first + others)
    assert by_hand > agent.config.max_kl
    assert metrics["update/kl"] == pytest.approx(by_hand, rel=1e-4)
    assert (metrics["update/steps"], metrics["update/early_stop"]) == (0.0, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in agent.network.state_dict().items())
