"""Where families of a user's were defined, and which files a run executes or reads that is trained on one."""

from __future__ import annotations

import inspect
import sys
import sysconfig
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from metarl.envs.external import child
from metarl.envs.external.adapter import GymnasiumFamily, source_of
from metarl.envs.family import Family
from metarl.envs.robots.robot_family import RobotFamily
from metarl.run.sources import SESSION, Source, of_file


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a family was defined."""

    source: str = ""
    """What registers it when it is imported: a module within a package, or the path of a file; empty for none."""
    program: str = ""
    """Where nothing does: the program that registered it while it ran; empty for a notebook or a prompt."""
    robot: RobotFamily | None = None
    """The family of a robot file, which is its source."""


def present() -> Origin:
    """Return the module whose import, or the program whose run, has come to this call."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    name = "__main__" if frame is None else frame.f_globals.get("__name__", "__main__")
    module = sys.modules.get(name)
    if name == "__main__" or module is None or not getattr(module, "__file__", None):
        file = getattr(sys.modules["__main__"], "__file__", None)
        return Origin(program=str(Path(file).resolve()) if file else "")
    return Origin(source=source_of(module))


def files_of(family: Family, origin: Origin | None) -> tuple[Source, ...]:
    """Return what a run says of the files that it executes.

    Args:
        family: what it is trained on.
        origin: where that was defined; None for one of metarl's own.
    """
    if origin is None:
        return ()
    if origin.robot is not None:
        return origin.robot.sources
    if not origin.source:
        sources = [Source(role=SESSION, given=origin.program)]
    elif origin.source.endswith(".py"):
        sources = [of_file("family", Path(origin.source))]
    else:
        file = getattr(sys.modules.get(origin.source), "__file__", None)
        sources = [
            of_file("family", Path(file), origin.source) if file else Source(role="family", module=origin.source)
        ]
    if isinstance(family, GymnasiumFamily):
        for role in ("make", "set_task"):
            source, _, _ = str(getattr(family, role)).rpartition(":")
            file = file_of(source, family.folder) if child.names_python(str(getattr(family, role))) else None
            if file is not None:
                sources.append(of_file(role, file, "" if source.endswith(".py") else source))
    return tuple(sources)


def file_of(source: str, folder: str) -> Path | None:
    """Return the file of a module of the user's without importing it; None where it is an installed one, or not found.

    Args:
        source: `package.module`, or the path of a file.
        folder: where it is looked for first.
    """
    if source.endswith(".py"):
        return Path(source) if Path(source).is_file() else None
    places: list[str] | None = [folder, str(Path.cwd()), *child.FOLDERS, *sys.path]
    name, spec = "", None
    for part in source.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, places)
        places = list(spec.submodule_search_locations or ()) if spec else []
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    file = Path(spec.origin).resolve()
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "purelib", "platlib")]
    return None if any(file.is_relative_to(folder) for folder in installed) else file
