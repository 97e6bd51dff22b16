"""Archives that are read without unpacking: zip and tar files, also compressed ones, that others made.

Everything that an archive says of itself is compared with what its file can hold before anything is unpacked:

    entries                     at most 1 million, each name once, none absolute or with `..`
    unpacked                    at most 512 MiB and 50 times the file; no entry more than it says, none over another
    links, devices, pipes       are left out, and told
    encrypted entries, other methods than stored, deflate, bzip2 and LZMA, sparse entries       refused

Whatever is wrong with one is a `UserError` that names it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from metarl.errors import UserError, tell
from metarl.files import open_regular

MOST_ENTRIES = 1_000_000
UNPACKED = 512 << 20
"""Bytes that any archive may hold."""
RATIO = 50
"""Times its own size that it may hold beside."""
_LARGEST = 1 << 44
"""Of an archive's file."""
_METHODS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "LZMA",
}
_STEP = {zipfile.ZIP_STORED: 1 << 20, zipfile.ZIP_DEFLATED: 1 << 20}
"""Bytes that are unpacked at once; a few of the other methods may become very many."""
_ENTRY = b"PK\1\2"
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LISTING = 8 << 20
"""Bytes of headers before an entry of a tar file."""
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open, b"\x5d\0\0": lzma.open}
"""First bytes -> what unpacks a compressed tar file."""
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, struct.error,
    RecursionError, NotImplementedError, RuntimeError, UnicodeError, OverflowError,
)  # fmt: skip
"""What the readers of archives raise about files that are damaged, or were made to do harm."""


class Archive:
    """An archive that is open."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name of every regular entry -> its size in bytes, in the order in which they lie."""
        raise NotImplementedError

    def open(self, name: str) -> io.BufferedIOBase:
        """Open an entry; what is wrong with it is found while it is read."""
        raise NotImplementedError


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive.

    Args:
        path: a zip or tar file. Reading backwards in a compressed tar file is slow.

    Raises:
        UserError: it is none, is damaged or was not wholly downloaded, or holds what is refused (see the module).
    """
    try:
        with open_regular(path, _LARGEST) as file:
            kind = _Zip if file.read(2) == b"PK" or path.suffix.lower() == ".zip" else _Tar
            with kind(path, cast(io.BufferedIOBase, file)) as archive:
                yield archive
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}. Correct the path.") from error


@contextmanager
def damage_told(path: Path, what: str = "") -> Iterator[None]:
    """Have what the readers of archives raise told as damage of an archive, or of an entry in it."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        words = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        if isinstance(error, RecursionError) or type(error) is ValueError:
            words = "a number or a chain of headers in it is longer than any should be"
        raise UserError(
            f"{path} cannot be read as an archive ({what + ': ' if what else ''}{words}). It is damaged or was not "
            "wholly downloaded; download it again."
        ) from error


class _Entries:
    """Checks entries one after the other, and counts them and what they hold."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.most = path, UNPACKED + RATIO * size
        self.count = self.unpacked = 0
        self.left_out: list[str] = []
        self.sizes: dict[str, int] = {}

    def name(self, given: str) -> str:
        """Return the name of an entry without `./` before it."""
        name = given.removeprefix("./")
        parts = name.rstrip("/").split("/")
        if name.startswith(("/", "\\")) or ":" in parts[0] or ".." in parts or "\0" in name:
            raise UserError(
                f"{self.path} holds {given[:200]!r}, a name that leads out of it. Pack it again with names inside it."
            )
        return name

    def add(self, name: str, size: int) -> None:
        """Take in an entry."""
        self.count += 1
        self.unpacked += size
        if self.count > MOST_ENTRIES:
            raise UserError(
                f"{self.path} has more than {MOST_ENTRIES:,} entries, the most that are read. Unpack it yourself, and "
                "give the folder."
            )
        if size < 0 or self.unpacked > self.most:
            raise UserError(
                f"{self.path} would unpack to {self.unpacked:,} bytes or more, and at most {self.most:,} are read of "
                f"its size ({UNPACKED >> 20} MiB and {RATIO} times it). Unpack it yourself if you trust it."
            )

    def file(self, name: str, size: int) -> None:
        """Note down a regular entry."""
        if name in self.sizes:
            raise UserError(f"{self.path} holds {name[:200]!r} twice. Pack it again, each file once.")
        self.sizes[name] = size

    def tell(self) -> None:
        """Tell what was left out."""
        if self.left_out:
            tell(
                f"{self.path}: left out {len(self.left_out)} links and devices, as {self.left_out[0][:200]!r}; an "
                "archive is read with the files themselves (tar --dereference --hard-dereference)."
            )


# -- zip --------------------------------------------------------------------------------------------------------------


class _Zip(Archive):
    def __init__(self, path: Path, file: io.BufferedIOBase) -> None:
        self.path, self.file = path, file

    def __enter__(self) -> _Zip:
        with damage_told(self.path):
            size = self.file.seek(0, io.SEEK_END)
            _check_directory(self.path, self.file, size)
            self.archive = zipfile.ZipFile(cast(Any, self.file))
            entries = _Entries(self.path, size)
            self.infos: dict[str, zipfile.ZipInfo] = {}
            places: set[int] = set()
            packed = 0
            for info in self.archive.infolist():
                entries.add(info.filename, info.file_size)
                name = entries.name(info.filename)
                packed += info.compress_size
                if packed > size or info.header_offset in places:
                    raise UserError(f"{self.path} has entries that lie over one another. Pack it again.")
                places.add(info.header_offset)
                if name.endswith("/") or not name:
                    continue
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    entries.left_out.append(name)
                    continue
                self._check(info)
                entries.file(name, info.file_size)
                self.infos[name] = info
        entries.tell()
        self._sizes = entries.sizes
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name of every entry -> its size."""
        return self._sizes

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.filename[:200]
        if info.flag_bits & 1:
            raise UserError(f"{self.path} is encrypted ({name!r}). Unpack it with its password, and give the folder.")
        if info.compress_type not in _METHODS:
            raise UserError(
                f"{self.path} holds {name!r} packed by method {info.compress_type}, and read are "
                f"{', '.join(_METHODS.values())}. Pack it again, or give the folder."
            )

    def open(self, name: str) -> io.BufferedIOBase:
        info = self.infos[name]
        with damage_told(self.path, name):
            step = _STEP.get(info.compress_type, 1 << 12)
            return io.BufferedReader(_Steps(self.archive.open(info), step), min(step, 1 << 16))


class _Steps(io.RawIOBase):
    """An entry of a zip file that is unpacked in small steps, however much is asked for."""

    def __init__(self, entry: Any, step: int) -> None:
        self.entry, self.step = entry, step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self.entry.read(min(len(buffer), self.step))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self.entry.close()
        super().close()


def _check_directory(path: Path, file: io.BufferedIOBase, size: int) -> None:
    """Refuse a list of too many entries before zipfile makes an object of each."""
    length = min(size, _END.size + (1 << 16))
    file.seek(size - length)
    tail = file.read(length)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or place + _END.size > len(tail):
        raise zipfile.BadZipFile("it has no list of entries at its end")
    listed = _END.unpack_from(tail, place)[5]
    if listed == 0xFFFFFFFF:
        large = tail.rfind(b"PK\6\6", 0, place)
        if large < 0 or large + _END64.size > len(tail):
            raise zipfile.BadZipFile("it has no list of entries at its end")
        listed = _END64.unpack_from(tail, large)[8]
    if listed > size:
        raise zipfile.BadZipFile("its list of entries is longer than it")
    file.seek(max(0, size - length + place - listed - (1 << 12)))
    left, count = listed + (1 << 12), 0
    while left > 0 and (part := file.read(min(left, 1 << 24))):
        left -= len(part)
        count += part.count(_ENTRY)
    if count > MOST_ENTRIES:
        raise UserError(
            f"{path} has {count:,} entries, and at most {MOST_ENTRIES:,} are read. Unpack it yourself, and give the "
            "folder."
        )


# -- tar --------------------------------------------------------------------------------------------------------------


class _Tar(Archive):
    """A tar file, which is run through to list it: only when its entries are asked for."""

    def __init__(self, path: Path, file: io.BufferedIOBase) -> None:
        self.path, self.file = path, file
        self.members: dict[str, tarfile.TarInfo] | None = None

    def __enter__(self) -> _Tar:
        with damage_told(self.path):
            self.size = self.file.seek(0, io.SEEK_END)
            self.file.seek(0)
            start = self.file.read(8)
            self.file.seek(0)
            opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
            self.stream = _Headers(self.file if opener is None else cast(Any, opener)(self.file))
            self.compressed = opener is not None
            self.archive = tarfile.TarFile(fileobj=cast(Any, self.stream))
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name of every entry -> its size."""
        return {name: member.size for name, member in self._listed().items()}

    def _listed(self) -> dict[str, tarfile.TarInfo]:
        if self.members is None:
            with damage_told(self.path):
                self.members = self._run_through()
        return self.members

    def _run_through(self) -> dict[str, tarfile.TarInfo]:
        entries = _Entries(self.path, self.size)
        found: dict[str, tarfile.TarInfo] = {}
        last = -1
        self.stream.left = _LISTING
        for member in self.archive:
            self.stream.left = _LISTING
            # Before its content is passed over.
            entries.add(member.name, member.size)
            name = entries.name(member.name)
            if member.offset <= last:
                raise tarfile.ReadError("its entries lead backwards")
            last = member.offset
            if member.issparse():
                raise UserError(f"{self.path} holds {name[:200]!r} as a sparse entry. Pack it again without --sparse.")
            if member.isfile():
                entries.file(name, member.size)
                found[name] = member
            elif not member.isdir():
                entries.left_out.append(name)
        if self.compressed:
            # The checksum of all stands at the end.
            for _ in range(entries.most >> 16):
                if not self.stream.file.read(1 << 16):
                    break
        self.stream.left = None
        entries.tell()
        return found

    def open(self, name: str) -> io.BufferedIOBase:
        member = self._listed()[name]
        with damage_told(self.path, name):
            entry = self.archive.extractfile(member)
        assert entry is not None, "a regular entry"
        return cast(io.BufferedIOBase, entry)


class _Headers:
    """The stream of a tar file, of which headers are read piece by piece while it is listed.

    Attributes:
        left: bytes that may be read until the next entry. None: any.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file
        self.left: int | None = _LISTING

    def read(self, count: int = -1) -> bytes:
        if self.left is not None:
            self.left -= count if count >= 0 else _LISTING + 1
            if self.left < 0:
                raise tarfile.ReadError(f"an entry has more than {_LISTING >> 20} MiB of headers")
        return self.file.read(count)

    def seek(self, place: int, whence: int = 0) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


def contents(path: Path) -> Iterable[str]:
    """Return the names of the entries of an archive."""
    with open_archive(path) as archive:
        return list(archive.sizes)
