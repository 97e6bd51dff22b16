"""Families with another time limit than their definition has, by their name: `point-nav@maml17+horizon=500`."""

from __future__ import annotations

import dataclasses
from numbers import Integral
from typing import Any, TypeVar

from metarl.envs.family import Family
from metarl.errors import UserError

F = TypeVar("F", bound=Family)


HORIZON = "+horizon="
"""What stands in a family's name before another time limit than its definition has."""


def without_horizon(name: str) -> str:
    """Return a family's name without the time limit that stands in it."""
    return "+".join(part for part in name.split("+") if not part.startswith(HORIZON.strip("+")))


def with_horizon(family: F, steps: int) -> F:
    """Return the same family with another time limit, which its name tells: `point-nav@maml17+horizon=500`.

    Args:
        family: a frozen dataclass, as all families are.
        steps: T, at least 1. The family itself comes back where it has this horizon.

    Raises:
        UserError: no whole number of steps.
    """
    if not dataclasses.is_dataclass(family):
        raise TypeError(f"{type(family).__name__} is no dataclass: write it as a frozen one, as the others are")
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise UserError(f"{family.full_name}: got a horizon of {steps!r} steps: give a whole number from 1")
    if steps == family.horizon:
        return family
    changes: dict[str, Any] = {"horizon": int(steps)}
    # A family that is made of another one has no variant of its own: its base gets the longer name.
    if any(part.name == "variant" for part in dataclasses.fields(family)):
        changes["variant"] = f"{family.variant.partition(HORIZON)[0]}{HORIZON}{steps}"
    made = dataclasses.replace(family, **changes)
    if made.space.family != made.full_name and any(part.name == "space" for part in dataclasses.fields(family)):
        # A space that was written down has the name that was written down with it.
        space = dataclasses.replace(made.space, family=made.full_name)
        return dataclasses.replace(family, **changes, space=space)
    return made
