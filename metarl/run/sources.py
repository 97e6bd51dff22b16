"""Files of a user's that a run executes or reads: what a run folder says of them, and how they are found again.

A run refers to such a file by its path from the run folder, to a module in a package by its name; with the sha256 of
what it held, and with where it was. It is looked for in this order:

    1. where the user says (--source)
    2. at its path from the run folder: a project may be moved, renamed or checked out elsewhere
    3. where it was when the run was made: a run folder may be moved
    4. at the end of that path, from the present folder, if it holds what it held

The first of these that holds what it held is taken; if none does, the first that is there. Whether it is executed is
for admission.py to say. Modules are then imported by their names; the last place where Python looks for them are the
folders that `reach` adds.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from metarl.errors import UserError, tell
from metarl.files import read_regular

SESSION = "session"
"""Role of what no file holds: it was defined in a notebook or at a prompt, or by the program at `given`."""
ROBOT = "robot"
"""Role of a robot file, and first word of the roles of what its model takes: read, and nothing in them is run."""
BESIDE = "beside"
"""Role of a folder from which the run's files may import: its sha256 is that of all other files there (beside.py)."""
LARGEST = 1 << 26
"""Bytes that a file may have."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file or module of a user's that a run executes."""

    role: str
    """What it is for: `family`, or what the family names: `make`, `set_task`, `own FILE`; `backbone`; ROBOT or `robot
    FILE`; or SESSION or BESIDE."""
    module: str = ""
    """Name that it is imported by; empty where it is by its path."""
    path: str = ""
    """From the run folder, with /; empty where it is not known."""
    sha256: str = ""
    """Of its content; empty where it is not known."""
    given: str = ""
    """Where it was when the run was made, absolute; empty where it is not known."""

    @property
    def label(self) -> str:
        """What people know it by."""
        return self.module or Path(self.given or self.path).name

    def __str__(self) -> str:
        return f"{self.given or self.module or self.path} ({self.role})"


def of_file(role: str, file: Path, module: str = "") -> Source:
    """Return what a run says of a file, without its path from the run folder."""
    return Source(role=role, module=module, sha256=digest(file), given=str(file))


def digest(file: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    return hashlib.sha256(read_regular(file, LARGEST)).hexdigest()


def executed(sources: Sequence[Source]) -> list[Source]:
    """Return those of a run's sources that are files or modules which it executes."""
    return [source for source in named(sources) if source.role.partition(" ")[0] != ROBOT]


def named(sources: Sequence[Source]) -> list[Source]:
    """Return those of a run's sources that are files or modules, executed or only read."""
    return [source for source in sources if source.role not in (SESSION, BESIDE)]


def from_folder(source: Source, folder: Path) -> Source:
    """Return the same with its path from a run folder."""
    if source.role == SESSION or not source.given:
        return source
    try:
        path = os.path.relpath(source.given, folder.resolve())
    # On Windows there is none from one drive to another.
    except ValueError:
        return replace(source, path="")
    return replace(source, path=Path(path).as_posix())


def find(source: Source, folder: Path) -> Path | None:
    """Return where a file is now, None if it is not found.

    Args:
        source: what a run says of it.
        folder: the run folder.
    """
    there = [place for place in _places(source, folder) if _is_file(place)]
    elsewhere = [place for place in _ends(source) if _is_file(place)]
    for place in (*there, *elsewhere):
        if digest(place) == source.sha256:
            return place
    # Runs of format 1 do not know what their file held.
    return next(iter(there if source.sha256 else (*there, *elsewhere)), None)


def _is_file(place: Path) -> bool:
    # A run may name anything, such as what is too long for a name.
    with suppress(OSError, ValueError):
        return place.is_file()
    return False


def _places(source: Source, folder: Path) -> Iterator[Path]:
    if source.path:
        yield Path(os.path.normpath(folder.resolve() / source.path))
    if source.given:
        yield Path(source.given)


def _ends(source: Source) -> Iterator[Path]:
    """Yield the ends of its former path from the present folder, the longest first."""
    parts = Path(source.given).parts
    for first in range(1, len(parts)):
        yield Path.cwd().joinpath(*parts[first:])


def tell_changes(folder: Path, sources: Sequence[Source], found: Mapping[str, Path | None]) -> None:
    """Say in a line each which files do not hold what they held.

    Args:
        folder: the run folder.
        sources: what the run says of them.
        found: where they are now, by role.
    """
    for source in sources:
        place = found.get(source.role)
        if place is not None and source.sha256 not in ("", digest(place)):
            tell(f"{place} ({source.role}) has changed since {folder} was trained with it")


def reach(
    sources: Sequence[Source], places: Mapping[str, Path | None], file: Path | None = None, *, present: bool = True
) -> list[str]:
    """Let Python import the packages of a run's files from where they are now; call it for what may be executed.

    Args:
        sources: what the run says of its files.
        places: where they are now, by role.
        file: one that is imported by its path, as a script is: its folder comes first on the path by itself.
        present: from the present folder too.

    Returns:
        The folders that hold the packages. They are on Python's path, behind all that was there and the present folder.
    """
    roots = [root_of(place, source.module) for source in sources if (place := places.get(source.role)) is not None]
    beside = None if file is None else file.parent
    folders = list(dict.fromkeys(str(root) for root in roots if root not in (None, beside)))
    for folder in (*([str(Path.cwd())] if present else []), *folders):
        if folder not in sys.path:
            sys.path.append(folder)
    return folders


def root_of(file: Path, module: str) -> Path | None:
    """Return the folder from which a file is imported by the name of its module; None where it is in no package."""
    packages = module.split(".") if module and file.name == "__init__.py" else module.split(".")[:-1]
    root = file.parents[len(packages)] if len(packages) < len(file.parents) else None
    if not module or root is None or file.parent != root.joinpath(*packages):
        root = file.parent
        while (root / "__init__.py").is_file():
            root = root.parent
        root = None if root == file.parent else root
    # Packages that were installed for another Python are not for this one.
    return None if root is None or root.name in ("site-packages", "dist-packages") else root


def not_found(folder: Path, source: Source) -> UserError:
    """Return the error about a file that is nowhere."""
    places = " nor at ".join(dict.fromkeys(str(place) for place in _places(source, folder)))
    return UserError(
        f"{folder} needs {source.label} ({source.role}), which is not at {places or 'any known place'}. Say where it "
        "is with --source FILE (in Python source=)."
    )
