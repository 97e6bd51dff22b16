"""Functions of a user's own file as parts, terms and ends: `file.py:function`, from the folder of the robot file.

    def part(robot, state, tasks): ...                         # floats [B, N], N as many as `units`
    def term(robot, before, state, action, tasks): ...         # floats [B]
    def end(robot, state, tasks): ...                          # booleans [B]

All are tensors over B worlds, on the device of the worlds. `robot` is what it is built with: `robot.model` (the MuJoCo
model), `robot.home` (the pose at the start), `robot.step_seconds`. `state` has the fields of `mjData` that `fields`
names, beside qpos and qvel; `before` those that `remember` names, from before the step; `action` is -1..1 of its
bounds; `tasks["name"]` is the number of a task in every world. On a GPU such a function must not ask a tensor for its
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import torch
from torch import Tensor

from metarl.envs.external.child import Unfit, import_source
from metarl.envs.family import Observable
from metarl.envs.robots.building import Build, Part, Term, Told
from metarl.envs.robots.ends import ENDS
from metarl.envs.robots.form import Key, Listed, Text
from metarl.envs.robots.parts import PARTS
from metarl.envs.robots.rewards import TERMS
from metarl.errors import UserError, nearest
from metarl.imports import process_kept
from metarl.problems import in_words, note_users_module

ADDRESS = Text(pattern=r"[^\x00-\x1f:]+\.py:[A-Za-z_][A-Za-z0-9_]*", words="FILE.py:FUNCTION")
FUNCTION = Key(ADDRESS, "FILE.py:FUNCTION, from the folder of this file")
FIELDS = Key(Listed(Text()), "fields of mjData that it reads, beside qpos and qvel", ())
REMEMBER = Key(Listed(Text()), "fields that it needs from before the step", ())


def file_of(address: str, folder: Path) -> Path:
    """Return the file of a function."""
    return (folder / address.rpartition(":")[0]).resolve()


def load(address: str, folder: Path, where: str) -> Callable[..., Any]:
    """Return a function; its file is executed.

    Raises:
        UserError: there is no such file or function, or the file cannot be imported.
    """
    file, name = file_of(address, folder), address.rpartition(":")[2]
    if not file.is_file():
        raise UserError(
            f"{where}: there is no file {file}. Correct the path, which is from the folder of the robot file."
        )
    try:
        with process_kept():
            module = import_source(str(file))
    except (UserError, KeyboardInterrupt):
        raise
    except Unfit as error:
        raise UserError(f"{where}: {error}") from error
    # Somebody's module may raise anything.
    except BaseException as error:
        raise UserError(f"{where}: importing {file} failed, {in_words(error)}. Mend it") from error
    note_users_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{where}: {file.name} has no function '{name}'.{nearest(name, known)}")
    return found


def checked_fields(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return names of fields of mjData; refuse others."""
    known = [name for name in dir(mujoco.MjData) if not name.startswith("_")]
    for i, name in enumerate(names):
        if name not in known:
            raise UserError(f"{where}[{i}]: mjData has no field '{name}'.{nearest(name, known)}")
    return names


def _result(value: Any, shape: tuple[int, ...], kind: torch.dtype, where: str) -> Tensor:
    """Return what a function returned, if it is a tensor of the shape and kind."""
    right = isinstance(value, Tensor) and value.shape == shape
    if right and (value.dtype == kind if kind == torch.bool else value.dtype.is_floating_point):
        return value
    got = (
        f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        if isinstance(value, Tensor)
        else repr(value)[:60]
    )
    needed = "booleans" if kind == torch.bool else "floats"
    raise UserError(f"{where}: the function returned {got}. It has to return {needed} {list(shape)}.")


@PARTS.piece(
    function=FUNCTION,
    units=Key(Listed(Text(pattern=r"[^\x00-\x1f]*")), "unit of every number that it returns, '' for none"),
    fields=FIELDS,
)
def own(build: Build, where: str, keys: dict[str, Any]) -> Part:
    """Return what a function of your own returns."""
    function, size = build.function(keys["function"], f"{where}.function"), len(keys["units"])
    build.read(*checked_fields(keys["fields"], f"{where}.fields"))
    name = keys["function"].rpartition(":")[2]

    def see(state: Any, tasks: Any) -> Tensor:
        return _result(function(build, state, tasks), (len(state["qpos"]), size), torch.float64, where)

    rows = (Observable(f"{name} {i}", "-", unit) for i, unit in enumerate(keys["units"]))
    return Part(observables=tuple(rows), see=see)


@TERMS.piece(function=FUNCTION, fields=FIELDS, remember=REMEMBER)
def own_term(build: Build, where: str, keys: dict[str, Any]) -> Term:
    """Return what a function of your own returns."""
    function = build.function(keys["function"], f"{where}.function")
    build.read(*checked_fields((*keys["fields"], *keys["remember"]), f"{where}.fields"))
    build.keep(*keys["remember"])

    def reward(before: Any, state: Any, action: Tensor, tasks: Any) -> Tensor:
        found = function(build, before, state, action, tasks)
        return _result(found, (len(state["qpos"]),), torch.float64, where)

    return Term(reward=reward)


@ENDS.piece(function=FUNCTION, fields=FIELDS)
def own_end(build: Build, where: str, keys: dict[str, Any]) -> Told:
    """Return what a function of your own returns."""
    function = build.function(keys["function"], f"{where}.function")
    build.read(*checked_fields(keys["fields"], f"{where}.fields"))
    return lambda state, tasks: _result(function(build, state, tasks), (len(state["qpos"]),), torch.bool, where)


# In a file each of them is called `own`.
for _library, _name in ((TERMS, "own_term"), (ENDS, "own_end")):
    _library["own"] = _library.pop(_name)
