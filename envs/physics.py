"""What an engine is: it steps the physics of B worlds and knows nothing of episodes, observations and rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.family import State
from metarl.launches import Launches
from metarl.types import Tasks

CPU = torch.device("cpu")


@runtime_checkable
class Physics(Protocol):
    """What an engine must do for B worlds.

    Attributes:
        launches: where launches of steps are kept, and forgotten when `state` moves; None where none are captured.
    """

    launches: Launches | None

    @property
    def device(self) -> torch.device:
        """Where the state is."""
        ...

    @property
    def lockstep(self) -> bool:
        """Whether `advance` always takes a step in all worlds, and tells of failures in a mask, never None."""
        ...

    @property
    def state(self) -> State:
        """Current state fields, [B, ...] float64; may be live views, so clone what must be kept."""
        ...

    def apply(self, tasks: Tasks, worlds: Tensor | None) -> None:
        """Give the worlds (indices, None: all) the model of their tasks, which are on the host."""
        ...

    def write(self, state: Mapping[str, Tensor], worlds: Tensor | None) -> None:
        """Start the worlds from `state`, which is on the host, rows in the order of `worlds`."""
        ...

    def advance(self, action: Float[Tensor, "B A"], worlds: Tensor | None) -> Bool[Tensor, " B"] | None:
        """Take one control step; return the worlds whose simulation became invalid, or None."""
        ...

    def push(self, forces: Float[Tensor, "B N 6"]) -> None:
        """Let forces act on the bodies of a model in the next `advance`, see `Family.disturb`.

        Raises:
            UserError: there are no bodies.
        """
        ...

    def get_state(self) -> dict[str, Any]:
        """Return all that `advance` depends on and reads out, copied; raise UserError where the engine cannot."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to what `get_state` returned, here or in another engine of this kind, family and size."""
        ...


@runtime_checkable
class Widening(Protocol):
    """An engine whose buffers can be too small for what happens in a world, and can be given more room."""

    @property
    def room(self) -> Mapping[str, int]:
        """What there is room for, by name, for every world or on average."""
        ...

    def widen(self) -> bool:
        """Tell whether they have been too small since the worlds' last resets; then there is more room now."""
        ...
