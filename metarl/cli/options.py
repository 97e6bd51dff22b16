"""Reading a command's options: dataclass fields by tyro, complaints as one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import tyro

from metarl.config import check_numbers
from metarl.errors import UserError, nearest

T = TypeVar("T")
Split = Literal["test", "ood", "train"]


def parse(options: type[T], arguments: Sequence[str], prog: str, description: str) -> T:
    """Read a command's options.

    Args:
        options: a dataclass, one field an option.
        arguments: what the user typed after `prog`.
        prog: the command, for the usage line.
        description: for --help, which prints it and ends the process.

    Raises:
        UserError: an unknown option, a value that does not fit, or nothing where an option wants something.
    """
    if not {"-h", "--help"}.isdisjoint(arguments):
        # tyro would run the lines of a description together.
        print(f"{description}\n")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = tyro.cli(
                options,
                args=arguments,
                prog=prog,
                description="",
                return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(f"{_headline(complaint.getvalue())} See {prog} --help.") from None
    if unknown:
        if unknown[0].startswith("-"):
            raise UserError(f"{prog} has no option '{unknown[0]}'.{nearest(unknown[0], option_names(options))}")
        raise UserError(f"{prog} does not take '{unknown[0]}' here. See {prog} --help.")
    check_numbers(parsed)
    _check_said(parsed, arguments)
    return parsed


def _check_said(options: Any, arguments: Sequence[str]) -> None:
    """Refuse an option with nothing behind it, where this is its default: whoever types it means something."""
    for field in dataclasses.fields(options):
        value, name = getattr(options, field.name), _typed(field)
        if dataclasses.is_dataclass(value):
            _check_said(value, arguments)
        elif value == () == field.default and name in arguments:
            raise UserError(f"Got {name} with nothing behind it. Give something there, or leave {name} out.")


def joined(**parts: type[Any]) -> type[Any]:
    """Return options made of several dataclasses, each a field, whose options are typed without its name."""
    return dataclasses.make_dataclass(
        "Options", [(name, tyro.conf.OmitArgPrefixes[part]) for name, part in parts.items()]
    )


def option_names(options: type[Any]) -> Iterator[str]:
    """Yield the options of a dataclass and of the dataclasses in it, as they are typed."""
    # Annotations are strings under `from __future__ import annotations`.
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        if isinstance(nested := _plain_type(hints[field.name]), type) and dataclasses.is_dataclass(nested):
            yield from option_names(nested)
        elif not str(field.type).startswith("tyro.conf.Positional"):
            yield _typed(field)


def _typed(field: dataclasses.Field[Any]) -> str:
    """Return an option as it is typed."""
    return f"--{field.name.replace('_', '-')}"


def _plain_type(annotation: Any) -> Any:
    """Return what an `Annotated` annotation is about."""
    return getattr(annotation, "__origin__", annotation)


def _headline(box: str) -> str:
    """Return the first paragraph of tyro's boxed error message as one line."""
    lines = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.strip("─-"):
            lines.append(text)
        # Where the terminal has no box characters, a rule stands above the text too.
        elif lines:
            break
    # A check in a dataclass already says all there is to say; tyro puts the dataclass's name before it.
    text = re.sub(r"^Error parsing [A-Za-z][\w.]*: ", "", " ".join(lines))
    return f"{text[:1].upper()}{text[1:]}".removesuffix(".") + "."
