from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metarl.learning.experience import first_episodes, inner_loss, mean_kl, prepare, surrogate
from metarl.types import Tasks, Trajectories
from tests.helpers.toys import DOUBLE, gaussian, init, near, normal, random_batch, task


def episodes() -> Trajectories:
    """Return made-up episodes of 2 tasks, 3 episodes of different lengths, 5 steps."""
    mask = (torch.arange(5) < torch.tensor([[[5], [2], [4]], [[1], [5], [5]]])).to(DOUBLE)
    return Trajectories(
        observations=normal(2, 3, 5, 3) * mask.unsqueeze(-1),
        actions=normal(2, 3, 5, 2, seed=1) * mask.unsqueeze(-1),
        rewards=normal(2, 3, 5, seed=2) * mask,
        mask=mask,
        terminated=torch.zeros(2, 3, dtype=torch.bool),
        final_observations=normal(2, 3, 3, seed=3),
        tasks=Tasks("toy", {"goal": torch.zeros(2, dtype=DOUBLE)}),
    )


def test_a_prepared_batch() -> None:
    seen, policy = episodes(), gaussian()
    params = near(init(policy), 2)
    batch, explained = prepare(seen, policy, params, discount=0.9, trace=0.8)
    real = seen.mask > 0
    # 11 real steps each.
    assert torch.equal(batch["weights"], seen.mask / 11.0)
    assert bool((batch["advantages"][~real] == 0.0).all())
    for index in range(2):
        advantages = batch["advantages"][index][real[index]]
        assert float(advantages.mean()) == pytest.approx(0.0, abs=1e-12)
        assert float(advantages.std(correction=0)) == pytest.approx(1.0, abs=1e-6)
        for k, t in real[index].nonzero().tolist():
            output = policy(task(params, index), seen.observations[index, k, t : t + 1])
            expected = output.log_prob(seen.actions[index, k, t : t + 1])
            torch.testing.assert_close(batch["old_log_probs"][index, k, t : t + 1], expected)
    assert 0.0 < explained <= 1.0


def test_nothing_follows_the_time_limit() -> None:
    # Finite horizon: what stands after the last step does not matter, nor whether it was terminal.
    seen, policy = episodes(), gaussian()
    params = near(init(policy), 2)
    batch, _ = prepare(seen, policy, params, discount=0.9, trace=0.8)
    other = replace(seen, terminated=~seen.terminated, final_observations=seen.final_observations + 1.0)
    again, _ = prepare(other, policy, params, discount=0.9, trace=0.8)
    assert torch.equal(batch["advantages"], again["advantages"])


def test_first_episodes_are_a_mean_again() -> None:
    batch = random_batch(2)
    part = first_episodes(batch, 2)
    for name in ("observations", "actions", "advantages", "old_log_probs"):
        assert torch.equal(part[name], batch[name][:, :2])
    real = (batch["weights"][:, :2] > 0).to(DOUBLE)
    torch.testing.assert_close(part["weights"], real / real.sum((1, 2), keepdim=True), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(first_episodes(batch, 3)["weights"], batch["weights"], rtol=1e-12, atol=0.0)


def test_losses_are_means_over_real_steps() -> None:
    policy = gaussian()
    params, old = near(init(policy), 2), near(init(policy), 2, seed=6)
    batch = random_batch(2)
    values, divergences = surrogate(policy)(params, batch), mean_kl(policy, old, params, batch)
    dice = inner_loss(policy, "dice")(params, batch)
    for index in range(2):
        total, farther, boxes, steps = 0.0, 0.0, 0.0, 0
        here, there = task(params, index), task(old, index)
        for k in range(3):
            through = 1.0
            for t in range(6):
                if batch["weights"][index, k, t] == 0:
                    continue
                row = batch["observations"][index, k, t : t + 1]
                now, before = policy(here, row), policy(there, row)
                log_prob = now.log_prob(batch["actions"][index, k, t : t + 1])
                ratio = float(torch.exp(log_prob - batch["old_log_probs"][index, k, t]))
                advantage = float(batch["advantages"][index, k, t])
                total += ratio * advantage
                boxes += through * (ratio - 1.0) * advantage
                farther += float(before.kl(now))
                through *= ratio
                steps += 1
        assert float(values[index]) == pytest.approx(total / steps, rel=1e-12)
        assert float(dice[index]) == pytest.approx(-boxes / steps, rel=1e-12)
        assert float(divergences[index]) == pytest.approx(farther / steps, rel=1e-12)


def test_ratios_do_not_pile_up_in_the_padding() -> None:
    policy, batch = gaussian(), random_batch(2)
    params = near(init(policy), 2)
    far_off = torch.where(batch["weights"] > 0, batch["old_log_probs"], -400.0)
    loss = inner_loss(policy, "dice")
    assert torch.equal(loss(params, batch | {"old_log_probs": far_off}), loss(params, batch))


def test_one_task_is_a_row_of_many() -> None:
    policy, batch = gaussian(layer_norm=True), random_batch(3)
    params = near(init(policy), 3)
    for estimator in ("lvc", "dice", "log-likelihood"):
        loss = inner_loss(policy, estimator)
        together = loss(params, batch)
        for index in range(3):
            torch.testing.assert_close(together[index], loss(task(params, index), task(batch, index)))
