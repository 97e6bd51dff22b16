"""Modifiers given by a range: `+slope=0..0.3`; with a word, `+bias=-1..1,each`; of a body, `+push=1..3,hip`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from metarl.envs.family import Family, MujocoFamily
from metarl.envs.modifiers.arguments import Arguments, between, read
from metarl.envs.modifiers.masses import body_of

AnyRanged = TypeVar("AnyRanged", bound="Ranged")
AnyPerEach = TypeVar("AnyPerEach", bound="PerEach")
AnyOnBody = TypeVar("AnyOnBody", bound="OnBody")


@dataclass(frozen=True, kw_only=True)
class Ranged:
    """A modifier that is a range, which is the same for every family where it is not given.

    Raises:
        UserError: what was given is no range.
    """

    low: float | None = None
    """Lower end in training."""
    high: float | None = None
    """Upper end in training; both are given, or none."""

    word: ClassVar[str]
    what: ClassVar[str] = "levels"
    """Is between the ends."""
    least: ClassVar[float] = 0.0
    """That the lower end may be: 0, the smallest number above it, or minus infinity."""
    usual: ClassVar[tuple[float, float]]
    """The ends where they are not given."""
    example: ClassVar[str]
    """Of a range, for errors."""

    def __post_init__(self) -> None:
        between(self.word, self.low, self.high, self.bounds, self.least, self.what)

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the training range."""
        return self.usual if self.low is None or self.high is None else (self.low, self.high)

    @classmethod
    def read(cls: type[AnyRanged], text: str) -> AnyRanged:
        """Return it from its text in a name."""
        given = read(text, (f"+{cls.word}", f"+{cls.word}={cls.example}"), ())
        return cls(low=given.low, high=given.high)

    @property
    def arguments(self) -> Arguments:
        """What stands in a name."""
        return Arguments(self.low, self.high)

    def shortest(self: AnyRanged, base: Family) -> AnyRanged:
        """Return the same without what is default anyway."""
        return replace(self, low=None, high=None) if self.bounds == self.usual else self


@dataclass(frozen=True, kw_only=True)
class PerEach(Ranged):
    """A range with a word: one value for all, or one for each."""

    per: Literal["all", "each"] = "all"
    """One value for all of a kind, or one for each."""

    @classmethod
    def read(cls: type[AnyPerEach], text: str) -> AnyPerEach:
        """Return it from its text in a name."""
        word, example = cls.word, cls.example
        given = read(text, (f"+{word}", f"+{word}={example}", f"+{word}=each", f"+{word}={example},each"), ("each",))
        return cls(low=given.low, high=given.high, per="each" if given.word else "all")

    @property
    def arguments(self) -> Arguments:
        """What stands in a name."""
        return Arguments(self.low, self.high, "each" if self.per == "each" else None)


@dataclass(frozen=True, kw_only=True)
class OnBody:
    """A range about one body of a robot, which depends on the robot where it is not given.

    Raises:
        UserError: what was given is no range from 0.
    """

    low: float | None = None
    """Smallest value in training."""
    high: float | None = None
    """Largest value in training; both are given, or none."""
    body: str | None = None
    """Which body; the first that moves and has a mass if not given."""

    word: ClassVar[str]
    what: ClassVar[str]
    """Is between the ends."""
    unit: ClassVar[str]

    def __post_init__(self) -> None:
        if self.low is not None or self.high is not None:
            between(self.word, self.low, self.high, (self.low or 0.0, self.high or 0.0), 0.0, self.what)

    @classmethod
    def read(cls: type[AnyOnBody], text: str) -> AnyOnBody:
        """Return it from its text in a name."""
        word = cls.word
        given = read(text, (f"+{word}", f"+{word}=0.5..2 ({cls.unit})", f"+{word}=BODY", f"+{word}=0.5..2,BODY"), None)
        return cls(low=given.low, high=given.high, body=given.word)

    @property
    def arguments(self) -> Arguments:
        """What stands in a name."""
        return Arguments(self.low, self.high, self.body)

    def usual(self, base: MujocoFamily) -> tuple[float, float]:
        """Return the ends of the training range where they are not given."""
        raise NotImplementedError

    def bounds(self, base: MujocoFamily) -> tuple[float, float]:
        """Return the ends of the training range."""
        return self.usual(base) if self.low is None or self.high is None else (self.low, self.high)

    def shortest(self: AnyOnBody, base: Family) -> AnyOnBody:
        """Return the same without what is default anyway."""
        assert isinstance(base, MujocoFamily)
        first = body_of(base, self.word, self.body) == body_of(base, self.word, None)
        ends: dict[str, Any] = {"low": None, "high": None} if self.bounds(base) == self.usual(base) else {}
        return replace(self, body=None if first else self.body, **ends)
