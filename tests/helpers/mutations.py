"""Attacks on stored data: every leaf in turn replaced by every kind of foreign value, and the file sealed anew."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOREIGN: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, -(2**63), 10**39, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "x",
    "x/../../..", "/etc/passwd", "\0", "\ud800", "\x1b[2J\n", "a" * 5000, [], [[]], [None], {}, {"": 0}, {"x": [1]},
    "1", "nan", "cuda", "<f8", "O", [1, 2], [-1], [2**62, 4],
)  # fmt: skip
"""Values that a leaf should not have, most of the time."""
Path_ = tuple[Any, ...]


def paths(tree: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield where every part of plain data is, the whole left out."""
    if path:
        yield path
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in entries:
        yield from paths(value, (*path, key))


def at(tree: Any, path: Path_) -> Any:
    """Return a part of plain data."""
    for key in path:
        tree = tree[key]
    return tree


def replaced(tree: Any, path: Path_, value: Any) -> Any:
    """Return a copy with another value in one place."""
    if not path:
        return value
    if isinstance(tree, tuple):
        entries = list(tree)
        entries[path[0]] = replaced(tree[path[0]], path[1:], value)
        return tuple(entries)
    made = copy.copy(tree)
    made[path[0]] = replaced(tree[path[0]], path[1:], value) if path[1:] else value
    return made


def removed(tree: Any, path: Path_) -> Any:
    """Return a copy without one entry of a mapping or list."""
    holder = copy.copy(at(tree, path[:-1]))
    if isinstance(holder, tuple):
        holder = holder[: path[-1]] + holder[path[-1] + 1 :]
    else:
        del holder[path[-1]]
    return replaced(tree, path[:-1], holder)


def mutations(tree: Any) -> Iterator[tuple[Path_, Any]]:
    """Yield plain data with one part changed: replaced, left out, or with an entry more."""
    for path in paths(tree):
        for value in (value for value in FOREIGN if repr(value) != repr(at(tree, path))):
            yield path, replaced(tree, path, value)
        yield path, removed(tree, path)
        if isinstance(at(tree, path), dict):
            yield path, replaced(tree, (*path, "more"), 1)
    yield (), {**tree, "more": 1}


def unseal(path: Path) -> tuple[bytes, dict[str, Any], bytes]:
    """Return magic, header and payload of a sealed file."""
    magic, _, body = path.read_bytes().split(b"\n", 2)
    header, payload = body.split(b"\n", 1)
    return magic, json.loads(header), payload


def seal(path: Path, magic: bytes, header: Any, payload: bytes) -> None:
    """Write a sealed file whose digest fits, as an attacker can."""
    body = (header if isinstance(header, bytes) else json.dumps(header).encode()) + b"\n" + payload
    path.write_bytes(magic + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
