"""A robot file put together: the model with what the file adds to it, and what is seen, rewarded and ended.

`Robot` is all of that, made once; `RobotFamily` (robot_family.py) is the family on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs import mujoco_log
from metarl.envs.chance import normal
from metarl.envs.family import Marker, Observable, State, View
from metarl.envs.robots import model as models
from metarl.envs.robots import own
from metarl.envs.robots.acting import bounds_of, chosen_joints, frame_skip_of, home_of
from metarl.envs.robots.building import KEY, STEPS, Build, Part, Term, Told
from metarl.envs.robots.effects import Change, changes_of
from metarl.envs.robots.ends import ENDS, success_of
from metarl.envs.robots.file import RobotFile, read_file
from metarl.envs.robots.naming import base_of, names_of, one
from metarl.envs.robots.parts import PARTS
from metarl.envs.robots.rewards import TERMS
from metarl.envs.robots.varied import parameter_of
from metarl.errors import UserError, nearest
from metarl.run.sources import ROBOT, Source, digest, of_file
from metarl.space.parameter import Parameter
from metarl.types import Tasks


@dataclass(frozen=True, kw_only=True, eq=False)
class Robot:
    """Everything that a robot file says, put together.

    Attributes:
        file: what was read.
        spec: the model, to be compiled anew.
        model: compiled.
        sources: what a run says of its files: the robot file, functions of the user's, and what the model takes.
        build: what its pieces were made with.
        parts: of the observation, by what they are called.
        observables: a row for every number of them.
        terms: weight and term by name.
        ends: what ends an episode.
        success: what tells whether the goal is met; None where there is none.
        parameters: of the tasks.
        changes: what they do to the model.
        errors: of sensors: part -> (columns, task, how).
        low, high: bounds of actions.
        action_unit: of actions.
        frame_skip: physics steps of a control step.
        camera: of pictures.
    """

    file: RobotFile
    spec: mujoco.MjSpec
    model: mujoco.MjModel
    sources: tuple[Source, ...]
    build: Build
    parts: Mapping[str, Part]
    observables: tuple[Observable, ...]
    terms: Mapping[str, tuple[float, Term]]
    ends: Mapping[str, Told]
    success: Told | None
    parameters: tuple[Parameter, ...]
    changes: tuple[Change, ...]
    errors: Mapping[str, tuple[tuple[str, str], ...]]
    low: tuple[float, ...]
    high: tuple[float, ...]
    action_unit: str
    frame_skip: int
    camera: str | View

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle: it is put together anew from its file."""
        return make, (self.file.path,)

    def is_of(self, file: RobotFile) -> bool:
        """Tell whether it is what a file says, with the files that it takes as they are now."""
        if file.content != self.file.content:
            return False
        here, there = self.file.path.parent, file.path.parent
        for source in self.sources[1:]:
            place = there / os.path.relpath(source.given, here)
            if not place.is_file() or digest(place) != source.sha256:
                return False
        return True

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return all parts side by side."""
        found, noise = [], normal(state[KEY], state[STEPS], self.noisy) if self.noisy else None
        for name, part in self.parts.items():
            value = part.see(state, tasks)
            for task, do in self.errors.get(name, ()):
                error = tasks[task].reshape(len(value), -1)
                if do == "noise":
                    assert noise is not None
                    error, noise = error * noise[:, : value.shape[1]], noise[:, value.shape[1] :]
                value = value * error if do == "multiply" else value + error
            found.append(value if part.clip is None else value.clamp(-part.clip, part.clip))
        return torch.cat(found, dim=1)

    @cached_property
    def noisy(self) -> int:
        """How many random numbers an observation takes."""
        of = {name: len(part.observables) for name, part in self.parts.items()}
        return sum(of[name] for name, errors in self.errors.items() for _, do in errors if do == "noise")

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return what pictures show of the terms."""
        return tuple(term.marker(state, tasks) for _, term in self.terms.values() if term.marker is not None)


def make(path: Path | str) -> Robot:
    """Return a robot from its file; functions of the user's own that it names are imported.

    Raises:
        UserError: something in the file is wrong, or does not fit the model; it names the file and the key.
    """
    file = read_file(path)
    mujoco_log.listen()
    try:
        return _made(file)
    except UserError as error:
        raise UserError(f"{file.path.name}: {error}") from error


def _made(file: RobotFile) -> Robot:
    folder, content = file.path.parent, file.content
    spec, files = models.read(folder, content["model"])
    bare = models.compiled(spec)
    if content["actuators"]:
        models.add_actuators(spec, chosen_joints(bare, content["actuators"]))
    if content["time_step"] is not None:
        spec.option.timestep = content["time_step"]
    if content["integrator"] is not None:
        spec.option.integrator = models.INTEGRATORS[content["integrator"]]
    model = models.compiled(spec)
    if model.nu == 0:
        raise UserError("actuators: missing, and the model has none. Say which joints get one.")
    if model.na:
        raise UserError(
            "model.file: it has actuators with a state of their own (muscles, filters), which are not carried."
        )
    frame_skip = frame_skip_of(content, float(model.opt.timestep))
    models.check_keyframe(spec, model, content["start"]["keyframe"])
    home = home_of(model, content["start"])
    low, high, unit = bounds_of(model, content["action"], home)
    bounds = torch.tensor([low, high], dtype=torch.float64)
    tasks = content["tasks"]
    build = Build(
        model=model,
        home=home,
        base=base_of(model, content["base"]),
        step_seconds=frame_skip * float(model.opt.timestep),
        commands={name: keys["unit"] for name, keys in tasks.items() if keys["target"] == "command"},
        middle=bounds.mean(0),
        half=(bounds[1] - bounds[0]) / 2.0,
        own=lambda address, where: own.load(address, folder, where),
    )
    parts = {}
    for i, (name, keys) in enumerate(content["observation"].items()):
        made = PARTS[keys["part"]].make(build, f"observation[{i}].{keys['part']}", keys)
        parts[name] = made if keys["clip"] is None else _clipped(made, keys["clip"])
    terms = {
        name: (keys["weight"], TERMS[keys["term"]].make(build, f"reward.{name}", keys))
        for name, keys in content["reward"].items()
    }
    ends = {name: ENDS[keys["end"]].make(build, f"ends.{name}", keys) for name, keys in content["ends"].items()}
    success = None if content["success"] is None else success_of(build, "success", content["success"])
    parameters, changes, errors = _tasks(model, tasks, parts)
    if any(do == "noise" for several in errors.values() for _, do in several):
        build.carry(KEY, STEPS)
    # What its pieces measure with comes behind the sensors that the model has.
    for sensor in build.sensors:
        size = sensor.pop("intprm", None)
        added = spec.add_sensor(**sensor)
        if size is not None:
            added.intprm[:] = size
    if build.sensors:
        model = models.compiled(spec)
        build.model = model
    _unhinder(model, changes)
    return Robot(
        file=file,
        spec=spec,
        model=model,
        sources=_sources(file, files),
        build=build,
        parts=parts,
        observables=tuple(row for part in parts.values() for row in part.observables),
        terms=terms,
        ends=ends,
        success=success,
        parameters=parameters,
        # A servo's zero is off by its gain of then.
        changes=tuple(sorted(changes, key=lambda change: change.gain is not None)),
        errors=errors,
        low=low,
        high=high,
        action_unit=unit,
        frame_skip=frame_skip,
        camera=_camera(model, build, content["camera"]),
    )


def _sources(file: RobotFile, files: tuple[Path, ...]) -> tuple[Source, ...]:
    """Return what a run says of the files of a robot."""
    folder = file.path.parent

    def role(kind: str, place: Path) -> str:
        return f"{kind} {Path(os.path.relpath(place, folder)).as_posix()}"

    own_files = (of_file(role("own", place), place) for place in file.own_files())
    taken = (of_file(role(ROBOT, place), place.resolve()) for place in files)
    return (Source(role=ROBOT, sha256=file.sha256, given=str(file.path)), *own_files, *taken)


def _tasks(
    model: mujoco.MjModel, tasks: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Part]
) -> tuple[tuple[Parameter, ...], list[Change], dict[str, tuple[tuple[str, str], ...]]]:
    """Return the parameters of the tasks, what they do to the model, and to the observation."""
    parameters, changes, errors = [], [], {}
    for name, keys in tasks.items():
        size = 1
        if keys["target"] == "observation":
            part, where = keys["observation"], f"tasks.{name}"
            if part not in parts:
                raise UserError(f"{where}.observation: there is no part '{part}'.{nearest(part, parts)}")
            units = {row.unit for row in parts[part].observables}
            if keys["do"] != "multiply" and units != {keys["unit"]}:
                raise UserError(
                    f"{where}.unit: got '{keys['unit']}', but {part} is in {' and '.join(sorted(units)) or 'none'}."
                )
            if keys["do"] == "multiply" and keys["unit"]:
                raise UserError(f"{where}.unit: got '{keys['unit']}' for a factor, which has none. Leave it out.")
            if keys["do"] == "noise" and keys["least"] < 0.0:
                raise UserError(
                    f"{where}: got {keys['least']:g} for noise, whose standard deviation is at least 0. Raise it."
                )
            size = len(parts[part].observables) if keys["each"] else 1
            errors[part] = (*errors.get(part, ()), (name, keys["do"]))
        elif keys["target"] != "command":
            size, more = changes_of(model, name, keys)
            changes += more
        parameters.append(parameter_of(name, keys, size))
    return tuple(parameters), changes, errors


def _clipped(part: Part, limit: float) -> Part:
    rows = tuple(Observable(f"{row.meaning}, within ±{limit:g}", row.name, row.unit) for row in part.observables)
    return replace(part, observables=rows, clip=limit)


SAME_FRAME = {"body_ipos": "body_sameframe", "geom_pos": "geom_sameframe", "site_pos": "site_sameframe"}
"""Places that vary -> what says that a thing is where its body is, so that MuJoCo does not look at them."""


def _unhinder(model: mujoco.MjModel, changes: list[Change]) -> None:
    """Have MuJoCo look at places that vary."""
    for change in changes:
        if change.field in SAME_FRAME:
            getattr(model, SAME_FRAME[change.field])[change.rows.numpy()] = 0


def _camera(model: mujoco.MjModel, build: Build, wanted: Any) -> str | View:
    """Return what pictures are taken with."""
    if isinstance(wanted, str):
        cameras = [model.camera(i).name for i in range(model.ncam)]
        if wanted not in cameras:
            raise UserError(f"camera: the model has no camera '{wanted}'.{nearest(wanted, cameras)}")
        return wanted
    if wanted is not None:
        body = wanted["body"] or names_of(model, "body")[build.carrier("", "camera.body")]
        one(model, "body", body, "camera.body")
        return View(centre=body, distance=wanted["distance"], azimuth=wanted["azimuth"], elevation=wanted["elevation"])
    if build.base is not None:
        return View(centre=names_of(model, "body")[build.carrier("", "camera")], distance=2.0, elevation=-20.0)
    return "track"
