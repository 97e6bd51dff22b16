"""YAML and JSON that anybody may have written become plain data, or one line."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from metarl.config import dump
from metarl.errors import UserError
from metarl.plain import parse_json, parse_yaml, shown

HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x 1\nb: *x", "aliases are not read"),
        ("a: &a [1]\nb: &b [*a, *a]", "aliases are not read"),
        ("a: &a [*a]", "aliases are not read"),
        ("a: !!python/object/apply:os.system [x]", "the tag .* is not read"),
        ("a: !!set {b}", "the tag .* is not read"),
        ("a: !!binary YQ==", "the tag .* is not read"),
        ("a: !!timestamp 2001-01-01", "the tag .* is not read"),
        ("!!omap [a: 1]", "the tag .* is not read"),
        ("a: !!int '1'", "the tag .* is not read"),
        ("a: !own 1", "the tag .* is not read"),
        ("a: ! 1", "the tag .* is not read"),
        ("a: 1\na: 2", "'a' stands twice"),
        ("a: {b: 1, c: {b: 1, b: 2}}", "'b' stands twice"),
        ("1: a", "the key 1 is no text"),
        ("null: a", "the key None is no text"),
        ("yes: a", "the key True is no text"),
        ("[1]: a", r"the key \[1\] is no text"),
        ("{a: 1}: a", "is no text"),
        (f"a: {HUGE}", "a number has 5000 digits"),
        (f"a: -{HUGE}", "a number has 5001 digits"),
        (f"a: 0x{HUGE}", "a number has 5002 digits"),
        (f"a: 1{':1' * 2000}", "a number has 4001 digits"),
        (f"a: 1{':1' * 2000}.5", "a number has 4003 digits"),
        (f"a: {HUGE}.5", "a number has 5002 digits"),
        ("a: 0x_", "is not valid YAML"),
        ("a: 0b_", "is not valid YAML"),
        ("[" * 60_000, "more than 30 lists"),
        ("{a: " * 15_000, "more than 30 lists"),
        ("\n".join(" " * i + "a:" for i in range(300)), "more than 30 lists"),
        ("- " * 30_000, "more than 30 lists"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ("%YAML 9.9\n---\na: 1", "is not valid YAML"),
        ("a: 'b", "is not valid YAML"),
        ("a:\t1\n\tb", "is not valid YAML"),
        ("a: \x00", "is not valid YAML"),
        ("a: \ud800", "is not valid YAML"),
        ("*a", "aliases are not read"),
    ],
)
def test_yaml_that_is_not_plain_is_refused(text: str, says: str) -> None:
    started = time.process_time()
    with pytest.raises(UserError, match=says) as caught:
        parse_yaml(text, "some/config.yaml")
    assert str(caught.value).startswith("some/config.yaml is not valid YAML")
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 2.0


def test_dates_and_merges_are_text() -> None:
    assert parse_yaml("a: 2001-01-01\n<<: {b: 1}\nc: =") == {"a": "2001-01-01", "<<": {"b": 1}, "c": "="}


def test_what_the_project_writes_is_read_back() -> None:
    plain: Any = {
        "text": [
            "",
            "a b",
            "2001-01-01",
            "<<",
            "null",
            "yes",
            "1e5",
            "0x_",
            "é\x1b\n",
            "&a",
            "*a",
            "!a",
            "= ",
            "9" * 99,
        ],
        "numbers": [0, -1, 2**63, 1.5, -1e-300, 1e308],
        "others": [None, True, False, [], {}, [[{"a": []}]]],
    }
    assert parse_yaml(dump(plain)) == plain == yaml.safe_load(dump(plain))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "Expecting value"),
        (b"[]", "where an object is needed"),
        (b"7", "where an object is needed"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' stands twice"),
        (b'{"a": ' + HUGE.encode() + b"}", "a number has 5000 digits"),
        (b'{"a": ' + b"[" * 20 + b"]" * 20 + b"}" * 9, "Extra data"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "more than 30 lists"),
        (b"[" * 200_000, "recursion"),
        (b'{"a":' * 200_000, "recursion"),
        (b'{"a": "\xff"}', "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b'{"a": 1}x', "Extra data"),
        (b"{'a': 1}", "Expecting property name"),
    ],
)
def test_json_that_is_not_plain_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        parse_json(text, "the header")
    assert str(caught.value).startswith("the header is damaged: ")


def test_plain_json_is_read() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, true, "b"], "c": {}}', "x") == {"a": [1, 2.5, None, True, "b"], "c": {}}


def test_long_values_are_shortened_in_errors() -> None:
    assert shown("abc") == "'abc'"
    assert len(shown("a" * 10**6)) == 80
    deep: list[Any] = []
    for _ in range(10**5):
        deep = [deep]
    assert shown(deep) == "a list that is too large to be shown"
    assert shown(10**5000) == "a int that is too large to be shown"
