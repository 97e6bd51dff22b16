"""The error that a user's input may cause, what a user is told without one, and help with misspelt names."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress

_MANY = 1000
"""Names that are too many to be listed, or compared with one that is misspelt."""


class UserError(ValueError):
    """Says in one line what was got, what is allowed and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class NotFiniteError(UserError):
    """Says what was NaN or infinite: an action, a gradient, a parameter: of an agent, that its training has run away.

    Attributes:
        advice: what is to be done where a training ends by it.
    """

    advice = "The rates may be too high for this task, or other settings absurd: start a new run with lower ones."


class WorldNotFiniteError(NotFiniteError):
    """Says which reward or observation of a family was NaN or infinite: the agent has no part in it."""

    advice = "Mend what the family computes, or narrow the range of its tasks and modifiers, and start a new run."


def first_rank() -> bool:
    """Tell whether this process is the only one, or the first of torchrun's."""
    return os.environ.get("RANK", "0") == "0"


LONGEST = 4000
"""Letters of a line that is printed."""


def one_line(text: str) -> str:
    """Return a text as it is printed: in one line of some length, without letters that change a terminal.

    What somebody gave may be of any length: the middle is left out then.
    """
    words = " ".join(text.split())
    if len(words) > LONGEST:
        words = f"{words[: LONGEST // 2]} ... {words[-LONGEST // 2 :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in words)


_TOLD: list[str] = []
"""Lines that `tell` has told."""


def was_told(text: str) -> bool:
    """Tell whether a line has been told that says this too."""
    return any(text in line for line in _TOLD)


def tell(text: str) -> None:
    """Tell the user something in one line on standard error; of several ranks, the first one does."""
    _TOLD.append(text)
    # Standard error may be closed, or a terminal that has gone.
    with suppress(OSError, ValueError):
        if first_rank():
            print(f"metarl: {one_line(text)}", file=sys.stderr, flush=True)


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error text about an unknown `name`: the nearest choice, then all of them.

    Args:
        name: what was asked for.
        choices: every name that exists, listed in the order given.

    Returns:
        ` Did you mean 'x'? Choose from: x, y, z.`, without the question where nothing is near.
    """
    known, name = list(choices), name[:100]
    if not known:
        return " There is nothing to choose from."
    if len(known) > _MANY:
        return f" There are {len(known):,} to choose from, as {', '.join(word[:200] for word in known[:20])}."
    # Variants such as half-cheetah-vel@maml17 are long: a plain typing error in one stays well above .6.
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    question = f" Did you mean '{close[0]}'?" if close else ""
    return f"{question} Choose from: {', '.join(known)}."
