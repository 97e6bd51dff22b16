"""Files: what is read is a regular file of some size, and what is written stays inside its folder."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from metarl import files
from metarl.errors import UserError
from metarl.files import Folder, open_regular, read_regular, write_atomically

posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")


def test_a_regular_file_is_read_and_one_that_is_missing_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"all of it\r\n")
    assert read_regular(tmp_path / "file", 11) == b"all of it\r\n"
    with open_regular(tmp_path / "file", 11) as file:
        assert file.read(3) == b"all"
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "other", 11)


@posix
def test_what_never_ends_or_never_begins_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "long").write_bytes(b"0" * 12)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        # Names of sockets are short.
        here = Path.cwd()
        os.chdir(tmp_path)
        bound.bind("socket")
        os.chdir(here)
        for name, words in {
            "pipe": "is a pipe",
            "folder": "is a folder",
            "socket": "is a socket",
            "link": "is a device",
            "long": "has 12 bytes, and at most 11",
            "loop": "cannot be read",
            "long/er": "cannot be read",
            "zero\0byte": "cannot be read",
            "l" * 300: "cannot be read",
        }.items():
            with pytest.raises(UserError, match=words):
                read_regular(tmp_path / name, 11)
    with pytest.raises(UserError, match="more bytes than it should"):
        # It says that it has none.
        read_regular("/proc/cpuinfo", 11)


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "new" / "file", b"first")
    write_atomically(tmp_path / "new" / "file", b"second")
    assert (tmp_path / "new" / "file").read_bytes() == b"second"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "new" / "file", b"third")
    assert {entry.name: entry.read_bytes() for entry in (tmp_path / "new").iterdir()} == {"file": b"second"}


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    old, young = tmp_path / "metarl-0.partial", tmp_path / "metarl-1.partial"
    for path in (old, young, tmp_path / "download.partial"):
        path.touch()
    os.utime(old, (0, time.time() - 2 * files.LEFT))
    write_atomically(tmp_path / "file", b"")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["download.partial", "file", "metarl-1.partial"]
    Folder(tmp_path).remove_partial()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@posix
@pytest.mark.parametrize("handles", [True, False], ids=["by handle", "by path"])
def test_nothing_is_written_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, handles: bool) -> None:
    monkeypatch.setattr(files, "_HANDLES", handles)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"kept")
    run = tmp_path / "run"
    run.mkdir()
    (run / "inner").symlink_to(outside)
    (run / "file").symlink_to(outside / "file")
    (run / "broken").symlink_to(outside / "missing")
    folder = Folder(run)
    for change in (
        lambda: folder.below("inner").write("file", b"lost"),
        lambda: folder.below("inner", "deeper").make(),
        lambda: folder.below("inner").create("another"),
        lambda: folder.below("inner").append("file", b"lost"),
        lambda: folder.below("inner").remove("file"),
        lambda: folder.append("file", b"lost"),
        lambda: folder.append("broken", b"lost"),
    ):
        with pytest.raises(UserError, match="is a link"):
            change()
    for name in ("file", "broken"):
        with pytest.raises(FileExistsError):
            folder.create(name)
        folder.write(name, b"here")
        assert not (run / name).is_symlink()
    folder.append("file", b" and more")
    assert (run / "file").read_bytes() == b"here and more"
    folder.remove("inner")
    assert {entry.name: entry.read_bytes() for entry in outside.iterdir()} == {"file": b"kept"}
    # The user's own links are followed.
    (tmp_path / "mine").symlink_to(run)
    Folder(tmp_path / "mine").write("file", b"mine")
    assert (run / "file").read_bytes() == b"mine"


@posix
def test_nothing_is_appended_to_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(UserError, match="is a pipe"):
        Folder(tmp_path).append("pipe", b"more")
    os.close(reader)
    with pytest.raises(OSError, match="No such device"):
        Folder(tmp_path).append("pipe", b"more")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "..\\a", "a\0"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    for change in (
        lambda: Folder(tmp_path).write(name, b""),
        lambda: Folder(tmp_path).create(name),
        lambda: Folder(tmp_path).below(name).make(),
    ):
        with pytest.raises(ValueError, match="is no name of a file"):
            change()
    assert list(tmp_path.iterdir()) == []
