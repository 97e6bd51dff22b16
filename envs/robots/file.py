"""The robot file: every key that it may have, and how it is read. Nothing is executed here, and no model is opened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from metarl.envs.models import MOST_SUBSTEPS
from metarl.envs.robots.building import Library
from metarl.envs.robots.ends import ENDS, SUCCESS
from metarl.envs.robots.form import (
    MISSING,
    Either,
    Entries,
    Flag,
    Key,
    Kind,
    Listed,
    Number,
    Table,
    Text,
    Word,
    join,
    wrong,
)
from metarl.envs.robots.model import INTEGRATORS
from metarl.envs.robots.own import file_of
from metarl.envs.robots.parts import NAMES, PARTS
from metarl.envs.robots.rewards import TERMS
from metarl.envs.robots.varied import TaskKind
from metarl.errors import UserError, nearest
from metarl.files import read_regular
from metarl.plain import parse_yaml

LARGEST = 1 << 18
"""Bytes that a robot file may have."""
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
LONGEST_HORIZON = 1_000_000


@dataclass(frozen=True)
class Pieces(Kind):
    """Pieces of a library under labels of the user's, LABEL: {KEY: VALUE}: the label is a piece, or `key` names one."""

    library: Library
    key: str
    """Which key names a piece where the label is none."""
    more: dict[str, Key]
    """Keys of all of them."""
    short: str = ""
    """Key whose value may stand alone."""
    least: int = 0

    def read(self, value: Any, where: str) -> dict[str, dict[str, Any]]:
        """Return label -> keys, with the name of the piece under `key`."""
        if not isinstance(value, dict) or len(value) < self.least:
            raise wrong(where, value, "a mapping, NAME: {KEY: VALUE} lines,")
        found = {}
        for label, given in value.items():
            inner = join(where, label)
            if not re.fullmatch(NAME, label):
                raise UserError(f"{inner}: got a name that is none. Take letters, digits, _ and -.")
            entry = {self.short: given} if self.short and not isinstance(given, dict) else given
            if not isinstance(entry, dict):
                raise wrong(inner, given, "a mapping, KEY: VALUE lines,")
            name = entry.get(self.key, label)
            if not isinstance(name, str) or name not in self.library:
                place = join(inner, self.key) if self.key in entry else inner
                raise UserError(f"{place}: there is no {self.key} '{name}'.{nearest(str(name), self.library)}")
            found[label] = self._table(name, named=True).read({**entry, self.key: name}, inner)
        return found

    def _table(self, name: str, *, named: bool) -> Table:
        """Return the keys of a piece, with that which names it."""
        choice = {self.key: Key(Word((name,)), f"which {self.key} it is", MISSING if named else name)}
        return self.library[name].table(**choice, **self.more)

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema: known labels are what they say, others name their piece."""
        short = [self.more[self.short].kind.schema()] if self.short else []
        other = {"$ref": f"#/$defs/{self.key}"}
        known = {}
        for name in self.library:
            needs = self.library[name].keys.values()
            alone = short if all(key.default is not MISSING for key in needs) else []
            known[name] = {"anyOf": [*alone, self._table(name, named=False).schema(), other]}
        return {
            "type": "object",
            "properties": known,
            "propertyNames": {"pattern": f"^{NAME}$"},
            "additionalProperties": other,
            "minProperties": self.least,
        }

    def defined(self) -> dict[str, Any]:
        """Return what `schema` refers to: a piece that is named by its key."""
        return {self.key: {"anyOf": [self._table(name, named=True).schema() for name in self.library]}}


class Parts(Kind):
    """The observation: a list of parts, NAME or NAME: {KEY: VALUE}."""

    more: ClassVar[dict[str, Key]] = {
        "clip": Key(Number(above=0.0), "numbers beyond it, in size, are cut to it", None),
        "as": Key(Text(pattern=NAME, words="a name of letters, digits, _ and -"), "what the part is called", ""),
    }

    def read(self, value: Any, where: str) -> dict[str, dict[str, Any]]:
        """Return what a part is called -> its keys, with the name of the piece under `part`."""
        if not isinstance(value, list) or not value:
            raise wrong(where, value, "a list of parts, - NAME lines,")
        found: dict[str, dict[str, Any]] = {}
        for i, item in enumerate(value):
            inner = f"{where}[{i}]"
            if not isinstance(item, str) and not (isinstance(item, dict) and len(item) == 1):
                raise wrong(inner, item, "a part, - NAME or - NAME: {KEY: VALUE},")
            name, keys = (item, {}) if isinstance(item, str) else next(iter(item.items()))
            if name not in PARTS:
                raise UserError(f"{inner}: there is no part '{name}'.{nearest(name, PARTS)}")
            read = PARTS[name].table(**self.more).read({} if keys is None else keys, join(inner, name))
            label = read["as"] or name
            if label in found:
                raise UserError(f"{join(inner, name)}: there is a part '{label}' already. Name this one with `as`.")
            found[label] = {**read, "part": name}
        return found

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        plain = [name for name, e in PARTS.items() if all(key.default is not MISSING for key in e.keys.values())]
        one = [
            {
                "type": "object",
                "properties": {name: {**PARTS[name].table(**self.more).schema(), "description": PARTS[name].what}},
                "required": [name],
                "additionalProperties": False,
            }
            for name in PARTS
        ]
        return {"type": "array", "minItems": 1, "items": {"anyOf": [{"enum": plain}, *one]}}


POSITIVE = Number(above=0.0)
POSE = Entries(Number(), names=r"[^\x00-\x1f\x7f]+")
CAMERA = Table(
    {
        "body": Key(Text(), "that it follows; the robot's base if not given", ""),
        "distance": Key(POSITIVE, "from it, m", 2.0),
        "azimuth": Key(Number(), "0 looks along x, 90 along y, degrees", 90.0),
        "elevation": Key(Number(low=-90.0, high=90.0), "-90 looks straight down, degrees", -20.0),
    }
)
MODEL = Table(
    {
        "file": Key(Text(), "MJCF (.xml) or URDF (.urdf), from the folder of this file"),
        "meshes": Key(Text(), "folder of its meshes, where the model does not say", ""),
        "free_joint": Key(Text(), "body that is to move freely, as the root of a URDF robot that walks", ""),
        "floor": Key(
            Either(flag=Flag(), mapping=Table({"friction": Key(Number(low=0.0), "sliding friction", 1.0)})),
            "adds a plane at height 0, where the model has none",
            None,
        ),
    },
    "the model",
)
ACTUATORS = Table(
    {
        "joints": Key(NAMES, "hinges and slides that get one, by name or pattern"),
        "kind": Key(Word(("servo", "motor")), "servo: goes to a position; motor: a force", "servo"),
        "kp": Key(POSITIVE, "of a servo, N m/rad or N/m", None),
        "kd": Key(Number(low=0.0), "of a servo, N m s/rad or N s/m", 0.0),
        "effort": Key(POSITIVE, "largest force, N m or N; a motor's full one", None),
        "armature": Key(Number(low=0.0), "inertia of the rotor, kg m² or kg; the joint's own if not given", None),
    }
)
ACTION = Table(
    {
        "reach": Key(
            Either(number=POSITIVE, mapping=Entries(POSITIVE, least=1, names=r"[^\x00-\x1f\x7f]+")),
            "servos go that far from the start to either side, rad or m; a number, or one for each pattern of joints; "
            "as far as the actuator allows if not given",
            None,
        ),
        "unit": Key(Text(), "of actions, to be read", ""),
    }
)
START = Table(
    {
        "keyframe": Key(Text(), "of the model, which it starts in", ""),
        "pose": Key(POSE, "positions of hinges and slides, by name or pattern, rad or m", {}),
        "place": Key(Listed(Number(), least=3, most=3), "of the base, x y z, m", None),
        "noise": Key(
            Table(
                {
                    "position": Key(Number(low=0.0), "half-width of the noise on hinges and slides, rad or m", 0.0),
                    "velocity": Key(Number(low=0.0), "standard deviation of their velocities, rad/s or m/s", 0.0),
                    "base_velocity": Key(Number(low=0.0), "the same of the base, m/s and rad/s", 0.0),
                    "heading": Key(Number(low=0.0, high=3.1416), "half-width of the turn about the vertical, rad", 0.0),
                }
            ),
            "how starts differ",
            None,
        ),
    }
)
WEIGHT = {"weight": Key(Number(), "that it is multiplied by; a cost has a negative one")}
REWARD = Pieces(TERMS, "term", WEIGHT, "weight", 1)
END = Pieces(ENDS, "end", {})
FORM = Table(
    {
        "name": Key(
            Text(pattern=NAME, words="a name of letters, digits, _ and -"), "of the family; the file's if not given", ""
        ),
        "variant": Key(Text(pattern=NAME, words="a name of letters, digits, _ and -"), "of the family", "v1"),
        "summary": Key(Text(), "the task, in a line", ""),
        "source": Key(Text(), "where the robot and the task come from", ""),
        "model": Key(MODEL, "the model"),
        "base": Key(Text(), "body on the free joint that is the robot's; the first such body if not given", ""),
        "time_step": Key(POSITIVE, "of the physics, s; the model's if not given", None),
        "integrator": Key(Word(tuple(INTEGRATORS)), "of the physics; the model's if not given", None),
        "control_rate": Key(POSITIVE, "control steps a second, Hz", None),
        "frame_skip": Key(
            Number(low=1, high=MOST_SUBSTEPS, whole=True), "physics steps of a control step, in place of it", None
        ),
        "horizon": Key(Number(low=1, high=LONGEST_HORIZON, whole=True), "control steps of an episode"),
        "camera": Key(Either(text=Text(), mapping=CAMERA), "of pictures: one of the model's, or a view", None),
        "actuators": Key(Listed(ACTUATORS), "that are added to joints which have none", ()),
        "action": Key(ACTION, "what actions mean", ACTION.read({}, "")),
        "start": Key(START, "where episodes begin", START.read({}, "")),
        "observation": Key(Parts(), "what the agent sees"),
        "reward": Key(REWARD, "terms with their weights"),
        "ends": Key(END, "what ends an episode before its horizon", {}),
        "success": Key(SUCCESS, "when the goal is met", None),
        "tasks": Key(Entries(TaskKind(), least=1, names=r"[A-Za-z_][A-Za-z0-9_]*"), "what differs from task to task"),
    },
    "A robot family: a model, and what an agent sees, does and is rewarded for, with the tasks it has to adapt to.",
)
"""The whole file."""


def schema() -> dict[str, Any]:
    """Return the form of robot files as JSON Schema."""
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "metarl robot family"}
    return {**about, **FORM.schema(), "$defs": {**REWARD.defined(), **END.defined()}}


@dataclass(frozen=True, kw_only=True)
class RobotFile:
    """A robot file as it was read: every key has its value."""

    path: Path
    """Absolute."""
    sha256: str
    """Of its content, hexadecimal."""
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the family."""
        return self.content["name"] or re.sub(r"[^A-Za-z0-9_-]+", "-", self.path.stem).strip("-") or "robot"

    def own_files(self) -> tuple[Path, ...]:
        """Return the files whose code it executes."""
        return tuple(dict.fromkeys(file_of(address, self.path.parent) for address in self._addresses()))

    def _addresses(self) -> Iterator[str]:
        for pieces in ("observation", "reward", "ends"):
            yield from (keys["function"] for keys in self.content[pieces].values() if "function" in keys)


def read_file(path: Path | str) -> RobotFile:
    """Return a robot file.

    Raises:
        UserError: there is none, or a key in it is wrong; it names the file and the key.
    """
    path = Path(path).resolve()
    try:
        text = read_regular(path, LARGEST)
    except FileNotFoundError as error:
        raise UserError(f"There is no robot file {path}. Correct the path.") from error
    try:
        plain = parse_yaml(text.decode(), path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text. Save it as such.") from error
    try:
        content = FORM.read(plain, "")
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from error
    return RobotFile(path=path, sha256=hashlib.sha256(text).hexdigest(), content=content)


def split_robot_file(name: str) -> tuple[str, str]:
    """Return the robot file that a family's name begins with, empty where there is none, and what stands behind it.

    Args:
        name: such as `go1.yaml`, `robots/go1.yaml+mass`, `go1.yaml:go1@v1`.
    """
    found = re.match(r"(.+?\.ya?ml)(?=$|[:+@])", name)
    return (found[1], name[len(found[1]) :]) if found else ("", name)
