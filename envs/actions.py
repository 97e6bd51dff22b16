"""Actions as worlds are given them: what is wrong with them, and what the physics is told."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.family import Family
from metarl.errors import NotFiniteError, UserError


class Actions:
    """The actions of B worlds.

    Args:
        family: the family.
        num_worlds: B.
        device: where the physics takes them.
        unit: they come scaled, -1..1 meaning low..high; else in physical units. A discrete family takes one-hot rows
            either way.
    """

    def __init__(self, family: Family, num_worlds: int, device: torch.device, *, unit: bool) -> None:
        self.family = family
        self.shape = (num_worlds, family.action_size)
        low = torch.tensor(family.action_low, dtype=torch.float64)
        high = torch.tensor(family.action_high, dtype=torch.float64)
        one = torch.ones_like(low)
        self._scale = unit and not family.discrete and not (torch.equal(low, -one) and torch.equal(high, one))
        self._low, self._high = low.to(device), high.to(device)

    def check_shape(self, action: Tensor) -> None:
        """Raise UserError where there is not one action a world, of the family's size."""
        if action.shape != self.shape:
            raise UserError(
                f"got an action of shape {tuple(action.shape)}, {self.family.full_name} with {self.shape[0]} worlds "
                f"takes {self.shape}"
            )

    def right(self, action: Float[Tensor, "B A"]) -> Bool[Tensor, " B"]:
        """Return which of them are right; no decision is taken from a tensor."""
        # A NaN is not below anything.
        right = torch.linalg.vector_norm(action, torch.inf, dim=1) < torch.inf
        for part in self._choices(action):
            right = right & (part.amax(1) == 1.0) & (part.abs().sum(1) == 1.0)
        return right

    def check(self, action: Float[Tensor, "B A"]) -> None:
        """Raise for wrong ones, which are looked at: NotFiniteError, or UserError where they are not one-hot."""
        # The sum is not finite if any action is not (or, harmlessly, where it overflows): one pass, no mask.
        if not math.isfinite(action.sum().item()) and not bool(action.isfinite().all()):
            world = int((~action.isfinite()).any(1).nonzero()[0, 0])
            raise NotFiniteError(f"got an action that is not finite in world {world}: {action[world].tolist()}")
        for part in self._choices(action):
            if not (bool(((part == 0.0) | (part == 1.0)).all()) and bool((part.sum(1) == 1.0).all())):
                raise UserError(f"{self.family.full_name} is discrete: give {self._form()}")

    def check_episode(self, wrong: Bool[Tensor, " B"]) -> None:
        """Raise NotFiniteError for worlds that were given wrong actions in their episodes."""
        worlds = wrong.nonzero().squeeze(1).tolist()
        if worlds:
            raise NotFiniteError(
                f"got wrong actions in an episode since the last reset, first of all in world {worlds[0]} of "
                f"{len(worlds)} such worlds: give {self.family.full_name} {self._form()}"
            )

    def in_bounds(self, action: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """Return actions, float64, in physical units and within their bounds."""
        if self.family.discrete:
            return action
        if self._scale:
            action = self._low + (action + 1.0) * 0.5 * (self._high - self._low)
        return action.clamp(self._low, self._high)

    def _choices(self, action: Tensor) -> tuple[Tensor, ...]:
        """Return the part of every choice that the actions make; nothing where they are numbers."""
        return action.split(list(self.family.choices), 1) if self.family.discrete else ()

    def _form(self) -> str:
        """Return how actions are to be given."""
        if not self.family.discrete:
            return "finite numbers"
        if len(self.family.choices) == 1:
            return f"one-hot actions, a 1 among {self.shape[1] - 1} 0s"
        return f"one-hot actions side by side, a single 1 for each of the choices of {list(self.family.choices)}"
