"""What the files of a run may import from beside them: they are told apart from others by one digest.

A file is executed together with what it imports, and that may be any file in its folder or in a folder there. Python
looks there first, so that even a file `numpy.py` would be taken. Where a run is used elsewhere than it was made, all of
these have to be what they were; bytecode is not read there, since nobody can see what it is of.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import all_suffixes
from itertools import islice
from pathlib import Path

from metarl.errors import UserError
from metarl.run.sources import BESIDE, Source, digest, executed, root_of
from metarl.run.trust import key_file

MOST, MOST_BYTES, DEPTH = 1000, 1 << 26, 50
"""Files and folders that are looked at, bytes of what can be imported, and folders one in the other.

Where there is more, nobody knows what is there.
"""
UNKNOWN = "unknown"
"""Digest of more than that: it is equal to none."""


def folder_of(place: Path, module: str) -> Path:
    """Return the folder from which a file of a run may import its neighbours, with those of its package."""
    return root_of(place, module) or place.parent


def with_beside(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Return sources as they are now, with what is beside them, where something is."""
    files = executed(sources)
    places = [Path(source.given) for source in files if source.given]
    folders = dict.fromkeys(folder_of(Path(source.given), source.module) for source in files if source.given)
    # Files import from the present folder too, where they are in it (admission.py).
    if any(place.is_relative_to(Path.cwd()) for place in places):
        folders[Path.cwd()] = None
    found = [(folder, digest_beside(folder, places)) for folder in folders]
    beside = [Source(role=BESIDE, sha256=sha256, given=str(folder)) for folder, sha256 in found if sha256]
    return (*(source for source in sources if source.role != BESIDE), *beside)


def digest_beside(folder: Path, listed: Sequence[Path]) -> str:
    """Return a digest of everything that can be imported from a folder; an empty one where that is nothing.

    Args:
        folder: the folder.
        listed: files that a run lists itself: they do not count. Empty ones do not either, as in packages.
    """
    try:
        known = {(state.st_dev, state.st_ino) for place in listed if (state := place.stat())}
        found = list(islice(_importable(folder, "", []), MOST + 1))
        named = [(file, name, file.stat()) for file, name in found if name]
        sizes = {
            (file, name): state.st_size
            for file, name, state in named
            if (state.st_size or not stat.S_ISREG(state.st_mode)) and (state.st_dev, state.st_ino) not in known
        }
        if len(found) > MOST or sum(sizes.values()) > MOST_BYTES:
            return UNKNOWN
        lines = [f"{name} {digest(file)}" for file, name in sizes]
    # What cannot be read, a link that leads nowhere, a pipe.
    except (OSError, UserError):
        return UNKNOWN
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest() if lines else ""


def _importable(folder: Path, prefix: str, above: list[str]) -> Iterator[tuple[Path, str]]:
    """Yield everything in a folder and in its folders, with a name where it can be imported."""
    above = [*above, os.path.realpath(folder)]
    if len(above) > DEPTH:
        raise OSError(f"{folder} is too deep")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            path = Path(folder, entry.name)
            if entry.is_dir():
                yield path, ""
                if entry.name.isidentifier() and entry.name != "__pycache__" and os.path.realpath(path) not in above:
                    yield from _importable(path, name, above)
            else:
                yield path, name if entry.name.endswith(tuple(all_suffixes())) else ""


def read_no_bytecode() -> None:
    """Have this process, and those that it starts, compile what they import from now on, or take what they compiled."""
    try:
        own = str(key_file().parent / "bytecode")
    # There is no home folder.
    except RuntimeError:
        own = tempfile.mkdtemp(prefix="metarl-bytecode-")
    sys.pycache_prefix = own
    os.environ["PYTHONPYCACHEPREFIX"] = own


def as_it_was(folder: Path, sources: Sequence[Source], listed: Sequence[Path]) -> bool:
    """Tell whether what is beside a file of a run is what was beside it when the run was made.

    Args:
        folder: it is there now.
        sources: what the run says.
        listed: where the run's own files are now.
    """
    now = digest_beside(folder, listed)
    return not now or (now != UNKNOWN and now in {source.sha256 for source in sources if source.role == BESIDE})
