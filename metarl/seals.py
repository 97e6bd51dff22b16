"""Sealed files: they say what they are, and tell damage from soundness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from metarl.errors import UserError
from metarl.files import open_regular
from metarl.memory import check_room
from metarl.plain import parse_json

AT_MOST = 4 << 30
"""Bytes that a sealed file may have."""
LARGEST_HEADER = 1 << 20
"""Bytes that its header may have."""
TAIL = 22
"""Bytes of a payload's end that may tell its length."""
_LINE = 200
"""Bytes that its first two lines may have."""
_COPIES = 3
"""Of a payload in memory, until it has been made use of."""


@dataclass(frozen=True, kw_only=True)
class Seal:
    """The form of a file that says what it is and tells damage from soundness.

    One after the other: `magic` with the format and a line end; the sha256 of all that follows, hexadecimal, and a line
    end; a header, one line of JSON, and a line end; the payload.

    Attributes:
        magic: first words of the file.
        format: number of the layout; files of another one are refused.
        kind: what such a file is called.
        digest: what its sha256 is called.
        missing: what to do where there is none.
        foreign: what a file is not, and what to give in its place.
        length: bytes that a payload should have, by the header line and what is at the payload's end; None where they
            do not say. It is given `TAIL` bytes, or what there is.
    """

    magic: bytes
    format: int
    kind: str
    digest: str
    missing: str
    foreign: str
    length: Callable[[bytes, bytes], int | None]

    def close(self, body: bytes) -> bytes:
        """Return the content of a file, from its header line and payload."""
        digest = hashlib.sha256(body).hexdigest().encode()
        return self.magic + str(self.format).encode() + b"\n" + digest + b"\n" + body

    def open(self, path: Path, at_most: int = AT_MOST) -> tuple[dict[str, Any], bytes]:
        """Return header and payload of a sound file.

        A file that is far larger than what it holds is refused by its size, before it is read.

        Args:
            path: the file.
            at_most: bytes that it may have.

        Raises:
            UserError: the file is missing, foreign, too large, truncated, damaged or of another format.
        """
        try:
            with open_regular(path, at_most) as file:
                return self._read(file, path)
        except FileNotFoundError as error:
            raise UserError(f"There is no {self.kind} {path}. {self.missing}") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error}). Check the file.") from error

    def _read(self, file: IO[bytes], path: Path) -> tuple[dict[str, Any], bytes]:
        magic, digest = (file.readline(_LINE).removesuffix(b"\n") for _ in range(2))
        if not magic.startswith(self.magic):
            raise UserError(f"{path} is not {self.foreign}")
        if magic != self.magic + str(self.format).encode():
            found = magic.removeprefix(self.magic).decode(errors="replace")
            raise UserError(
                f"{path} has {self.kind} format {found}, this version reads {self.format}. "
                "Use the version of metarl-suite that wrote it."
            )
        header = file.readline(LARGEST_HEADER)
        begin, end = file.tell(), file.seek(0, 2)
        file.seek(max(begin, end - TAIL))
        wanted = self.length(header, file.read(TAIL))
        if wanted is not None and wanted != end - begin:
            raise UserError(
                f"{path} is truncated or damaged: {end - begin:,} bytes follow its header, and {wanted:,} should. "
                f"Use another {self.kind}."
            )
        check_room(_COPIES * (end - begin), str(path))
        file.seek(begin)
        payload = file.read(end - begin)
        whole = hashlib.sha256(header)
        whole.update(payload)
        if whole.hexdigest().encode() != digest:
            raise UserError(f"{path} is truncated or damaged: its {self.digest} does not fit. Use another {self.kind}.")
        return parse_json(header if header.endswith(b"\n") else b"", f"The header of {path}"), payload
