"""Families compute where their tensors are.

torch's fake tensors raise where devices are mixed. They stand on the device `meta` here, since a torch without CUDA has
no other one beside the CPU.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from metarl.envs import families, get
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.engines.in_torch import TorchPhysics
from metarl.envs.family import _COPIES, MujocoFamily, TorchFamily, random_actions
from metarl.envs.horizon import with_horizon
from metarl.envs.worlds import Worlds
from metarl.learning.rollout import collect

WORLDS = 3
KINDS = (MujocoFamily, TorchFamily)
ELSEWHERE = torch.device("meta")
NAMES = [
    *(family.full_name for variants in families().values() for family in variants if isinstance(family, KINDS)),
    "half-cheetah-vel@v5+mass",
]


@pytest.fixture(scope="module")
def mode() -> Iterator[FakeTensorMode]:
    """One for all: copies of constants are kept."""
    yield FakeTensorMode(allow_non_fake_inputs=True)
    _COPIES.clear()


@pytest.mark.parametrize("name", NAMES)
def test_families_mix_no_devices(name: str, mode: FakeTensorMode) -> None:
    family, generator = get(name), torch.Generator().manual_seed(0)
    tasks = family.space.sample(WORLDS, "train", generator)
    state = family.reset_state(generator, tasks)
    if isinstance(family, MujocoFamily):
        physics = MujocoPhysics(family, WORLDS, threads=1)
        physics.write(state, None)
        state = physics.state
    # What families compute once and keep must not be made of fakes.
    family.observe(state, tasks)
    family.terminated(state, tasks)
    with mode:
        there = {key: mode.from_tensor(value).to(ELSEWHERE) for key, value in state.items()}
        seen = type(tasks)(tasks.family, {key: mode.from_tensor(v).to(ELSEWHERE) for key, v in tasks.values.items()})
        action = torch.zeros(WORLDS, family.action_size, dtype=torch.float64, device=ELSEWHERE)
        if isinstance(family, TorchFamily):
            there = family.advance(there, action, seen)
        before = {key: there[key] for key in family.remember}
        results = [
            family.observe(there, seen),
            *family.reward_terms(before, there, action, seen).values(),
            family.terminated(there, seen),
            family.truncated(there, seen),
            family.success(there, seen),
        ]
    for result in results:
        assert result is None or result.device == ELSEWHERE


def point_worlds(horizon: int, *, lockstep: bool) -> Worlds:
    family = with_horizon(get("point-nav"), horizon)
    assert isinstance(family, TorchFamily)
    physics = TorchPhysics(family, WORLDS)
    physics.lockstep = lockstep
    return Worlds(family, WORLDS, physics)


def test_worlds_in_lockstep_take_the_same_steps() -> None:
    seen = []
    for lockstep in (False, True):
        worlds, generator = point_worlds(10, lockstep=lockstep), torch.Generator().manual_seed(0)
        worlds.set_tasks(worlds.family.space.sample(WORLDS, "train", generator))
        worlds.reset(generator)
        worlds.physics.state["position"][1] = float("nan")
        steps = [worlds.step(random_actions(worlds.family, WORLDS, generator).float()) for _ in range(3)]
        seen.append([part for s in steps for part in (s.observation, s.reward, s.terminated, s.truncated)])
        assert worlds.failures == 1
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one, other)


class Homing:
    """Goes to the goals."""

    def __init__(self, goals: Tensor) -> None:
        self.goals = goals

    def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        return ((self.goals - observation) / 0.1).clamp(-1.0, 1.0).float()


def test_a_collection_that_does_not_watch_for_the_end_is_the_same() -> None:
    tasks = with_horizon(get("point-nav"), 50).space.sample(WORLDS, "train", torch.Generator().manual_seed(0))
    one, other = (
        collect(
            point_worlds(50, lockstep=not watch),
            Homing(tasks["goal"]),
            tasks,
            1,
            torch.Generator().manual_seed(0),
            watch=watch,
        )
        for watch in (True, False)
    )
    assert one.mask.shape[-1] < 50
    for name in ("observations", "actions", "rewards", "mask", "terminated", "final_observations"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.terms == other.terms


def test_fake_tensors_do_raise_where_devices_are_mixed(mode: FakeTensorMode) -> None:
    with mode, pytest.raises(RuntimeError, match="device"):
        _ = torch.ones(2, device=ELSEWHERE) + torch.ones(2)
