"""Checkpoints: written atomically, checked when read, refused when they do not fit.

A file holds, one after the other:

    magic     `metarl checkpoint 1` and a line end; the number is that of this layout
    digest    sha256 of everything after it, hexadecimal, and a line end
    header    one line of JSON: the format of what it holds (formats.py), the version of the package that wrote it, and
              what the checkpoint belongs to (family, agent, config, ...)
    payload   `torch.save` bytes of tensors and plain data (tensors.py): nothing is executed
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from metarl.errors import UserError
from metarl.files import Folder, read_regular, write_atomically
from metarl.memory import STORED
from metarl.run.formats import FORMAT, Stored, conversions_from
from metarl.run.tensors import Foreign, read_payload
from metarl.seals import AT_MOST, Seal
from metarl.version import __version__

_RECORD, _END, _LARGE = struct.Struct("<4s4H2IH"), b"PK\5\6", 0xFFFFFFFF
"""What an archive ends with: mark, 4 numbers, size and place of its list of files, length of a remark."""
_LARGE_ARCHIVE = 76
"""Bytes before it in an archive that may be large; `torch.save` writes all of them so."""
LITTLE = 1 << 26
"""Bytes that are read in any case."""


def _length(header: bytes, tail: bytes) -> int | None:
    """Return the bytes that an archive has by its end; an archive that was cut off or grown has another end."""
    if len(tail) < _RECORD.size or not tail.startswith(_END):
        return 0
    *_, size, place, remark = _RECORD.unpack(tail)
    return None if place == _LARGE else size + place + _LARGE_ARCHIVE + _RECORD.size + remark


def most_bytes(state: int) -> int:
    """Return the bytes that a checkpoint may have, by those of what is trained or of another checkpoint of it."""
    return STORED * state + LITTLE


_SEAL = Seal(
    magic=b"metarl checkpoint ",
    # Of the layout told above; what stands in it has a number of its own.
    format=1,
    kind="checkpoint",
    digest="checksum",
    missing="Check the run folder.",
    foreign="a checkpoint of metarl. Give a file that `metarl train` wrote.",
    length=_length,
)


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


def load(path: Path, expect: Mapping[str, Any], at_most: int = AT_MOST) -> dict[str, Any]:
    """Read a checkpoint that must fit; one of an earlier format is brought up to the present one.

    Args:
        path: the file.
        expect: header entries that must be there and equal.
        at_most: bytes that the file may have.

    Returns:
        The payload, tensors on the CPU.

    Raises:
        UserError: if the file is missing, foreign, truncated, damaged or of a later format, or differs from
            `expect`; the message names what differs, and offers `previous.pt` where that one is good.
    """
    try:
        return _read(path, expect, at_most)
    except UserError as problem:
        previous = path.with_name("previous.pt")
        if path.name == previous.name or not previous.exists():
            raise
        try:
            _read(previous, expect, at_most)
        except UserError:
            raise problem from None
        raise UserError(
            f"{problem} A good previous checkpoint lies beside it: add --checkpoint previous to use it."
        ) from problem


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a sound checkpoint file, as it stands there.

    Raises:
        UserError: if the file is missing, foreign, truncated, damaged or of another layout.
    """
    return _SEAL.open(path)[0]


class CheckpointFolder:
    """The checkpoints of one run: `last.pt`, `previous.pt` (the one before) and `best.pt` (highest score).

    Killed at any moment, the folder still holds a good checkpoint once the first one was written.
    """

    def __init__(self, folder: Folder | Path) -> None:
        self._folder = Folder.of(folder).make()
        self.path = self._folder.path

    def save(self, payload: dict[str, Any], header: Mapping[str, Any], score: float | None = None) -> None:
        """Write the newest checkpoint.

        Args:
            payload: as in `save`.
            header: as in `save`; the score is added to it.
            score: how good it is, higher is better; None or NaN: never the best.
        """
        content = _encode(payload, {**header, "score": score})
        at_most = most_bytes(len(content))
        # Best first: killed in between, the resumed run comes to the same score again and keeps this file.
        # The other way round the resumed run would never look at this checkpoint's score again.
        if score is not None and not math.isnan(score) and score > self.best_score(at_most):
            self._folder.write("best.pt", content)
        last = self.path / "last.pt"
        # A damaged last one must not push out a good previous one.
        if last.exists() and _is_sound(last, at_most):
            self._folder.write("previous.pt", read_regular(last, at_most))
        self._folder.write("last.pt", content)

    def best_score(self, at_most: int = AT_MOST) -> float:
        """Return the score of `best.pt`, minus infinity where there is none or it is damaged."""
        best = self.path / "best.pt"
        found = _SEAL.open(best, at_most)[0].get("score") if best.exists() and _is_sound(best, at_most) else None
        return float(found) if isinstance(found, int | float) else -math.inf


def _encode(payload: dict[str, Any], header: Mapping[str, Any]) -> bytes:
    """Return the content of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    try:
        # Better now than when a day of training has to be read back.
        read_payload(buffer.getvalue())
    except Foreign as error:
        raise ValueError(f"A checkpoint holds tensors and plain data only; this one does not: {error}") from error
    whole = {"format": FORMAT, "version": __version__, **header}
    return _SEAL.close(json.dumps(whole).encode() + b"\n" + buffer.getvalue())


def _read(path: Path, expect: Mapping[str, Any], at_most: int) -> dict[str, Any]:
    """Return the payload of a sound file that fits."""
    header, content = _SEAL.open(path, at_most)
    conversions = conversions_from(header, path)
    try:
        payload = read_payload(content)
        for convert in conversions:
            convert(Stored(run=header, config=header["config"], payload=payload))
    except Foreign as error:
        raise UserError(f"{path} cannot be used: {error}. Use another checkpoint.") from error
    # Earlier formats had these settings.
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be used: its header lacks {error}. Use another checkpoint.") from error
    # Through JSON and back, so that tuples and lists compare equal.
    differences = list(_differences(header, json.loads(json.dumps(expect))))
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise UserError(
            f"{path} does not fit: {'; '.join(differences[:3])}{more}. Use the settings that it was made with."
        )
    return payload


def _differences(header: Mapping[str, Any], expect: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield, for every expected entry that the header lacks or has otherwise, a few words about it."""
    for key, wanted in expect.items():
        found = header.get(key)
        if isinstance(wanted, dict) and isinstance(found, dict):
            # Nested: an entry that only the checkpoint has is a difference too.
            yield from _differences(found, {**dict.fromkeys(found), **wanted}, f"{prefix}{key}.")
        elif not _same(found, wanted):
            yield f"{prefix}{key} is {found!r} there and {wanted!r} here"


def _same(found: Any, wanted: Any) -> bool:
    """Tell whether two things of JSON are equal; to Python true is 1."""
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        return set(found) == set(wanted) and all(_same(found[key], wanted[key]) for key in found)
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted


def _is_sound(path: Path, at_most: int) -> bool:
    """Tell if a checkpoint file is whole."""
    try:
        _SEAL.open(path, at_most)
    except UserError:
        return False
    return True
