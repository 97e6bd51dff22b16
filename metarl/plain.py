"""Plain data from YAML and JSON that anybody may have written: dicts, lists, text, numbers, booleans and None.

Both readers take the plain part of their language alone, so that a short text cannot become something large, deep or
alive: no aliases, tags, dates or several documents; every key is text and stands once; numbers have some digits at
most, and lists in lists end somewhere. `metarl.config.from_plain` then checks fields, types and ranges.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml

from metarl.errors import UserError

DEPTH = 30
"""Lists and mappings, one in the other."""
DIGITS = 40
"""Letters of a number."""
SHOWN = 80
"""Letters of a value in an error text."""


def shown(value: Any) -> str:
    """Return a value for an error text, shortened where it is long."""
    try:
        text = repr(value)
    # Lists in lists in lists, and numbers of thousands of digits.
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 20]}...{text[-17:]}"


def parse_yaml(text: str, where: object = "The configuration") -> Any:
    """Return YAML text as plain data.

    Args:
        text: all of it.
        where: what holds it, for error texts.

    Raises:
        UserError: if the text is not valid YAML, or not plain.
    """
    try:
        return yaml.load(text, _Loader)
    # ValueError: what looks like a number and is none, such as 0x_.
    except (yaml.YAMLError, ValueError) as error:
        place = " ".join(str(error).split())
        raise UserError(f"{where} is not valid YAML ({place[:300]}). Correct it there.") from error


def parse_json(text: bytes, where: object) -> dict[str, Any]:
    """Return a JSON object as plain data.

    Args:
        text: UTF-8.
        where: what holds it, for error texts.

    Raises:
        UserError: if the text is not valid JSON, not plain, or no object.
    """
    try:
        found = json.loads(text.decode(), object_pairs_hook=_object, parse_int=_integer)
        if not isinstance(found, dict):
            raise ValueError(f"it holds {shown(found)} where an object is needed")
        _check_depth(found)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged: {error}. Use another one.") from error
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the entry {shown(next(name for name in names if names.count(name) > 1))} stands twice")
    return made


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > DEPTH:
        raise ValueError(f"more than {DEPTH} lists and objects stand one in the other")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, depth + 1)


class _Loader(yaml.SafeLoader):
    """Reads plain YAML."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse("aliases are not read", event)
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(f"the tag {shown(tag)} is not read", event)
        self._depth += 1
        if self._depth > DEPTH:
            self._refuse(f"more than {DEPTH} lists and mappings stand one in the other", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                self._refuse(f"the key {shown(name)} is no text", key)
            if name in seen:
                self._refuse(f"the entry {shown(name)} stands twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        if node.tag.endswith((":int", ":float")) and len(node.value) > DIGITS:
            self._refuse(f"a number has {len(node.value)} digits", node)
        return super().construct_scalar(node)

    def _refuse(self, problem: str, place: Any) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


# Dates, and what takes the entries of another mapping, are text like any other.
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in ("timestamp", "merge", "value")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
