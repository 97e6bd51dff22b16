"""Sealed files: they say what they are, and tell damage from soundness."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.errors import UserError
from metarl.files import read_regular
from metarl.plain import parse_json

AT_MOST = 4 << 30
"""Bytes that a sealed file may have."""
LARGEST_HEADER = 1 << 20
"""Bytes that its header may have."""


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
    """

    magic: bytes
    format: int
    kind: str
    digest: str
    missing: str
    foreign: str

    def close(self, body: bytes) -> bytes:
        """Return the content of a file, from its header line and payload."""
        digest = hashlib.sha256(body).hexdigest().encode()
        return self.magic + str(self.format).encode() + b"\n" + digest + b"\n" + body

    def open(self, path: Path) -> tuple[dict[str, Any], bytes]:
        """Return header and payload of a sound file.

        Raises:
            UserError: the file is missing, foreign, truncated, damaged or of another format.
        """
        try:
            content = read_regular(path, AT_MOST)
        except FileNotFoundError as error:
            raise UserError(f"There is no {self.kind} {path}. {self.missing}") from error
        magic, _, rest = content.partition(b"\n")
        if not magic.startswith(self.magic):
            raise UserError(f"{path} is not {self.foreign}")
        if magic != self.magic + str(self.format).encode():
            found = magic.removeprefix(self.magic).decode(errors="replace")
            raise UserError(
                f"{path} has {self.kind} format {found}, this version reads {self.format}. "
                "Use the version of metarl-suite that wrote it."
            )
        digest, _, body = rest.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise UserError(f"{path} is truncated or damaged: its {self.digest} does not fit. Use another {self.kind}.")
        end = body.find(b"\n", 0, LARGEST_HEADER)
        return parse_json(body[:end] if end >= 0 else b"", f"The header of {path}"), body[end + 1 :]
