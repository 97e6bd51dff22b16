"""Tar files, also compressed ones: run through entry by entry, with a bound on what stands before each."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from metarl.errors import UserError
from metarl.fewshot.reading.archive_entries import Archive, Entries, damage_told

_LISTING = 8 << 20
"""Bytes of headers before an entry of a tar file."""
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open, b"\x5d\0\0": lzma.open}
"""First bytes -> what unpacks a compressed tar file."""


class TarArchive(Archive):
    """A tar file, which is run through to list it: only when its entries are asked for."""

    def __init__(self, path: Path, file: io.BufferedIOBase) -> None:
        self.path, self.file = path, file
        self.members: dict[str, tarfile.TarInfo] | None = None

    def __enter__(self) -> TarArchive:
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
        entries = Entries(self.path, self.size)
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
        if not self.compressed:
            self.stream.left = None
            self.file.seek(self.archive.offset)
            if self.file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("the end of it is missing")
        else:
            # The checksum of all stands at the end.
            for _ in range(entries.most >> 16):
                if not self.stream.file.read(1 << 16):
                    break
        self.stream.left = None
        entries.tell()
        return found

    def open(self, name: str) -> io.BufferedIOBase:
        """Open an entry; what is wrong with it is found while it is read."""
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
