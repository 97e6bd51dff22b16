"""Which body of a robot a modifier is about, and what the robot weighs."""

from __future__ import annotations

import mujoco

from metarl.envs.family import MujocoFamily
from metarl.errors import UserError, nearest


def body_of(base: MujocoFamily, word: str, name: str | None) -> int:
    """Return the number of a body that can carry a load or be pushed.

    Args:
        base: the family.
        word: of the modifier.
        name: of the body; None for the first that moves and has a mass.

    Raises:
        UserError: there is none of that name, or it cannot move or has no mass.
    """
    model = base.model
    heavy = [index for index in range(model.nbody) if model.body_weldid[index] != 0 and model.body_mass[index] > 0.0]
    names = [model.body(index).name for index in heavy]
    if not heavy:
        raise UserError(f"got +{word} for {base.full_name}: no body of this robot moves and has a mass, leave it out")
    if name is None:
        return heavy[0]
    if name not in names:
        raise UserError(
            f"got +{word} for the body '{name}' of {base.full_name}.{nearest(name, [n for n in names if n])}"
        )
    return heavy[names.index(name)]


def moving_mass(model: mujoco.MjModel) -> float:
    """Return the mass of all bodies that can move, kg."""
    return float(model.body_mass[model.body_weldid != 0].sum())
