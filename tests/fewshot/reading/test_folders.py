"""Folders of strangers: links in circles, pipes and devices; classes that would be left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metarl.errors import UserError
from metarl.fewshot.data import load
from metarl.fewshot.reading import folders
from metarl.fewshot.reading.folders import check_file_or_folder, files_below, kind_of
from tests.helpers.image_files import counts, data_of, write_image

NAMES = ["cat/0.txt", "cat/1.txt", "dog/0.txt"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    return tmp_path / "data"


def test_files_are_listed_in_order_without_hidden_ones(root: Path) -> None:
    (root / "cat" / ".hidden").write_text("x")
    (root / ".cache").mkdir()
    assert files_below(root) == NAMES
    assert files_below(root, ("c*",)) == NAMES[:2]


def test_links_out_of_the_folder_are_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "train").symlink_to(root / "cat")
    (tmp_path / "split" / "one.txt").symlink_to(root / "dog" / "0.txt")
    assert files_below(tmp_path / "split") == ["one.txt", "train/0.txt", "train/1.txt"]


def link(root: Path, name: str, target: Path | str) -> None:
    (root / name).symlink_to(target)


def test_a_folder_that_is_come_to_twice_is_refused(root: Path, tmp_path: Path) -> None:
    link(root, "cat/up", root)
    with pytest.raises(UserError, match=r"data is come to again as .*data/cat/up, by a link\. Take that link out"):
        files_below(root)
    (root / "cat" / "up").unlink()
    # Each leads into the other: without an end.
    link(root, "cat/a", root / "dog")
    link(root, "dog/b", root / "cat")
    with pytest.raises(UserError, match="is come to again"):
        files_below(root)
    (root / "cat" / "a").unlink()
    (root / "dog" / "b").unlink()
    link(root, "cow", root / "dog")
    with pytest.raises(UserError, match="would stand in two places"):
        files_below(root)


@pytest.mark.parametrize("name", ["cat/a", "a"])
def test_links_that_lead_to_nothing_are_refused(root: Path, name: str) -> None:
    link(root, name, root / "nowhere")
    with pytest.raises(UserError, match=r"is a link that leads nowhere.* Take it out"):
        files_below(root)
    (root / name).unlink()
    link(root, name, root / "b")
    link(root, "b", root / name)
    with pytest.raises(UserError, match=r"cannot be read .*symbolic links"):
        files_below(root)


def test_pipes_and_devices_are_refused(root: Path) -> None:
    os.mkfifo(root / "cat" / "2.txt")
    with pytest.raises(UserError, match=r"cat/2\.txt is a pipe, and files and folders are read\. Take it out"):
        files_below(root)
    (root / "cat" / "2.txt").unlink()
    link(root, "cat/2.txt", "/dev/zero")
    with pytest.raises(UserError, match="is a device"):
        files_below(root)
    with pytest.raises(UserError, match=r"Got /dev/zero, a device. Give a file or a folder"):
        check_file_or_folder(Path("/dev/zero"))
    with pytest.raises(UserError, match="which does not exist"):
        check_file_or_folder(root / "nothing")
    with pytest.raises(UserError, match="cannot be read"):
        kind_of(Path("a\0b"))


def test_empty_folders_and_too_many_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "cow").mkdir()
    with pytest.raises(UserError, match=r"cow is empty. Complete the download, or remove it"):
        files_below(root)
    assert files_below(root, empty=True) == NAMES
    (root / "cow").rmdir()
    monkeypatch.setattr(folders, "MOST_FILES", 2)
    with pytest.raises(UserError, match="more than 2 files"):
        files_below(root)
    monkeypatch.setattr(folders, "MOST_DEEP", 0)
    with pytest.raises(UserError, match="more than 0 deep"):
        files_below(root)


def test_a_folder_that_cannot_be_opened_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"data cannot be read \(Permission denied\)\. Check its permissions"):
        files_below(root)


# -- what becomes of it in data sets ----------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`<split>/<class>/<image>`, two splits of three classes."""
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for c in range(3):
            write_image(tmp_path / "pictures" / split / f"{split}{c}" / "0.png", 20 * c)
    return tmp_path / "pictures"


def test_every_folder_of_a_class_has_pictures(pictures: Path) -> None:
    assert counts(data_of(load("folder", pictures))) == {"train": 3, "test": 3}
    (pictures / "test" / "other").mkdir()
    (pictures / "test" / "other" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"test/other holds other files and no pictures. Take it out, or complete it"):
        load("folder", pictures)


def test_a_split_has_one_folder_with_pictures(pictures: Path) -> None:
    write_image(pictures / "val" / "a" / "0.png", 1)
    write_image(pictures / "valid" / "b" / "0.png", 2)
    with pytest.raises(UserError, match=r"has 2 folders of the split validation: val, valid. Keep one"):
        load("folder", pictures)
    (pictures / "valid" / "b" / "0.png").unlink()
    (pictures / "valid" / "b").rmdir()
    (pictures / "valid").rmdir()
    (pictures / "val" / "a" / "0.png").rename(pictures / "val" / "a" / "0.txt")
    with pytest.raises(UserError, match="val/a holds other files and no pictures"):
        load("folder", pictures)


def test_links_in_a_class_give_no_other_class(pictures: Path) -> None:
    (pictures / "train" / "train0" / "up").symlink_to(pictures / "train")
    with pytest.raises(UserError, match="is come to again"):
        load("folder", pictures)


def test_a_picture_that_is_a_pipe_is_refused(pictures: Path) -> None:
    data = data_of(load("folder", pictures))
    os.mkfifo(pictures / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is a pipe, and a regular file is needed"):
        data.read([pictures / "pipe.png"])
    with pytest.raises(UserError, match=r"Got .*pipe\.png, a pipe"):
        load("folder", pictures / "pipe.png")
