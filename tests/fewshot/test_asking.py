"""A task for `predict` in files: every class of the support has items, and nothing that is no file is opened."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot import from_arrays, from_functions, load_data
from metarl.fewshot.asking import read_task
from metarl.fewshot.classes import ClassData
from tests.helpers.image_files import data_of, write_image


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassData:
    """Pictures to have been trained on; others are in `few`, two classes of one."""
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    for c in range(4):
        write_image(tmp_path / "pictures" / f"class{c}" / "0.png", 20 * c)
    for c in range(2):
        write_image(tmp_path / "few" / f"new{c}" / "deeper" / "0.png", 20 * c)
    return data_of(load_data("folder", tmp_path / "pictures"))


def test_a_support_of_files_says_their_classes(
    pictures: ClassData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    task = read_task(pictures, few, [few / "new0", few / "new1" / "deeper" / "0.png"])
    assert task.labels == ["new0", "new1"]
    assert len(task.queries) == 2
    assert capsys.readouterr().err == ""
    (few / "notes.txt").write_text("x")
    assert read_task(pictures, few, []).labels == ["new0", "new1"]
    assert "few: left out 1 files that lie in no folder of a class, as notes.txt" in capsys.readouterr().err


def test_what_is_no_support_is_refused(pictures: ClassData, tmp_path: Path) -> None:
    few = tmp_path / "few"
    with pytest.raises(UserError, match=r"Got the file .*0\.png\. Give a folder with <class>/<file>"):
        read_task(pictures, few / "new0" / "deeper" / "0.png", [])
    with pytest.raises(UserError, match=r"There is no .*nothing"):
        read_task(pictures, few, [few / "nothing"])
    (few / "new2").mkdir()
    with pytest.raises(UserError, match=r"new2 is empty"):
        read_task(pictures, few, [])
    with pytest.raises(UserError, match=r"There are no files in .*new2"):
        read_task(pictures, few / "new0", [few / "new2"])
    (few / "new2" / "up").symlink_to(few)
    with pytest.raises(UserError, match=r"is come to again"):
        read_task(pictures, few, [])
    (few / "new2" / "up").unlink()
    os.mkfifo(few / "new2" / "pipe.png")
    for support, queries in ((few, []), (few / "new0", [few / "new2"])):
        with pytest.raises(UserError, match=r"pipe\.png is a pipe"):
            read_task(pictures, support, queries)
    with pytest.raises(UserError, match=r"Got .*pipe\.png, a pipe"):
        read_task(pictures, few / "new0", [few / "new2" / "pipe.png"])


def test_arrays_and_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    data = from_arrays(np.random.default_rng(0).random((8, 3)), [0, 1] * 4, fractions=(0.5, 0.0, 0.5))
    os.mkfifo(tmp_path / "items.npy")
    with pytest.raises(UserError, match=r"items\.npy is a pipe"):
        read_task(data, tmp_path, [])
    (tmp_path / "items.npy").unlink()
    np.save(tmp_path / "items.npy", np.zeros((2, 3)))
    with pytest.raises(UserError, match=r"There is no labels\.npy"):
        read_task(data, tmp_path, [])
    np.save(tmp_path / "labels.npy", np.array(3))
    with pytest.raises(UserError, match=r"labels\.npy holds no array of items"):
        read_task(data, tmp_path, [])
    x = np.random.default_rng(0).random((4, 6))
    functions = from_functions(x, x)
    for content, says in [
        ("x,y\n1,2\n".encode("utf-16"), r"is no text in UTF-8: it is in UTF-16"),
        (b"x,y,y\n1,2,3\n", r"has 2 columns 'y'"),
        (b"x,y\n1,2,3\n", r"Row 2 of .* has 3 columns"),
        (b"x,y\n1,two\n", r"could not convert.*Give a number in every column y"),
        (b"a,y\n1,2\n", r"has no column that begins with x; it has a, y"),
        (b"", r"is empty"),
        (b'x,y\n"' + b"1" * 200_000, r"Look for a quotation mark"),
    ]:
        (tmp_path / "few.csv").write_bytes(content)
        with pytest.raises(UserError, match=says):
            read_task(functions, tmp_path / "few.csv", [])


def test_arrays_of_gigabytes_are_refused_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = from_arrays(np.random.default_rng(0).random((8, 3)), [0, 1] * 4, fractions=(0.5, 0.0, 0.5))
    np.save(tmp_path / "items.npy", np.zeros((2, 3)))
    np.save(tmp_path / "labels.npy", np.zeros(2))
    for shape, says in (((250_000_000, 3), "at most 10,000,000"), ((9_000_000, 80), r"items of the shape \(80,\)")):
        _sparse(tmp_path / "asked.npy", shape)
        with pytest.raises(UserError, match=says):
            read_task(data, tmp_path, [tmp_path / "asked.npy"])
    _sparse(tmp_path / "asked.npy", (9_000_000, 3))
    monkeypatch.setattr("metarl.memory.free_memory", lambda device: 10**9)
    with pytest.raises(UserError, match=r"Needs about 1\.8 GB of memory.*lower the size of --query"):
        read_task(data, tmp_path, [tmp_path / "asked.npy"])
    _sparse(tmp_path / "items.npy", (9_000_000, 3))
    with pytest.raises(UserError, match=r"has 9000000 items and 2 labels"):
        read_task(data, tmp_path, [])


def _sparse(path: Path, shape: tuple[int, int]) -> None:
    """Write a file of zeros that takes no room."""
    np.lib.format.open_memmap(path, "w+", np.float32, shape)
