"""Texts and tables in other encodings, too large, or with fields that do not end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metarl.errors import UserError
from metarl.fewshot.reading import tables
from metarl.fewshot.reading.tables import headed, listed, read_rows, read_text, rows_of, text_of


def test_utf_8_is_read_with_and_without_its_mark() -> None:
    assert text_of("é".encode(), "t") == text_of("\ufeffé".encode(), "t") == "é"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,é".encode("utf-16"), r"t is no text in UTF-8: it is in UTF-16\. Save it as UTF-8"),
        ("a,é".encode("utf-32"), "it is in UTF-32"),
        ("a,b".encode("utf-16-le"), "zero bytes, as UTF-16 without a mark"),
        ("a,é".encode("latin1"), r"byte 2 is 0xe9, as Latin-1"),
        (b"a\0b", "zero bytes"),
        (bytes(range(128, 256)), "byte 0 is 0x80"),
    ],
)
def test_other_encodings_are_named_and_refused(content: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        text_of(content, "t")


def test_tables_that_are_too_large_or_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_of("a,b\n\n1,2\n", "t") == [["a", "b"], ["1", "2"]]
    with pytest.raises(UserError, match=r"field larger than field limit.*Look for a quotation mark"):
        rows_of('a,b\n"' + "x" * 200_000, "t")
    monkeypatch.setattr(tables, "MOST_CELLS", 5)
    with pytest.raises(UserError, match="t has 6 fields, and at most 5 are read"):
        rows_of("1,2\n3,4\n5,6", "t")


def test_tables_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CELL", 1 << 44)
    with pytest.raises(UserError, match=r"Needs about [\d,]+ TB of memory, .* lower the size of t"):
        rows_of("1,2\n3,4\n", "t")


def test_headers_name_every_column_once() -> None:
    assert headed([[" a ", "b"], ["1", "2"]], "t") == (["a", "b"], [["1", "2"]])
    for rows, says in [
        ([], "t is empty. Give a row of column names and a row for each item"),
        ([["a;b"]], "has one column, 'a;b'. Separate columns by commas"),
        ([["a", "b", "a"]], "has 2 columns 'a'"),
        ([["a", "b"], ["1"]], "Row 2 of t has 1 columns, and the first has 2"),
    ]:
        with pytest.raises(UserError, match=says):
            headed(rows, "t")


def test_very_many_columns_take_no_time() -> None:
    header, rows = headed(rows_of(",".join(map(str, range(100_000))), "t"), "t")
    assert (len(header), rows) == (100_000, [])
    assert listed(header).endswith("18, 19 and 99,980 more")
    with pytest.raises(UserError, match=r"t has 1,000,000 columns, and at most 100,000 are read"):
        headed([["a"] * 1_000_000], "t")


def test_files_are_regular(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffa,b\n1,2\n".encode())
    assert read_rows(tmp_path / "t.csv") == [["a", "b"], ["1", "2"]]
    with pytest.raises(UserError, match=r"There is no table .*nothing.csv"):
        read_text(tmp_path / "nothing.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="is a pipe"):
        read_text(tmp_path / "pipe.csv")
