"""Another reality: the same tasks of a family under physics, actuators and sensors that training never had.

A reality is a few lines of YAML, all of which may be left out:

```yaml
summary: slippery and slow              # a few words, for tables
time_step: 0.005                        # of the physics, s; or `substeps: 4`, as many times more in a control step
integrator: implicitfast                # euler, rk4, implicit, implicitfast
solver: newton                          # pgs, cg, newton
iterations: 20                          # of the solver, at most
cone: elliptic                          # of friction: pyramidal, elliptic
impratio: 10.0                          # stiffness of friction over that of contact
solref: [0.01, 1.0]                     # contacts: time constant (s) and damping ratio, as in MuJoCo
solimp: [0.9, 0.95, 0.001, 0.5, 2.0]    # contacts: impedance, as in MuJoCo
lag: 0.02                               # time constant of the actuators, s
strength: 0.9                           # factor on their force
saturation: 0.8                         # factor on their largest force
modifiers: [delay=1..2, noise]          # as in a family's name; drawn for every task, and told to nobody
engine: gpu                             # what steps the worlds: cpu, gpu
```

A control step takes as long as at home: where the time step changes, the number of physics steps in it follows. Tasks
are those of home, to the last digit. What `modifiers` add to a task is drawn for each from a stream of the reality's
own, stays as long as the task, and is told neither to agents nor to an oracle. Rewards and ends are the family's, of
the true state; effort is that of the action which the agent gives.

Actuators with a lag follow their controls u as y + (1 - exp(-dt / lag)) (u - y) once a control step dt, from rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import mujoco

from metarl.config import from_plain
from metarl.envs.modifiers.names import Modifier, parse, word_of
from metarl.errors import UserError, nearest
from metarl.files import read_regular
from metarl.plain import parse_yaml, shown

MOST_BYTES = 100_000
"""Of a file."""
LONGEST = 200
"""Letters of a summary."""
INTEGRATORS = {
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
    "rk4": mujoco.mjtIntegrator.mjINT_RK4,
    "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT,
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
}
SOLVERS = {"pgs": mujoco.mjtSolver.mjSOL_PGS, "cg": mujoco.mjtSolver.mjSOL_CG, "newton": mujoco.mjtSolver.mjSOL_NEWTON}
CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}


@dataclass(frozen=True, kw_only=True)
class Reality:
    """What differs from home; None, or nothing, where it is as there.

    Raises:
        UserError: a value is not possible.
    """

    summary: str = ""
    """A few words."""
    time_step: float | None = None
    """Of the physics, s."""
    substeps: int | None = None
    """Physics steps of a control step, as a multiple of those at home."""
    integrator: Literal["euler", "rk4", "implicit", "implicitfast"] | None = None
    """Of the physics."""
    solver: Literal["pgs", "cg", "newton"] | None = None
    """Of constraints."""
    iterations: int | None = None
    """Of the solver, at most."""
    cone: Literal["pyramidal", "elliptic"] | None = None
    """Of friction."""
    impratio: float | None = None
    """Stiffness of friction over that of contact."""
    solref: tuple[float, float] | None = None
    """Time constant (s) and damping ratio of contacts."""
    solimp: tuple[float, float, float, float, float] | None = None
    """Impedance of contacts: two ends, width (m), midpoint, power."""
    lag: float | None = None
    """Time constant of the actuators, s."""
    strength: float | None = None
    """Factor on their force."""
    saturation: float | None = None
    """Factor on their largest force."""
    modifiers: tuple[str, ...] = ()
    """Modifiers of a family's name."""
    engine: Literal["cpu", "gpu"] | None = None
    """What steps the worlds."""

    def __post_init__(self) -> None:
        if len(self.summary) > LONGEST or not self.summary.isprintable():
            raise UserError(
                f"summary: got {shown(self.summary)}. Give a few words in a line, at most {LONGEST} letters."
            )
        for name in ("time_step", "impratio", "lag", "strength", "saturation"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise UserError(f"{name}: got {value}. Give a number above 0.")
        for name in ("substeps", "iterations"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10_000:
                raise UserError(f"{name}: got {value}. Give a whole number from 1 to 10000.")
        if self.time_step is not None and self.substeps is not None:
            raise UserError("time_step and substeps: got both. Give one of them: either says what the other is.")
        if self.solref is not None and not all(0.0 < value < math.inf for value in self.solref):
            raise UserError(f"solref: got {list(self.solref)}. Give a time constant and a damping ratio above 0.")
        if self.solimp is not None:
            low, high, width, middle, power = self.solimp
            right = (
                0.0 < low <= high < 1.0 and 0.0 < width < math.inf and 0.0 < middle < 1.0 and 1.0 <= power < math.inf
            )
            if not right:
                raise UserError(
                    f"solimp: got {list(self.solimp)}. Give 0 < LOW <= HIGH < 1, a width above 0, a midpoint between 0 "
                    "and 1, and a power from 1."
                )
        if not self.plain():
            raise UserError(f"it changes nothing. Give at least one of: {', '.join(KEYS[1:])}.")

    def plain(self) -> dict[str, Any]:
        """Return what differs from home as plain data, the summary left out."""
        given = {name: value for name, value in asdict(self).items() if name != "summary" and value not in (None, ())}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


KEYS = tuple(field.name for field in fields(Reality))

REALITIES: dict[str, Reality] = {
    "fine": Reality(summary="four times the physics steps, implicit", substeps=4, integrator="implicitfast"),
    "elliptic": Reality(summary="round friction cones, stiff friction", cone="elliptic", impratio=10.0),
    "soft": Reality(summary="soft contacts", solref=(0.05, 1.0), solimp=(0.8, 0.9, 0.01, 0.5, 2.0)),
    "slow": Reality(summary="lagging actuators, late messages", lag=0.03, modifiers=("delay=1..2",)),
    "worn": Reality(
        summary="weak actuators, inexact sensors", strength=0.85, saturation=0.85, modifiers=("bias", "noise")
    ),
    "cpu": Reality(summary="the same on the CPU engine", engine="cpu"),
    "gpu": Reality(summary="the same on the GPU engine", engine="gpu"),
}
"""Those with a name."""


@dataclass(frozen=True)
class Named:
    """A reality, and what it is called."""

    name: str
    reality: Reality

    def plain(self) -> dict[str, Any]:
        """Return how it is recorded."""
        return {"name": self.name, "summary": self.reality.summary, "changes": self.reality.plain()}

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say of errors in which reality they are."""
        try:
            yield
        except UserError as error:
            raise UserError(f"the reality {self.name}: {error}") from error


def find_realities(given: str | Path | Sequence[str | Path]) -> tuple[Named, ...]:
    """Return realities and what they are called.

    Args:
        given: names among `REALITIES`, or YAML files (what ends in .yaml or .yml, or has a folder before it).

    Raises:
        UserError: there is none, a file is not right, or two have one name.
    """
    names = [str(one) for one in ([given] if isinstance(given, str | Path) else given)]
    found = tuple(_find(name) for name in names)
    for number, there in enumerate(found):
        if there.name in [other.name for other in found[:number]]:
            raise UserError(f"got two realities called '{there.name}': give each once, or rename a file")
    return found


def _find(name: str) -> Named:
    """Return one reality."""
    if name in REALITIES:
        return Named(name, REALITIES[name])
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        raise UserError(f"unknown reality '{name}'.{nearest(name, REALITIES)} Or give a YAML file.")
    if path.stem in (*REALITIES, "home"):
        raise UserError(f"got the reality {name}, whose name is taken by one that exists: rename the file")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", path.stem):
        raise UserError(f"got the reality {name}: its file's name must be letters, digits, - and _ before .yaml")
    return Named(path.stem, read(path))


def read(path: Path) -> Reality:
    """Read a reality from a YAML file.

    Raises:
        UserError: says which key is wrong, what was got and what exists.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode()
    except OSError as error:
        raise UserError(f"cannot read the reality {path} ({error.strerror}): give a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the reality {path} is no text in UTF-8: give a YAML file") from error
    found = parse_yaml(text, f"The reality {path}")
    if not isinstance(found, dict):
        raise UserError(f"the reality {path}: got no `key: value` lines. Keys are {', '.join(KEYS)}.")
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise UserError(f"the reality {path}: unknown key '{unknown[0]}'.{nearest(unknown[0], KEYS)}")
    defaults = {field.name: field.default for field in fields(Reality)}
    try:
        made = from_plain(Reality, {**defaults, "modifiers": [], **found})
        for text in made.modifiers:
            parsed(text)
    except UserError as error:
        raise UserError(f"the reality {path}: {error}") from error
    return made


def parsed(text: str) -> Modifier:
    """Return a modifier of a reality."""
    if text.removeprefix("+").partition("=")[0] == "horizon":
        raise UserError(f"modifiers: got '{text}': episodes are as long as at home. Leave it out.")
    modifier = parse(text.removeprefix("+"))
    if word_of(modifier) == "switch":
        raise UserError("modifiers: got 'switch': a reality is the same during a trial. Leave it out.")
    return modifier
