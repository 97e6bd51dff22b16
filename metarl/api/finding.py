"""The family of a run: metarl's own, one of this session, or that of a user's file, which is found and imported.

What a run says of files, and in which order they are looked for, stands in metarl/run/sources.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metarl.envs import get
from metarl.envs.external import child
from metarl.envs.family import Family
from metarl.envs.registry import is_registered, origin_of, sources_of
from metarl.envs.robots.file import read_file
from metarl.errors import UserError, tell
from metarl.run.admission import admit, admitted, uses_present
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig
from metarl.run.sources import ROBOT, SESSION, Source, find, named, not_found, reach, tell_changes


def own_name(run: RunConfig) -> str:
    """Return the name of a run's family without the file or module before it."""
    return run.family.rpartition(":")[2]


def family_of(
    folder: RunFolder, run: RunConfig, *, trust: bool = False, source: Path | str | None = None
) -> tuple[Family, RunConfig]:
    """Return the family of a run, and the run with its files as they are now.

    Args:
        folder: the run folder.
        run: the run's settings.
        trust: execute the files that the run names even where this user did not make it.
        source: file or module that defines the family, in place of the one that the run names.

    Raises:
        UserError: a file is not found or may not be executed, or what it registers is not the family.
    """
    name = own_name(run)
    entry = next((entry for entry in run.sources if entry.role in ("family", SESSION, ROBOT)), None)
    if source is not None:
        if entry is None:
            raise UserError(f"Got --source {source} for {folder}, whose family {name} is metarl's own. Leave it out.")
        # Where the run's other files are is its word alone: it counts where these may be executed.
        others = [other for other in run.sources if other is not entry]
        places = admitted(folder.path, others, signed=folder.signed(), trust=trust)
        file = Path(source).resolve() if str(source).endswith(".py") else None
        _reach(run.sources, {**places, entry.role: file}, file, present=True)
        family = get(f"{source}:{name}")
        tell_changes(folder.path, run.sources, _files(family))
    elif entry is None:
        if ":" in run.family:
            raise UserError(
                f"{folder}: got the family {run.family} and no file for it in `sources`. Use --source FILE."
            )
        family = get(name)
    elif is_registered(name):
        family = get(name)
        _tell_other(folder, run, family)
    elif entry.role == SESSION:
        where = f"the program {entry.given}" if entry.given else "a session (a notebook or a prompt)"
        raise UserError(
            f"{folder} was trained on {name}, which was defined in {where}. Define and register it here first, or "
            "write it to a file that does, and say which with --source FILE (in Python source=)."
        )
    elif entry.role == ROBOT:
        family = _robot(folder, run, entry, trust=trust)
    else:
        signed = folder.signed()
        places = admit(folder.path, run.sources, signed=signed, trust=trust)
        present = uses_present(run.sources, places, signed=signed, trust=trust)
        where = entry.module or places["family"]
        if not where:
            raise not_found(folder.path, entry)
        _reach(run.sources, places, None if entry.module else places["family"], present=present)
        family = _imported(f"{where}:{name}", entry, present)
        # Of several packages of one name, Python may take another.
        taken = {
            role: file
            for role, file in _files(family).items()
            if (place := places.get(role)) is None or not place.samefile(file)
        }
        tell_changes(folder.path, run.sources, taken)
    return family, replace(run, sources=sources_of(family))


def _robot(folder: RunFolder, run: RunConfig, entry: Source, *, trust: bool) -> Family:
    """Return the family of a robot file. Reading it needs no trust; functions of a user's that it names are code."""
    place = find(entry, folder.path)
    if place is None:
        raise not_found(folder.path, entry)
    own = read_file(place).own_files()
    present = True
    if own:
        signed = folder.signed()
        places = admit(folder.path, run.sources, signed=signed, trust=trust)
        listed = [file for file in places.values() if file is not None]
        strange = [file for file in own if file.is_file() and not any(file.samefile(known) for known in listed)]
        if strange and not trust:
            raise UserError(
                f"Using {folder} would execute {', '.join(map(str, strange))}, which {place} names now, and the "
                "run does not. If you trust that code, add --trust (in Python trust=True)."
            )
        present = uses_present(run.sources, places, signed=signed, trust=trust)
        _reach(run.sources, places, own[0], present=present)
    family = get(f"{place}:{own_name(run)}", present=present)
    tell_changes(folder.path, named(run.sources), _files(family))
    return family


def _reach(sources: Sequence[Source], places: Mapping[str, Path | None], file: Path | None, *, present: bool) -> None:
    """Let this process, and the worker processes of environments, import the packages of a run's files."""
    reached = reach(sources, places, file, present=present)
    child.FOLDERS += [folder for folder in reached if folder not in child.FOLDERS]
    (child.AVOIDED.discard if present else child.AVOIDED.add)(str(Path.cwd()))


def _imported(name: str, entry: Source, present: bool) -> Family:
    """Return a family by its name with its file or module; say what helps where that module is not found."""
    try:
        return get(name, present=present)
    except UserError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is None or not f"{entry.module}.".startswith(f"{missing}."):
            raise
        raise UserError(f"{error}, or say where the file is with --source FILE (in Python source=)") from error


def _files(family: Family) -> dict[str, Path]:
    """Return by role where the files are that a family takes."""
    return {source.role: Path(source.given) for source in sources_of(family) if source.given and source.role != SESSION}


def _tell_other(folder: RunFolder, run: RunConfig, family: Family) -> None:
    """Say in which files the family that is there already differs from that of a run."""
    now = sources_of(family)
    found = {source.role: Path(source.given) for source in now if source.given and source.role != SESSION}
    recorded = named(run.sources)
    if recorded and not found:
        origin = origin_of(family)
        where = "metarl's own" if origin is None else f"of {origin.program or 'this session'}"
        tell(f"{folder} was trained on {family.full_name} of {recorded[0].label}; the one taken is {where}")
    tell_changes(folder.path, recorded, found)
