"""Where data sets lie, and their files in folders and archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from metarl.errors import UserError, nearest
from metarl.fewshot.data.files import entries_of, find_root, open_tree, read_lines


def test_a_root_that_is_no_folder_of_anybody() -> None:
    with pytest.raises(UserError, match=r"Got ~nobody-of-this-name/x, and there is no such user\. Write the path out"):
        find_root("folder", Path("~nobody-of-this-name/x"), ("*",), ())
    with pytest.raises(UserError, match=r"Got /dev/zero, a device\. Give a file or a folder"):
        find_root("folder", Path("/dev/zero"), ("*",), ())
    with pytest.raises(UserError, match="cannot be read"):
        find_root("folder", Path("a\0b"), ("*",), ())


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(UserError, match=r"cannot be read \(.*Permission denied\)\. Check its permissions"):
        entries_of(tmp_path)


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("one\n\n two \n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "data" / "a.txt", "a.txt")
    for path in (tmp_path / "data", tmp_path / "a.zip"):
        with open_tree(path) as tree:
            assert tree.read("a.txt", 11) == b"one\n\n two \n"
            assert read_lines(tree, "a.txt") == ["one", "two"]
            with pytest.raises(UserError, match=r"a\.txt.* 11 bytes, and at most 10 are read"):
                tree.read("a.txt", 10)
    with open_tree(tmp_path / "data") as tree:
        assert tree.names == ["a.txt"]
        (tmp_path / "data" / "a.txt").unlink()
        with pytest.raises(UserError, match=r"a\.txt has gone while the data were read"):
            tree.read("a.txt", 10)


def test_very_many_choices_are_not_listed() -> None:
    assert nearest("x", map(str, range(5000))) == (
        " There are 5,000 to choose from, as 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19."
    )
