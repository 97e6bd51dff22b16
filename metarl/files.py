"""Files that others may have made or may have had their hands on: read with care, written inside a folder only.

What is read is a regular file of a stated size at most: no device, pipe, socket or folder, which would never end or
never begin (`open_regular`, `read_regular`).

What is written is whole or not there, and stands where the user has said: `Folder` has the path as the user names it,
which may lead through links, and below it the names that the program adds, of which none is followed where it is a
link. A file is written under a name of its own that did not exist, by the handle of its folder, and then renamed in its
place; so a link in its place goes, and what it leads to stays as it is.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from metarl.errors import UserError
from metarl.system import POSIX

CACHE_VARIABLE = "METARL_CACHE"
"""Environment variable with the folder of what may be made again at any time."""
_ANY = 1 << 62
_OURS, PARTIAL = "metarl-", ".partial"
"""Begin and end of the names of files that are being written."""
LEFT = 3600.0
"""Age from which on such a file is what a killed process left, s."""
_HANDLES = POSIX and {os.open, os.mkdir, os.rmdir, os.unlink, os.rename, os.stat} <= os.supports_dir_fd
"""Whether files can be opened, renamed and removed by the handle of their folder. Windows has no such thing."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_CARE = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
"""No link is followed, no pipe is waited for, no terminal is taken, and no line end is changed."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}


# -- reading ----------------------------------------------------------------------------------------------------------


def open_regular(path: Path | str, at_most: int) -> IO[bytes]:
    """Open a regular file for reading; links that lead to one are followed.

    Args:
        path: the file.
        at_most: bytes that it may have.

    Raises:
        FileNotFoundError: there is nothing.
        UserError: it is a folder, a device, a pipe or a socket, is larger, or cannot be opened.
    """
    try:
        # Looked at before it is opened: some devices do something when they are.
        _check_regular(path, Path(path).stat(), at_most)
        number = os.open(path, os.O_RDONLY | _CARE & ~getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise
    # ValueError: a name with a zero byte, or with letters that the file system cannot hold.
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({error}). Check the path and its permissions.") from error
    file = os.fdopen(number, "rb")
    try:
        # And again: it may be another one by now.
        _check_regular(path, os.fstat(number), at_most)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: Path | str, at_most: int) -> bytes:
    """Return the content of a regular file; arguments and errors as in `open_regular`."""
    with open_regular(path, at_most) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1)
            if len(content) > size:
                # It grows while it is read, or has a size that it does not tell, as those of /proc.
                content += file.read(at_most + 1 - len(content))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error}). Check the file.") from error
    if len(content) > at_most:
        raise UserError(_too_large(path, at_most))
    return content


def _check_regular(path: Path | str, found: os.stat_result, at_most: int) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise UserError(f"{path} is {_KINDS.get(kind, 'no file')}, and a regular file is needed. Give one.")
    if found.st_size > at_most:
        raise UserError(_too_large(path, at_most, found.st_size))


def _too_large(path: Path | str, at_most: int, size: int = 0) -> str:
    has = f"has {size} bytes" if size else "has more bytes than it should"
    return f"{path} {has}, and at most {at_most} are read here. It is no such file, or it is damaged: give another one."


# -- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A folder in which files are written, and nowhere else.

    Its methods raise OSError where the system refuses, and UserError where something in the way is a link.
    """

    root: Path
    """As the user names it: links on the way there are the user's own."""
    names: tuple[str, ...] = ()
    """Of folders below it, one in the other; none of them may be a link."""

    @classmethod
    def of(cls, folder: Folder | Path | str) -> Folder:
        """Return a folder that the user names, or one that is known already."""
        return folder if isinstance(folder, Folder) else cls(Path(folder))

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root.joinpath(*self.names)

    def __str__(self) -> str:
        return str(self.path)

    def below(self, *names: str) -> Folder:
        """Return a folder in it, which may be yet to be made."""
        return Folder(self.root, (*self.names, *names))

    def make(self) -> Folder:
        """Make it where it is missing, and return it."""
        with self._opened(make=True):
            return self

    def check(self) -> Folder:
        """Refuse something in the way that is a link, before there is any need to write; return it."""
        with suppress(FileNotFoundError), self._opened():
            pass
        return self

    def check_replaceable(self, names: Iterable[str]) -> None:
        """Refuse a folder where a file is to be written, before there is any need to write."""
        for name in set(names) & set(self.folders()):
            raise UserError(f"{self.path / name} is a folder, and a file is written there. Remove it.")

    def write(self, name: str, content: bytes) -> Path:
        """Write a file so that at every moment either the old or the whole new content is there; return its path.

        The folder is made where it is missing. What processes that were killed long ago left here is removed.
        """
        with self.writing(name) as file:
            file.write(content)
        return self.path / name

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Give a file to be written piece by piece, which is in its place when it is whole, and not before."""
        with self._opened(make=True) as (folder, handle):
            _remove_left(folder, handle)
            _plain(name)
            own = f"{_OURS}{secrets.token_hex(8)}{PARTIAL}"
            try:
                with _open_new(_in(folder, handle, own), handle) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(_in(folder, handle, own), _in(folder, handle, name), src_dir_fd=handle, dst_dir_fd=handle)
            except BaseException:
                _unlink(_in(folder, handle, own), handle)
                raise
            if handle is not None:
                # Without this the renaming itself may be lost when the machine goes down.
                os.fsync(handle)

    def create(self, name: str, mode: int = 0o666) -> IO[bytes]:
        """Open a new file for writing; the folder is made where it is missing.

        Raises:
            FileExistsError: there is one of this name, or a link.
        """
        with self._opened(make=True) as (folder, handle):
            return _open_new(_in(folder, handle, _plain(name)), handle, mode)

    def append(self, name: str, content: bytes) -> None:
        """Write at the end of a file that is there."""
        with self._file(name, os.O_WRONLY | os.O_APPEND) as number, os.fdopen(number, "ab", closefd=False) as file:
            file.write(content)

    def sync(self, name: str) -> None:
        """Bring the content of a file to the disk, where it is there."""
        with suppress(FileNotFoundError), self._file(name, os.O_RDWR) as number:
            os.fsync(number)

    def remove(self, name: str) -> None:
        """Remove a file, or a link as such, where it is there."""
        with self._opened() as (folder, handle):
            _unlink(_in(folder, handle, _plain(name)), handle)

    def entries(self) -> list[str]:
        """Return the names of what is in it, none where it is missing."""
        with suppress(FileNotFoundError), self._opened() as (folder, handle):
            return sorted(_names(folder, handle))
        return []

    def folders(self) -> list[str]:
        """Return the names of the folders in it, links not among them."""
        try:
            with self._opened() as (folder, handle):
                return [
                    name for name in sorted(_names(folder, handle)) if _is_folder(_in(folder, handle, name), handle)
                ]
        except FileNotFoundError:
            return []

    def remove_empty(self, name: str) -> None:
        """Remove a folder in it, unless there is something in that."""
        if not self.below(name).entries():
            with self._opened() as (folder, handle):
                os.rmdir(_in(folder, handle, _plain(name)), dir_fd=handle)

    def remove_partial(self) -> None:
        """Remove what killed processes left, however long ago; for whoever alone writes here."""
        for name in self.entries():
            if name.endswith(PARTIAL):
                self.remove(name)

    @contextmanager
    def _file(self, name: str, flags: int) -> Iterator[int]:
        """Open a regular file that is there, and no link."""
        with self._opened() as (folder, handle):
            where = _in(folder, handle, _plain(name))
            _refuse_link(where, handle, self.path / name)
            number = os.open(where, flags | _CARE, dir_fd=handle)
            try:
                _check_regular(self.path / name, os.fstat(number), _ANY)
                yield number
            finally:
                os.close(number)

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[tuple[Path, int | None]]:
        """Give the folder as a path and as a handle, None where the system has none.

        Raises:
            UserError: there is a link, or something that is no folder.
        """
        if make:
            self.root.mkdir(parents=True, exist_ok=True)
        path = self.root
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY) if _HANDLES else None
        try:
            for name in self.names:
                where = _in(path, handle, _plain(name))
                path = path / name
                if make:
                    _make_folder(where, handle)
                _refuse_link(where, handle, path)
                if handle is not None:
                    inner = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                    os.close(handle)
                    handle = inner
            yield path, handle
        finally:
            if handle is not None:
                os.close(handle)


def cache_folder() -> Path:
    """Return the folder of what may be made again at any time: METARL_CACHE, else ~/.cache/metarl."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/metarl").expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that the user names; see `Folder.write`.

    Args:
        path: the file; its folder is made where it is missing.
        content: all of it.
    """
    Folder(path.parent).write(path.name, content)


def _plain(name: str) -> str:
    """Return a name that leads nowhere else; ValueError for others."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"{name!r} is no name of a file in a folder")
    return name


def _in(folder: Path, handle: int | None, name: str) -> str:
    """Return what the functions of `os` know a file in a folder by: with its handle, its name."""
    return str(folder / name) if handle is None else name


def _names(folder: Path, handle: int | None) -> list[str]:
    return os.listdir(folder if handle is None else handle)  # noqa: PTH208 - pathlib knows no handles


def _open_new(where: str, handle: int | None, mode: int = 0o666) -> IO[bytes]:
    return os.fdopen(os.open(where, _NEW | _CARE, mode, dir_fd=handle), "wb")


def _is_folder(where: str, handle: int | None) -> bool:
    return stat.S_ISDIR(os.stat(where, dir_fd=handle, follow_symlinks=False).st_mode)


def _make_folder(where: str, handle: int | None) -> None:
    try:
        os.mkdir(where, dir_fd=handle)
    except FileExistsError:
        return


def _unlink(where: str, handle: int | None) -> None:
    try:
        os.unlink(where, dir_fd=handle)
    except FileNotFoundError:
        return


def _remove_left(folder: Path, handle: int | None) -> None:
    for name in _names(folder, handle):
        if name.startswith(_OURS) and name.endswith(PARTIAL):
            where = _in(folder, handle, name)
            try:
                age = time.time() - os.stat(where, dir_fd=handle, follow_symlinks=False).st_mtime
            # Its process has renamed it meanwhile.
            except FileNotFoundError:
                continue
            if age > LEFT:
                _unlink(where, handle)


def _refuse_link(where: str, handle: int | None, path: Path) -> None:
    state = os.stat(where, dir_fd=handle, follow_symlinks=False)
    # On Windows a junction is no symbolic link, and leads elsewhere too.
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)
    if stat.S_ISLNK(state.st_mode) or getattr(state, "st_reparse_tag", 0) == junction:
        raise UserError(f"{path} is a link, and nothing is written through it. Remove it, or write elsewhere (--out).")
