"""Tables of assays: which molecules each of them found active, and which inactive.

A CSV file is *wide*, a row a molecule and a column an assay, as Tox21 and SIDER are published; or *long*, a row a
measurement with the names of its assay, as ChEMBL and FS-Mol give them. It is long where a column of assays is named,
or where it has one of the names in ASSAY_COLUMNS and another one of those in VALUE_COLUMNS.

A value is 0 (inactive), 1 (active) or nothing (not measured); or any number, where a threshold says from which one on,
or up to which one, a molecule is active.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.config import check
from metarl.errors import UserError, nearest, tell
from metarl.fewshot.reading.tables import headed, listed, read_rows

ASSAY_COLUMNS = ("assay", "assay_id", "assay_name", "assay_chembl_id", "task", "task_id")
"""Names by which the assays of a long table are recognised; capitals do not matter."""
VALUE_COLUMNS = ("value", "activity", "active", "label", "outcome", "y")
"""Names by which its values are."""
LABELS = ("inactive", "active")
"""Of the two ways."""

_OUTCOMES = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_BLANK = ("", "nan")

Outcomes = tuple[list[int], list[int]]
"""Molecules that an assay found inactive, and those that it found active."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a table of assays is read."""

    smiles: str = "smiles"
    """Column of the molecules; capitals do not matter."""
    assays: tuple[str, ...] = ()
    """Assays to use, as names or patterns (NR-*); if not given, all of a long table, and all columns of a wide one that
    hold nothing but 0, 1 and blanks."""
    assay: str = ""
    """Column with the name of the assay, in a table that has a row for each measurement."""
    value: str = ""
    """Column with what was measured, in such a table."""
    threshold: float | None = None
    """Value from which on a molecule is active; if not given, values are 0 and 1."""
    active: Literal["above", "below"] = "above"
    """Side of the threshold that is active: below for concentrations (IC50), above for their logarithms (pIC50)."""

    least: int = 2
    """Molecules of each kind without which an assay is left out before assays are split; as many as shot and query
    together keep every split free of assays that are too small."""

    def __post_init__(self) -> None:
        check(self, at_least={"least": 2})
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UserError(f"Got --threshold {self.threshold}. Give a finite number.")
        if self.active == "below" and self.threshold is None:
            raise UserError("Got --active below and no threshold. Give one, as --threshold 1000.")


@dataclass(frozen=True, kw_only=True)
class Assays:
    """What a table holds.

    Attributes:
        smiles: of all molecules.
        measured: assay -> its outcomes, as places in `smiles`.
    """

    smiles: list[str]
    measured: dict[str, Outcomes]


def read_assays(path: Path, options: Options) -> Assays:
    """Return what a table holds, and tell how it was read.

    Raises:
        UserError: a column is missing, or a value is not what it should be; says where.
    """
    header, rows = _table(path)
    column = _column(path, header, options.smiles, "smiles")
    bare = next((number for number, row in enumerate(rows, start=2) if not row[column].strip()), None)
    if bare is not None:
        raise UserError(f"Row {bare} of {path} has no SMILES. Give it one, or take it out.")
    long = _long_columns(path, header, options)
    if long is None:
        return _wide(path, header, rows, column, options)
    return _long(path, header, rows, (column, *long), options)


# -- columns ----------------------------------------------------------------------------------------------------------


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows."""
    rows = read_rows(path)
    if len(rows) < 2:
        raise UserError(f"{path} has {len(rows)} rows. Give a row of column names and a row for each molecule.")
    return headed(rows, str(path), each="molecule")


def _column(path: Path, header: list[str], name: str, option: str) -> int:
    """Return the place of the column that an option names."""
    places = [place for place, other in enumerate(header) if other.lower() == name.lower()]
    if not places:
        raise UserError(f"{path} has no column '{name}'.{nearest(name, header)} Name it by --{option}.")
    if len(places) > 1:
        raise UserError(f"{path} has {len(places)} columns '{name}'. Give every column a name of its own.")
    return places[0]


def _long_columns(path: Path, header: list[str], options: Options) -> tuple[int, int] | None:
    """Return the columns of assays and of values of a long table; None of a wide one."""
    known = [
        [name for name in header if name.lower() in names and name.lower() != options.smiles.lower()]
        for names in (ASSAY_COLUMNS, VALUE_COLUMNS)
    ]
    if not options.assay and not options.value and not all(known):
        return None
    found = []
    for option, given, names in zip(("assay", "value"), (options.assay, options.value), known, strict=True):
        if not given and len(names) != 1:
            words = f"{len(names)} columns that may be it ({', '.join(names)})" if names else "no column that is known"
            raise UserError(
                f"{path} has a row for each measurement, and {words} for the {option}; it has {listed(header)}. "
                f"Name it by --{option}."
            )
        found.append(_column(path, header, given or names[0], option))
    return found[0], found[1]


# -- the two forms ----------------------------------------------------------------------------------------------------


def _wide(path: Path, header: list[str], rows: list[list[str]], smiles: int, options: Options) -> Assays:
    places = [place for place in range(len(header)) if place != smiles]
    if options.assays:
        names = _chosen(path, [header[place] for place in places], options.assays)
        places = [_column(path, header, name, "assays") for name in names]
    elif options.threshold is not None:
        raise UserError(
            f"Got --threshold {options.threshold:g}, and nothing says which columns of {path} it is for; it has "
            f"{listed(header)}. Name them by --assays."
        )
    else:
        places = [
            place
            for place in places
            if {row[place].strip().lower() for row in rows} <= {*_OUTCOMES, *_BLANK}
            and any(row[place].strip().lower() not in _BLANK for row in rows)
        ]
        if not places:
            raise UserError(
                f"{path} has no column of nothing but 0, 1 and blanks; it has {listed(header)}. Name those of "
                "assays by --assays, with a --threshold."
            )
        tell(
            f"{path.name}: {len(places)} columns are taken for assays: {listed([header[i] for i in places])} "
            "(--assays)."
        )
    measured: dict[str, Outcomes] = {}
    for place in places:
        outcomes = measured[header[place]] = ([], [])
        for number, row in enumerate(rows):
            outcome = _outcome(path, number, row[place], header[place], options)
            if outcome is not None:
                outcomes[outcome].append(number)
    return Assays(smiles=[row[smiles].strip() for row in rows], measured=measured)


def _long(
    path: Path, header: list[str], rows: list[list[str]], columns: tuple[int, int, int], options: Options
) -> Assays:
    smiles, assay, value = columns
    tell(f"{path.name}: a row a measurement; assays are in {header[assay]} and outcomes in {header[value]}.")
    every = dict.fromkeys(row[assay].strip() for row in rows)
    chosen = set(_chosen(path, list(every), options.assays) if options.assays else every)
    molecules: dict[str, int] = {}
    found: dict[str, dict[int, set[int]]] = {}
    again = 0
    for number, row in enumerate(rows):
        name = row[assay].strip()
        outcome = _outcome(path, number, row[value], name, options) if name in chosen else None
        if outcome is None:
            continue
        if not name:
            raise UserError(f"Row {number + 2} of {path} has no assay. Give it one, or take it out.")
        molecule = molecules.setdefault(row[smiles].strip(), len(molecules))
        outcomes = found.setdefault(name, {}).setdefault(molecule, set())
        again += bool(outcomes)
        outcomes.add(outcome)
    measured = {
        name: (
            [molecule for molecule, outcomes in own.items() if outcomes == {0}],
            [molecule for molecule, outcomes in own.items() if outcomes == {1}],
        )
        for name, own in found.items()
    }
    if again:
        both = sum(len(outcomes) > 1 for own in found.values() for outcomes in own.values())
        tell(
            f"{path.name}: {again} rows measure a molecule again in the same assay: those that agree count once, and "
            f"{both} molecules of an assay that have both outcomes are left out of it."
        )
    return Assays(smiles=list(molecules), measured=measured)


def _chosen(path: Path, names: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return the names that are asked for, by name or pattern, in the order of the table."""
    chosen: set[str] = set()
    for pattern in asked:
        found = {pattern} & set(names) or set(fnmatch.filter(names, pattern))
        if not found:
            raise UserError(f"{path} has no assay '{pattern}'.{nearest(pattern, names)}")
        chosen |= found
    return [name for name in names if name in chosen]


def _outcome(path: Path, number: int, text: str, assay: str, options: Options) -> int | None:
    """Return what a value says: 0 (inactive), 1 (active), or None (not measured)."""
    text = text.strip()
    if text.lower() in _BLANK:
        return None
    if options.threshold is None:
        if text.lower() not in _OUTCOMES:
            raise UserError(
                f"Row {number + 2} of {path} has '{text[:200]}' for the assay '{assay}'. Give 0, 1 or nothing; or say "
                "by --threshold from which value on a molecule is active."
            )
        return _OUTCOMES[text.lower()]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"Row {number + 2} of {path} has '{text[:200]}' for the assay '{assay}'. Give a number or nothing."
        )
    return int(value >= options.threshold if options.active == "above" else value <= options.threshold)
