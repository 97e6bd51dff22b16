"""Point navigation: a point in the plane that must find a goal it cannot see.

Source: Finn et al. 2017 (MAML), section 5.3: the point starts at the origin, moves by its action (at most 0.1 per
axis and step) and is rewarded by the negative distance to the goal after the move.

| index | observation | unit |
|---|---|---|
| 0 | x of the point | m |
| 1 | y of the point | m |
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from torch import Tensor

from metarl.envs.family import Observable, State, Terms, TorchFamily
from metarl.space.parameter_space import Parameter, ParameterSpace
from metarl.types import Tasks

LARGEST_MOVE = 0.1
"""Displacement per axis and step, m."""
GOAL_TOLERANCE = 0.01
"""The episode ends when both axes are this close to the goal, m."""


VIEW = 0.8
"""Half the side of the square that a picture shows, m."""


@dataclass(frozen=True, kw_only=True)
class PointNav(TorchFamily):
    """A point that moves towards an unseen goal; reward -‖position - goal‖."""

    variant: str
    name: str = "point-nav"
    summary: str = "find an unseen goal in the plane"
    source: str = "Finn et al. 2017 (MAML)"
    horizon: int = 100
    step_seconds: float = 1.0
    action_low: tuple[float, ...] = (-LARGEST_MOVE, -LARGEST_MOVE)
    action_high: tuple[float, ...] = (LARGEST_MOVE, LARGEST_MOVE)
    action_unit: str = "m"
    observables: tuple[Observable, ...] = (
        Observable("x of the point", "position[0]", "m"),
        Observable("y of the point", "position[1]", "m"),
    )
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        goal = Parameter(
            name="goal",
            unit="m",
            description="goal position",
            scale="uniform",
            low=-0.5,
            high=0.5,
            size=2,
            ood=((-0.75, -0.5), (0.5, 0.75)),
        )
        object.__setattr__(self, "space", ParameterSpace(self.full_name, (goal,)))

    @property
    def dynamics_vary(self) -> bool:
        """Only the reward differs."""
        return False

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the origin."""
        return {"position": torch.zeros(len(tasks), 2, dtype=torch.float64)}

    def advance(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Move by the action."""
        return {"position": state["position"] + action}

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return the position."""
        return state["position"]

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the negative distance to the goal, after the move."""
        return {"distance": -(state["position"] - tasks["goal"]).norm(dim=1)}

    def optimal_action(self, observation: Float[Tensor, "B O"], tasks: Tasks) -> Float[Tensor, "B A"]:
        """Return the move to the goal, or as far towards it as an axis allows.

        The axes move by themselves, and no way brings either nearer to the goal by any step.
        """
        return ((tasks["goal"] - observation) / LARGEST_MOVE).clamp(-1.0, 1.0)

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which points have reached the goal on both axes."""
        return ((state["position"] - tasks["goal"]).abs() < GOAL_TOLERANCE).all(1)

    def picture(self, state: State, tasks: Tasks, world: int, width: int, height: int) -> Image.Image:
        """Return the plane from above: the goal a green circle, the point a blue disc, the origin a cross."""
        image = Image.new("RGB", (width, height), "white")
        canvas = ImageDraw.Draw(image)
        pixels_per_metre = min(width, height) / (2.0 * VIEW)

        def box(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
            column, row = width / 2.0 + x * pixels_per_metre, height / 2.0 - y * pixels_per_metre
            size = radius * pixels_per_metre
            return column - size, row - size, column + size, row + size

        (goal_x, goal_y), (x, y) = tasks["goal"][world].tolist(), state["position"][world].tolist()
        left, top, right, bottom = box(0.0, 0.0, 0.02)
        canvas.line((left, height / 2.0, right, height / 2.0), fill="grey")
        canvas.line((width / 2.0, top, width / 2.0, bottom), fill="grey")
        canvas.ellipse(box(goal_x, goal_y, 0.03), outline="green", width=max(1, width // 160))
        canvas.ellipse(box(x, y, 0.02), fill="blue")
        return image


FAMILIES = (PointNav(variant="maml17"),)
"""Default variant first."""
