"""What a robot file may hold: kinds of values that check what somebody wrote, and say so to editors.

Each kind has two sides that come from one description: `read` checks a value and returns it in its one form, or says
in one line what was got and what is allowed; `schema` is the same as JSON Schema. So the two cannot differ.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metarl.errors import UserError, nearest
from metarl.plain import shown

MISSING: Any = object()
"""Default of a key that has to be given."""
MOST = 10_000
"""Entries of a list or a mapping."""


class Kind(ABC):
    """A kind of value."""

    @abstractmethod
    def read(self, value: Any, where: str) -> Any:
        """Return a value in its one form.

        Args:
            value: plain data.
            where: the key that holds it, such as `reward.upright.weight`.

        Raises:
            UserError: it is not of this kind.
        """

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""


def wrong(where: str, value: Any, needed: str) -> UserError:
    """Return the error about a value that is not what is needed."""
    return UserError(f"{where}: got {shown(value)} where {needed} is needed. Correct the value.")


def number_of(value: Any) -> float | None:
    """Return the number that a person wrote; None where it is none, or not finite."""
    # YAML 1.1 takes 1e-5 for text: it wants 1.0e-5.
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class Number(Kind):
    """A finite number."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    whole: bool = False

    def read(self, value: Any, where: str) -> float:
        """Return it as float, or as int where it has to be whole."""
        number = number_of(value)
        right = number is not None and (not self.whole or float(number).is_integer())
        if number is not None and right:
            right = (
                (self.low is None or number >= self.low)
                and (self.high is None or number <= self.high)
                and (self.above is None or number > self.above)
            )
        if number is None or not right:
            raise wrong(where, value, self.words)
        return int(number) if self.whole else float(number)

    @property
    def words(self) -> str:
        """What is allowed."""
        ends = [
            f"from {self.low:g}" if self.low is not None else "",
            f"above {self.above:g}" if self.above is not None else "",
            f"up to {self.high:g}" if self.high is not None else "",
        ]
        return " ".join(["a whole number" if self.whole else "a number", *filter(None, ends)])

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        ends = {"minimum": self.low, "maximum": self.high, "exclusiveMinimum": self.above}
        given = {name: end for name, end in ends.items() if end is not None}
        plain = {"type": "integer" if self.whole else "number", **given}
        # 1e-5 is text to YAML 1.1, and a number to people and to YAML 1.2.
        return (
            plain if self.whole else {"anyOf": [plain, {"type": "string", "pattern": "^[-+]?[0-9]+[eE][-+]?[0-9]+$"}]}
        )


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    def read(self, value: Any, where: str) -> bool:
        """Return it."""
        if not isinstance(value, bool):
            raise wrong(where, value, "true or false")
        return value

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Kind):
    """A text in one line."""

    pattern: str = r"[^\x00-\x1f\x7f]+"
    words: str = "a text in one line"

    def read(self, value: Any, where: str) -> str:
        """Return it."""
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value) or not value.isprintable():
            raise wrong(where, value, self.words)
        return value

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Word(Kind):
    """One of some words."""

    choices: tuple[str, ...]

    def read(self, value: Any, where: str) -> str:
        """Return it."""
        if value not in self.choices or not isinstance(value, str):
            raise UserError(f"{where}: got {shown(value)}.{nearest(str(value), self.choices)}")
        return value

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        return {"enum": list(self.choices)}


@dataclass(frozen=True)
class Listed(Kind):
    """A list of values of one kind; where `single` is allowed, one of them may stand without brackets."""

    of: Kind
    least: int = 1
    most: int = MOST
    single: bool = False

    def read(self, value: Any, where: str) -> tuple[Any, ...]:
        """Return them."""
        if self.single and not isinstance(value, list):
            return (self.of.read(value, where),)
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            raise wrong(where, value, self._words())
        return tuple(self.of.read(item, f"{where}[{i}]") for i, item in enumerate(value))

    def _words(self) -> str:
        if self.least == self.most:
            return f"a list of {self.least}"
        return f"a list of {self.least} or more" + (f", up to {self.most}" if self.most < MOST else "")

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        several = {"type": "array", "items": self.of.schema(), "minItems": self.least, "maxItems": self.most}
        return {"anyOf": [self.of.schema(), several]} if self.single else several


@dataclass(frozen=True)
class Interval(Kind):
    """Two numbers, the lower one first."""

    def read(self, value: Any, where: str) -> tuple[float, float]:
        """Return them."""
        ends = [number_of(end) for end in value] if isinstance(value, list) else []
        if len(ends) != 2 or ends[0] is None or ends[1] is None:
            raise wrong(where, value, "a range [LOW, HIGH]")
        low, high = float(ends[0]), float(ends[1])
        if low >= high:
            raise UserError(
                f"{where}: got [{low:g}, {high:g}], which is upside down or empty: the first has to be the lower one."
            )
        return low, high

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        return {"type": "array", "items": Number().schema(), "minItems": 2, "maxItems": 2}


@dataclass(frozen=True)
class Key:
    """A key of a mapping."""

    kind: Kind
    what: str
    """What it says, in a line."""
    default: Any = MISSING
    """What it is where it is not given, in its one form; MISSING where it has to be given."""


@dataclass(frozen=True)
class Table(Kind):
    """A mapping of known keys. It is read as a dict with all of them."""

    keys: Mapping[str, Key]
    what: str = ""

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Return all keys, with defaults where they are not given."""
        if not isinstance(value, dict):
            raise wrong(where or "the file", value, "a mapping, KEY: VALUE lines,")
        for name in value:
            if name not in self.keys:
                raise UserError(f"{join(where, name)}: unknown key.{nearest(name, self.keys)}")
        for name, key in self.keys.items():
            if key.default is MISSING and name not in value:
                raise UserError(f"{join(where, name)}: missing. It is {key.what}.")
        return {
            name: key.kind.read(value[name], join(where, name)) if name in value else key.default
            for name, key in self.keys.items()
        }

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        found: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: {**key.kind.schema(), "description": key.what} for name, key in self.keys.items()},
        }
        needed = [name for name, key in self.keys.items() if key.default is MISSING]
        return {
            **found,
            **({"required": needed} if needed else {}),
            **({"description": self.what} if self.what else {}),
        }


@dataclass(frozen=True)
class Entries(Kind):
    """A mapping whose keys are names that the user gives."""

    of: Kind
    least: int = 0
    names: str = r"[^\x00-\x1f\x7f/.]+"
    """Pattern of the names."""

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Return them."""
        if not isinstance(value, dict) or not self.least <= len(value) <= MOST:
            raise wrong(where, value, "a mapping of names, NAME: VALUE lines," if value else "at least one entry")
        for name in value:
            if not re.fullmatch(self.names, name):
                raise UserError(f"{where}: got the name {shown(name)}. Take letters, digits, _ and -.")
        return {name: self.of.read(item, join(where, name)) for name, item in value.items()}

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        return {
            "type": "object",
            "additionalProperties": self.of.schema(),
            "propertyNames": {"pattern": f"^(?:{self.names})$"},
            "minProperties": self.least,
        }


@dataclass(frozen=True)
class Either(Kind):
    """A value of one of several kinds, which differ in what YAML makes of them."""

    number: Kind | None = None
    text: Kind | None = None
    flag: Kind | None = None
    listed: Kind | None = None
    mapping: Kind | None = None

    def read(self, value: Any, where: str) -> Any:
        """Return it as its kind does."""
        taken = (
            (self.flag, isinstance(value, bool)),
            (self.number, number_of(value) is not None),
            (self.text, isinstance(value, str)),
            (self.listed, isinstance(value, list)),
            (self.mapping, isinstance(value, dict)),
        )
        for kind, fits in taken:
            if kind is not None and fits:
                return kind.read(value, where)
        words = ("true or false", "a number", "a text", "a list", "a mapping")
        raise wrong(where, value, " or ".join(word for word, (kind, _) in zip(words, taken, strict=True) if kind))

    def schema(self) -> dict[str, Any]:
        """Return the kind as JSON Schema."""
        kinds = (self.flag, self.number, self.text, self.listed, self.mapping)
        return {"anyOf": [kind.schema() for kind in kinds if kind is not None]}


def join(where: str, name: str) -> str:
    """Return the path of a key within a mapping."""
    return f"{where}.{name}" if where else name
