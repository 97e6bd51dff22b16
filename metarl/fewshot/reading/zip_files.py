"""Zip files: their list of entries is looked at before it is read, and entries are unpacked in small steps."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from metarl.errors import UserError
from metarl.fewshot.reading import archive_entries
from metarl.fewshot.reading.archive_entries import Archive, Entries, damage_told

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


class ZipArchive(Archive):
    """A zip file, whose list of entries is looked at when it is opened."""

    def __init__(self, path: Path, file: io.BufferedIOBase) -> None:
        self.path, self.file = path, file

    def __enter__(self) -> ZipArchive:
        with damage_told(self.path):
            size = self.file.seek(0, io.SEEK_END)
            _check_directory(self.path, self.file, size)
            self.archive = zipfile.ZipFile(cast(Any, self.file))
            entries = Entries(self.path, size)
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
        """Open an entry; what is wrong with it is found while it is read."""
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
    if count > archive_entries.MOST_ENTRIES:
        raise UserError(
            f"{path} has {count:,} entries, and at most {archive_entries.MOST_ENTRIES:,} are read. Unpack it yourself, "
            "and give the folder."
        )
