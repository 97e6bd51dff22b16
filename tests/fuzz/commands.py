"""Command lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from tests.fuzz.foreign import TEXTS, put_special, short
from tests.fuzz.stock import AGENT, EVALUATE, FEW, MAML, RL2, SMALL, TEST, Stock, commanded
from tests.helpers.fuzzing import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]

OUT = ("--out", "made")
SEEN = ("--width", "40", "--height", "30", "--out")
COMMANDS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (2, (*MAML, *OUT)),
    (2, (*RL2, *OUT)),
    (2, ("train", "multitask", *SMALL, *AGENT, *OUT)),
    (1, ("evaluate", "maml", *EVALUATE, *OUT)),
    (1, ("evaluate", "rl2", "--probe", "--probe-tasks", "10", *EVALUATE, *OUT)),
    (1, ("render", "maml", *SEEN, "made.gif")),
    (1, ("render", "point-nav", "--grid", "--rows", "1", "--columns", "1", *SEEN, "made.png")),
    (1, ("play", "--family", "bandit", "--episodes", "2", "--tasks", "2")),
    (3, (*FEW, *OUT)),
    (2, ("fewshot", "evaluate", "few", "--data-root", "data", *TEST, *OUT)),
    (2, ("fewshot", "audit", "arrays", "--data-root", "data", "--episodes", "2")),
    (2, ("fewshot", "list", "arrays")),
    (1, ("list", "point-nav")),
    (1, ("fingerprint", "point-nav")),
)  # fmt: skip
"""Each with how many of its words name the command and what it is about."""
SLOW = ("--iterations", "--film")


@cache
def options_of(folder: Path, command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options that the help of a command tells."""
    named = (*command, "--data", "arrays") if command[:2] == ("fewshot", "train") else command
    text = commanded(folder, *named, "--help")
    return tuple(sorted({*re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)} - {"--help"}))


@st.composite
def commands(draw: Draw, stock: Stock) -> Case:
    """Return a command line with one or two changes."""
    own, whole = draw(st.sampled_from(COMMANDS))
    about = whole[: 3 if whole[:2] == ("fewshot", "train") else 2 if whole[0] in ("train", "fewshot") else 1]
    options = options_of(stock.folder, about)
    words = list(whole)
    changes = draw(st.sampled_from([0, 1, 1, 1, 1, 1, 2, 2, 2]))
    for _ in range(changes):
        way = draw(st.sampled_from(["option", "option", "option", "replaced", "removed", "inserted", "flag"]))
        at = draw(st.integers(0, len(words) - 1))
        word = draw(TEXTS)
        if way == "option" and options:
            words += [draw(st.sampled_from(options)), word]
        elif way == "flag" and options:
            words.append(draw(st.sampled_from(options)))
        elif way == "replaced":
            words[at] = word
        elif way == "removed" and not {"--iterations", "--out"} & {words[at], words[at - 1]}:
            del words[at]
        elif way == "inserted":
            words.insert(at, word)
    # A training of all its iterations works, and takes its time; a command's name alone asks for its help.
    assume(words not in ([], ["fewshot"]))

    def lay(place: Path) -> None:
        stock.lay(place, "maml", "rl2", "few", "data")
        (place / "run").mkdir()
        (place / "canary").write_text("here")
        put_special(place / "fifo", "a FIFO")
        put_special(place / "loop", "a link to itself")

    return Case(
        what=" ".join(map(short, words[own:])), arguments=tuple(words), lay=lay, good=changes == 0, writes=("",)
    )
