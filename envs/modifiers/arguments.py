"""What may stand behind a modifier's `=`: a range, a word, or both, as in `+noise=0..2,each`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from metarl.errors import UserError


@dataclass(frozen=True)
class Arguments:
    """A range and a word, either of which may not be given."""

    low: float | None = None
    high: float | None = None
    word: str | None = None

    def text(self) -> str:
        """Return them as they stand in a name, with the equals sign."""
        parts = []
        if self.low is not None and self.high is not None:
            # In a name a plus parts modifiers.
            parts.append("..".join(repr(end).removesuffix(".0").replace("e+", "e") for end in (self.low, self.high)))
        if self.word is not None:
            parts.append(self.word)
        return f"={','.join(parts)}" if parts else ""


def read(text: str, forms: Sequence[str], words: Sequence[str] | None) -> Arguments:
    """Return the arguments of a modifier such as `noise=0..2,each`.

    Args:
        text: without the plus.
        forms: how it may be written, for the error.
        words: that may be given; None: any.

    Raises:
        UserError: they are none.
    """
    equals, given = text.partition("=")[1:]
    if not equals:
        return Arguments()
    ends, *rest = given.split(",") if _range(given.split(",")[0]) else (None, *given.split(","))
    found = None if ends is None else _range(ends)
    right = len(rest) <= 1 and all(rest) and (words is None or set(rest) <= set(words))
    if not right or (found is None and not rest):
        raise UserError(f"got '+{text}': give {', '.join(forms[:-1])} or {forms[-1]}")
    return Arguments(*(found or (None, None)), rest[0] if rest else None)


def _range(text: str) -> tuple[float, float] | None:
    """Return the two numbers of LOW..HIGH; None where it is none."""
    low, dots, high = text.partition("..")
    with contextlib.suppress(ValueError):
        ends = float(low), float(high)
        if dots and all(math.isfinite(end) for end in ends):
            return ends
    return None


def between(
    word: str, low: float | None, high: float | None, bounds: tuple[float, float], least: float, what: str = "levels"
) -> None:
    """Refuse what is no range.

    Args:
        word: of the modifier.
        low: as it was given.
        high: as it was given.
        bounds: as they are with the defaults.
        least: that the lower end may be: 0, the smallest number above it, or minus infinity.
        what: they are.

    Raises:
        UserError: only one end was given, or they are upside down.
    """
    if (low is None) != (high is None) or not (least <= bounds[0] < bounds[1] < math.inf):
        start = "" if least == -math.inf else "0 <= " if least == 0.0 else "0 < "
        raise UserError(f"got {what} of +{word} from {low} to {high}: give {start}LOW < HIGH")
