"""The family of a robot file: the same as one that is written in Python, from keys in place of code."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.chance import keys
from metarl.envs.family import Marker, MujocoFamily, Observable, State, Terms, View
from metarl.envs.robots.building import KEY, PREVIOUS, STEPS
from metarl.envs.robots.effects import changed
from metarl.envs.robots.robot import Robot, make
from metarl.envs.robots.starts import starts
from metarl.run.sources import Source
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Tasks


@dataclass(frozen=True, kw_only=True)
class RobotFamily(MujocoFamily):
    """A robot, and its tasks, as a file says."""

    robot: Robot
    name: str
    variant: str
    summary: str
    source: str
    horizon: int
    step_seconds: float = field(init=False)
    frame_skip: int = field(init=False)
    action_low: tuple[float, ...] = field(init=False)
    action_high: tuple[float, ...] = field(init=False)
    action_unit: str = field(init=False)
    remember: tuple[str, ...] = field(init=False)
    carried: tuple[str, ...] = field(init=False)
    fields: tuple[str, ...] = field(init=False)
    camera: str | View = field(init=False)
    observables: tuple[Observable, ...] = field(init=False)
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        robot, build = self.robot, self.robot.build
        values = {
            "step_seconds": build.step_seconds,
            "frame_skip": robot.frame_skip,
            "action_low": robot.low,
            "action_high": robot.high,
            "action_unit": robot.action_unit,
            "remember": tuple(build.remember),
            "carried": tuple(build.carried),
            "fields": tuple(build.fields),
            "camera": robot.camera,
            "observables": robot.observables,
            "space": ParameterSpace(self.full_name, robot.parameters),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def model_spec(self) -> mujoco.MjSpec:
        """Return the model, with what the file adds to it."""
        return self.robot.spec.copy()

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled model."""
        return self.robot.model

    @property
    def dynamics_vary(self) -> bool:
        """Whether the file changes the model by the task."""
        return bool(self.robot.changes)

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the model fields that the tasks change."""
        return changed(self.robot.model, self.robot.changes, tasks)

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the start with its noise."""
        found = starts(self.robot, generator, len(tasks))
        if PREVIOUS in self.carried:
            found[PREVIOUS] = torch.zeros(len(tasks), self.action_size, dtype=torch.float64)
        if KEY in self.carried:
            found |= {KEY: keys(generator, len(tasks)), STEPS: torch.zeros(len(tasks), dtype=torch.long)}
        return found

    def carry(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Return the action, for the next step, and the steps so far."""
        found = {PREVIOUS: self.robot.build.unit_action(action)} if PREVIOUS in self.carried else {}
        return {**found, STEPS: state[STEPS] + 1} if STEPS in self.carried else found

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return the parts of the observation side by side."""
        return self.robot.observe(state, tasks)

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the terms, each with its weight."""
        unit = self.robot.build.unit_action(action)
        return {
            name: weight * term.reward(before, state, unit, tasks) for name, (weight, term) in self.robot.terms.items()
        }

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return which worlds meet one of the ends."""
        ended: Tensor | None = None
        for end in self.robot.ends.values():
            met = end(state, tasks)
            ended = met if ended is None else ended | met
        return ended

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return which worlds meet their goal."""
        return None if self.robot.success is None else self.robot.success(state, tasks)

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return what pictures show of the commands."""
        return self.robot.markers(state, tasks)

    @property
    def sources(self) -> tuple[Source, ...]:
        """What a run says of its files, as they were when it was put together."""
        return self.robot.sources


def robot_family(path: Path | str) -> RobotFamily:
    """Return the family of a robot file; functions of the user's own that it names are imported.

    Raises:
        UserError: something in the file is wrong; it names the file and the key.
    """
    robot = make(path)
    content = robot.file.content
    return RobotFamily(
        robot=robot,
        name=robot.file.name,
        variant=content["variant"],
        summary=content["summary"] or f"the robot of {robot.file.path.name}",
        source=content["source"] or robot.file.path.name,
        horizon=content["horizon"],
    )
