"""Which files of a run may be executed: the one place that says so.

    with --trust             all that the run lists
    with a signature         where the list of files is by this user on this machine (trust.py), of these
                             - what lies where it was when the run was made, and is the user's: also if it has changed
                             - what holds what it held, with the same beside it (beside.py), wherever it is
                             - what is installed
    else                     none

A signature can be copied into another folder. So it says of a file elsewhere only what it held.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from metarl.errors import UserError
from metarl.run.beside import as_it_was, folder_of, read_no_bytecode
from metarl.run.sources import Source, digest, executed, find, tell_changes
from metarl.system import POSIX


def admit(folder: Path, sources: Sequence[Source], *, signed: bool, trust: bool) -> dict[str, Path | None]:
    """Return by role where the files of a run are now, if they may be executed; say which of them have changed.

    Args:
        folder: the run folder.
        sources: what the run says of them.
        signed: whether this user made the list (`RunFolder.signed`).
        trust: whether the user trusts them.

    Raises:
        UserError: they are not to be executed; it names them.
    """
    files = executed(sources)
    found = {source.role: find(source, folder) for source in files}
    if not trust:
        present = uses_present(sources, found, signed=signed, trust=trust)
        taken = [(source, place) for source in files for place in _taken(source, found[source.role], present)]
        if files and not signed:
            raise UserError(
                f"{folder} was not made by you on this machine, and using it would execute "
                f"{_names(files, taken)}. If you trust that code, add --trust (in Python trust=True)."
            )
        listed = [place for _, place in taken]
        strange = [(source, place) for source, place in taken if not _is_known(source, place, sources, listed)]
        if strange:
            raise UserError(
                f"Using {folder} would execute {_names([], strange)}, which does not lie where it was when the run "
                "was made, and has changed, or other files are beside it. If you trust that code, add --trust (in "
                "Python trust=True)."
            )
    # Of bytecode nobody can see what it is of; one's own, in one's own place, is one's own.
    places = [(source, place) for source in files if (place := found[source.role]) is not None]
    if not all(signed and _is_own(source, place) for source, place in places):
        read_no_bytecode()
    tell_changes(folder, files, found)
    return found


def admitted(folder: Path, sources: Sequence[Source], *, signed: bool, trust: bool) -> dict[str, Path | None]:
    """Return by role where those files of a run are that may be executed; none where not all may be."""
    if not (signed or trust):
        return {}
    try:
        return admit(folder, sources, signed=signed, trust=trust)
    except UserError:
        return {}


def uses_present(sources: Sequence[Source], places: Mapping[str, Path | None], *, signed: bool, trust: bool) -> bool:
    """Tell whether the files of a run may import from the present folder: it may be one that somebody sent.

    Args:
        sources: what the run says of them.
        places: where they are now, by role.
        signed: whether this user made the list.
        trust: whether the user trusts them.
    """
    present = Path.cwd()
    found = [(source, place) for source in executed(sources) if (place := places.get(source.role)) is not None]
    there = [(source, place) for source, place in found if place.is_relative_to(present)]
    if trust or not there:
        return trust
    return signed and (
        any(_is_own(source, place) for source, place in there)
        or as_it_was(present, sources, [place for _, place in found])
    )


def _taken(source: Source, found: Path | None, present: bool) -> Iterator[Path]:
    """Yield the files that Python could take for one of a run: of a module, from wherever it finds that."""
    places = [] if found is None else [found]
    # What has been imported is not executed again.
    if source.module and source.module not in sys.modules:
        for path in ([str(Path.cwd())] if present else [], sys.path):
            place = _module_in(path, source.module)
            places += [] if place is None else [place]
    yield from dict.fromkeys(places)


def _module_in(path: Sequence[str], module: str) -> Path | None:
    """Return the file of a module without importing it or its packages."""
    places: list[str] | None = list(path)
    name, spec = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, places)
        places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(spec.origin).resolve() if spec is not None and spec.has_location and spec.origin else None


def _is_known(source: Source, place: Path, sources: Sequence[Source], listed: Sequence[Path]) -> bool:
    """Tell whether a file is one that the signature of a run speaks of."""
    if _is_own(source, place):
        return True
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "purelib", "platlib")]
    if source.module and any(place.is_relative_to(root) for root in installed):
        return True
    return source.sha256 == digest(place) and as_it_was(folder_of(place, source.module), sources, listed)


def _is_own(source: Source, place: Path) -> bool:
    """Tell whether a file lies where it was when the run was made, and is the user's."""
    return place == Path(source.given) and (not POSIX or place.stat().st_uid == os.geteuid())


def _names(files: Sequence[Source], taken: Sequence[tuple[Source, Path]]) -> str:
    """Return what would be executed: name, role, path and hash."""
    names = []
    for source, place in taken:
        of_module = f"module {source.module}, " if source.module else ""
        names.append(f"{place} ({source.role}, {of_module}sha256 {digest(place)[:12]})")
    return ", ".join([*names, *(str(source) for source in files if source not in [known for known, _ in taken])])
