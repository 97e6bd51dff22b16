"""A family's model as mujoco_warp runs it: what the GPU engine changes of it, and why.

* Models that ask for the solver PGS (Gymnasium's humanoid) get Newton's: it solves the same convex problem, which PGS
  with a humanoid's 50 iterations only comes close to.
* The margins of contacts with a height field are part of the bodies (see `without_margins`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import mujoco
import numpy as np

from metarl.envs.family import MujocoFamily
from metarl.errors import UserError

WITHOUT_MEANING = mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_MIDPHASE
"""Switches of what mujoco_warp does not have."""


def gpu_model(family: MujocoFamily) -> mujoco.MjModel:
    """Return the family's model as this engine runs it."""
    model = copy.copy(family.model)
    model.opt.disableflags &= ~int(WITHOUT_MEANING)
    if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return model


def without_margins(model: mujoco.MjModel, varied: Iterable[str] = ()) -> mujoco.MjModel:
    """Return a model on height fields with bodies that are thicker by the margins of their contacts, without these.

    A margin makes contacts push at that distance, as if the bodies were so much thicker. mujoco_warp 4.0.0 counts the
    margins of a contact with a height field three times: its prisms are raised and swollen by them, and the distance
    that it finds is not corrected for either.

    Args:
        model: any model; without height fields or margins it is returned as it is.
        varied: the fields of which every world has its own values.

    Raises:
        UserError: geoms have several margins, or a gap, or are neither spheres nor capsules, or vary in size or margin.
    """
    ground = model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD
    if not ground.any() or not model.geom_margin.any():
        return model
    round_ones = np.isin(model.geom_type, (mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE))
    margins, own = sorted({*model.geom_margin.tolist()}), sorted({"geom_size", "geom_margin"}.intersection(varied))
    if len(margins) > 1 or model.geom_gap.any() or own or not (ground | round_ones).all():
        kinds = sorted({mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower() for kind in model.geom_type})
        raise UserError(
            "on height fields with contact margins the GPU engine takes spheres and capsules that all have the same "
            f"margin and no gap: got margins {margins}, gaps up to {model.geom_gap.max()}, {', '.join(kinds)}; of "
            f"every world's own: {', '.join(own) or 'neither sizes nor margins'}. Take the margins away, or engine cpu"
        )
    thicker = 2.0 * margins[0]
    model = copy.copy(model)
    model.geom_size[round_ones, 0] += thicker
    model.geom_rbound[round_ones] += thicker
    model.geom_aabb[round_ones, 3:] += thicker
    model.geom_margin[:] = 0.0
    return model
