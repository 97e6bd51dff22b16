"""Families compute where their tensors are.

torch's fake tensors raise where devices are mixed. They stand on the device `meta` here, since a torch without CUDA has
no other one beside the CPU.
"""

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from metarl.envs import families, get
from metarl.envs.cpu import MujocoPhysics
from metarl.envs.family import _COPIES, MujocoFamily, TorchFamily

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


def test_fake_tensors_do_raise_where_devices_are_mixed(mode: FakeTensorMode) -> None:
    with mode, pytest.raises(RuntimeError, match="device"):
        _ = torch.ones(2, device=ELSEWHERE) + torch.ones(2)
