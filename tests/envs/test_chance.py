"""Random numbers of steps: SplitMix64's, evenly spread, normal, and independent over steps, places and worlds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.envs import chance
from tests.helpers.toys import seeded

WORLDS, STEPS, COUNT = 200, 50, 17
TOTAL = WORLDS * STEPS * COUNT


def drawn(kind: str, count: int = COUNT) -> Tensor:
    """Return [worlds, steps, count] numbers."""
    make = {"uniform": chance.uniform, "normal": chance.normal}[kind]
    key = chance.keys(seeded(4), WORLDS)
    return torch.stack([make(key, step, count) for step in range(STEPS)], 1)


def by_hand(key: int, number: int) -> int:
    """Return the hash in Python's integers."""
    mask = 2**64 - 1
    bits = (key + 0x9E3779B97F4A7C15 * number) & mask
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
    return bits ^ (bits >> 31)


def test_numbers_are_those_of_splitmix64() -> None:
    # The first numbers of the published generator with the seed 1234567, which counts before it mixes.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [by_hand(1234567, number) for number in (1, 2, 3)] == published
    key = torch.tensor([1234567, -5])
    step = torch.tensor([2, 0])
    found = chance.uniform(key, step, 3)
    wanted = [[by_hand(1234567, 6 + i) >> 11 for i in range(3)], [by_hand(2**64 - 5, i) >> 11 for i in range(3)]]
    assert found.tolist() == [[bits * 2.0**-53 for bits in row] for row in wanted]
    bits = by_hand(1234567, 2 * 2)
    length = math.sqrt(-2.0 * math.log(((bits >> 32) + 1) * 2.0**-32))
    angle = 2.0 * math.pi * (bits & 0xFFFFFFFF) * 2.0**-32
    normal = chance.normal(key, step, 4)[0].tolist()
    assert [normal[0], normal[2]] == pytest.approx([length * math.cos(angle), length * math.sin(angle)], rel=1e-5)


def test_a_step_of_every_world_or_one_for_all() -> None:
    key = chance.keys(seeded(), 4)
    assert key.dtype == torch.int64
    assert len(set(key.tolist())) == 4
    for make in (chance.uniform, chance.normal):
        assert torch.equal(make(key, 3, 5), make(key, torch.full((4,), 3), 5))
        assert torch.equal(make(key[2:3], 3, 5), make(key, 3, 5)[2:3])
        assert make(key, 3, 1).shape == (4, 1)


def test_keys_are_spread_over_all_bits() -> None:
    key = chance.keys(seeded(1), 20_000)
    share = torch.stack([((key >> bit) & 1).double().mean() for bit in range(64)])
    assert (share - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize(
    ("kind", "mean", "variance", "fourth"), [("uniform", 0.5, 1.0 / 12.0, 1.0 / 80.0), ("normal", 0.0, 1.0, 3.0)]
)
def test_moments_and_independence(kind: str, mean: float, variance: float, fourth: float) -> None:
    numbers = drawn(kind)
    assert abs(numbers.mean().item() - mean) < 4.0 * math.sqrt(variance / TOTAL)
    centred = numbers - mean
    spread = math.sqrt(fourth - variance**2)
    assert abs(centred.square().mean().item() - variance) < 4.0 * spread / math.sqrt(TOTAL)
    assert centred.pow(4).mean().item() == pytest.approx(fourth, rel=0.02)
    # Neighbours in every direction, and the squares of them.
    for values in (centred, centred.square() - variance):
        scale = values.square().mean()
        pairs = {
            "worlds": (values[1:], values[:-1]),
            "steps": (values[:, 1:], values[:, :-1]),
            "places": (values[..., 1:], values[..., :-1]),
            "steps and places": (values[:, 1:, 1:], values[:, :-1, :-1]),
            "halves": (values[..., 9:], values[..., :8]),
        }
        for name, (one, other) in pairs.items():
            correlation = ((one * other).mean() / scale).item()
            assert abs(correlation) < 4.0 / math.sqrt(one.numel()), name


def test_uniform_numbers_fill_their_range_evenly() -> None:
    numbers = drawn("uniform")
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    counts = torch.histc(numbers, 100, 0.0, 1.0)
    chi = ((counts - TOTAL / 100).square() / (TOTAL / 100)).sum().item()
    # 99 degrees of freedom: mean 99, standard deviation 14.
    assert 50.0 < chi < 160.0


def test_normal_numbers_have_the_tails_of_a_normal() -> None:
    numbers = drawn("normal", 2).flatten()
    for end in (1.0, 2.0, 3.0):
        share = 2.0 * (1.0 - 0.5 * (1.0 + math.erf(end / math.sqrt(2.0))))
        found = (numbers.abs() > end).double().mean().item()
        assert abs(found - share) < 4.0 * math.sqrt(share * (1.0 - share) / len(numbers))


@pytest.mark.parametrize("count", [1, 2, 17])
def test_the_host_has_the_numbers_of_devices(count: int) -> None:
    """What a device computes with torch, the host does with NumPy: the same bits."""
    key, step = chance.keys(seeded(4), 300), torch.randint(0, 10_000, (300,), generator=seeded(5))
    for steps in (step, 0, 12_345):
        bits = chance._hashes(key, steps, count)
        of_worlds = np.broadcast_to(np.asarray(steps), (1, 300)).copy()
        (found,) = chance._hashes_of_host(key.numpy(), of_worlds, count).view(np.int64)
        assert torch.from_numpy(found).equal(bits)
        uniform = ((bits >> 11) & (2**53 - 1)).double() * 2.0**-53
        assert chance.uniform(key, steps, count).equal(uniform)
        bits = chance._hashes(key, steps, (count + 1) // 2)
        length = (((bits >> 32) & chance.LOW) + 1).float().mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
        angle = (bits & chance.LOW).float().mul_(2.0 * math.pi * 2.0**-32)
        normal = torch.cat((length * angle.cos(), length * angle.sin()), 1)[:, :count].double()
        assert chance.normal(key, steps, count).equal(normal)


def test_steps_in_any_order_and_between_others(monkeypatch: pytest.MonkeyPatch) -> None:
    key, other = chance.keys(seeded(7), 5), chance.keys(seeded(8), 5)
    steps = torch.tensor([3, 9, 0, 3, 40])
    with monkeypatch.context() as patch:
        patch.setattr(chance, "MOST_AHEAD", 0)
        wanted = [[make(key, steps + ahead, 3) for ahead in range(20)] for make in (chance.uniform, chance.normal)]
    assert key.numpy().tobytes() not in {known[2] for known in chance._REMEMBERED}
    for make, numbers in zip((chance.uniform, chance.normal), wanted, strict=True):
        for ahead in (0, 1, 7, 8, 19, 3, 3):
            found = make(key, steps + ahead, 3)
            assert torch.equal(found, numbers[ahead])
            # What becomes of them is the caller's.
            found.zero_()
            assert not torch.equal(make(other, steps + ahead, 3), numbers[ahead])
            assert not torch.equal(make(key, steps + ahead + 1, 3), numbers[ahead])
    for number in range(2 * chance.MOST_REMEMBERED):
        chance.uniform(key, number * chance.AHEAD, 1)
    assert len(chance._REMEMBERED) == chance.MOST_REMEMBERED
