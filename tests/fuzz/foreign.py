"""Values that nobody meant: words of a command line, plain data for other plain data, texts of YAML and JSON."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

DIGITS = "9" * 5000

WORDS = st.sampled_from([
    "", " ", "-", "--", "-1", "0", "1", "2", "3", "1.5", "-0.0", "nan", "inf", "-inf", "1e308", "-1e308", "1e-320",
    "1e999",
    "1000000000", "2147483648", "9223372036854775808", "1" + "0" * 30, DIGITS, "0x10", "1_0", "\u0661\u0662", "true",
    "None",
    "null", "[]", "{}", "{", '{"goal": 1e999}', '{"goal": [1, NaN]}', '{"velocity": ' + DIGITS + "}", "[" * 5000, "é",
    "\n",
    "\u202e", "a\nb", ".", "..", "canary", "../canary", "../canary/x", "run", "few", "fifo", "/dev/zero", "/dev/null",
    "/dev/tty",
    "loop", "point-nav", "point-nav@", "point-nav@no", "@", "+", "point-nav+gain", "point-nav+gain=1e-9..1e9",
    "point-nav+gain=nan..1", "point-nav+gain=2..1", "point-nav+gain+gain", "point-nav+mass",
    "half-cheetah-vel+mass=0..0",
    "point-nav+switch=50..1", "point-nav+switch=" + DIGITS, "no.module:name", "os:system", "run:point-nav", "canary:x",
    "none.py:x",
    ":", "a:b:c", "cuda", "cuda:99", "cpu:1", "gpu", "%s%n", "$HOME", "`id`", ";", "x" * 300, "x" * 70000,
])  # fmt: skip
"""Of a command line."""

NUMBERS = st.sampled_from([
    "-1", "0", "1", "2", "3", "1.5", "nan", "inf", "-inf", "1e308", "1e-320", "1000000000", "2147483648",
    "9223372036854775808", DIGITS,
])  # fmt: skip
TEXTS = st.one_of(
    NUMBERS, WORDS, st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/~"), max_size=12)
)


def nested(depth: int) -> Any:
    """Return a list in a list in a list."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


PLAIN = st.one_of(
    st.sampled_from([
        None, True, False, 0, 1, -1, 2, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, float("nan"), float("inf"), 1e308,
        1e-320, "", "x",
        "../../canary", "/dev/zero", "nan", "1", [], {}, [[]], [None], [1, 2, 3], {"a": 1}, {"run": {}}, [0] * 1000,
    ]),
    st.sampled_from([nested(60), {"x" * 5000: 1}, "y" * 5000]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)  # fmt: skip
"""JSON in place of other JSON."""

DATED = st.sampled_from(
    [datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 2, 3), b"bytes", {1, 2}, {1: 2}, {None: 1}]
)
"""What YAML has beside."""

YAML = st.sampled_from([
    '!!python/object/apply:os.system ["touch ../canary2"]', "!!python/name:os.system",
    "!!python/object/new:os.system [id]",
    "!!binary aGFsbG8=", "!!timestamp 2020-01-01", "!!set {a, b}", "!!float nan", ".inf", "!unknown x", "&a [*a]",
    "*missing",
    "[" * 3000, "{a: " * 3000, DIGITS, "-" + DIGITS, "0x" + "f" * 5000, "1e" + DIGITS, "1:" * 4000 + "1", "<<: {a: 1}",
    "? [a]",
    "&a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]",
    "\t- x", "'open", '"\\ud800"', "|\n x", "--- \n--- ", "%YAML 9.9", "@", "2020-02-30", "2020-01-01T25:00:00Z",
])  # fmt: skip
"""Values as they are written in YAML."""


def mutated(
    tree: Any, draw: Callable[[st.SearchStrategy[Any]], Any], values: st.SearchStrategy[Any]
) -> tuple[Any, str]:
    """Return plain data with one change somewhere, and what that is.

    Args:
        tree: dicts and lists; stays as it is.
        draw: of hypothesis.
        values: what an entry may become.
    """
    path = draw(st.sampled_from(list(paths(tree))))
    ways = ("replaced", "replaced", "replaced", "removed", "added") if path else ("replaced", "added")
    way = draw(st.sampled_from(ways))
    value = None if way == "removed" else draw(values)
    return changed(tree, path, way, value), f"{'.'.join(map(str, path))} {way} {short(value)}"


def paths(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every entry, as keys and places."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return [here, *(path for key, value in items for path in paths(value, (*here, key)))]


def changed(tree: Any, path: tuple[Any, ...], way: str, value: Any) -> Any:
    """Return a copy in which the entry at a path is replaced or removed, or has an entry added to it."""
    if not path:
        if way == "added" and isinstance(tree, dict):
            return {**tree, "foreign": value}
        return [*tree, value] if way == "added" and isinstance(tree, list) else value
    first, *rest = path
    below = changed(tree[first], tuple(rest), way, value)
    if isinstance(tree, dict):
        gone = way == "removed" and not rest
        return {key: below if key == first else old for key, old in tree.items() if not (gone and key == first)}
    copy = list(tree)
    copy[first : first + 1] = [] if way == "removed" and not rest else [below]
    return type(tree)(copy) if isinstance(tree, tuple) else copy


def short(value: Any) -> str:
    """Return a value in at most 60 characters."""
    try:
        text = repr(value)
    except ValueError:
        text = "a number of many digits"
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


SPECIAL = ("a FIFO", "a folder", "a link to /dev/zero", "a link to itself", "a socket", "empty", "a hole of 8 GB")
"""What may stand in a file's place."""


def put_special(path: Path, kind: str) -> None:
    """Put one of SPECIAL in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    elif kind == "a socket":
        _socket(path)
    elif kind == "empty":
        path.touch()
    else:
        with path.open("wb") as file:
            file.truncate(8 * 10**9)


def _socket(path: Path) -> None:
    # The name of a socket has a hundred characters at most: it is made in its folder.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def damaged(content: bytes, draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[bytes, str]:
    """Return bytes with a flip, a cut, a piece doubled, or a piece of others, and what that is."""
    way = draw(st.sampled_from(["flipped", "flipped", "cut", "doubled", "others"]))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    if way == "flipped":
        bit = draw(st.integers(0, 7))
        piece = bytes([content[at] ^ (1 << bit)]) if content else b""
        return content[:at] + piece + content[at + 1 :], f"bit {bit} of byte {at} flipped"
    if way == "cut":
        return content[:at], f"cut after {at} bytes"
    if way == "doubled":
        return content[: at + 64] + content[at:], f"bytes {at} to {at + 64} twice"
    new = draw(st.binary(min_size=1, max_size=16))
    return content[:at] + new + content[at + len(new) :], f"{new!r} at byte {at}"
