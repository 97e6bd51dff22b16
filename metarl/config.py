"""Configurations: frozen dataclasses <-> YAML text, strictly.

A configuration is a frozen dataclass of plain fields: bool, int, float, str, Path, Literal, tuples, lists,
dicts, further dataclasses, and unions of those with None. `from_yaml` accepts exactly what `to_yaml` writes:
every field present, none unknown, every value of its declared type.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from math import log10
from operator import ge, gt, le
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml

from metarl.arguments import check as check_type
from metarl.arguments import hints_of
from metarl.errors import UserError, nearest
from metarl.plain import parse_yaml, shown

T = TypeVar("T")


def to_yaml(config: Any) -> str:
    """Return a configuration as YAML text, fields in the order of their definition."""
    return dump(to_plain(config))


def dump(plain: Any) -> str:
    """Return plain data as YAML text in the project's one form."""
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def to_plain(config: Any) -> Any:
    """Return a configuration as plain data: dicts, lists, numbers, strings and None.

    Raises:
        TypeError: if a field holds something that YAML cannot give back.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_plain(item) for item in config]
    if isinstance(config, dict):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, Path):
        return str(config)
    if isinstance(config, str):
        # Of a kind of string that carries more (a backbone that was given in Python), the string.
        return str(config)
    if config is None or isinstance(config, bool | int | float):
        return config
    raise TypeError(f"A configuration cannot hold {config!r} ({type(config).__name__}); use plain fields only.")


def from_yaml(cls: type[T], text: str) -> T:
    """Return the configuration of class `cls` that `text` describes.

    Raises:
        UserError: if the text is no YAML mapping, a field is unknown or missing, or a value is of the wrong
            type; it names the field.
    """
    return from_plain(cls, parse_yaml(text))


def from_plain(cls: type[T], plain: Any, where: str = "") -> T:
    """Return the configuration of class `cls` that plain data describe: the inverse of `to_plain`.

    Args:
        cls: a dataclass.
        plain: a dict with exactly the fields of `cls`.
        where: dotted name of the field that holds it, for error texts.

    Raises:
        UserError: as in `from_yaml`.
    """
    label = f"{cls.__name__} ({where})" if where else cls.__name__
    if not isinstance(plain, dict):
        raise UserError(f"{label}: got {shown(plain)} where a mapping of fields is needed. Write `field: value` lines.")
    fields = {f.name: f for f in dataclasses.fields(cast(Any, cls)) if f.init}
    for name in plain:
        if name not in fields:
            raise UserError(f"{label}: unknown field {shown(name)}.{nearest(name, fields)}")
    missing = [name for name in fields if name not in plain]
    if missing:
        raise UserError(f"{label}: missing field '{missing[0]}'. Needed are: {', '.join(fields)}.")
    # Annotations are strings under `from __future__ import annotations`.
    hints = typing.get_type_hints(cls)
    values = {n: _convert(hints[n], plain[n], f"{where}.{n}" if where else n) for n in fields}
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Return `value` as the type `hint`, or raise UserError."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is Literal:
        for choice in args:
            if value == choice and type(value) is type(choice):
                return choice
        raise UserError(f"{where}: got {shown(value)}.{nearest(str(value), [str(choice) for choice in args])}")
    if dataclasses.is_dataclass(hint):
        return from_plain(cast(type, hint), value, where)
    if origin in (tuple, list):
        return _convert_sequence(origin, args, value, where)
    if origin is dict and isinstance(value, dict):
        return {_convert(args[0], key, where): _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float:
        value = _as_float(value)
    # bool is a subclass of int, and yes/no are bools in YAML.
    if hint is Any or (isinstance(hint, type) and type(value) is hint):
        return value
    name = "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
    raise UserError(f"{where}: got {shown(value)} ({type(value).__name__}) where {name} is needed. Correct the value.")


def _as_float(value: Any) -> Any:
    """Return the float that a person meant, or the value itself."""
    if type(value) is int:
        return float(value)
    # YAML 1.1 takes 1e-5 for a string: it wants 1.0e-5.
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+", value):
        return float(value)
    return value


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return `value` as the first member type that takes it."""
    problems = []
    for member in members:
        try:
            return _convert(member, value, where)
        except UserError as problem:
            problems.append(str(problem))
    raise UserError(problems[0] if len(members) == 2 and type(None) in members else " or ".join(problems))


def _convert_sequence(kind: type, args: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return `value` as a tuple or a list, item by item."""
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: got {shown(value)} where a list is needed. Write it as [..., ...].")
    if kind is list or (len(args) == 2 and args[1] is Ellipsis):
        hints: list[Any] = [args[0]] * len(value)
    elif args == ((),):
        hints = []
    else:
        hints = list(args)
    if len(hints) != len(value):
        raise UserError(f"{where}: got {len(value)} items in {shown(value)} where {len(hints)} are needed.")
    return kind(_convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


LARGEST = 2**64 - 1
"""Whole numbers of a configuration go no further, in either direction."""
SMALL, LARGE = 1e-30, 1e30
"""Size of numbers of a configuration that are not 0: what is computed with them in float32 goes little further."""
MOST_ITERATIONS = 10_000_000
"""Iterations of a training: more would run for years, however small they are."""
MOST_STEPS = 100_000
"""Gradient steps, products, passes, epochs, rounds of one thing: more would run for years, or are a typing error."""


def check(
    config: Any,
    *,
    at_least: Mapping[str, float | int] = MappingProxyType({}),
    above: Mapping[str, float | int] = MappingProxyType({}),
    at_most: Mapping[str, float | int] = MappingProxyType({}),
) -> None:
    """Check that the numbers of a config are numbers, and those of some fields within their bounds.

    Raises:
        UserError: naming the first field outside, its value and what is allowed.
    """
    check_numbers(config)
    for bounds, fits, words in (
        (at_least, ge, "at least"),
        (above, gt, "more than"),
        (at_most, le, "at most"),
    ):
        for name, bound in bounds.items():
            value = getattr(config, name)
            if not fits(value, bound):
                raise UserError(f"Got --{_option(name)} {value}. It must be {words} {bound}.")


def check_numbers(config: Any) -> None:
    """Refuse values of other types than the fields say, and numbers that nothing can be computed with.

    These are NaN, infinities, and what is absurdly large or small.

    A field may have such a default.

    Args:
        config: a dataclass; what it consists of is looked at too.

    Raises:
        UserError: naming the first field with one.
    """
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name, None)
        if value is not setting.default and value != setting.default:
            got = f"{type(config).__name__}: got {setting.name}="
            check_type(hints_of(type(config))[setting.name], value, got)
            if type(value).__module__ == "numpy":
                raise UserError(f"{got}{shown(value)}, a number of numpy. Give int(...) or float(...) of it.")
            _check_number(_option(setting.name), value)


def _check_number(option: str, value: Any) -> None:
    if isinstance(value, float) and value and not SMALL <= abs(value) <= LARGE:
        size = f"0, or from {SMALL} to {LARGE} in size"
        raise UserError(f"Got --{option} {value}. It must be finite: {size}.")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(
            f"Got --{option} with a whole number of {int(log10(abs(value))) + 1} digits. It must be at most {LARGEST}."
        )
    if isinstance(value, tuple | list):
        for item in value:
            _check_number(option, item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        check_numbers(value)


def _option(name: str) -> str:
    return name.replace("_", "-")


def check_used(config: Any, unused: Mapping[str, str], what: str = "") -> None:
    """Refuse options that were given another value than their default and would change nothing.

    Args:
        config: a dataclass.
        unused: fields that have no effect -> what they would need, to be read after "it needs".
        what: whose settings they are, where that is to be said.

    Raises:
        UserError: naming the first one.
    """
    for setting in dataclasses.fields(config):
        if setting.name in unused and getattr(config, setting.name) != setting.default:
            value = getattr(config, setting.name)
            if isinstance(value, bool):
                given = f"--{'' if value else 'no-'}{_option(setting.name)}"
            else:
                shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
                given = f"--{_option(setting.name)} {shown}"
            raise UserError(
                f"Got {given}{what and f' for {what}'}, which changes nothing there: it needs {unused[setting.name]}. "
                "Leave it out."
            )
