"""What an archive says of its entries, looked at one by one before anything is unpacked; and damage, told as such."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from metarl.errors import UserError, tell

MOST_ENTRIES = 1_000_000
UNPACKED = 512 << 20
"""Bytes that any archive may hold."""
RATIO = 50
"""Times its own size that it may hold beside."""
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


class Entries:
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
