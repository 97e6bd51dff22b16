"""Walking through folders that others made: links are followed, and nothing is come to twice.

A link to a file or a folder is taken for that, since splits of a data set are often made of links. Refused by name are
links that lead nowhere, or to a folder that is come to another way as well: a loop, or items of one class in another.
Refused too are pipes, sockets and devices, folders that cannot be opened, and empty ones: a class would be left out
without a word.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from metarl.errors import UserError

MOST_FILES = 2_000_000
MOST_DEEP = 32
"""Folders in one another."""


def is_hidden(name: str) -> bool:
    """Tell whether a file, named from the top of a data set, is hidden or lies in a folder that is."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def kind_of(path: Path) -> str:
    """Return `file`, `folder`, nothing where there is nothing, or what else a path leads to.

    Raises:
        UserError: it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    # ValueError: a name with a zero byte.
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Check the path and its permissions.") from error
    names = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return names.get(stat.S_IFMT(mode), "device")


def check_file_or_folder(path: Path) -> str:
    """Return `file` or `folder`.

    Raises:
        UserError: it is something else, or there is nothing.
    """
    kind = kind_of(path)
    if kind not in ("file", "folder"):
        raise UserError(f"Got {path}, {f'a {kind}' if kind else 'which does not exist'}. Give a file or a folder.")
    return kind


def files_below(path: Path, marks: Sequence[str] = ("*",), *, empty: bool = False) -> list[str]:
    """Return the files below a folder, sorted, without hidden ones: names relative to it, with forward slashes.

    Args:
        path: of the folder.
        marks: patterns of the entries at its top that are looked at.
        empty: whether folders in it may be empty.

    Raises:
        UserError: there is what is refused (see the module).
    """
    walk = _Walk(path, empty)
    walk.enter(path, "", marks)
    return sorted(walk.found)


class _Walk:
    def __init__(self, path: Path, empty: bool) -> None:
        self.path, self.empty = path, empty
        self.found: list[str] = []
        self.known: dict[tuple[int, int], str] = {}

    def enter(self, folder: Path, prefix: str, marks: Sequence[str]) -> None:
        """Take in what lies in a folder."""
        shown = self.path / prefix
        try:
            state = folder.stat()
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            raise UserError(f"The folder {shown} cannot be read ({error.strerror}). Check its permissions.") from error
        # Windows tells no numbers where they are not asked for.
        key = (state.st_dev, state.st_ino)
        if key in self.known:
            first = self.path / self.known[key]
            raise UserError(
                f"The folder {first} is come to again as {shown}, by a link. Take that link out: its items would stand "
                "in two places."
            )
        self.known[key] = prefix
        if prefix.count("/") > MOST_DEEP:
            raise UserError(f"The folder {shown} is more than {MOST_DEEP} deep. Give the folder of the data itself.")
        if prefix and not listed and not self.empty:
            raise UserError(f"The folder {shown.as_posix()} is empty. Complete the download, or remove it.")
        for entry in listed:
            if is_hidden(entry.name) or not any(fnmatch.fnmatch(entry.name, mark) for mark in marks):
                continue
            self._take(entry, f"{prefix}{entry.name}")

    def _take(self, entry: os.DirEntry[str], name: str) -> None:
        shown = self.path / name
        try:
            if entry.is_dir():
                self.enter(Path(entry.path), f"{name}/", ("*",))
                return
            if not entry.is_file():
                # A link that leads nowhere, or in a circle, is neither.
                what = kind_of(shown) or "link that leads nowhere"
                raise UserError(f"{shown} is a {what}, and files and folders are read. Take it out.")
        except OSError as error:
            raise UserError(f"{shown} cannot be read ({error.strerror}). Take it out, or correct it.") from error
        self.found.append(name)
        if len(self.found) > MOST_FILES:
            raise UserError(f"{self.path} has more than {MOST_FILES:,} files, the most that are read. Give less.")
