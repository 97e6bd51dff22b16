"""The engine of families in torch, on any device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.devices import numbered
from metarl.envs.family import LARGEST_VALID, TorchFamily
from metarl.envs.physics import CPU
from metarl.envs.returns import check_advanced, check_start
from metarl.errors import UserError
from metarl.launches import Launches, launches_on
from metarl.types import Tasks


class TorchPhysics:
    """Physics of a `TorchFamily`, on any device; in lockstep on any but the CPU."""

    def __init__(self, family: TorchFamily, num_worlds: int, device: torch.device = CPU) -> None:
        self.family = family
        self.device = device = numbered(device)
        self.lockstep = device.type != "cpu"
        self.launches: Launches | None = launches_on(device)
        # A state of the right shapes, until the first `write`.
        anything = family.space.sample(num_worlds, "train", torch.Generator())
        start = family.reset_state(torch.Generator(), anything)
        check_start(family, num_worlds, start)
        # Whether what the family makes of a state has been looked at.
        self._advance_is_right = False
        self.tasks: Tasks | None = None
        own = {name: value for name, value in start.items() if name not in family.carried}
        self.state: dict[str, Tensor] = {name: value.to(device) for name, value in own.items()}

    def apply(self, tasks: Tasks, worlds: Tensor | None) -> None:
        """Keep the tasks for `advance`."""
        if self.tasks is None or not self.lockstep:
            self.tasks = self._own(tasks)
            return
        for name, value in tasks.values.items():
            self.tasks[name].copy_(value)

    def _own(self, tasks: Tasks) -> Tasks:
        """Return a copy of tasks on the device."""
        return Tasks(tasks.family, {name: value.to(self.device, copy=True) for name, value in tasks.values.items()})

    def write(self, state: Mapping[str, Tensor], worlds: Tensor | None) -> None:
        """Start the worlds from `state`."""
        rows = None if worlds is None else worlds.to(self.device)
        for name, value in state.items():
            begun = value.to(self.device)
            self._put(name, begun if rows is None else self.state[name].index_copy(0, rows, begun))

    def push(self, forces: Float[Tensor, "B N 6"]) -> None:
        """Refuse: there are no bodies."""
        raise UserError(
            f"{self.family.full_name}: disturb returned forces on bodies, which only families on a MuJoCo model have: "
            "return None"
        )

    def get_state(self) -> dict[str, Any]:
        """Return the tasks and the state fields, copied."""
        tasks = None if self.tasks is None else self._own(self.tasks)
        return {"tasks": tasks, "fields": {name: value.clone() for name, value in self.state.items()}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of `get_state`."""
        self.tasks = None if state["tasks"] is None else self._own(state["tasks"])
        self.state = {name: value.clone() for name, value in state["fields"].items()}
        if self.launches is not None:
            self.launches.clear()

    def _put(self, name: str, value: Tensor) -> None:
        """Give a field other numbers; in lockstep it stays in its place."""
        if self.lockstep:
            self.state[name].copy_(value)
        else:
            self.state[name] = value

    def advance(self, action: Float[Tensor, "B A"], worlds: Tensor | None) -> Bool[Tensor, " B"] | None:
        """Take one step in the chosen worlds."""
        assert self.tasks is not None, "worlds give their tasks before the first step"
        after = self.family.advance(self.state, action, self.tasks)
        if not self._advance_is_right:
            check_advanced(self.family, self.state, after)
            self._advance_is_right = True
        if worlds is not None:
            after = {k: self.state[k].index_copy(0, worlds, v[worlds]) for k, v in after.items()}
        if self.lockstep:
            # A family may return what it was given, or a part of it, under another name too.
            given = {value.untyped_storage().data_ptr() for value in self.state.values()}
            after = {k: v.clone() if v.untyped_storage().data_ptr() in given else v for k, v in after.items()}
        for name, value in after.items():
            self._put(name, value)
        valid = torch.stack([(v.flatten(1).abs() < LARGEST_VALID).all(1) for v in after.values()]).all(0)
        return None if not self.lockstep and bool(valid.all()) else ~valid
