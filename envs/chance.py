"""Random numbers of every step of an episode, made where they are needed; the host makes those of a few steps at once.

A world draws a key at its reset, on the host. The number of a step is a hash of the key, the step and the place of the
number among those of the step: SplitMix64's mixing function (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators") of `key + golden * (step * count + place)`, in torch's 64-bit integers, which wrap around. So the
numbers are the same on every engine and device (normal ones to the last bits of float32), in any
order, and no host is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs.family import on


def _signed(number: int) -> int:
    """Return the number of 64 bits as torch's integers have it."""
    return number - 2**64 if number >= 2**63 else number


GOLDEN = _signed(0x9E3779B97F4A7C15)
FIRST, SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
LOW = 2**32 - 1

_PLACES: dict[int, Tensor] = {}
"""By how many: `golden * place`, made once."""
_PLACES_OF_HOST: dict[int, np.ndarray] = {}
"""The same for NumPy."""


def keys(generator: torch.Generator, worlds: int) -> Int[Tensor, " B"]:
    """Draw a key for an episode of each world, on the host.

    Args:
        generator: where the randomness comes from.
        worlds: B.
    """
    high, low = torch.randint(2**32, (2, worlds), generator=generator).unbind(0)
    return (high << 32) | low


def uniform(key: Int[Tensor, " B"], step: Int[Tensor, " B"] | int, count: int) -> Float[Tensor, "B N"]:
    """Return numbers from 0 up to, and without, 1.

    Args:
        key: of every world's episode.
        step: of every world.
        count: N, numbers of a step; another N gives other numbers.
    """
    if of_host(key):
        return _remembered(_uniform_of_host, key, step, count)
    return ((_hashes(key, step, count) >> 11) & (2**53 - 1)).double() * 2.0**-53


def normal(key: Int[Tensor, " B"], step: Int[Tensor, " B"] | int, count: int) -> Float[Tensor, "B N"]:
    """Return standard normal numbers, within ±6.7, by Box and Muller's transform of halves of a hash, in float32.

    Args:
        key: of every world's episode.
        step: of every world.
        count: N, numbers of a step; another N gives other numbers.
    """
    half = (count + 1) // 2
    if of_host(key):
        return _remembered(_normal_of_host, key, step, count)
    bits = _hashes(key, step, half)
    length = (((bits >> 32) & LOW) + 1).float().mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = (bits & LOW).float().mul_(2.0 * math.pi * 2.0**-32)
    return torch.cat((length * angle.cos(), length * angle.sin()), 1)[:, :count].double()


def of_host(key: Tensor) -> bool:
    """Return whether numbers are made by NumPy, which no graph of a device can hold."""
    return key.device.type == "cpu"


def _hashes(key: Tensor, step: Tensor | int, count: int) -> Int[Tensor, "B N"]:
    """Return 64 random bits for every place."""
    if count not in _PLACES:
        _PLACES[count] = torch.arange(count) * GOLDEN
    stride = _signed(count * GOLDEN % 2**64)
    passed = _signed(step * stride % 2**64) if isinstance(step, int) else step * stride
    bits = (key + passed)[:, None] + on(key, _PLACES[count])
    # Torch shifts the sign in from above: the mask takes it out.
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))).mul_(FIRST)
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))).mul_(SECOND)
    return bits ^ ((bits >> 31) & (2**33 - 1))


# -- the same numbers on the host, by NumPy: of few of them a step of it takes half of torch's time --------------------

_11, _31, _32, _ONE, _LOW = (np.uint64(number) for number in (11, 31, 32, 1, LOW))
_MIXES = tuple((np.uint64(shift), np.uint64(factor % 2**64)) for shift, factor in ((30, FIRST), (27, SECOND)))


AHEAD, MOST_AHEAD = 8, 50_000
"""Steps that are made at once, and numbers of them at most: behind the physics, when the host's caches hold other
things, a step's own take as long as those of eight. Of many worlds they do not."""
MOST_REMEMBERED = 128
"""Steps."""
_REMEMBERED: dict[tuple[Any, ...], np.ndarray] = {}
"""By who made them, how many, and the bytes of keys and steps: numbers [B, N]."""


def _remembered(make: Callable[..., np.ndarray], key: Tensor, step: Tensor | int, count: int) -> Float[Tensor, "B N"]:
    """Return the numbers of a step, and remember those of the steps that follow. They are the same in any order."""
    keys = key.numpy()
    steps = np.full(len(keys), step) if isinstance(step, int) else step.numpy()
    if AHEAD * len(keys) * count > MOST_AHEAD:
        return torch.from_numpy(make(keys, steps[None], count)[0])
    whose = keys.tobytes()
    found = _REMEMBERED.get((make, count, whose, steps.tobytes()))
    if found is None:
        later = steps + np.arange(AHEAD)[:, None]
        made = make(keys, later, count)
        _REMEMBERED.update(((make, count, whose, when.tobytes()), row) for when, row in zip(later, made, strict=True))
        while len(_REMEMBERED) > MOST_REMEMBERED:
            del _REMEMBERED[next(iter(_REMEMBERED))]
        found = made[0]
    return torch.from_numpy(found.copy())


def _hashes_of_host(key: np.ndarray, step: np.ndarray, count: int) -> np.ndarray:
    """Return 64 random bits for every place, [steps, B, N] of unsigned integers, whose shifts need no masks."""
    if count not in _PLACES_OF_HOST:
        _PLACES_OF_HOST[count] = np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN % 2**64)
    passed = step.view(np.uint64) * np.uint64(count * GOLDEN % 2**64)
    bits = (key.view(np.uint64) + passed)[..., None] + _PLACES_OF_HOST[count]
    for shift, factor in _MIXES:
        bits ^= bits >> shift
        bits *= factor
    bits ^= bits >> _31
    return bits


def _uniform_of_host(key: np.ndarray, step: np.ndarray, count: int) -> np.ndarray:
    """Return numbers from 0 up to 1 of every step, [steps, B, N]."""
    return (_hashes_of_host(key, step, count) >> _11) * 2.0**-53


def _normal_of_host(key: np.ndarray, step: np.ndarray, count: int) -> np.ndarray:
    """Return normal numbers of every step, [steps, B, N]; torch computes what rounds in its own way, roots too."""
    half = (count + 1) // 2
    bits = _hashes_of_host(key, step, half)
    part = ((bits >> _32) + _ONE).astype(np.float32)
    part *= 2.0**-32
    length = torch.from_numpy(part).log_().mul_(-2.0).sqrt_().numpy()
    angle = (bits & _LOW).astype(np.float32)
    angle *= 2.0 * math.pi * 2.0**-32
    turn = torch.from_numpy(angle)
    numbers = np.empty((*bits.shape[:-1], count))
    numbers[..., :half] = length * turn.cos().numpy()
    numbers[..., half:] = (length * turn.sin().numpy())[..., : count - half]
    return numbers
