"""Archives that are read without unpacking: zip and tar files, also compressed ones, that others made.

Everything that an archive says of itself is compared with what its file can hold before anything is unpacked:

    entries                     at most 1 million, each name once, none absolute or with `..`
    unpacked                    at most 512 MiB and 50 times the file; no entry more than it says, none over another
    links, devices, pipes       are left out, and told
    encrypted entries, other methods than stored, deflate, bzip2 and LZMA, sparse entries       refused

Whatever is wrong with one is a `UserError` that names it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from metarl.errors import UserError
from metarl.fewshot.reading.archive_entries import Archive, damage_told
from metarl.fewshot.reading.tar_files import TarArchive
from metarl.fewshot.reading.zip_files import ZipArchive
from metarl.files import open_regular

__all__ = ["Archive", "damage_told", "open_archive"]

_LARGEST = 1 << 44
"""Of an archive's file."""


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive.

    Args:
        path: a zip or tar file. Reading backwards in a compressed tar file is slow.

    Raises:
        UserError: it is none, is damaged or was not wholly downloaded, or holds what is refused (see the module).
    """
    try:
        file = open_regular(path, _LARGEST)
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}. Correct the path.") from error
    with file:
        kind = ZipArchive if file.read(2) == b"PK" or path.suffix.lower() == ".zip" else TarArchive
        with kind(path, cast(io.BufferedIOBase, file)) as archive:
            yield archive
