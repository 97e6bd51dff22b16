"""What the library's pieces are made with, and of: the model, and what of its state they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.family import Marker, Observable, State, on
from metarl.envs.robots.form import Either, Key, Number, Table, Text
from metarl.envs.robots.naming import names_of, one
from metarl.errors import UserError, nearest
from metarl.types import Tasks

Seen = Callable[[State, Tasks], Float[Tensor, "B N"]]
Rewarded = Callable[[State, State, Tensor, Tasks], Float[Tensor, " B"]]
Told = Callable[[State, Tasks], Bool[Tensor, " B"]]

PREVIOUS = "previous_action"
"""Field that worlds carry: the action of the step before, -1..1 of its bounds."""
KEY, STEPS = "robot_noise_key", "robot_noise_steps"
"""Fields that worlds carry: what the noise of an episode is made of (chance.py), and its steps so far."""

NAME = Text(pattern=r"[A-Za-z_][A-Za-z0-9_]*", words="a name of letters, digits and _")
COMMAND = Either(number=Number(), text=NAME)
"""A number, or the name of a task that is a command."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the observation."""

    observables: tuple[Observable, ...]
    """A row for every number."""
    see: Seen
    """Returns them."""
    clip: float | None = None
    """Size that they are cut to, errors of the sensor included."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A term of the reward, before its weight."""

    reward: Rewarded
    """Returns it from the remembered fields, the state, the action (-1..1 of its bounds) and the tasks."""
    marker: Callable[[State, Tasks], Marker] | None = None
    """What pictures show of it."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A piece of the library: what it does, its keys, and what makes it."""

    name: str
    what: str
    """In a line."""
    keys: Mapping[str, Key]
    make: Callable[..., Any]
    """Takes the build, the path of the entry in the file, and the keys."""

    def table(self, **more: Key) -> Table:
        """Return what a file may say of it, with keys that all pieces of the kind have."""
        return Table({**self.keys, **more}, self.what)


class Library(dict[str, Entry]):
    """Pieces by name."""

    def piece(self, **keys: Key) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Add a function, which is called as the piece is; the first line of its text says what it does."""

        def add(make: Callable[..., Any]) -> Callable[..., Any]:
            what = (make.__doc__ or "").splitlines()[0].removeprefix("Return ").rstrip(".")
            self[make.__name__] = Entry(name=make.__name__, what=what, keys=keys, make=make)
            return make

        return add


@dataclass(kw_only=True)
class Build:
    """A robot that is being put together.

    Attributes:
        model: compiled, without the sensors that its pieces ask for.
        home: its pose at the start, without noise, [nq].
        base: number of the free joint that carries it, None where there is none.
        step_seconds: simulated seconds of a control step.
        commands: names of the tasks that are commands -> their units.
        middle, half: of the bounds of every action, [A].
        fields: of `mjData`, that are read.
        remember: those that rewards need from before the step.
        carried: of worlds, that change with every step.
        sensors: what is to be added to the model.
        own: loads a function of the user's, by its address and the key that names it.
    """

    model: mujoco.MjModel
    home: Float[Tensor, " Q"]
    base: int | None
    step_seconds: float
    commands: Mapping[str, str]
    middle: Float[Tensor, " A"]
    half: Float[Tensor, " A"]
    fields: dict[str, None] = field(default_factory=lambda: {"qpos": None, "qvel": None})
    remember: dict[str, None] = field(default_factory=dict)
    carried: dict[str, None] = field(default_factory=dict)
    sensors: list[dict[str, Any]] = field(default_factory=list)
    own: Callable[[str, str], Callable[..., Any]]
    _adr: int = -1

    def read(self, *names: str) -> None:
        """Note fields that a piece reads."""
        self.fields.update(dict.fromkeys(names))

    def keep(self, *names: str) -> None:
        """Note fields that a piece needs from before the step."""
        self.remember.update(dict.fromkeys(names))

    def carry(self, *names: str) -> None:
        """Note fields that worlds carry."""
        self.carried.update(dict.fromkeys(names))

    def sensor(self, size: int, **keys: Any) -> slice:
        """Return where in `sensordata` the numbers of a sensor will be that is added to the model."""
        self.read("sensordata")
        self._adr = self.model.nsensordata if self._adr < 0 else self._adr
        start, self._adr = self._adr, self._adr + size
        self.sensors.append({**keys, "name": f"metarl {len(self.sensors)}"})
        return slice(start, start + size)

    def function(self, address: str, where: str) -> Callable[..., Any]:
        """Return a function of the user's own file, FILE.py:FUNCTION."""
        return self.own(address, where)

    def free(self, where: str) -> tuple[int, int]:
        """Return where in qpos and qvel the robot's free joint is.

        Raises:
            UserError: it has none.
        """
        if self.base is None:
            raise UserError(
                f"{where}: the robot has no free joint, so that it cannot tell. Leave it out, or take `sensor: NAME`."
            )
        return int(self.model.jnt_qposadr[self.base]), int(self.model.jnt_dofadr[self.base])

    def carrier(self, body: str, where: str) -> int:
        """Return the number of a body that a piece names, or of the robot's base."""
        if body:
            return one(self.model, "body", body, where)
        if self.base is None:
            raise UserError(f"{where}: missing, and the robot has no free joint. Name one of its bodies.")
        return int(self.model.jnt_bodyid[self.base])

    def wanted(self, command: float | str, unit: str, where: str) -> Callable[[Tasks], Tensor | float]:
        """Return what gives a command of every task.

        Args:
            command: a number, or the name of a task that is a command.
            unit: what it has to have.
            where: the key, for the error.

        Raises:
            UserError: there is no such command, or it has another unit.
        """
        if isinstance(command, str):
            if command not in self.commands:
                hint = "Add it to `tasks`, with `command: true`."
                raise UserError(f"{where}: no task '{command}' is a command.{nearest(command, self.commands)} {hint}")
            if self.commands[command] != unit:
                given = self.commands[command] or "none"
                raise UserError(
                    f"{where}: the command '{command}' has the unit {given}, and {unit or 'none'} is needed."
                )
            return lambda tasks: tasks[command]
        number = float(command)
        return lambda tasks: number

    def unit_action(self, action: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """Return actions as agents give them, -1..1 of their bounds."""
        if self._is_unit:
            return action
        return (action - on(action, self.middle)) / on(action, self.half)

    @cached_property
    def _is_unit(self) -> bool:
        return bool((self.middle == 0.0).all() and (self.half == 1.0).all())

    def named(self, kind: str) -> list[str]:
        """Return the names of everything of a kind in the model."""
        return names_of(self.model, kind)


def pick(field_name: str, indices: list[int]) -> Callable[[State], Float[Tensor, "B N"]]:
    """Return what takes columns out of a field: a view where they stand in a row."""
    if indices == list(range(indices[0], indices[0] + len(indices))):
        columns = slice(indices[0], indices[0] + len(indices))
        return lambda state: state[field_name][:, columns]
    index = torch.tensor(indices)
    return lambda state: state[field_name].index_select(1, on(state[field_name], index))


def up_in_base(quaternion: Float[Tensor, "B 4"]) -> Float[Tensor, "B 3"]:
    """Return the world's vertical in a body's own frame; the last number is the cosine of its tilt.

    Args:
        quaternion: of the body, w x y z.
    """
    w, x, y, z = quaternion.unbind(1)
    return torch.stack((2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)), dim=1)


def into_base(quaternion: Float[Tensor, "B 4"], vector: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
    """Return vectors of the world in a body's own frame.

    Args:
        quaternion: of the body, w x y z.
        vector: in the world's frame.
    """
    axis = quaternion[:, 1:]
    twice = 2.0 * torch.linalg.cross(vector, axis)
    return vector + quaternion[:, :1] * twice + torch.linalg.cross(twice, axis)
