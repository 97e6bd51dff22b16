from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import State
from metarl.envs.making import make_worlds
from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.types import MemoryPolicy, Tasks
from tests.helpers.toys import DOUBLE, seeded

POINT = PointNav(variant="short", horizon=5)

GOALS = Tasks(POINT.full_name, {"goal": torch.tensor([[0.3, 0.0], [0.0, -0.2]], dtype=DOUBLE)})

# One direction per world, in units of the largest move (.1 m): task 0 reached in three steps, then half as fast and
# never; task 1 reached in two steps, then not moving.
MOVES = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, -3.0], [0.0, 0.0]], dtype=DOUBLE)


class Passing(PointNav):
    """Its goal is met within 0.12 m, where the episode does not end."""

    def success(self, state: State, tasks: Tasks) -> Tensor:
        return (state["position"] - tasks["goal"]).norm(dim=1) < 0.12


class Scripted:
    """Always the same action in a world; remembers what it was asked."""

    def __init__(self, moves: Tensor) -> None:
        self.moves = moves
        self.seen: list[Tensor] = []
        self.threads: set[int] = set()

    def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        self.seen.append(observation.clone())
        self.threads.add(torch.get_num_threads())
        return self.moves


class Remembering(Scripted):
    """Notes what a policy with a memory is told."""

    def __init__(self, moves: Tensor) -> None:
        super().__init__(moves)
        self.told: list[tuple[str, Any]] = []

    def begin_episode(self) -> None:
        self.told.append(("begin", None))

    def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        self.told.append(("act", observation.tolist()))
        return super().act(observation, generator)

    def see(self, reward: Tensor, ended: Tensor) -> None:
        self.told.append(("see", (reward.tolist(), ended.tolist())))


class Noisy:
    """Random actions."""

    def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(len(observation), 2, generator=generator, dtype=DOUBLE)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_episodes_of_two_tasks_by_hand() -> None:
    policy = Scripted(MOVES)
    episodes = collect(make_worlds(POINT, 4, dtype=DOUBLE), policy, GOALS, 2, seeded(0))

    mask = torch.tensor([[[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]], dtype=DOUBLE)
    assert torch.equal(episodes.mask, mask)
    rewards = [
        [[-0.2, -0.1, 0.0, 0.0, 0.0], [-0.25, -0.2, -0.15, -0.1, -0.05]],
        [[-0.1, 0.0, 0.0, 0.0, 0.0], [-0.2] * 5],
    ]
    torch.testing.assert_close(episodes.rewards, torch.tensor(rewards, dtype=DOUBLE), rtol=0.0, atol=1e-15)
    assert episodes.terminated.tolist() == [[True, False], [True, False]]
    final = [[[0.3, 0.0], [0.25, 0.0]], [[0.0, -0.2], [0.0, 0.0]]]
    torch.testing.assert_close(episodes.final_observations, torch.tensor(final, dtype=DOUBLE), rtol=0.0, atol=1e-15)

    # Before step t a world has moved t times; actions are kept as given, also those that the worlds clip.
    moved = MOVES.clamp(-1.0, 1.0).reshape(2, 2, 1, 2) * torch.arange(5.0, dtype=DOUBLE).unsqueeze(-1) * 0.1
    torch.testing.assert_close(episodes.observations, moved * mask.unsqueeze(-1), rtol=0.0, atol=1e-15)
    assert torch.equal(episodes.actions, MOVES.reshape(2, 2, 1, 2) * mask.unsqueeze(-1))

    assert episodes.steps == 15
    torch.testing.assert_close(episodes.returns, torch.tensor([[-0.3, -0.75], [-0.1, -1.0]], dtype=DOUBLE))
    assert episodes.terms == {"distance": pytest.approx(-2.15 / 15)}
    assert episodes.tasks is GOALS
    assert 0.0 <= episodes.policy_seconds <= episodes.seconds


def test_worlds_that_have_ended_wait() -> None:
    policy = Scripted(MOVES)
    collect(make_worlds(POINT, 4, dtype=DOUBLE), policy, GOALS, 2, seeded(0))
    assert len(policy.seen) == 5
    # World 0 stays where it ended: no new episode begins in it.
    positions = torch.stack([observation[0] for observation in policy.seen])
    expected = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.3, 0.0]], dtype=DOUBLE)
    torch.testing.assert_close(positions, expected, rtol=0.0, atol=1e-15)


def test_every_world_is_reset_once(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_worlds(POINT, 4)
    resets = []
    original = env.reset
    monkeypatch.setattr(env, "reset", lambda generator: resets.append(1) or original(generator))
    for _ in range(3):
        episodes = collect(env, Scripted(MOVES), GOALS, 2, seeded(0))
        assert episodes.mask.shape == (2, 2, 5)
    assert len(resets) == 3
    assert env.tasks is not None
    assert torch.equal(env.tasks["goal"], GOALS["goal"].repeat_interleave(2, 0))


def test_collection_ends_with_the_last_episode() -> None:
    moves = MOVES[[0, 0, 2, 2]]
    policy = Scripted(moves)
    episodes = collect(make_worlds(POINT, 4, dtype=DOUBLE), policy, GOALS, 2, seeded(0))
    assert len(policy.seen) == 3
    assert episodes.rewards.shape == (2, 2, 3)
    assert episodes.mask.tolist() == [[[1, 1, 1], [1, 1, 1]], [[1, 1, 0], [1, 1, 0]]]
    assert bool(episodes.terminated.all())


def test_reaching_the_goal_with_the_last_step_terminates() -> None:
    point = PointNav(variant="short", horizon=3)
    goals = Tasks(point.full_name, GOALS.values)
    episodes = collect(make_worlds(point, 4), Scripted(MOVES), goals, 2, seeded(0))
    assert episodes.mask.sum(2).tolist() == [[3, 3], [2, 3]]
    assert episodes.terminated.tolist() == [[True, False], [True, False]]


def test_a_memory_is_told_of_every_step_and_of_every_new_episode() -> None:
    policy = Remembering(MOVES[[0, 2]])
    assert isinstance(policy, MemoryPolicy)
    assert not isinstance(Scripted(MOVES), MemoryPolicy)
    env = make_worlds(POINT, 2, dtype=DOUBLE)
    for number in range(2):
        collect(env, policy, GOALS, 1, seeded(0), new_trial=number == 0)
    # World 1 is at its goal after two steps, and waits there while world 0 takes its third.
    episode = [
        ("begin", None),
        ("act", [[0.0, 0.0], [0.0, 0.0]]),
        ("see", ([-0.2, -0.1], [False, False])),
        ("act", [[0.1, 0.0], [0.0, -0.1]]),
        ("see", ([-0.1, 0.0], [False, True])),
        ("act", [[0.2, 0.0], [0.0, -0.2]]),
        ("see", ([0.0, 0.0], [True, False])),
    ]
    assert [name for name, _ in policy.told] == [name for name, _ in episode * 2]
    for (name, told), (_, expected) in zip(policy.told, episode * 2, strict=True):
        if name == "act":
            torch.testing.assert_close(torch.tensor(told), torch.tensor(expected), rtol=0.0, atol=1e-6)
        elif name == "see":
            assert told[0] == pytest.approx(expected[0], abs=1e-12)
            assert told[1] == expected[1]


def test_a_trial_goes_on_with_the_tasks_of_its_first_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_worlds(POINT, 4, dtype=DOUBLE)
    given: list[Tasks] = []
    original = env.set_tasks
    monkeypatch.setattr(env, "set_tasks", lambda tasks: given.append(tasks) or original(tasks))
    with pytest.raises(UserError, match="no tasks yet"):
        collect(env, Scripted(MOVES), GOALS, 2, seeded(0), new_trial=False)
    episodes = [collect(env, Scripted(MOVES), GOALS, 2, seeded(0), new_trial=number == 0) for number in range(3)]
    assert len(given) == 1
    for later in episodes[1:]:
        assert torch.equal(later.rewards, episodes[0].rewards)
        assert torch.equal(later.mask, episodes[0].mask)
        assert later.tasks is GOALS
    others = Tasks(POINT.full_name, {"goal": -GOALS["goal"]})
    assert not torch.equal(collect(env, Scripted(MOVES), others, 2, seeded(0)).rewards, episodes[0].rewards)
    assert torch.equal(given[1]["goal"], -GOALS["goal"].repeat_interleave(2, 0))


def test_the_generator_decides_everything() -> None:
    env = make_worlds(POINT, 4, dtype=DOUBLE)
    first, second, third = (collect(env, Noisy(), GOALS, 2, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.actions, second.actions)
    assert torch.equal(first.rewards, second.rewards)
    assert not torch.equal(first.actions, third.actions)


def test_torch_has_one_thread_meanwhile(two_threads: None) -> None:
    policy = Scripted(MOVES)
    collect(make_worlds(POINT, 4), policy, GOALS, 2, seeded(0))
    assert policy.threads == {1}
    assert torch.get_num_threads() == 2


def test_the_threads_come_back_after_an_error(two_threads: None) -> None:
    with pytest.raises(UserError, match="not finite"):
        collect(make_worlds(POINT, 4), Scripted(MOVES * torch.nan), GOALS, 2, seeded(0))
    assert torch.get_num_threads() == 2


def test_worlds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="6 tasks for 4 worlds"):
        collect(make_worlds(POINT, 4), Scripted(MOVES), GOALS, 3, seeded(0))


def test_an_episode_succeeds_where_the_goal_was_met_at_any_step() -> None:
    family = Passing(variant="passing", horizon=5)
    goals = Tasks(family.full_name, GOALS.values)
    # Never near; half as fast comes near in the fourth step; straight there, where the episode ends; not moving.
    moves = torch.tensor([[0.0, 1.0], [0.5, 0.0], [0.0, -1.0], [0.0, 0.0]], dtype=DOUBLE)
    worlds = make_worlds(family, 4, dtype=DOUBLE)
    episodes = collect(worlds, Scripted(moves), goals, 2, seeded(0))
    assert episodes.success is not None
    assert episodes.success.tolist() == [[False, True], [True, False]]
    assert episodes.success_rate == {"episode/success": 0.5}
    assert collect(make_worlds(POINT, 4), Scripted(MOVES.float()), GOALS, 2, seeded(0)).success_rate == {}

    # A world whose episode has ended no longer counts as successful: its success was told when it happened.
    worlds.set_tasks(goals.repeat(2))
    worlds.reset(seeded(0))
    told = [worlds.step(moves).success for _ in range(5)]
    assert [None if step is None else step.tolist() for step in told] == [
        [False, False, True, False],
        [False, False, True, False],
        [False, False, False, False],
        [False, True, False, False],
        [False, True, False, False],
    ]
