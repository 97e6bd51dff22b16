"""What a family says of itself, looked at when it is registered."""

from __future__ import annotations

from metarl.arguments import check, hints_of
from metarl.envs.family import Family, MujocoFamily
from metarl.errors import UserError


def check_definition(family: Family) -> None:
    """Refuse a family with an attribute that is missing, of another type than `Family` says, or of another family.

    Raises:
        UserError: names the attribute, what was got and what is needed.
    """
    label = f"{type(family).__name__}"
    for name, hint in hints_of(MujocoFamily if isinstance(family, MujocoFamily) else Family).items():
        if not hasattr(family, name):
            raise UserError(f"{label} has no {name}. Give it one: see the attributes of metarl.envs.Family.")
        value = getattr(family, name)
        check(hint, tuple(value) if isinstance(value, list) else value, f"{label}: got {name}=")
    if family.horizon < 1:
        raise UserError(f"{label}: got horizon={family.horizon}. Give at least 1 step.")
    if family.space.family != family.full_name:
        raise UserError(
            f"{label}: got {family.full_name} with the space of {family.space.family}. Give it one of its own: "
            f"space=dataclasses.replace(space, family='{family.full_name}')"
        )
