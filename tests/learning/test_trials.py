"""Trials: what a memory receives and when, and the episodes of a trial in a row, by a table and by hand."""

from __future__ import annotations

import pytest
import torch

from metarl.learning.trials import Inputs, final_observations, join, observations_after
from metarl.types import Trajectories
from tests.helpers.trials import SCRIPT, TWO, played_script, unscaled

# --- what reaches the network ------------------------------------------------------------------------------------

# The worlds are those of tests/helpers/trials.py.
# By moment: observation, then action, reward and end of the step before. Both worlds observe e + t / 10 in episode e
# at step t, and step t of it gives e + 1 + (t + 1) / 10, in the second world negative. The k-th action of all is k / 10
# in the first world and -15 k / 100 in the second, where the environment clips the last three.
ROWS = (
    (
        (0.0, 0.0, 0.0, 0.0),  # First step of the trial.
        (1.0, 0.1, 1.1, 1.0),  # After a terminal state: all of its last triple, across the boundary.
        (1.1, 0.4, 2.1, 0.0),
        (1.2, 0.5, 2.2, 0.0),
        (2.0, 0.6, 2.3, 1.0),  # After the time limit.
        (2.1, 0.7, 3.1, 0.0),
        (2.2, 0.8, 3.2, 1.0),  # The moment behind the trial.
    ),
    (
        (0.0, 0.0, 0.0, 0.0),
        (0.1, -0.15, -1.1, 0.0),
        (0.2, -0.3, -1.2, 0.0),
        (1.0, -0.45, -1.3, 1.0),
        (1.1, -0.6, -2.1, 0.0),
        (2.0, -0.75, -2.2, 1.0),
        (2.1, -1.0, -3.1, 0.0),
        (2.2, -1.0, -3.2, 0.0),
        (2.3, -1.0, -3.3, 1.0),
    ),
)


def test_the_network_receives_while_acting_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _, watched, _ = played_script(monkeypatch)
    for world in range(2):
        # The moment behind the trial is never acted upon.
        expected = torch.tensor(ROWS[world][:-1])
        torch.testing.assert_close(watched.of_world(world, watched.inputs), expected, rtol=0.0, atol=1e-6)
    assert [waits[0] for waits in watched.waiting] == [False, True, True, False, False, False, False, False, True]
    assert [waits[1] for waits in watched.waiting] == [False, False, False, False, False, True, False, False, False]


def test_the_network_receives_while_learning_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _, episodes = played_script(monkeypatch)
    nothing = (0.0, 0.0, 0.0, 0.0)
    expected = torch.tensor([(*ROWS[0], nothing, nothing), ROWS[1]])
    torch.testing.assert_close(agent.inputs.of(join(episodes)), expected, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("center_rewards", "shown"),
    [
        (False, (0.4, -0.2, 10.0, -10.0)),  # Root mean square 5.
        (True, (-0.25, -1.0, 10.0, -10.0)),  # Mean 3 and deviation 4.
    ],
)
def test_inputs_are_scaled_and_cut_off_by_hand(center_rewards: bool, shown: tuple[float, ...]) -> None:
    inputs = Inputs(SCRIPT, center_rewards=center_rewards)
    # Mean 3 and deviation 2.
    inputs.observation.update(torch.tensor([[1.0], [5.0]]))
    inputs.reward.update(torch.tensor([[7.0], [-1.0]]))
    rows = inputs(
        torch.tensor([[4.0], [-3.0], [30.0], [-30.0]]),
        torch.tensor([[0.5], [-0.5], [3.0], [-3.0]]),
        torch.tensor([2.0, -1.0, 60.0, -60.0]),
        torch.tensor([0.0, 1.0, 0.0, 1.0]),
    )
    others = ((0.5, 0.5, 0.0), (-3.0, -0.5, 1.0), (10.0, 1.0, 0.0), (-10.0, -1.0, 1.0))
    expected = [[seen, done, reward, end] for (seen, done, end), reward in zip(others, shown, strict=True)]
    torch.testing.assert_close(rows, torch.tensor(expected))


# --- trials in a row ---------------------------------------------------------------------------------------------


def episode(lengths: list[int], first: float, *, terminated: list[bool], steps: int) -> Trajectories:
    """Return an episode of each of two trials; everything in it counts up from `first`, by 10 more in the second."""
    mask = (torch.arange(steps) < torch.tensor(lengths)[:, None]).float()
    count = (torch.arange(steps) + first + torch.tensor([[0.0], [10.0]])) * mask
    final = torch.tensor(lengths) + first + torch.tensor([0.0, 10.0])
    return Trajectories(
        observations=count[:, None, :, None],
        actions=-count[:, None, :, None],
        rewards=100.0 * count[:, None],
        mask=mask[:, None],
        terminated=torch.tensor(terminated)[:, None],
        final_observations=final[:, None, None],
        tasks=TWO,
    )


def test_episodes_are_joined_without_gaps_and_in_order() -> None:
    trials = join(
        [
            episode([2, 1], 1.0, terminated=[False, True], steps=2),
            episode([1, 3], 4.0, terminated=[True, False], steps=3),
            episode([2, 1], 7.0, terminated=[True, False], steps=2),
        ]
    )
    count = torch.tensor([[1.0, 2.0, 4.0, 7.0, 8.0], [11.0, 14.0, 15.0, 16.0, 17.0]])
    assert torch.equal(trials.observations.squeeze(2), count)
    assert torch.equal(trials.actions.squeeze(2), -count)
    assert torch.equal(trials.rewards, 100.0 * count)
    assert trials.ended.tolist() == [[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]]
    assert trials.lengths.tolist() == [5, 5]
    assert trials.final.tolist() == [[9.0], [18.0]]
    # Only the end of the last episode counts, and what ended it.
    assert trials.cut.tolist() == [False, True]


def test_trials_are_padded_to_the_longest_one() -> None:
    trials = join(
        [episode([1, 3], 1.0, terminated=[True] * 2, steps=3), episode([1, 2], 5.0, terminated=[True] * 2, steps=2)]
    )
    assert trials.observations.squeeze(2).tolist() == [[1, 5, 0, 0, 0], [11, 12, 13, 15, 16]]
    assert trials.rewards.tolist() == [[100, 500, 0, 0, 0], [1100, 1200, 1300, 1500, 1600]]
    assert trials.ended.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 1]]
    assert trials.mask.tolist() == [[1, 1, 0, 0, 0], [1] * 5]
    # The last row follows step 5 of 5; the final observation stands behind the last real step.
    inputs = Inputs(SCRIPT)
    unscaled(inputs)
    rows = inputs.of(trials)
    assert rows[0, :, 0].tolist() == [1.0, 5.0, 6.0, 0.0, 0.0, 0.0]
    assert rows[1, -1].tolist() == [10.0, -1.0, 10.0, 1.0]


def test_what_is_seen_after_a_step_is_the_next_observation_or_the_last_of_its_episode() -> None:
    episodes = [
        episode([2, 1], 1.0, terminated=[False, True], steps=2),
        episode([1, 2], 5.0, terminated=[True, True], steps=2),
    ]
    after = observations_after(join(episodes), final_observations(episodes)).squeeze(2)
    assert after.tolist() == [[2.0, 3.0, 6.0], [12.0, 16.0, 17.0]]


def test_episodes_of_one_length_are_only_put_in_a_row() -> None:
    episodes = [episode([2, 2], first, terminated=[False] * 2, steps=2) for first in (1.0, 3.0)]
    trials = join(episodes)
    assert trials.observations.squeeze(2).tolist() == [[1, 2, 3, 4], [11, 12, 13, 14]]
    assert trials.ended.tolist() == [[0, 1, 0, 1]] * 2
    assert bool(trials.mask.all())
