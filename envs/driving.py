"""What a family adds to its physics in a control step: commands, forces on bodies, and the fields that it carries.

The order of a step, for every engine:

1. `command` and `disturb` see the state before the step: they say what reaches the actuators, and what pushes bodies.
2. The physics takes its step.
3. `carry` sees the physics after the step, and the carried fields before it: it returns their new values, beside those
   that `command` returned.
4. Reward, ends and observation (worlds.py) see the physics and the carried fields after the step. The values of before
   are in `before`, where the family's `remember` names them.

Carried fields stay in their place on the engine's device, so that steps which are launched as one read them; worlds
that do not move keep theirs. A family without any of it gets its action to the actuators as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.family import Family, State
from metarl.envs.physics import Physics
from metarl.envs.returns import check_carried, check_drive, check_start
from metarl.types import Tasks


class Drive:
    """The physics of B worlds with what their family adds to it.

    Args:
        family: the family.
        num_worlds: B.
        physics: the engine.

    Attributes:
        carried: the fields that the family carries; empty before the first start, and where there are none.
    """

    def __init__(self, family: Family, num_worlds: int, physics: Physics) -> None:
        self.family, self.num_worlds, self.physics = family, num_worlds, physics
        self.carried: dict[str, Tensor] = {}
        # Whether what the family's functions return has been looked at.
        self._start_is_right = self._step_is_right = False

    @property
    def state(self) -> State:
        """What the family is told of the worlds: the fields of the physics, and those that it carries."""
        return {**self.physics.state, **self.carried} if self.carried else self.physics.state

    def start(self, starts: Mapping[str, Tensor], worlds: Tensor | None, tasks: Tasks) -> None:
        """Begin episodes.

        Args:
            starts: as the family's `reset_state` returned them, rows in the order of `worlds`.
            worlds: which begin; None: all.
            tasks: of all worlds, on the device.
        """
        family = self.family
        if not self._start_is_right:
            check_start(family, self.num_worlds if worlds is None else len(worlds), starts)
        if not family.carried:
            self.physics.write(starts, worlds)
            self._start_is_right = True
            return
        self.physics.write({name: value for name, value in starts.items() if name not in family.carried}, worlds)
        rows = slice(None) if worlds is None else worlds.to(self.physics.device)
        for name in family.carried:
            value = starts[name].to(self.physics.device)
            if name not in self.carried:
                self.carried[name] = value.new_zeros(self.num_worlds, *value.shape[1:])
            self.carried[name][rows] = value
        begun = family.begin(self.state, tasks)
        if not self._start_is_right:
            check_carried(family, "begin", self.carried, begun)
            self._start_is_right = True
        for name, value in begun.items():
            self.carried[name][rows] = value[rows]

    def advance(self, action: Float[Tensor, "B A"], worlds: Tensor | None, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Take a control step; return the worlds whose simulation became invalid, or None, as the physics does.

        Args:
            action: in physical units, within bounds.
            worlds: which move; None: all.
            tasks: of all worlds, on the device.
        """
        family, state = self.family, self.state
        given, forces = family.command(action, state, tasks), family.disturb(state, tasks)
        command, kept = given if isinstance(given, tuple) else (given, {})
        if not self._step_is_right:
            check_drive(family, self.num_worlds, command, forces)
            check_carried(family, "command", self.carried, kept)
        if forces is not None:
            self.physics.push(forces)
        failed = self.physics.advance(command, worlds)
        if self.carried:
            self._carry(kept, action, worlds, tasks)
        self._step_is_right = True
        return failed

    def _carry(self, kept: dict[str, Tensor], action: Tensor, worlds: Tensor | None, tasks: Tasks) -> None:
        """Give the carried fields their values after a step, in the worlds that have moved."""
        after = self.family.carry(self.state, action, tasks)
        if not self._step_is_right:
            check_carried(self.family, "carry", self.carried, after)
        after = {**kept, **after}
        # A family may return another of these fields, which is written to below.
        mine = {value.untyped_storage().data_ptr() for value in self.carried.values()}
        after = {k: v.clone() if v.untyped_storage().data_ptr() in mine else v for k, v in after.items()}
        for name, value in after.items():
            if worlds is None:
                self.carried[name].copy_(value)
            else:
                self.carried[name].index_copy_(0, worlds, value[worlds])


def of_physics(family: Family, starts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those fields of a start that are the engine's."""
    return {name: value for name, value in starts.items() if name not in family.carried}
