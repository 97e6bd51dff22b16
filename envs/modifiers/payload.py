"""A load on a body: `+payload` adds a solid ball of unknown mass at an unknown place, rigidly fixed.

The ball has the density of water, so its inertia goes with its mass m: 2/5 m r² with r³ = 3 m / (4 pi 1000 kg/m³).
Mass, centre of mass and inertia of body and ball together are exact; the ball itself touches nothing. `payload_place`
is the ball's centre from the body's own centre of mass, along the body's axes. Its range is half the body's radius of
gyration (the root of its largest moment of inertia over its mass) in each direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.family import Family, MujocoFamily
from metarl.envs.modifiers.dynamics import nominal
from metarl.envs.modifiers.effect import Effect
from metarl.envs.modifiers.masses import body_of, moving_mass
from metarl.envs.modifiers.ranges import OnBody
from metarl.errors import UserError
from metarl.space.parameter import Parameter
from metarl.types import Tasks

DENSITY = 1000.0
"""Of the ball, kg/m³."""
SHARE = 0.3
"""Largest default load, as a part of the robot's mass."""
MASS, CENTRE, INERTIA, AXES = "body_mass", "body_ipos", "body_inertia", "body_iquat"


@dataclass(frozen=True, kw_only=True)
class Payload(OnBody):
    """A body carries an unknown load, by default of 0 to 0.3 times the mass of all that moves."""

    word: ClassVar[str] = "payload"
    what: ClassVar[str] = "masses"
    unit: ClassVar[str] = "kg"

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "an unknown load"

    def usual(self, base: MujocoFamily) -> tuple[float, float]:
        """Return the ends of the training range where they are not given, kg."""
        return 0.0, SHARE * moving_mass(base.model)

    def effect(self, base: Family) -> Effect:
        """Return the load of a robot."""
        assert isinstance(base, MujocoFamily)
        low, high = self.bounds(base)
        body = body_of(base, self.word, self.body)
        if base.model.body_simple[body]:
            raise UserError(
                f"got +payload for {base.full_name}: '{base.model.body(body).name}' floats alone, and MuJoCo takes as "
                "given where the centre of mass of such a body is. Name one with others on it, or leave +payload out"
            )
        reach = 0.5 * math.sqrt(base.model.body_inertia[body].max() / base.model.body_mass[body])
        name = base.model.body(body).name or f"body {body}"
        mass = Parameter(
            name="payload_mass",
            unit="kg",
            description=f"mass of the load of {name}",
            scale="uniform",
            low=low,
            high=high,
            ood=(high, high + 0.5 * (high - low)),
        )
        place = Parameter(
            name="payload_place",
            unit="m",
            description=f"where it is, from the centre of mass of {name}",
            scale="uniform",
            low=-reach,
            high=reach,
            size=3,
        )
        return Loaded((mass, place), body)


class Loaded(Effect):
    """A body with a ball on it.

    Args:
        parameters: mass and place of the ball.
        body: which of the model.
    """

    def __init__(self, parameters: tuple[Parameter, ...], body: int) -> None:
        self.parameters, self.body = parameters, body

    def prepare(self, model: mujoco.MjModel) -> None:
        """Let MuJoCo compute what it otherwise takes as given: that the body's centre of mass is where it was."""
        model.body_sameframe[self.body] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
        inertial = (mujoco.mjtSameFrame.mjSAMEFRAME_INERTIA, mujoco.mjtSameFrame.mjSAMEFRAME_INERTIAROT)
        for owner, frame in ((model.geom_bodyid, model.geom_sameframe), (model.site_bodyid, model.site_sameframe)):
            frame[(owner == self.body) & np.isin(frame, inertial)] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE

    def apply(self, model: mujoco.MjModel, fields: Mapping[str, Tensor], tasks: Tasks) -> dict[str, Tensor]:
        """Return the fields of body and ball together."""
        worlds = len(tasks)
        found: dict[str, Tensor] = {}
        for name in (MASS, CENTRE, INERTIA, AXES):
            found[name] = fields[name].clone() if name in fields else torch.stack([nominal(model, name)] * worlds)
        body, load, place = self.body, tasks["payload_mass"], tasks["payload_place"]
        mass, centre = found[MASS][:, body].clone(), found[CENTRE][:, body].clone()
        total = mass + load
        turn = rotation(found[AXES][:, body])
        own = turn @ torch.diag_embed(found[INERTIA][:, body]) @ turn.mT
        radius = (3.0 * load / (4.0 * math.pi * DENSITY)) ** (1.0 / 3.0)
        ball = 0.4 * load * radius.square()
        # Steiner's theorem for two bodies: the reduced mass at their distance.
        across = place.square().sum(1)[:, None, None] * torch.eye(3).double() - place[:, :, None] * place[:, None]
        together = own + ball[:, None, None] * torch.eye(3).double() + (mass * load / total)[:, None, None] * across
        moments, axes = torch.linalg.eigh(together)
        # Principal axes have no handedness: a rotation has.
        axes[:, :, 2] = axes[:, :, 2] * torch.linalg.det(axes)[:, None]
        found[MASS][:, body] = total
        found[CENTRE][:, body] = centre + (load / total)[:, None] * place
        found[INERTIA][:, body], found[AXES][:, body] = moments, quaternion(axes)
        return {**fields, **found}


def rotation(turn: Float[Tensor, "B 4"]) -> Float[Tensor, "B 3 3"]:
    """Return the rotation matrices of unit quaternions w, x, y, z."""
    w, x, y, z = turn.unbind(1)
    rows = (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def quaternion(matrix: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 4"]:
    """Return unit quaternions w, x, y, z of rotation matrices, by MuJoCo's own `mju_mat2Quat`."""
    found = np.empty((len(matrix), 4))
    for row, entries in zip(found, matrix.numpy(), strict=True):
        mujoco.mju_mat2Quat(row, np.ascontiguousarray(entries).reshape(-1))
    return torch.from_numpy(found)
