"""Types and shapes are checked while tests run: in every test the first call of every function of the project.

A check costs more than most functions do. What goes wrong in a later call and not in the first one of any test is rare.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

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
    """Check first calls again."""
    _test[0] += 1


def first_calls_checked(decorated: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Decorate a function, or a class, like `jaxtyped`, so that a function's first call in a test is checked."""
    if decorated is None:
        return functools.partial(first_calls_checked, typechecker=typechecker)
    if not isinstance(decorated, types.FunctionType):
        return _jaxtyped(decorated, typechecker=typechecker)
    checked: Callable[..., Any] | None = None
    test = -1

    @functools.wraps(decorated)
    def call(*args: Any, **options: Any) -> Any:
        nonlocal checked, test
        if test != _test[0]:
            test = _test[0]
            # Made here, since most functions are not called by most test processes.
            checked = checked or _jaxtyped(decorated, typechecker=typechecker)
            return checked(*args, **options)
        return decorated(*args, **options)

    return call
