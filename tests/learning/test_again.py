"""Collections that are played again are as if nothing had happened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents import config_class, make
from metarl.envs import get
from metarl.envs.engines.in_torch import TorchPhysics
from metarl.envs.family import Family, TorchFamily
from metarl.envs.horizon import with_horizon
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.launches import Launches, apart
from metarl.learning.again import Again
from metarl.learning.rollout import collect
from metarl.seeding import Streams
from metarl.types import MemoryPolicy, Outgrowing, Returning, Tasks
from tests.helpers.recorder import Recorder
from tests.helpers.same import assert_same
from tests.helpers.toys import seeded


class TooSmall(TorchPhysics):
    """Ends episodes as failures in the collections of the given numbers, and finds out when they are over."""

    def __init__(self, family: TorchFamily, num_worlds: int, short: tuple[int, ...] = ()) -> None:
        super().__init__(family, num_worlds)
        self.lockstep = True
        self.short, self.looks, self.steps = short, 0, 0

    @property
    def room(self) -> Mapping[str, int]:
        return {"contacts": 8 + self.looks}

    def widen(self) -> bool:
        self.looks, self.steps = self.looks + 1, 0
        if self.looks - 1 not in self.short:
            return False
        if self.launches is not None:
            self.launches.clear()
        return True

    def advance(self, action: Tensor, worlds: Tensor | None) -> Tensor | None:
        failed = super().advance(action, worlds)
        assert failed is not None
        lost = torch.zeros_like(failed)

        def lose() -> None:
            # A replay runs it as well.
            self.steps += 1
            lost.copy_(torch.arange(len(action)) % 2 == 0 if self.looks in self.short and self.steps > 1 else failed)

        apart(lose)
        return lost


def play(family: Family, short: tuple[int, ...], agent: str, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train an agent for an iteration; return its figures without the times, and all that it is."""
    assert isinstance(family, TorchFamily)
    config = config_class(agent)(tasks=4, **settings)
    worlds = Worlds(family, config.worlds, TooSmall(family, config.worlds, short))
    streams = Streams(0)
    trained = make(agent, config, family.spec(), streams, torch.device("cpu"))
    metrics = trained.train_iteration(worlds, family.space.sample, streams)
    assert worlds.failures == 0
    assert worlds.room == {"contacts": 8 + worlds.physics.looks}  # pyright: ignore[reportAttributeAccessIssue]
    figures = {name: value for name, value in metrics.items() if not name.startswith(("time/", "speed/"))}
    return figures, {**trained.state_dict(), "streams": streams.state_dict()}


@pytest.mark.parametrize(
    ("name", "agent", "settings"),
    [
        ("point-nav", "maml-trpo", {"episodes": 2}),
        ("point-nav", "rl2", {"episodes": 2, "minibatches": 2, "width": 8}),
        ("point-nav", "rl2", {"episodes": 2, "minibatches": 2, "width": 8, "core": "transformer"}),
        ("point-nav+switch=2..7", "rl2", {"episodes": 2, "minibatches": 2, "width": 8, "core": "lstm"}),
    ],
)
def test_a_training_is_as_if_nothing_had_been_played_again(name: str, agent: str, settings: dict[str, Any]) -> None:
    family = with_horizon(get(name), 4)
    figures, state = play(family, (), agent, **settings)
    # The first collection twice, a later one once.
    again, after = play(family, (0, 1, 3), agent, **settings)
    assert all(math.isfinite(value) for value in figures.values())
    assert again == figures
    assert_same(after, state)


@pytest.mark.parametrize("agent", ["maml-trpo", "rl2"])
def test_launched_steps_are_played_again_too(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, found = with_horizon(get("point-nav"), 4), []
    assert isinstance(family, TorchFamily)
    config = config_class(agent)(tasks=4, episodes=2, **({"minibatches": 2, "width": 8} if agent == "rl2" else {}))
    place = {"maml-trpo": "learning.meta_batch", "rl2": "learning.rollout"}[agent]
    monkeypatch.setattr(f"metarl.{place}.collect", partial(collect, watch=False))
    for short in ((), (0, 3)):
        recorder, streams = Recorder(), Streams(0)
        physics = TooSmall(family, config.worlds, short)
        physics.launches = Launches(recorder)
        worlds = Worlds(family, config.worlds, physics)
        trained = make(agent, config, family.spec(), streams, torch.device("cpu"))
        for _ in range(2):
            trained.train_iteration(worlds, family.space.sample, streams)
        assert recorder.replays > 0
        assert worlds.failures == 0
        found.append(trained.state_dict())
    assert_same(*found)


def test_without_such_an_engine_nothing_is_kept() -> None:
    family = get("point-nav")
    assert isinstance(family, TorchFamily)
    worlds = Worlds(family, 2, TorchPhysics(family, 2))
    assert isinstance(worlds, Outgrowing)
    assert (worlds.keep(), worlds.outgrown(), worlds.room) == (None, False, {})


class Counting:
    """Remembers how often it acted, and cannot go back."""

    def __init__(self) -> None:
        self.count = 0

    def begin_episode(self) -> None:
        self.count += 0

    def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        self.count += 1
        return torch.zeros(len(observation), 2)

    def see(self, reward: Tensor, ended: Tensor) -> None:
        self.count += 0


def test_a_memory_that_cannot_go_back_is_refused_when_it_has_to() -> None:
    family, policy = with_horizon(get("point-nav"), 3), Counting()
    assert isinstance(family, TorchFamily)
    assert isinstance(policy, MemoryPolicy)
    assert not isinstance(policy, Returning)
    tasks: Tasks = family.space.sample(2, "train", seeded(0))
    collect(Worlds(family, 2, TooSmall(family, 2)), policy, tasks, 1, seeded(0))
    with pytest.raises(UserError, match=r"got a Counting, which remembers.*Give it `keep` and `go_back`.*engine cpu"):
        collect(Worlds(family, 2, TooSmall(family, 2, (0,))), policy, tasks, 1, seeded(0))
    # The advice holds.
    policy.keep = lambda: policy.count  # pyright: ignore[reportAttributeAccessIssue]
    policy.go_back = lambda kept: setattr(policy, "count", kept)  # pyright: ignore[reportAttributeAccessIssue]
    policy.count = 0
    collect(Worlds(family, 2, TooSmall(family, 2, (0, 1))), policy, tasks, 1, seeded(0))
    assert policy.count == 3


def test_the_generator_goes_back_too() -> None:
    family, policy = with_horizon(get("point-nav"), 3), Counting()
    assert isinstance(family, TorchFamily)
    worlds, generator = Worlds(family, 2, TooSmall(family, 2, (0,))), seeded(0)
    worlds.set_tasks(family.space.sample(2, "train", seeded(0)))
    policy.keep = lambda: 0  # pyright: ignore[reportAttributeAccessIssue]
    policy.go_back = lambda kept: None  # pyright: ignore[reportAttributeAccessIssue]
    again, before = Again(worlds, policy, generator), generator.get_state()
    first = worlds.reset(generator)
    assert not torch.equal(generator.get_state(), before) or bool((first == 0.0).all())
    torch.rand(3, generator=generator)
    assert again.needed()
    assert torch.equal(generator.get_state(), before)
    assert worlds.tasks is None
    assert torch.equal(worlds.reset(generator), first)
    assert not again.needed()
