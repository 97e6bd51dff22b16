"""Worlds that can be gone back to: to a state that was kept, or to before episodes that are to be played again."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from metarl.envs.driving import Drive
from metarl.envs.modifiers.switching import SwitchSpace
from metarl.envs.physics import Physics, Widening
from metarl.errors import UserError
from metarl.launches import Launches
from metarl.types import Tasks

_STATE = (
    "tasks",
    "present",
    "_all_tasks",
    "_seen",
    "_trial_steps",
    "_later",
    "_next_tasks",
    "_next_tasks_due",
    "_elapsed",
    "_active",
    "_all_active",
    "_failures",
    "_wrong_action",
    "_observation",
)
"""What changes in `Worlds`, beside its physics and what its family carries."""


class GoingBack(ABC):
    """The part of `Worlds` that leads back; what an attribute is stands there."""

    physics: Physics
    drive: Drive
    family_name: str
    num_worlds: int
    present: Tasks | None
    _switch: SwitchSpace | None

    @property
    @abstractmethod
    def launches(self) -> Launches | None:
        """Where launches of steps are kept; None where a step cannot be captured."""

    def get_state(self) -> dict[str, Any]:
        """Return where the worlds are, in the middle of an episode too, copied; only `set_state` reads it.

        Raises:
            UserError: the engine cannot tell (worker processes, the GPU engine of robots).
        """
        kept = {name: getattr(self, name) for name in _STATE} | {"carried": self.drive.carried}
        return {"family": self.family_name, "physics": self.physics.get_state(), **copy.deepcopy(kept)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to where these worlds, or others like them, were: all that follows is the same, bit for bit.

        Args:
            state: of `get_state`; it stays as it is, and can be gone back to again.

        Raises:
            UserError: it is of another family or of another number of worlds.
        """
        if not isinstance(state, Mapping) or not {"family", "physics", "carried", *_STATE} <= set(state):
            raise UserError("got what is no state of worlds: give what get_state() returned")
        count = len(state["_elapsed"])
        if (state["family"], count) != (self.family_name, self.num_worlds):
            raise UserError(
                f"got the state of {count} worlds of {state['family']}: give one of {self.num_worlds} worlds of "
                f"{self.family_name}"
            )
        self.physics.set_state(state["physics"])
        for name in _STATE:
            setattr(self, name, copy.deepcopy(state[name]))
        self.drive.carried = copy.deepcopy(state["carried"])
        if self.launches is not None:
            self.launches.clear()

    # -- episodes that are played again -------------------------------------------------------------------------------

    @property
    def room(self) -> dict[str, int]:
        """What the engine's buffers have room for, by name, to begin there another time; empty where it has none."""
        return dict(self.physics.room) if isinstance(self.physics, Widening) else {}

    def keep(self) -> dict[str, Any] | None:
        """Return what `go_back` needs, between two episodes; None where no engine will ask for it by `outgrown`."""
        if not isinstance(self.physics, Widening):
            return None
        kept = {name: getattr(self, name) for name in _STATE}
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in kept.items()}

    def outgrown(self) -> bool:
        """Tell whether the engine's buffers were too small for the episodes since the last reset of all worlds.

        Then some of them ended as failures; the buffers have more room now, and the episodes are to be played again.
        The host waits for the device here.
        """
        return isinstance(self.physics, Widening) and self.physics.widen()

    def go_back(self, kept: Mapping[str, Any]) -> None:
        """Go back to before the episodes that began after `keep`; the next step is a reset, of all worlds."""
        for name, value in kept.items():
            here = getattr(self, name)
            # What a step changes stays in its place.
            if isinstance(here, Tensor) and isinstance(value, Tensor):
                here.copy_(value)
            else:
                setattr(self, name, value)
        if self._switch is not None and self.present is not None:
            self.physics.apply(self.present, None)
