"""PPO's update, by hand and as RL2 takes it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents import rl2
from metarl.agents.rl2 import Rl2, Rl2Config
from metarl.envs import get, make_worlds
from metarl.envs.family import Family
from metarl.envs.horizon import with_horizon
from metarl.launches import Launches
from metarl.learning.chunks import passes
from metarl.learning.ppo import LaunchedGradient, Played, clipped_gain, in_one_kernel, shared_minibatches
from metarl.learning.trials import Trials
from metarl.ranks import Ranks
from metarl.seeding import Streams
from metarl.types import Metrics
from tests.helpers.looks import Looks
from tests.helpers.recorder import CPU, Recorder
from tests.helpers.toys import normal, seeded
from tests.helpers.trials import SMALL, Ragged, make, unscaled


def test_the_gain_is_clipped_by_hand() -> None:
    ratio = torch.tensor([1.5, 1.1, 0.5, 1.5, 0.5, 0.9])
    advantages = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    # Beyond 1 ± .2 nothing more is gained, but what is lost counts in full.
    expected = torch.tensor([2.4, 2.2, 1.0, -3.0, -1.6, -1.8])
    torch.testing.assert_close(clipped_gain(ratio, advantages, 0.2), expected)


def test_every_row_is_in_one_minibatch_of_an_epoch() -> None:
    mask = torch.arange(21.0).view(7, 3)
    found = list(shared_minibatches(mask, 2, 3, seeded(1)))
    assert [len(rows) for rows in found] == [3, 2, 2] * 2
    epochs = [torch.cat(found[first : first + 3]).tolist() for first in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 2
    assert epochs[0] != epochs[1]
    # No minibatch is empty.
    assert [len(rows) for rows in shared_minibatches(mask, 1, 30, seeded(1))] == [1] * 7


def test_steps_of_all_trials_are_mixed_and_the_padding_is_left_out() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    numbers = torch.arange(9.0).view(3, 3)
    played = Played(
        inputs=numbers[..., None].expand(3, 3, 2),
        actions=numbers[..., None],
        log_probs=numbers,
        advantages=-numbers,
        targets=2.0 * numbers,
        mask=mask,
    ).by_step()
    assert played.inputs.shape == (9, 1, 2)
    assert played.targets.flatten().tolist() == [2.0 * number for number in range(9)]
    found = list(shared_minibatches(played.mask, 2, 3, seeded(1)))
    assert [len(rows) for rows in found] == [2, 2, 2] * 2
    for epoch in (found[:3], found[3:]):
        assert sorted(torch.cat(epoch).tolist()) == [0, 1, 2, 3, 6, 7]
    # Not trial by trial.
    assert any(len({row // 3 for row in rows.tolist()}) > 1 for rows in found)
    assert torch.equal(played.advantages[found[0]].flatten(), -found[0].to(torch.float32))


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


# -- as on a GPU ------------------------------------------------------------------------------------------------------


def timeless(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "speed/"))}


def trained(agent: Rl2, family: Family, iterations: int) -> list[Metrics]:
    env, streams = make_worlds(family, agent.config.tasks, threads=1), Streams(0)
    return [timeless(agent.train_iteration(env, family.space.sample, streams)) for _ in range(iterations)]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        # Minibatches of three trials and of two; later ones of a trial are longer than those before.
        (Ragged(), {}),
        (with_horizon(get("point-nav"), 4), {"core": "lstm"}),
        (get("bandit@bernoulli-5"), {"core": "transformer", "tasks": 4}),
        (Ragged(), {"head": (3,), "head_observations": True}),
        (with_horizon(get("point-nav"), 4), {"core": "hyper", "head": (3,)}),
    ],
    ids=["gru", "lstm", "transformer", "head", "hyper"],
)
def test_gradients_that_are_launched_are_the_same(family: Family, options: dict[str, Any]) -> None:
    config = replace(SMALL, epochs=4, max_kl=100.0, **options)
    found, recorder = [], Recorder()
    for launches in (None, Launches(recorder, most=1)):
        agent = make(config, family.spec())
        agent.launches = launches
        found.append((trained(agent, family, 3), agent.network.state_dict()))
    # Entropy's weight and the rate are others at every update.
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        assert torch.equal(value, found[1][1][name]), name
    assert recorder.replays > 4


def test_an_update_that_is_launched_ends_at_its_divergence() -> None:
    family, found = with_horizon(get("point-nav"), 4), []
    for launches in (None, Launches(Recorder(), most=1)):
        agent = make(replace(SMALL, tasks=4, epochs=9, learning_rate=0.02, max_kl=1e-3), family.spec())
        agent.launches = launches
        found.append((trained(agent, family, 2), steps_of(agent)))
    assert found[0] == found[1]
    assert found[0][0][1]["update/early_stop"] == 1.0


def test_what_is_kept_is_that_of_the_last_form() -> None:
    agent = make(replace(SMALL, tasks=4), with_horizon(get("point-nav"), 4).spec())
    agent.launches = Launches(Recorder(), most=1)
    trained(agent, with_horizon(get("point-nav"), 4), 1)
    trained(agent, with_horizon(get("point-nav"), 3), 1)
    (kept,) = agent.launches._kept.values()
    assert isinstance(kept, LaunchedGradient)
    assert kept.played.mask.shape == (4, 9)


def test_what_ranks_send_is_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(replace(SMALL, tasks=4, minibatches=1), Ragged().spec())
    agent.launches = Launches(Recorder())
    for name in ("sum", "largest"):
        monkeypatch.setattr(Ranks, name, lambda self, values: values)
    agent.ranks = Ranks(size=2)
    env = make_worlds(Ragged(), 2, threads=1)
    agent.train_iteration(env, Ragged().space.sample, Streams(0))
    assert not agent.launches._kept


def test_the_host_looks_once_at_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl2, "in_one_kernel", lambda device: True)
    update, seen = Rl2._update, []

    def watched(agent: Rl2, trials: Trials, generator: torch.Generator) -> Metrics:
        with Looks() as looks:
            metrics = update(agent, trials, generator)
        seen.append(looks.seen)
        return metrics

    monkeypatch.setattr(Rl2, "_update", watched)
    agent = make(replace(SMALL, max_kl=100.0), Ragged().spec())
    trained(agent, Ragged(), 2)
    # The moments of the returns, which are on the host; the variance that is explained; which rows have
    # steps; every step; the deviation.
    assert seen[1] == [
        "__bool__",
        "__bool__",
        "cpu",
        "cpu",
        "cpu",
        "__bool__",
        "__float__",
        "nonzero",
        *["tolist"] * 4,
        "__float__",
    ]


def test_a_step_in_one_kernel_is_the_same_and_its_state_goes_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_one_kernel(CPU) is None
    assert in_one_kernel(torch.device("cuda", 1)) is True
    agents = {}
    for fused in (None, True):
        monkeypatch.setattr(rl2, "in_one_kernel", lambda device, fused=fused: fused)
        agents[fused] = make(SMALL, Ragged().spec())
        trained(agents[fused], Ragged(), 1)
    states = [agent.state_dict() for agent in agents.values()]
    for (fused, agent), other in zip(agents.items(), reversed(states), strict=True):
        monkeypatch.setattr(rl2, "in_one_kernel", lambda device, fused=fused: fused)
        agent.load_state_dict(other)
        assert agent.optimiser.param_groups[0]["fused"] is fused
        trained(agent, Ragged(), 1)
    for one, other in zip(*(agent.network.parameters() for agent in agents.values()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_gpu_measures_four_minibatches_at_once() -> None:
    inputs = torch.zeros(8, 2, 3)
    assert passes(inputs, 10) == 10
    assert [passes(inputs.to("meta"), minibatches) for minibatches in (1, 4, 10)] == [1, 1, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("core", ["gru", "lstm", "transformer", "hyper"])
def test_on_a_gpu_the_update_is_that_of_a_cpu(core: Any) -> None:
    family = get("point-nav")
    config = replace(SMALL, tasks=24, core=core, width=32, minibatches=4, epochs=2, max_kl=100.0)
    steps, found = 3 * family.horizon, []
    trials = Trials(
        observations=normal(24, steps, family.spec().observation_size, seed=1).float(),
        actions=normal(24, steps, family.spec().action_size, seed=2).float(),
        rewards=normal(24, steps, seed=3).float(),
        ended=(torch.arange(steps) % family.horizon == family.horizon - 1).float().expand(24, -1),
        mask=torch.ones(24, steps),
        final=normal(24, family.spec().observation_size, seed=4).float(),
        cut=torch.ones(24, dtype=torch.bool),
    )
    for device in (CPU, torch.device("cuda", torch.cuda.current_device())):
        agent = Rl2(config, family.spec(), Streams(0), device)
        unscaled(agent.inputs)
        there = replace(trials, **{name: value.to(device) for name, value in vars(trials).items()})
        # Without TF32, whose products have three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            metrics = [agent._update(there, seeded(5)) for _ in range(3)]
        found.append((metrics, {name: value.cpu() for name, value in agent.network.state_dict().items()}))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], rtol=1e-3, atol=3e-4, msg=name)
    assert agent.launches is not None
    (kept,) = agent.launches._kept.values()
    assert all(launch.captured for _, launch in kept.by_rows.values())
