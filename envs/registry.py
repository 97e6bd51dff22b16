"""All families by name: `name` (its default variant) or `name@variant`; and each as a Gymnasium id.

Gymnasium has no hook for packages that are installed but not imported, so the ids exist once `metarl.envs` has been
imported: `import metarl.envs`, or the id with its module, `gymnasium.make("metarl.envs:metarl/AntDir-v0")`.
"""

from __future__ import annotations

import gymnasium
import torch

from metarl.envs import ant, half_cheetah, point_nav
from metarl.envs.cpu import MujocoPhysics
from metarl.envs.family import Family, MujocoFamily, TorchFamily
from metarl.envs.worlds import TorchPhysics, Worlds
from metarl.errors import UserError, nearest

MOST_THREADS = 1024
"""More than this is a typing error, and the system would refuse to start them in the middle of it."""

_FAMILIES: dict[str, dict[str, Family]] = {}


def register(family: Family) -> None:
    """Add a family, here and to Gymnasium; the first variant registered under a name is its default.

    Raises:
        UserError: the name and variant are taken.
    """
    variants = _FAMILIES.setdefault(family.name, {})
    if family.variant in variants:
        raise UserError(f"got a second family {family.full_name}: each name@variant registers once, pick another")
    variants[family.variant] = family
    if len(variants) == 1:
        # No max_episode_steps: the environments truncate by themselves, at their variant's horizon.
        gymnasium.register(
            gymnasium_id(family.name),
            entry_point="metarl.envs.single:FamilyEnv",
            vector_entry_point="metarl.envs.vector:FamilyVectorEnv",
            kwargs={"family": family.name},
        )


def gymnasium_id(name: str) -> str:
    """Return the Gymnasium id of a family: `metarl/HalfCheetahVel-v0` for `half-cheetah-vel`."""
    return f"metarl/{''.join(part.capitalize() for part in name.split('-'))}-v0"


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


def resolve(family: Family | str, variant: str | None = None) -> Family:
    """Return a family by its name, and by its variant where the name does not say it.

    Raises:
        UserError: it does not exist, or two variants were given.
    """
    if isinstance(family, str) and variant is None:
        return get(family)
    if isinstance(family, str) and "@" not in family:
        return get(f"{family}@{variant}")
    if isinstance(family, Family) and variant is None:
        return family
    name = family if isinstance(family, str) else family.full_name
    raise UserError(f"got variant='{variant}' for {name}, which names its variant: leave one of them out")


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
    family = resolve(family)
    if num_worlds < 1:
        raise UserError(f"got {num_worlds} worlds: at least 1 is needed")
    if not 0 <= threads <= MOST_THREADS:
        raise UserError(f"got threads={threads}: give 0 for every core, or 1 to {MOST_THREADS}")
    if isinstance(family, MujocoFamily):
        physics = MujocoPhysics(family, num_worlds, threads)
    elif isinstance(family, TorchFamily):
        physics = TorchPhysics(family, num_worlds)
    else:
        raise UserError(f"{family.full_name} is neither a MujocoFamily nor a TorchFamily: no engine runs it")
    return Worlds(family, num_worlds, physics, unit_actions=unit_actions, dtype=dtype)
