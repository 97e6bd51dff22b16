"""The options that a data set has of its own, among those of a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metarl.cli.options import joined, parse
from metarl.config import to_plain


def parse_with_data(
    arguments: Sequence[str], prog: str, description: str, default: str = "", **parts: type[Any]
) -> tuple[Any, dict[str, Any]]:
    """Read a command's options, and those of the data set that they name.

    Args:
        arguments: what the user typed after `prog`.
        prog: the command, for the usage line.
        description: for --help.
        default: the data set where the arguments name none; "" where they must.
        parts: dataclasses of the command's options.

    Returns:
        An object with what was read of each part under its name; and the data set's own options, as far as they are
        not the default ones.

    Raises:
        UserError: as in `parse`, or there is no such data set.
    """
    from metarl.fewshot.data import options_of

    address = _named(arguments, default)
    own = {f"data_{name.replace('-', '_')}": part for name, part in options_of(address).items()} if address else {}
    parsed = parse(joined(**parts, **own), arguments, prog, description)
    given: dict[str, Any] = {}
    for field, part in own.items():
        usual = to_plain(part())
        given |= {key: value for key, value in to_plain(getattr(parsed, field)).items() if value != usual[key]}
    return parsed, given


def _named(arguments: Sequence[str], default: str) -> str:
    """Return the data set that arguments name: by --data where there is a default one, else as an argument."""
    from metarl.fewshot.data import DATA

    for before, argument in zip(("", *arguments), arguments, strict=False):
        if default and argument.startswith("--data="):
            return argument.partition("=")[2]
        if default and before == "--data":
            return argument
        if not default and not before.startswith("--") and argument.partition("+")[0].partition("@")[0] in DATA:
            return argument
    return default
