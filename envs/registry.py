"""All families by name: `name` (its default variant) or `name@variant`."""

from __future__ import annotations

import torch

from metarl.envs import ant, half_cheetah, point_nav
from metarl.envs.cpu import MujocoPhysics
from metarl.envs.family import Family, MujocoFamily, TorchFamily
from metarl.envs.worlds import TorchPhysics, Worlds
from metarl.errors import UserError, nearest

_FAMILIES: dict[str, dict[str, Family]] = {}


def register(family: Family) -> None:
    """Add a family; the first variant registered under a name is its default.

    Raises:
        UserError: the name and variant are taken.
    """
    variants = _FAMILIES.setdefault(family.name, {})
    if family.variant in variants:
        raise UserError(f"got a second family {family.full_name}: each name@variant registers once, pick another")
    variants[family.variant] = family


for _module in (point_nav, half_cheetah, ant):
    for _family in _module.FAMILIES:
        register(_family)


def families() -> dict[str, list[Family]]:
    """Return every family name with its variants, the default first."""
    return {name: list(variants.values()) for name, variants in _FAMILIES.items()}


def get(name: str) -> Family:
    """Return a family by `name` or `name@variant`.

    Raises:
        UserError: it does not exist; lists what does.
    """
    base, _, variant = name.partition("@")
    if base not in _FAMILIES:
        raise UserError(f"unknown family '{base}'.{nearest(base, _FAMILIES)}")
    variants = _FAMILIES[base]
    if not variant:
        return next(iter(variants.values()))
    if variant not in variants:
        raise UserError(f"{base} has no variant '{variant}'.{nearest(variant, variants)}")
    return variants[variant]


def make_worlds(
    family: Family | str,
    num_worlds: int,
    *,
    threads: int = 0,
    unit_actions: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Worlds:
    """Return B parallel worlds of a family on the CPU engine.

    Args:
        family: a family, or its name.
        num_worlds: B.
        threads: engine threads; 0 takes every core.
        unit_actions: actions come scaled to -1..1 (what agents use), else in physical units.
        dtype: of observations and rewards.
    """
    if isinstance(family, str):
        family = get(family)
    if num_worlds < 1:
        raise UserError(f"got {num_worlds} worlds: at least 1 is needed")
    if isinstance(family, MujocoFamily):
        physics = MujocoPhysics(family, num_worlds, threads)
    elif isinstance(family, TorchFamily):
        physics = TorchPhysics(family, num_worlds)
    else:
        raise UserError(f"{family.full_name} is neither a MujocoFamily nor a TorchFamily: no engine runs it")
    return Worlds(family, num_worlds, physics, unit_actions=unit_actions, dtype=dtype)
