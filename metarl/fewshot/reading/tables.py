"""Texts and tables that others wrote: UTF-8, with or without its mark, and rows of comma-separated values.

Other encodings are named as far as they can be told, and refused: a text that is read in the wrong one has other words
without a sign of it. Sizes are looked at before anything is made of a text.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from metarl.errors import UserError
from metarl.files import read_regular
from metarl.memory import check_room

MOST_BYTES = 1 << 30
"""Of a text."""
MOST_CELLS = 100_000_000
"""Of a table."""
CELL = 60
"""Bytes that a field takes, about."""
MOST_COLUMNS = 100_000
"""Of a table whose columns have names."""
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SHOWN = 20


def text_of(content: bytes, name: str) -> str:
    """Return a text in UTF-8, without a mark at its begin.

    Raises:
        UserError: it is none, or in another encoding.
    """
    encoding = next((words for mark, words in _MARKS.items() if content.startswith(mark)), None)
    if encoding is not None:
        raise UserError(f"{name} is no text in UTF-8: it is in {encoding}. Save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is no text in UTF-8: byte {error.start} is {content[error.start]:#04x}, as Latin-1, Windows or no "
            "text at all would have it. Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(f"{name} is no text: it has zero bytes, as UTF-16 without a mark has. Save it as UTF-8.")
    return text


def read_text(path: Path) -> str:
    """Return the text in a file; errors as in `text_of`, and where there is no such file."""
    try:
        return text_of(read_regular(path, MOST_BYTES), str(path))
    except FileNotFoundError as error:
        raise UserError(f"There is no table {path}. Correct the path.") from error


def rows_of(text: str, name: str, separator: str = ",") -> list[list[str]]:
    """Return the rows of a table that are not empty.

    Raises:
        UserError: it is too large, or a field does not end.
    """
    cells = text.count(separator) + text.count("\n") + 1
    if cells > MOST_CELLS:
        raise UserError(f"{name} has {cells:,} fields, and at most {MOST_CELLS:,} are read. Give a part of it.")
    check_room(cells * CELL, name)
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error as error:
        raise UserError(
            f"{name} is no table of values ({error}; fields have at most {csv.field_size_limit():,} characters). Look "
            "for a quotation mark that is not closed."
        ) from error


def read_rows(path: Path) -> list[list[str]]:
    """Return the rows of a CSV file; errors as in `read_text` and `rows_of`."""
    return rows_of(read_text(path), str(path))


def headed(rows: list[list[str]], name: str, *, each: str = "item") -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns, and the rows under them.

    Args:
        rows: of the table.
        name: of the file, for errors.
        each: what a row is.

    Raises:
        UserError: there is no row, two columns have one name, or a row has another number of columns.
    """
    if not rows:
        raise UserError(f"{name} is empty. Give a row of column names and a row for each {each}.")
    if len(rows[0]) > MOST_COLUMNS:
        raise UserError(f"{name} has {len(rows[0]):,} columns, and at most {MOST_COLUMNS:,} are read. Give fewer.")
    header = [word.strip() for word in rows[0]]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise UserError(f"{name} has one column, '{header[0][:200]}'. Separate columns by commas.")
    twice, count = Counter(header).most_common(1)[0]
    if count > 1:
        raise UserError(f"{name} has {count} columns '{twice[:200]}'. Give every column a name of its own.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UserError(f"Row {number} of {name} has {len(row)} columns, and the first has {len(header)}.")
    return header, rows[1:]


def listed(names: Sequence[str]) -> str:
    """Return names in a line, the first of many, and each not too long."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:200] for name in names[:_SHOWN]) + more
