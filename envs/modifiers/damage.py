"""Limbs that fail: a task parameter that takes the force of one limb away (`ant-dir+damage`, see names.py).

As in the crippled-leg families of the literature, the actuators of the limb make no force; its springs, dampers and
joint limits stay, and effort is charged for what the agent asked for. Nothing having failed (0) is one of the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mujoco
import torch

from metarl.envs.modifiers.dynamics import Factor, Scaling, actuator_name
from metarl.errors import UserError
from metarl.space.parameter import Parameter

LIMBS = 3
"""A robot with at least so many limbs can do without one; any other loses single actuators."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One limb, or none, makes no force; passive springs and dampers stay. The last limb is out of distribution."""

    per: Literal["limb", "joint"] | None = None
    """A whole limb (all actuators of an unbranched chain that ends in a hand or a foot) or a single actuator; if not
    given limbs where there are three or more, as of an ant or a humanoid, else single actuators."""

    @property
    def summary(self) -> str:
        """What it adds to a family, in a few words."""
        return "a limb may have failed"

    def failing(self, model: mujoco.MjModel) -> list[tuple[int, ...]]:
        """Return what may fail: groups of actuators."""
        chains = limbs(model)
        if self.per == "joint" or (self.per is None and len(chains) < LIMBS):
            return [(index,) for index in range(len(model.actuator_gaintype))]
        return chains

    def scaling(self, model: mujoco.MjModel) -> Scaling:
        """Return the scaling of a robot.

        Raises:
            UserError: the robot has fewer than two things that could fail, or actuators that are no motors or servos.
        """
        failing = self.failing(model)
        if len(failing) < 2:
            what = "limb" if self.per == "limb" else "actuator"
            raise UserError(
                f"got +damage{f'={self.per}' if self.per else ''}: this robot has {len(failing)} {what} that could "
                "fail, two are needed" + (", try +damage=joint" if self.per == "limb" else "")
            )
        table = torch.ones(len(failing) + 1, len(model.actuator_gaintype), dtype=torch.float64)
        for row, actuators in enumerate(failing, start=1):
            table[row, list(actuators)] = 0.0
        names = ["+".join(actuator_name(model, index) for index in actuators) for actuators in failing]
        parameter = Parameter(
            name="damaged",
            unit="",
            description=f"what has failed: 0 nothing, {', '.join(f'{i} {n}' for i, n in enumerate(names, start=1))}",
            scale="choice",
            choices=tuple(float(index) for index in range(len(failing))),
            choice_names=("nothing", *names),
            ood=(float(len(failing)),),
        )
        every = Factor(quantity="gain", per="each").scaling(model)
        return Scaling(parameter=parameter, targets=every.targets, table=table)


def limbs(model: mujoco.MjModel) -> list[tuple[int, ...]]:
    """Return the actuators of every limb: a chain of bodies without branches, from its root to a leaf.

    Bodies that nothing drives do not count, nor do actuators that drive no joint. The order is that of the actuators.
    """
    driven: dict[int, list[int]] = {}
    for index, kind in enumerate(model.actuator_trntype):
        if kind == mujoco.mjtTrn.mjTRN_JOINT:
            driven.setdefault(int(model.jnt_bodyid[model.actuator_trnid[index, 0]]), []).append(index)
    # Children come after their parents, so going backwards finds every body that has something driven below it.
    children: dict[int, list[int]] = {}
    for body in reversed(range(1, model.nbody)):
        if body in driven or body in children:
            children.setdefault(int(model.body_parentid[body]), []).append(body)
    found = []
    for leaf in driven:
        if leaf in children:
            continue
        chain, body = list(driven[leaf]), int(model.body_parentid[leaf])
        while body != 0 and len(children[body]) == 1:
            chain += driven.get(body, [])
            body = int(model.body_parentid[body])
        found.append(tuple(sorted(chain)))
    return sorted(found)
