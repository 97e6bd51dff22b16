"""Unknown dynamics: task parameters that scale the model of any MuJoCo family.

A modifier in a family's name adds one: `half-cheetah-vel+mass+friction`, `ant-dir+gain=each` (see names.py).

| modifier | what the factor multiplies | model fields | one of `each` per | range |
|---|---|---|---|---|
| mass | mass, and inertia with it | body_mass, body_inertia | moving body | 0.5 to 2 |
| inertia | inertia alone | body_inertia | moving body | 0.5 to 2 |
| damping | damping of the joints | dof_damping, dof_dampingpoly | damped degree of freedom | 0.5 to 2 |
| friction | friction coefficients of contacts | geom_friction, pair_friction | geom that can touch another | 0.5 to 2 |
| gravity | gravity | opt.gravity | (only one) | 0.7 to 1.4 |
| gain | every force of an actuator | actuator_gainprm, _biasprm, _forcerange | actuator | 0.5 to 2 |
| range | how far a joint may go from its pose at rest | jnt_range | limited joint | 0.8 to 1.25 |

Factors are log-uniform around 1; outside of the training range, half as far again on the logarithmic scale is the
out-of-distribution part. With `all` (default) one factor serves the whole robot, with `each` every entry has its own.
A contact's friction is the larger of its two geoms', so with `each` a floor that draws a large factor hides the feet's.

What a factor multiplies is what the family itself gives the world, so that `push-shape+mass` scales the object's mass
of this task. The pieces, `entry_factors` and `scaled`, serve families that are made of nothing else:

    def apply(self, tasks):
        return scaled(self.model, {}, self.scalings, tasks)

with `self.scalings = (entry_factors(model, "body_mass", 0.5, 2.0, "mass of every body"), ...)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UserError, nearest
from metarl.space.parameter import Parameter
from metarl.types import Tasks

# --- pieces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where factors go in one model field."""

    field: str
    """Name in `mjModel`; `opt.<name>` for an option."""
    pick: Int[Tensor, "..."]
    """Of the field's shape: index of the factor that multiplies the entry, -1 where none does."""
    about: Float[Tensor, "..."] | None = None
    """Of the field's shape: the point that an entry's distance is scaled from; None for zero."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A task parameter whose values multiply entries of model fields."""

    parameter: Parameter
    """The parameter: E factors, or a choice among the rows of `table`."""
    targets: tuple[Target, ...]
    """Where the factors go."""
    table: Float[Tensor, "N E"] | None = None
    """Factors of every value 0, 1, 2, ... of a choice."""

    def factors(self, tasks: Tasks) -> Float[Tensor, "B E"]:
        """Return the factors of every task."""
        values = tasks[self.parameter.name]
        return values.reshape(len(values), -1) if self.table is None else self.table[values.long()]


def scaled(
    model: mujoco.MjModel, fields: Mapping[str, Tensor], scalings: Sequence[Scaling], tasks: Tasks
) -> dict[str, Float[Tensor, "B ..."]]:
    """Return model fields of every world, scaled as its task says.

    Args:
        model: gives the values of the fields that `fields` does not have.
        fields: what the worlds have otherwise, as from `MujocoFamily.apply`.
        scalings: applied one after the other.
        tasks: one task per world.
    """
    result = dict(fields)
    for scaling in scalings:
        factors = scaling.factors(tasks)
        # The last column is what index -1 picks.
        factors = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=1)
        for target in scaling.targets:
            value = result[target.field] if target.field in result else nominal(model, target.field)
            factor = factors[:, target.pick.flatten()].reshape(-1, *target.pick.shape)
            if target.about is None:
                result[target.field] = value * factor
            else:
                result[target.field] = target.about + (value - target.about) * factor
    return result


def nominal(model: mujoco.MjModel, field: str) -> Float[Tensor, "..."]:
    """Return the model's own value of a field (`opt.<name>` for an option)."""
    holder = model.opt if field.startswith("opt.") else model
    return torch.from_numpy(np.array(getattr(holder, field.removeprefix("opt.")), dtype=np.float64))


def outside(low: float, high: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the out-of-distribution intervals of a log-uniform factor: half its range again on either side."""
    reach = math.sqrt(high / low)
    return (low / reach, low), (high, high * reach)


def entry_factors(model: mujoco.MjModel, field: str, low: float, high: float, description: str) -> Scaling:
    """Return a factor of its own for every number of a field that is not zero; the parameter is called as the field.

    Args:
        model: the robot.
        field: name in `mjModel`.
        low: smallest factor, above 0.
        high: largest factor.
        description: of the parameter.
    """
    value = nominal(model, field)
    parameter = factor_parameter(field, description, low, high, int((value != 0.0).sum()))
    return Scaling(parameter=parameter, targets=(Target(field=field, pick=_numbered(value != 0.0)),))


def factor_parameter(name: str, description: str, low: float, high: float, size: int) -> Parameter:
    """Return a parameter of log-uniform factors."""
    return Parameter(
        name=name,
        unit="",
        description=description,
        scale="log-uniform",
        low=low,
        high=high,
        size=size,
        ood=outside(low, high),
    )


def _numbered(chosen: Bool[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Return 0, 1, 2, ... where chosen, -1 elsewhere."""
    count = chosen.flatten().long().cumsum(0).reshape(chosen.shape) - 1
    return torch.where(chosen, count, -1)


# --- factors -----------------------------------------------------------------------------------------------------

Rows = Callable[[mujoco.MjModel], Bool[np.ndarray, " N"]]
"""Tells which rows of a model field a quantity is about."""


def _moving(model: mujoco.MjModel) -> Bool[np.ndarray, " N"]:
    return (model.body_weldid != 0) & (model.body_mass > 0.0)


def _damped(model: mujoco.MjModel) -> Bool[np.ndarray, " N"]:
    return (model.dof_damping != 0.0) | (model.dof_dampingpoly != 0.0).any(axis=1)


def _touching(model: mujoco.MjModel) -> Bool[np.ndarray, " N"]:
    meets = (model.geom_contype[:, None] & model.geom_conaffinity[None]) != 0
    return (meets | meets.T).any(axis=1)


def _paired(model: mujoco.MjModel) -> Bool[np.ndarray, " N"]:
    return np.ones(model.npair, dtype=bool)


def _pulling(model: mujoco.MjModel) -> Bool[np.ndarray, " N"]:
    return model.opt.gravity != 0.0


def _limited(model: mujoco.MjModel) -> Bool[np.ndarray, " N"]:
    return np.asarray(model.jnt_limited, dtype=bool)


def driving(model: mujoco.MjModel) -> Bool[np.ndarray, " N"]:
    """Choose all actuators; refuse those whose force is not proportional to their parameters (muscles, ...)."""
    linear = np.isin(model.actuator_gaintype, LINEAR_GAINS) & np.isin(model.actuator_biastype, LINEAR_BIASES)
    if not linear.all():
        names = [actuator_name(model, int(index)) for index in np.flatnonzero(~linear)]
        raise UserError(
            f"got actuators whose force does not scale with their gain: {', '.join(names)}; motors, position, "
            "velocity and affine general ones do"
        )
    return linear


LINEAR_GAINS = (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE)
LINEAR_BIASES = (mujoco.mjtBias.mjBIAS_NONE, mujoco.mjtBias.mjBIAS_AFFINE)
BODIES = ("body_mass", "body_inertia")
DOFS = ("dof_damping", "dof_dampingpoly")
ACTUATORS = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A physical quantity of a robot that can be scaled."""

    what: str
    groups: tuple[tuple[Rows, tuple[str, ...]], ...]
    """Rows that the quantity is about, with the model fields that have such rows."""
    low: float = 0.5
    high: float = 2.0


QUANTITIES = {
    "mass": Quantity(what="mass and inertia of the bodies", groups=((_moving, BODIES),)),
    "inertia": Quantity(what="inertia of the bodies", groups=((_moving, BODIES[1:]),)),
    "damping": Quantity(what="damping of the joints", groups=((_damped, DOFS),)),
    "friction": Quantity(
        what="friction of contacts", groups=((_touching, ("geom_friction",)), (_paired, ("pair_friction",)))
    ),
    "gravity": Quantity(what="gravity", groups=((_pulling, ("opt.gravity",)),), low=0.7, high=1.4),
    "gain": Quantity(what="force of the actuators", groups=((driving, ACTUATORS),)),
    "range": Quantity(what="range of the joints", groups=((_limited, ("jnt_range",)),), low=0.8, high=1.25),
}


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One quantity scaled by unknown factors.

    Raises:
        UserError: there is no such quantity, or the range is not one of positive numbers.
    """

    quantity: str
    """One of `QUANTITIES`."""
    low: float | None = None
    """Smallest factor of the training range; the quantity's own if not given."""
    high: float | None = None
    """Largest factor of the training range."""
    per: Literal["all", "each"] = "all"
    """One factor for the whole robot, or one for each body, joint, geom or actuator."""

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise UserError(f"unknown quantity '{self.quantity}'.{nearest(self.quantity, QUANTITIES)}")
        low, high = self.bounds
        if (self.low is None) != (self.high is None) or not (0.0 < low < high and math.isfinite(high / low)):
            raise UserError(f"got factors of {self.quantity} from {self.low} to {self.high}: give 0 < LOW < HIGH")

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the training range."""
        own = QUANTITIES[self.quantity]
        return own.low if self.low is None else self.low, own.high if self.high is None else self.high

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return f"unknown {QUANTITIES[self.quantity].what}"

    def scaling(self, model: mujoco.MjModel) -> Scaling:
        """Return the scaling of a robot.

        Raises:
            UserError: the robot has nothing of the kind.
        """
        quantity = QUANTITIES[self.quantity]
        targets, count = [], 0
        for rows, fields in quantity.groups:
            number = _numbered(torch.from_numpy(rows(model)))
            number = torch.where(number >= 0, number + count, -1)
            count = max(count, int(number.max()) + 1) if len(number) else count
            for field in fields:
                value = nominal(model, field)
                if value.numel() == 0:
                    continue
                pick = number.reshape(-1, *[1] * (value.dim() - 1)).expand(value.shape)
                about = _rest(model) if field == "jnt_range" else None
                # One factor reaches every row: a family may give the world what its model does not have.
                pick = torch.zeros_like(pick) if self.per == "all" else pick
                targets.append(Target(field=field, pick=pick, about=about))
        if count == 0:
            raise UserError(f"got +{self.quantity}: this robot has no {quantity.what} to scale, leave it out")
        one = "one factor for all" if self.per == "all" else f"a factor for each of {count}"
        size = 1 if self.per == "all" else count
        parameter = factor_parameter(f"{self.quantity}_factor", f"{quantity.what}: {one}", *self.bounds, size)
        return Scaling(parameter=parameter, targets=tuple(targets))


def _rest(model: mujoco.MjModel) -> Float[Tensor, "J 2"]:
    """Return, for both ends of every joint's range, the position within it that is nearest to the pose at rest.

    Scaled from there, a range never loses the pose at rest.
    """
    turning = np.isin(model.jnt_type, (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
    # Of a ball the range is an angle from 0.
    pose = np.where(turning, model.qpos0[model.jnt_qposadr], 0.0)
    return torch.from_numpy(np.clip(pose, *model.jnt_range.T)[:, None].repeat(2, axis=1))


def actuator_name(model: mujoco.MjModel, index: int) -> str:
    """Return the actuator's name, or that of the joint it drives."""
    named = model.actuator(index).name
    if named or model.actuator_trntype[index] != mujoco.mjtTrn.mjTRN_JOINT:
        return named or f"actuator {index}"
    return model.joint(model.actuator_trnid[index, 0]).name
