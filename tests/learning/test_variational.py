"""Steps on beliefs: the bound by hand, and its gradient by plain loops over moments and transitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from metarl.errors import NotFiniteError
from metarl.learning.decoding import Decoding, make_decoders
from metarl.learning.elbo import Chance
from metarl.learning.trial_buffer import TrialBuffer
from metarl.learning.trials import Inputs, Trials
from metarl.learning.variational import BeliefSettings, BeliefTraining
from metarl.nets.belief import BeliefCore
from metarl.nets.memory import make_core
from metarl.ranks import ALONE
from tests.helpers.toys import DOUBLE, normal, seeded
from tests.helpers.trials import CPU, SCRIPT, unscaled

SETTINGS = BeliefSettings(kl_weight=0.1, updates=2, trials=2, rate=1e-2, moments=10, steps=10)
STEPS, LATENT = 9, 2
"""Of the longest trial: three episodes of three steps."""


def trials(lengths: list[int], *, dtype: torch.dtype = DOUBLE) -> tuple[Trials, Tensor]:
    """Return made-up trials of three episodes, the last of which are one step long."""
    mask = (torch.arange(STEPS) < torch.tensor(lengths)[:, None]).to(dtype)
    ended = torch.stack([mask[:, 1], mask[:, 1]], 1).new_zeros(len(lengths), STEPS)
    for row, length in zip(ended, lengths, strict=True):
        row[[length - 3, length - 2, length - 1]] = 1.0
    finals = normal(len(lengths), 3, 1, seed=4).to(dtype)
    made = Trials(
        observations=normal(len(lengths), STEPS, 1, seed=1).to(dtype) * mask[..., None],
        actions=normal(len(lengths), STEPS, 1, seed=2).to(dtype) * mask[..., None],
        rewards=normal(len(lengths), STEPS, seed=3).to(dtype) * mask,
        ended=ended,
        mask=mask,
        final=finals[:, -1],
        cut=torch.ones(len(lengths), dtype=torch.bool),
    )
    return made, finals


def training(settings: BeliefSettings = SETTINGS) -> BeliefTraining:
    inputs, generator = Inputs(SCRIPT), seeded()
    unscaled(inputs)
    core = make_core("gru", inputs=4, width=5, layers=1, context=STEPS + 1, generator=generator)
    decoders = make_decoders(("reward", "state"), SCRIPT, LATENT, generator).to(DOUBLE)
    decoding = Decoding(decoders, SCRIPT, inputs, bernoulli=False)
    belief = BeliefCore(core, 1, LATENT, generator).to(DOUBLE)
    with torch.no_grad():
        for number, weight in enumerate(belief.parameters()):
            weight += 0.3 * normal(*weight.shape, seed=number)
    return BeliefTraining(settings, belief, decoding, TrialBuffer(8, SCRIPT, 3, CPU), ALONE)


class Told(BeliefCore):
    """A core that believes q_0 = N(0, 1), q_1 = N(1, .25) and q_2 = q_1, whatever it meets."""

    def forward(self, inputs: Tensor) -> Tensor:
        mean, std = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 0.5, 0.5])
        features = torch.stack((inputs[0, :3, 0], mean, std.log().to(mean)), dim=-1)
        return features[None] + 0.0 * self.belief.weight.sum()


def test_varibad_loss_of_two_steps_by_hand() -> None:
    inputs = Inputs(SCRIPT)
    unscaled(inputs)
    decoders = make_decoders(("reward",), SCRIPT, 1, seeded())
    nn.init.zeros_(decoders["reward"].get_parameter("last.weight"))
    core = Told(make_core("gru", inputs=4, width=4, layers=1, context=3, generator=seeded()), 1, 1, seeded())
    made = BeliefTraining(
        SETTINGS, core, Decoding(decoders, SCRIPT, inputs, bernoulli=False), TrialBuffer(2, SCRIPT, 1, CPU), ALONE
    )
    two = Trials(
        observations=torch.zeros(1, 2, 1),
        actions=torch.zeros(1, 2, 1),
        rewards=torch.tensor([[1.0, 2.0]]),
        ended=torch.tensor([[0.0, 1.0]]),
        mask=torch.ones(1, 2),
        final=torch.zeros(1, 1),
        cut=torch.tensor([True]),
    )
    chance = Chance(torch.tensor([0]), torch.rand(1, 4), torch.rand(1, 4), torch.randn(1, 4, 1))
    bound = made.bound(two, torch.zeros(1, 1, 1), chance)
    # Three beliefs decode two rewards each, as 0: 3 (1 + 4).
    assert bound.errors["reward"].tolist() == pytest.approx([15.0])
    assert bound.kl.tolist() == pytest.approx([0.8181], abs=5e-5)
    assert bound.loss(0.1).tolist() == pytest.approx([15.0818], abs=5e-5)
    assert float(bound.last.log_std.detach().exp()) == pytest.approx(0.5)


def plain_error(decoder: Any, latent: Tensor, transition: Tensor, wanted: Tensor) -> Tensor:
    first = decoder.of_latent(latent) + decoder.of_transition(transition)
    return (decoder.last(relu(decoder.middle(relu(first)))) - wanted).square().mean()


def plain_loss(made: BeliefTraining, met: Trials, finals: Tensor, noise: Tensor) -> Tensor:
    """Return the loss of a step in loops, of all beliefs and all transitions."""
    losses, terms = [], 0
    changes, decoders = made.decoding.changes, made.decoding.decoders
    for n, length in enumerate(met.lengths.tolist()):
        features = made.core(made.decoding.inputs.of(met)[n : n + 1, : length + 1])[0]
        before = torch.zeros(LATENT, dtype=DOUBLE), torch.zeros(LATENT, dtype=DOUBLE)
        episode, steps = 0, []
        for i in range(length):
            after = finals[n, episode] if met.ended[n, i] else met.observations[n, i + 1]
            episode += int(met.ended[n, i])
            steps.append((met.observations[n, i], met.actions[n, i].clamp(-1.0, 1.0), after, met.rewards[n, i]))
        for t in range(length + 1):
            mean, log_std = features[t, 1 : 1 + LATENT], features[t, 1 + LATENT :]
            std, old = log_std.exp(), before[1].exp()
            kl = (old / std).log() + (std**2 + (mean - before[0]) ** 2) / (2.0 * old**2) - 0.5
            losses.append(made.settings.kl_weight * kl.sum())
            before = mean, log_std
            latent = mean + std * noise[n, t]
            for seen, done, after, reward in steps:
                change = (after - seen - changes.mean) / changes.deviation
                known = torch.cat((seen, done, after))
                losses.append(plain_error(decoders["reward"], latent, known, reward))
                losses.append(plain_error(decoders["state"], latent, known[:2], change))
        terms += (length + 1) * length
    return torch.stack(losses).sum() / terms


def test_varibad_gradient_is_a_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    made = training()
    met, finals = trials([9, 4])
    made.decoding.update(met, finals, ALONE)
    made.buffer.add(met, finals, ALONE)
    noise = normal(2, 10, LATENT, seed=9)
    plain_loss(made, met, finals, noise).backward()
    expected = [leaf.grad.clone() for leaf in made.parameters if leaf.grad is not None]
    before = [leaf.detach().clone() for leaf in made.parameters]
    found: list[Tensor] = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda leaves, most: found.append(most) or torch.ones(()))
    monkeypatch.setattr(made.optimiser, "step", lambda: None)
    made._step(Chance(torch.tensor([0, 1]), torch.rand(2, 10), torch.rand(2, 10), noise))
    assert found == [1.0]
    assert len(expected) == len(made.parameters)
    for leaf, gradient, old in zip(made.parameters, expected, before, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-9, atol=1e-11)
        assert torch.equal(leaf, old)


def test_some_of_a_trial_stand_for_all_of_it() -> None:
    made = training()
    met, finals = trials([9, 4])
    made.decoding.update(met, finals, ALONE)
    made.buffer.add(met, finals, ALONE)
    draws = 3000
    with torch.no_grad():
        # No noise: what is left to chance are the places.
        nothing = torch.zeros(2 * draws, 10, LATENT, dtype=DOUBLE)
        whole = made.bound(met, finals, Chance(torch.arange(2), torch.rand(2, 10), torch.rand(2, 10), nothing[:2]))
        rows = torch.arange(2).repeat(draws)
        moments, steps = torch.rand(2, 2 * draws, 3, generator=seeded(1)).unbind()
        part = made.bound(*made.buffer.take(rows, STEPS), Chance(rows, moments, steps, nothing[:, :3]))
    torch.testing.assert_close(part.kl, whole.kl.repeat(draws))
    for name, expected in whole.errors.items():
        mean = part.errors[name].view(draws, 2).mean(0)
        torch.testing.assert_close(mean, expected, rtol=0.05, atol=0.0)


def test_figures_are_means_over_the_steps_and_a_checkpoint_goes_on_bit_for_bit() -> None:
    made, other = training(), training()
    met, finals = trials([9, 4, 5])
    figures = made.learn(met, finals, seeded(1))
    names = {"belief/reward_error", "belief/state_error", "belief/step_kl", "belief/std", "belief/gradient_norm"}
    assert set(figures) == names
    assert all(math.isfinite(value) and value > 0.0 for value in figures.values())
    with torch.no_grad():
        for mine, its in zip(other.parameters, made.parameters, strict=True):
            mine.copy_(its)
    other.load_state_dict(made.state_dict())
    other.decoding.changes.load_state_dict(made.decoding.changes.state_dict())
    again = [one.learn(*trials([3, 3, 9]), seeded(2)) for one in (made, other)]
    assert again[0] == again[1]
    assert all(torch.equal(*pair) for pair in zip(made.parameters, other.parameters, strict=True))


def test_a_gradient_that_is_not_finite_is_told_and_changes_nothing() -> None:
    made = training()
    met, finals = trials([9, 4])
    made.buffer.add(met, finals, ALONE)
    with torch.no_grad():
        made.core.belief.bias.fill_(math.inf)
    before = [leaf.detach().clone() for leaf in made.parameters]
    chance = Chance(torch.tensor([0, 1]), torch.rand(2, 3), torch.rand(2, 3), torch.randn(2, 3, LATENT))
    with pytest.raises(NotFiniteError, match=r"the parameter 'belief\.bias' is not finite"):
        made._step(chance)
    assert all(torch.equal(*pair) for pair in zip(made.parameters, before, strict=True))
