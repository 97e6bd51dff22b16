"""Tables of signals: the numbers of a CSV file, what its columns are called, and whether its commas are decimal signs.

Commas stand between columns; semicolons do where every line has one. A file of one column with decimal commas looks
like one of two columns of whole numbers, `1,25` and `3,07`. It is refused where no writer of whole numbers would have
written it: a second part with a leading zero (`07`) or an exponent after several digits (`25e-02`), a first part of
`-0`, or one name over the two. A line of names, one a column, says that they are columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from metarl.errors import UserError
from metarl.fewshot.reading import tables

_WHOLE = re.compile(r"[+-]?\d+")
_DECIMALS = re.compile(r"\d+([eE][+-]?\d+)?")
_NEVER_WHOLE = re.compile(r"0\d.*|\d{2,}[eE].*")
"""Digits after a decimal comma that are no whole number of their own."""
_EVENLY = 0.1
"""How far the steps of a column may be from their mean, by that mean, for it to rise evenly."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a CSV file holds."""

    numbers: Float[np.ndarray, "rows columns"]
    """In their order."""
    titled: bool
    """Whether a line without numbers stands first."""
    names: tuple[str, ...]
    """Of the columns; none where that line has another number of them."""
    doubtful: bool
    """Whether its two columns may be one, with decimal commas."""


def read_table(name: str, content: bytes) -> Table:
    """Return what a CSV file holds.

    Args:
        name: of the file, for errors.
        content: of the file.

    Raises:
        UserError: it is no table of numbers, or has decimal commas; says what is wrong.
    """
    text = tables.text_of(content, name)
    lines = [line for line in text.splitlines() if line.strip()]
    separator = ";" if all(";" in line for line in lines) else ","
    rows = tables.rows_of(text, name, separator)
    titled = bool(rows) and not any(map(_is_number, rows[0]))
    title, rows = (rows[0], rows[1:]) if titled else ([], rows)
    if not rows or {len(row) for row in rows} != {len(rows[0])}:
        raise UserError(
            f"{name} has no rows of numbers, or rows of different length. Give a table, commas between columns and "
            "points in numbers."
        )
    columns = len(rows[0])
    names = tuple(word.strip().removeprefix("# ") or f"column {place}" for place, word in enumerate(title, 1))
    possible = separator == "," and len(names) != columns and _may_be_decimal(rows)
    if possible and (2 * len(names) == columns or _must_be_decimal(rows)):
        raise UserError(
            f"{name} has values such as {','.join(rows[0][:2])}, whose commas seem to be decimal signs. Write numbers "
            "with points; or, if these are columns of whole numbers, give every column a name in the first line."
        )
    try:
        numbers = np.array([[float(value) for value in row] for row in rows])
    except ValueError as error:
        decimal = any("," in value and _is_number(value) for row in rows for value in row)
        advice = (
            "Write numbers with points." if decimal else "Give a number in every column; commas stand between them."
        )
        raise UserError(f"{name}: {error}. {advice}") from error
    return Table(
        numbers=numbers,
        titled=titled,
        names=names if len(names) == columns else (),
        doubtful=possible and columns == 2,
    )


def told(name: str, table: Table, signal: Float[np.ndarray, "channels length"]) -> str:
    """Return what a user should know of how a table was read; nothing where there is no doubt.

    Args:
        name: of the file.
        table: its content.
        signal: what was made of it.
    """
    known = table.names if table.numbers.shape[1] == len(signal) else ()
    names = known or tuple(f"channel {place}" for place in range(1, len(signal) + 1))
    rising = [word for word, row in zip(names, signal, strict=True) if len(signal) > 1 and _rises_evenly(row)]
    parts = [f"the channels are {tables.listed(names)}"] if known else []
    if rising:
        parts.append(
            f"rising evenly: {tables.listed(rising)} (if that is a time or an index, take it out of the files)"
        )
    if table.doubtful:
        parts.append("whole numbers in two columns, taken for 2 channels: if commas are decimal signs, write points")
    return f"{name}: {'; '.join(parts)}." if parts else ""


def _is_number(text: str) -> bool:
    """Return whether it is one, with a decimal comma too: such a value is no name."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _may_be_decimal(rows: list[list[str]]) -> bool:
    return len(rows[0]) % 2 == 0 and all(
        all(map(_WHOLE.fullmatch, row[::2])) and all(map(_DECIMALS.fullmatch, row[1::2])) for row in rows
    )


def _must_be_decimal(rows: list[list[str]]) -> bool:
    return any("-0" in row[::2] or any(map(_NEVER_WHOLE.fullmatch, row[1::2])) for row in rows)


def _rises_evenly(row: np.ndarray) -> bool:
    steps = np.diff(row)
    mean = steps.mean() if len(steps) > 1 else 0.0
    return bool(mean > 0 and (np.abs(steps - mean) <= _EVENLY * mean).all())
