"""A family that does in a control step all that one can: commands, forces on bodies, and fields that it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.envs import chance
from metarl.envs.families.half_cheetah import HalfCheetahVel

LAG = 0.25
TORSO = 1


@dataclass(frozen=True, kw_only=True)
class Driven(HalfCheetahVel):
    """A cheetah whose motors lag, whom a random wind pushes, and who is paid for steady actions."""

    name: str = "driven"
    variant: str = "own"
    source: str = "tests"
    control_weight: float = 0.1
    top_speed: float = 2.0
    horizon: int = 6
    carried: tuple[str, ...] = ("key", "step", "motors", "last", "first_height")
    remember: tuple[str, ...] = ("qpos", "last", "step")
    fields: tuple[str, ...] = ("qpos", "qvel", "xpos")

    def reset_state(self, generator: torch.Generator, tasks: Any) -> dict[str, Tensor]:
        start = super().reset_state(generator, tasks)
        zeros = torch.zeros(len(tasks), 6, dtype=torch.float64)
        height = zeros[:, 0].clone()
        count = torch.zeros(len(tasks), dtype=torch.long)
        key = chance.keys(generator, len(tasks))
        return {**start, "key": key, "step": count, "motors": zeros, "last": zeros.clone(), "first_height": height}

    def begin(self, state: Any, tasks: Any) -> dict[str, Tensor]:
        return {"first_height": state["xpos"][:, TORSO, 2]}

    def command(self, action: Tensor, state: Any, tasks: Any) -> tuple[Tensor, dict[str, Tensor]]:
        motors = state["motors"] + LAG * (action - state["motors"])
        return motors, {"motors": motors}

    def disturb(self, state: Any, tasks: Any) -> Tensor:
        forces = state["qpos"].new_zeros(len(state["key"]), self.model.nbody, 6)
        forces[:, TORSO, 0] = 30.0 * chance.normal(state["key"], state["step"], 1)[:, 0]
        return forces

    def carry(self, state: Any, action: Tensor, tasks: Any) -> dict[str, Tensor]:
        # Fields that are returned as they were given: the new ones are copies all the same.
        return {"step": state["step"] + 1, "last": action}

    def observe(self, state: Any, tasks: Any) -> Tensor:
        parts = (super().observe(state, tasks)[:, :-1], (state["step"] - state["first_height"])[:, None])
        return torch.cat(parts, 1)

    def reward_terms(self, before: Any, state: Any, action: Tensor, tasks: Any) -> dict[str, Tensor]:
        counted = (state["step"] - before["step"]).double()
        rate = -(state["last"] - before["last"]).square().sum(1)
        return {**super().reward_terms(before, state, action, tasks), "counted": counted, "rate": rate}
