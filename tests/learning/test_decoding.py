"""Decoding: what is predicted, of what, and in which unit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metarl.errors import UserError
from metarl.learning.decoding import Decoding, make_decoders
from metarl.learning.trials import Inputs, Trials
from metarl.ranks import ALONE
from tests.helpers.stripes import Stripes
from tests.helpers.toys import DOUBLE, normal, seeded
from tests.helpers.trials import SCRIPT

# Two steps of one trial, each an episode of its own: from 0 to 2 for a reward of 1, from 1 to 7 for 3.
TRIALS = Trials(
    observations=torch.tensor([[[0.0], [1.0]]], dtype=DOUBLE),
    actions=torch.tensor([[[0.5], [-3.0]]], dtype=DOUBLE),
    rewards=torch.tensor([[1.0, 3.0]], dtype=DOUBLE),
    ended=torch.ones(1, 2, dtype=DOUBLE),
    mask=torch.ones(1, 2, dtype=DOUBLE),
    final=torch.tensor([[7.0]], dtype=DOUBLE),
    cut=torch.tensor([True]),
)
FINALS = torch.tensor([[[2.0], [7.0]]], dtype=DOUBLE)
STEPS = torch.tensor([[1, 0, 1]])


def decoding(*names: str, bernoulli: bool = False) -> tuple[Decoding, list[torch.Tensor]]:
    """Return decoders that predict 0.25, and a list of the transitions that they are asked of."""
    inputs, asked = Inputs(SCRIPT), []
    inputs.observation.update(torch.tensor([[1.0], [5.0]]))
    inputs.reward.update(TRIALS.rewards[0][:, None])
    decoders = make_decoders(names, SCRIPT, 2, seeded()).to(DOUBLE)

    def watch(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        asked.append(arguments[1])

    for decoder in decoders.values():
        torch.nn.init.zeros_(decoder.get_parameter("last.weight"))
        torch.nn.init.constant_(decoder.get_parameter("last.bias"), 0.25)
        decoder.register_forward_pre_hook(watch)
    return Decoding(decoders, SCRIPT, inputs, bernoulli=bernoulli), asked


def test_rewards_are_told_by_both_observations_and_what_was_done_in_deviations() -> None:
    made, asked = decoding("reward")
    (found,) = made.errors(normal(1, 2, 2), TRIALS, FINALS, STEPS).values()
    # Observations in deviations of 2 from 3, rewards in deviations of 1 from 2; the environment clips actions.
    assert asked[0].tolist() == [[[-1.0, -1.0, 2.0], [-1.5, 0.5, -0.5], [-1.0, -1.0, 2.0]]]
    assert found.tolist() == [[[0.75**2, 1.25**2, 0.75**2]] * 2]


def test_states_are_told_as_changes_in_deviations_of_changes() -> None:
    made, asked = decoding("state")
    made.update(TRIALS, FINALS, ALONE)
    # Of what is shown, 1 and 3.
    assert (made.changes.mean.tolist(), made.changes.deviation.tolist()) == ([2.0], [1.0])
    (found,) = made.errors(normal(1, 2, 2), TRIALS, FINALS, STEPS).values()
    assert asked[0].tolist() == [[[-1.0, -1.0], [-1.5, 0.5], [-1.0, -1.0]]]
    assert found.tolist() == [[[0.75**2, 1.25**2, 0.75**2]] * 2]


def test_rewards_of_0_and_1_may_have_logits_and_others_are_refused() -> None:
    made, _ = decoding("reward", bernoulli=True)
    throws = replace(TRIALS, rewards=torch.tensor([[0.0, 1.0]], dtype=DOUBLE))
    made.check(throws)
    (found,) = made.errors(normal(1, 1, 2), throws, FINALS, STEPS).values()
    p = torch.sigmoid(torch.tensor(0.25, dtype=DOUBLE))
    torch.testing.assert_close(found[0, 0], -torch.stack((p, 1.0 - p, p)).log())
    with pytest.raises(UserError, match=r"Got a reward of 3 with --reward-likelihood bernoulli.*likelihood normal\.$"):
        made.check(TRIALS)
    decoding("reward")[0].check(TRIALS)
    decoding("state", bernoulli=True)[0].check(TRIALS)


def test_of_pictures_decoders_see_and_predict_coarse_ones() -> None:
    spec = Stripes().spec()
    decoders = make_decoders(("reward", "state"), spec, 2, seeded())
    coarse = Decoding(decoders, spec, Inputs(spec), bernoulli=False).encoder.coarse_outputs
    assert coarse < spec.observation_size
    assert decoders["state"].get_parameter("last.bias").shape == (coarse,)
    assert decoders["reward"].get_parameter("of_transition.weight").shape[1] == 2 * coarse + spec.action_size
