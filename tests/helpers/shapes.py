"""Types and shapes are checked while tests run: in every test the first calls of every function of the project.

A check costs more than most functions do. What goes wrong in the thousandth call and not in the first ones is rare.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 3
"""So many calls of a function are checked in every test."""

CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""What checks them: a whole number is a float, as everywhere in Python's types."""

_test = [0]
_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Check functions of modules that are imported from now on."""
    # The import hook decorates functions with what it finds under this name.
    jaxtyping.jaxtyped = first_calls_checked
    jaxtyping.install_import_hook("metarl", f"{__name__}.CHECK")


def next_test() -> None:
    """Check the first calls again."""
    _test[0] += 1


def first_calls_checked(decorated: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Decorate a function, or a class, like `jaxtyped`, so that the first calls of a function in a test are checked."""
    if decorated is None:
        return functools.partial(first_calls_checked, typechecker=typechecker)
    if not isinstance(decorated, types.FunctionType):
        return _jaxtyped(decorated, typechecker=typechecker)
    checked: Callable[..., Any] | None = None
    test, left = -1, 0

    @functools.wraps(decorated)
    def call(*args: Any, **options: Any) -> Any:
        nonlocal checked, test, left
        if test != _test[0]:
            test, left = _test[0], CALLS
        if left:
            left -= 1
            # Made here, since most functions are not called by most test processes.
            checked = checked or _jaxtyped(decorated, typechecker=typechecker)
            return checked(*args, **options)
        return decorated(*args, **options)

    return call
