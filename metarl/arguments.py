"""What is given in Python, held against the types that a function or a dataclass says it takes.

    @checked
    def train(agent: str, *, seed: int = 0) -> Run: ...

    train("rl2", seed="3")    # UserError: train: got seed='3' (str) where int is needed. Correct it.

A whole number is also a float; numbers of numpy are numbers; a boolean is neither. What a type says of a shape is not
looked at, nor a type that nothing can be held against (a Protocol that is not checked at run time).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from metarl.errors import UserError, nearest
from metarl.plain import shown

F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """Return a function that refuses arguments of other types than it says, in one line.

    Args:
        function: all of its parameters have types; `self` need not.

    Raises:
        UserError: of the function: names the argument, what was got and what is needed.
    """
    parameters = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        hints = hints_of(function)
        # Of what does not fit the signature at all, Python says it.
        bound = parameters.bind(*given, **named)
        for name, value in bound.arguments.items():
            if name in hints and parameters.parameters[name].kind not in _MANY:
                check(hints[name], value, f"{function.__name__}: got {name}=")
                bound.arguments[name] = _plain_number(value)
        return function(*bound.args, **bound.kwargs)

    return cast(F, call)


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_fields(thing: Any, label: str) -> None:
    """Refuse a dataclass with a field of another type than it says; what stands at its default is right.

    Args:
        thing: of a dataclass.
        label: what it is called.

    Raises:
        UserError: names the field, what was got and what is needed.
    """
    hints = hints_of(type(thing))
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        if value is not field.default:
            check(hints[field.name], value, f"{label}: got {field.name}=")


def check(hint: Any, value: Any, got: str) -> None:
    """Refuse a value that is not of a type.

    Args:
        hint: the type.
        value: what was given.
        got: what stands before the value in an error text.
    """
    if not _fits(hint, value):
        choices = [choice for choice in _choices(hint) if isinstance(choice, str)]
        if choices and isinstance(value, str):
            raise UserError(f"{got}{shown(value)}.{nearest(value, choices)}")
        kind = type(value).__name__
        raise UserError(f"{got}{shown(value)} ({kind}) where {_words(hint)} is needed. Correct it.")
    if isinstance(value, str | PurePath) and Path in (hint, *get_args(hint)):
        try:
            possible = b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise UserError(f"{got}{shown(str(value))}, which has letters that no path can have. Correct it.")


@functools.lru_cache(maxsize=256)
def hints_of(thing: Any) -> dict[str, Any]:
    """Return types by name; as they were written, they are strings."""
    return typing.get_type_hints(thing)


def _fits(hint: Any, value: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(member, value) for member in args)
    if origin is Literal:
        return any(value is choice or (type(value) is type(choice) and value == choice) for choice in args)
    if hint in _PLAIN:
        return _PLAIN[hint](value)
    if origin is tuple and isinstance(value, tuple):
        hints = [args[0]] * len(value) if args[-1:] == (Ellipsis,) else args
        return len(hints) == len(value) and all(map(_fits, hints, value))
    if isinstance(origin, type) and issubclass(origin, Sequence) and isinstance(value, origin):
        return not isinstance(value, str | bytes) and all(_fits(args[0], item) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, origin):
        return all(_fits(args[0], key) and _fits(args[1], item) for key, item in value.items())
    kind = getattr(hint, "array_type", origin or hint)
    try:
        return not isinstance(kind, type) or isinstance(value, kind)
    # A Protocol that is for type checkers alone.
    except TypeError:
        return True


def _choices(hint: Any) -> list[Any]:
    """Return the values that a type names."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for member in get_args(hint) for choice in _choices(member)]


def _plain_number(value: Any) -> Any:
    """Return a number of numpy as Python's own, which does not overflow; all else as it is."""
    if isinstance(value, bool | int | float) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


_PLAIN: dict[Any, Callable[[Any], bool]] = {
    Any: lambda value: True,
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    bool: lambda value: isinstance(value, bool),
    int: _is_whole,
    float: lambda value: isinstance(value, Real) and not isinstance(value, bool),
    Path: lambda value: isinstance(value, PurePath),
}


def _words(hint: Any) -> str:
    """Return what is needed, to be read by people."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, args)))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if hint is type(None):
        return "None"
    if origin in (type, Callable):
        return "a class" if origin is type else "a function"
    if origin is not None:
        return f"{_words(origin)} of {' and '.join(_words(arg) for arg in args if arg is not Ellipsis)}"
    return str(getattr(hint, "__name__", hint))
