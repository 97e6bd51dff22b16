"""Random numbers of every step of an episode, made where they are needed: no table is drawn ahead.

A world draws a key at its reset, on the host. The number of a step is a hash of the key, the step and the place of the
number among those of the step: SplitMix64's mixing function (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators") of `key + golden * (step * count + place)`, in torch's 64-bit integers, which wrap around. So the
numbers are the same on every engine and device (normal ones to the last bits of float32), in any
order, and no host is waited for.
"""

from __future__ import annotations

import math

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
    return ((_hashes(key, step, count) >> 11) & (2**53 - 1)).double() * 2.0**-53


def normal(key: Int[Tensor, " B"], step: Int[Tensor, " B"] | int, count: int) -> Float[Tensor, "B N"]:
    """Return standard normal numbers, within ±6.7, by Box and Muller's transform of halves of a hash, in float32.

    Args:
        key: of every world's episode.
        step: of every world.
        count: N, numbers of a step; another N gives other numbers.
    """
    bits = _hashes(key, step, (count + 1) // 2)
    length = (((bits >> 32) & LOW) + 1).float().mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = (bits & LOW).float().mul_(2.0 * math.pi * 2.0**-32)
    return torch.cat((length * angle.cos(), length * angle.sin()), 1)[:, :count].double()


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
