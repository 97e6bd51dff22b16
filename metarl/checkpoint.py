"""Checkpoints: written atomically, checked when read, refused when they do not fit.

A file holds, one after the other:

    magic     `metarl checkpoint <format>` and a line end
    digest    sha256 of everything after it, hexadecimal, and a line end
    header    one line of JSON: what the checkpoint belongs to (version, family, agent, config, ...)
    payload   `torch.save` bytes of tensors and plain data, read with `weights_only=True`: nothing is executed
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarl.errors import UserError

FORMAT = 1
"""Number of the file layout; files of another layout are refused."""


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
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"There is no {self.kind} {path}. {self.missing}") from error
        magic, _, rest = content.partition(b"\n")
        if not magic.startswith(self.magic):
            raise UserError(f"{path} is not {self.foreign}")
        if magic != self.magic + str(self.format).encode():
            found = magic.removeprefix(self.magic).decode(errors="replace")
            raise UserError(
                f"{path} has {self.kind} format {found}, this version reads {self.format}. "
                "Use the version that wrote it."
            )
        digest, _, body = rest.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise UserError(f"{path} is truncated or damaged: its {self.digest} does not fit. Use another {self.kind}.")
        header, _, payload = body.partition(b"\n")
        return json.loads(header), payload


_SEAL = Seal(
    magic=b"metarl checkpoint ",
    format=FORMAT,
    kind="checkpoint",
    digest="checksum",
    missing="Check the run folder.",
    foreign="a checkpoint of metarl. Give a file that `metarl train` wrote.",
)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old or the whole new content is there.

    Args:
        path: the file, in an existing folder that no other process writes to.
        content: all of it.
    """
    # A fixed name: what a killed process left is overwritten by the next write.
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    # Without this the renaming itself may be lost when the machine goes down.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save(path: Path, payload: dict[str, Any], header: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        payload: tensors and plain data, nested in dicts, lists and tuples.
        header: plain data that `load` compares.

    Raises:
        ValueError: if the payload holds something that could not be read back safely.
    """
    write_atomically(path, _encode(payload, header))


def load(path: Path, expect: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint that must fit.

    Args:
        path: the file.
        expect: header entries that must be there and equal.

    Returns:
        The payload, tensors on the CPU.

    Raises:
        UserError: if the file is missing, foreign, truncated, damaged or of another format, or differs from
            `expect`; the message names what differs, and offers `previous.pt` where that one is good.
    """
    try:
        return _read(path, expect)
    except UserError as problem:
        previous = path.with_name("previous.pt")
        if path.name == previous.name or not previous.exists():
            raise
        try:
            _read(previous, expect)
        except UserError:
            raise problem from None
        raise UserError(
            f"{problem} A good previous checkpoint lies beside it: add --checkpoint previous to use it."
        ) from problem


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a sound checkpoint file.

    Raises:
        UserError: if the file is missing, foreign, truncated, damaged or of another format.
    """
    return _SEAL.open(path)[0]


class CheckpointFolder:
    """The checkpoints of one run: `last.pt`, `previous.pt` (the one before) and `best.pt` (highest score).

    Killed at any moment, the folder still holds a good checkpoint once the first one was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def save(self, payload: dict[str, Any], header: Mapping[str, Any], score: float | None = None) -> None:
        """Write the newest checkpoint.

        Args:
            payload: as in `save`.
            header: as in `save`; the score is added to it.
            score: how good it is, higher is better; None or NaN: never the best.
        """
        content = _encode(payload, {**header, "score": score})
        # Best first: killed in between, the resumed run comes to the same score again and keeps this file.
        # The other way round the resumed run would never look at this checkpoint's score again.
        if score is not None and not math.isnan(score) and score > self.best_score():
            write_atomically(self.path / "best.pt", content)
        last = self.path / "last.pt"
        # A damaged last one must not push out a good previous one.
        if last.exists() and _is_sound(last):
            write_atomically(self.path / "previous.pt", last.read_bytes())
        write_atomically(last, content)

    def best_score(self) -> float:
        """Return the score of `best.pt`, minus infinity where there is none or it is damaged."""
        best = self.path / "best.pt"
        return float(read_header(best)["score"]) if best.exists() and _is_sound(best) else -math.inf


def _encode(payload: dict[str, Any], header: Mapping[str, Any]) -> bytes:
    """Return the content of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    try:
        # Better now than when a day of training has to be read back.
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except Exception as error:
        raise ValueError(f"A checkpoint holds tensors and plain data only; this one does not: {error}") from error
    return _SEAL.close(json.dumps(header).encode() + b"\n" + buffer.getvalue())


def _read(path: Path, expect: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a sound file that fits."""
    header, payload = _SEAL.open(path)
    # Through JSON and back, so that tuples and lists compare equal.
    differences = list(_differences(header, json.loads(json.dumps(expect))))
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise UserError(
            f"{path} does not fit: {'; '.join(differences[:3])}{more}. Use the settings that it was made with."
        )
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def _differences(header: Mapping[str, Any], expect: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield, for every expected entry that the header lacks or has otherwise, a few words about it."""
    for key, wanted in expect.items():
        found = header.get(key)
        if isinstance(wanted, dict) and isinstance(found, dict):
            # Nested: an entry that only the checkpoint has is a difference too.
            yield from _differences(found, {**dict.fromkeys(found), **wanted}, f"{prefix}{key}.")
        elif found != wanted:
            yield f"{prefix}{key} is {found!r} there and {wanted!r} here"


def _is_sound(path: Path) -> bool:
    """Tell if a checkpoint file is whole."""
    try:
        _SEAL.open(path)
    except UserError:
        return False
    return True
