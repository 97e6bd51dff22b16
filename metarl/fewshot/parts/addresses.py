"""Backbones by address: `file.py:name` or `package.module:name`, of a module or of a callable that makes one.

A run keeps the file's name and what `sources` says of it (metarl/run/sources.py). The file is executed only where this
user made the run, or trusts it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from metarl.errors import UserError, nearest
from metarl.fewshot.parts.own import Given
from metarl.imports import process_kept
from metarl.problems import in_words, note_users_module
from metarl.run.admission import admit, uses_present
from metarl.run.folder import RunFolder
from metarl.run.sources import Source, of_file, reach

ROLE = "backbone"
"""Of the file, in the sources of a run."""


def given_at(address: str, *, present: bool = True) -> tuple[Given, Source]:
    """Return the backbone at an address, and what a run says of its file.

    Args:
        address: its file or module, and its name.
        present: a module may be in the present folder.

    Raises:
        UserError: there is no such file, module or name, or importing it fails.
    """
    where, _, name = address.rpartition(":")
    module = _imported(where, present)
    if not hasattr(module, name):
        raise UserError(f"{where} has no '{name}'.{nearest(name, [key for key in vars(module) if key[0] != '_'])}")
    file = getattr(module, "__file__", None)
    named = "" if where.endswith(".py") else where
    source = of_file(ROLE, Path(file).resolve(), named) if file else Source(role=ROLE, module=where)
    return Given(f"{Path(where).name}:{name}", getattr(module, name)), source


def given_in(folder: Path, backbone: str, sources: tuple[Source, ...], *, trust: bool) -> tuple[Given, Source]:
    """Return the backbone of a run that was trained with one by address.

    Args:
        folder: the run folder.
        backbone: as the run has it.
        sources: what the run says of its files.
        trust: execute them though this user did not make the run.

    Raises:
        UserError: its file is not found, or may not be executed.
    """
    hint = "Say where it is with --backbone FILE:NAME (in Python backbone=)."
    entry = next((source for source in sources if source.role == ROLE), None)
    if entry is None:
        raise UserError(f"{folder}: got the backbone {backbone} and no file for it in `sources`. {hint}")
    signed = RunFolder(folder).signed()
    places = admit(folder, sources, signed=signed, trust=trust)
    present = uses_present(sources, places, signed=signed, trust=trust)
    where = entry.module or places[ROLE]
    if not where:
        raise UserError(f"{folder} needs {entry.label} (backbone), which is not at {entry.given or entry.path}. {hint}")
    if entry.module:
        reach(sources, places, present=present)
    return given_at(f"{where}:{backbone.rpartition(':')[2]}", present=present)


def _imported(where: str, present: bool) -> ModuleType:
    """Return the module called `package.module`, or the one in a file; its neighbours can be imported."""
    # Somebody's file may raise anything.
    try:
        if not where.endswith(".py"):
            if present and str(Path.cwd()) not in sys.path:
                sys.path.append(str(Path.cwd()))
            with process_kept():
                made = importlib.import_module(where)
            note_users_module(made)
            return made
        path = Path(where).expanduser().resolve()
        if not path.is_file():
            raise UserError(f"There is no file {path}. Correct the path.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        with process_kept():
            spec.loader.exec_module(made)
        note_users_module(made)
        return made
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"Importing {where} failed, {in_words(error)}. Mend it, or correct the address.") from error


def is_address(backbone: Any) -> bool:
    """Tell whether a backbone is named by an address that has not been looked up."""
    return isinstance(backbone, str) and not isinstance(backbone, Given) and ":" in backbone
