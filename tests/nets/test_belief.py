"""Beliefs: steps give what one pass gives, decoders are plain networks of pairs, and who acts is shown them scaled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import relu

from metarl.errors import UserError
from metarl.nets.belief import BeliefCore, Decoder, Head
from metarl.nets.layers import of_core
from metarl.nets.memory import make_core
from metarl.nets.moments import Moments
from metarl.types import EnvSpec
from tests.helpers.toys import DOUBLE, normal, seeded

SPEC = EnvSpec("made up", 3, 2, 4, 1, lambda tasks: tasks["number"][:, None])


def core() -> BeliefCore:
    memory = make_core("gru", inputs=7, width=6, layers=1, context=9, generator=seeded())
    return BeliefCore(memory, 3, 2, seeded(1)).to(DOUBLE)


def test_steps_give_what_one_pass_gives() -> None:
    made, inputs = core(), normal(4, 5, 7)
    memory, features = made.begin(4), []
    for moment in inputs.unbind(1):
        seen, memory = made.step(moment, memory)
        features.append(seen)
    found = made(inputs)
    torch.testing.assert_close(torch.stack(features, 1), found, rtol=0.0, atol=1e-13)
    assert torch.equal(found[..., :3], inputs[..., :3])
    weight, bias = made.belief.weight, made.belief.bias
    torch.testing.assert_close(found[..., 3:], made.core(inputs) @ weight.T + bias)


def test_a_belief_begins_near_the_prior() -> None:
    assert 0.0 < core()(normal(4, 1, 7)).detach()[..., 3:].abs().max() < 0.5


def test_a_decoder_is_a_plain_network_of_every_pair() -> None:
    decoder = Decoder(2, 3, (5, 4), 2, seeded()).to(DOUBLE)
    with torch.no_grad():
        decoder.of_latent.bias.copy_(normal(5, seed=3))
    latents, transitions = normal(2, 3, 2), normal(2, 4, 3, seed=1)
    found = decoder(latents, transitions)
    assert found.shape == (2, 3, 4, 2)
    first = torch.cat((decoder.of_latent.weight, decoder.of_transition.weight), dim=1)
    for n in range(2):
        for t in range(3):
            for i in range(4):
                pair = torch.cat((latents[n, t], transitions[n, i]))
                hidden = relu(decoder.middle(relu(first @ pair + decoder.of_latent.bias)))
                torch.testing.assert_close(found[n, t, i], decoder.last(hidden))


def test_beliefs_are_shown_in_deviations_from_their_mean_and_as_0_before_there_are_any() -> None:
    head = Head(SPEC, 1, (4,), 1.0, seeded())
    features = torch.tensor([[0.1, 0.2, 0.3, 5.0, -1000.0]])
    assert head.seen(features).tolist() == [[*features[0, :3].tolist(), 0.0, 0.0]]
    place = head.belief_mean
    beliefs = Moments(2)
    # Mean 3 and deviation 2; mean 0 and deviation 1.
    beliefs.update(torch.tensor([[1.0, -1.0], [5.0, 1.0]]))
    head.show_beliefs(beliefs)
    assert head.belief_mean is place
    torch.testing.assert_close(head.seen(features)[0, 3:], torch.tensor([1.0, -10.0]))
    # What hardly differs is not made large: mean 5 and deviation 0.001 count as 0.1.
    same = Moments(2)
    same.update(torch.tensor([[4.999, 0.0], [5.001, 0.0]]))
    head.show_beliefs(same)
    torch.testing.assert_close(head.seen(torch.tensor([[0.0, 0.0, 0.0, 5.05, 0.0]]))[0, 3:], torch.tensor([0.5, 0.0]))


def test_policy_and_values_are_networks_of_their_own() -> None:
    head = Head(SPEC, 1, (4,), 0.5, seeded())
    features = normal(2, 3, 5).float()
    distribution, values = head(features)
    assert (distribution.mean.shape, values.shape) == ((2, 3, 2), (2, 3))
    torch.testing.assert_close(distribution.log_std.exp(), torch.full((1, 2), 0.5))
    assert not any(
        name in dict(head.value.items()) and value is head.value[name] for name, value in head.policy.items()
    )
    discrete = Head(replace(SPEC, discrete=True, choices=(2,)), 1, (4,), 0.5, seeded())
    assert discrete.log_std is None
    assert discrete(features)[0].logits.shape == (2, 3, 2)


def test_beliefs_are_not_described_as_the_bare_features_of_a_memory() -> None:
    with pytest.raises(UserError, match="a network with a BeliefCore"):
        of_core(core())
