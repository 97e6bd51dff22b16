"""Molecules: learn which are active in an assay from a few of each kind.

A CSV file with a column of SMILES and one column for every assay, with 0 (inactive), 1 (active) or nothing (not
measured), as Tox21 or SIDER are published. A task is one assay; its two ways are inactive (label 0) and active
(label 1), in this order: activity means the same in all assays, so that the labels are not permuted. Assays are split
into train, validation and test; a molecule may stand in several.

Items are fingerprints: Morgan's of radius 2, by RDKit (`pip install 'metarl-suite[molecules]'`), or a function of
one's own.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from metarl.errors import UserError, nearest
from metarl.fewshot.classes import ClassSplit, Drawn, draw_items
from metarl.fewshot.data.files import find_root, wrong_layout
from metarl.fewshot.data.splitting import FRACTIONS, split_at_random, split_by_list
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support, check_split, keyed
from metarl.fewshot.form import ItemForm

DEFAULT_SIZE = 2048
VARIANTS = {"morgan": "a CSV file of SMILES and assays; Morgan fingerprints by RDKit"}
LABELS = ("inactive", "active")
"""Of the two ways."""

Fingerprint = Callable[[Sequence[str]], np.ndarray]
"""From SMILES to items, one a row: bytes or other numbers."""


def load(variant: str, root: Path | None, size: int) -> MoleculeData:
    """Return the molecules of a CSV file, or of the only CSV file in a folder.

    Arguments and errors as in `metarl.fewshot.data.load`; `size` is the length of the fingerprint.
    """
    place = find_root("molecules", root, ("*.csv",), ("one CSV file",))
    files = [place] if place.is_file() else sorted(place.glob("*.csv"))
    if len(files) != 1:
        raise wrong_layout("molecules", place, ["one CSV file"])
    return from_csv(files[0], fingerprint=partial(morgan, bits=size or DEFAULT_SIZE))


# -- fingerprints -----------------------------------------------------------------------------------------------------


def morgan(smiles: Sequence[str], bits: int = DEFAULT_SIZE, radius: int = 2) -> UInt8[np.ndarray, "molecules bits"]:
    """Return Morgan fingerprints, 0 or 1.

    Raises:
        UserError: RDKit is not there, or cannot read a molecule; says which.
    """
    try:
        chem, generators, base = (
            import_module(f"rdkit.{name}") for name in ("Chem", "Chem.rdFingerprintGenerator", "rdBase")
        )
    except ImportError as error:
        raise UserError(
            "Fingerprints of molecules need RDKit, which is not installed. Install it with "
            "`pip install 'metarl-suite[molecules]'`, or pass a function of your own as `fingerprint`."
        ) from error
    generator = generators.GetMorganGenerator(radius=radius, fpSize=bits)
    found = np.zeros((len(smiles), bits), dtype=np.uint8)
    # RDKit writes about every doubtful molecule; one that cannot be read is an error below.
    with base.BlockLogs():
        for row, text in enumerate(smiles):
            molecule = chem.MolFromSmiles(text)
            if molecule is None:
                raise UserError(f"Molecule {row + 1} has the SMILES '{text}', which RDKit cannot read. Take it out.")
            found[row] = generator.GetFingerprintAsNumPy(molecule)
    return found


# -- reading ----------------------------------------------------------------------------------------------------------


def from_csv(
    path: Path,
    *,
    smiles: str = "smiles",
    assays: Sequence[str] | None = None,
    splits: Mapping[str, Collection[str]] | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    fingerprint: Fingerprint = morgan,
) -> MoleculeData:
    """Return few-shot tasks from a CSV file of molecules.

    Args:
        path: of the file; its first row names the columns.
        smiles: column of the molecules; capitals do not matter.
        assays: columns to be used. None: all columns that hold nothing but 0, 1 and blanks.
        splits: split -> its assays. None: at random.
        fractions: parts of the assays in train, validation and test, where `splits` is None.
        seed: of the random split.
        fingerprint: gives the items.

    Raises:
        UserError: a column is missing, a value is not 0, 1 or blank, an assay has no active or no inactive molecules,
            or a molecule cannot be read; says where.
    """
    header, rows = _table(path)
    column = next((i for i, name in enumerate(header) if name.lower() == smiles.lower()), None)
    if column is None:
        raise UserError(f"{path} has no column '{smiles}'.{nearest(smiles, header)}")
    measured = {name: _outcomes(path, rows, header.index(name), name) for name in _assays(path, header, rows, assays)}
    names = list(measured)
    if splits is None:
        parts = split_at_random(f"assays of {path.name}", names, seed, fractions)
    else:
        parts = split_by_list(f"assays of {path.name}", names, splits, known=names)
    return MoleculeData(
        name=f"molecules-{path.stem}",
        table=_fingerprints(fingerprint, [row[column].strip() for row in rows]),
        splits={split: _split([(names[i], measured[names[i]]) for i in part]) for split, part in parts.items()},
        settings={"file": path.name, "seed": seed} if splits is None else {"file": path.name, "splits": "given"},
        prints=fingerprint,
    )


def _fingerprints(fingerprint: Fingerprint, smiles: list[str]) -> Shaped[Tensor, "molecules *item"]:
    table = np.ascontiguousarray(fingerprint(smiles))
    if len(table) != len(smiles) or table.ndim < 2:
        raise UserError(
            f"Got {len(smiles)} molecules and fingerprints of the shape {table.shape}. Give one row for each."
        )
    bad = np.flatnonzero(~np.isfinite(table.reshape(len(table), -1)).all(1))
    if len(bad):
        raise UserError(
            f"The fingerprint of molecule {bad[0] + 1} ('{smiles[bad[0]]}') has values that are not finite."
        )
    return torch.from_numpy(table)


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 2:
        raise UserError(f"{path} has {len(rows)} rows. Give a row of column names and a row for each molecule.")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UserError(f"Row {number} of {path} has {len(row)} columns, and the first has {len(header)}.")
    return header, rows[1:]


def _assays(path: Path, header: list[str], rows: list[list[str]], asked: Sequence[str] | None) -> list[str]:
    if asked is not None:
        unknown = [name for name in asked if name not in header]
        if unknown:
            raise UserError(f"{path} has no column '{unknown[0]}'.{nearest(unknown[0], header)}")
        return list(asked)
    found = [
        name
        for i, name in enumerate(header)
        if {row[i].strip() for row in rows} <= {"", "0", "1", "0.0", "1.0"} and any(row[i].strip() for row in rows)
    ]
    if not found:
        raise UserError(f"{path} has no column of nothing but 0, 1 and blanks; it has {', '.join(header)}.")
    return found


def _outcomes(path: Path, rows: list[list[str]], column: int, name: str) -> tuple[list[int], list[int]]:
    """Return the rows that an assay found inactive, and those that it found active."""
    found: tuple[list[int], list[int]] = ([], [])
    for number, row in enumerate(rows):
        text = row[column].strip()
        if text in ("0", "0.0", "1", "1.0"):
            found[text[0] == "1"].append(number)
        elif text:
            raise UserError(f"Row {number + 2} of {path} has '{text}' for the assay '{name}'. Give 0, 1 or nothing.")
    for label, members in zip(LABELS, found, strict=True):
        if not members:
            raise UserError(f"The assay '{name}' of {path} has no {label} molecule. Leave it out with `assays`.")
    return found


def _split(measured: Sequence[tuple[str, tuple[list[int], list[int]]]]) -> ClassSplit:
    """Return the assays of a split: two classes each, whose items are rows of the table of molecules."""
    rows = [row for _, outcomes in measured for members in outcomes for row in members]
    return ClassSplit(
        items=torch.tensor(rows, dtype=torch.int64)[:, None],
        sizes=torch.tensor([len(members) for _, outcomes in measured for members in outcomes]),
        names=tuple(f"{name}/{label}" for name, _ in measured for label in LABELS),
        groups=tuple(name for name, _ in measured for _ in LABELS),
        origins=tuple(f"molecule {row + 1}" for row in rows),
    )


# -- the data set -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MoleculeData:
    """Assays as two-way tasks: a `Source` (see the module).

    Attributes:
        name: in reports.
        table: item of every molecule.
        splits: classes are the outcomes of assays, inactive before active; items are rows of the table.
        settings: what it was made with.
        prints: gives the items of other molecules.
    """

    name: str
    table: Shaped[Tensor, "molecules *item"]
    splits: Mapping[str, ClassSplit]
    settings: Mapping[str, Any] = field(default_factory=dict)
    prints: Fingerprint | None = None
    outputs: int = 0

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        return tuple(self.table.shape[1:])

    @property
    def form(self) -> ItemForm:
        """What its items are, for `predict`."""
        return self._form

    @cached_property
    def _form(self) -> ItemForm:
        return ItemForm(
            name=self.name,
            kind="fingerprint",
            layout="nf" if len(self.item_shape) == 1 else "plain",
            shape=self.item_shape,
            bytes=False,
            low=float(self.table.min()),
            high=float(self.table.max()),
            labels=LABELS,
        )

    def split(self, name: str) -> ClassSplit:
        """Return the assays of a split.

        Raises:
            UserError: there is none of that name.
        """
        check_split(name, tuple(self.splits))
        return self.splits[name]

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        """Return episodes (see `Source`): every one an assay, drawn evenly."""
        return self.gather(split, self.draw(split, numbers, shape, seed))

    def gather(self, split: str, drawn: Drawn) -> Episodes:
        """Return the episodes of drawn rows."""
        return Episodes(
            support=Support(x=self.items(split, drawn.support_rows), y=drawn.support_y, way=2),
            query_x=self.items(split, drawn.query_rows),
            query_y=drawn.query_y,
        )

    def draw(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Drawn:
        """Draw the rows of episodes; arguments and errors as in `episodes`."""
        part = self.split(split)
        if shape.way != 2:
            raise UserError(f"Got {shape.way} ways, and an assay has 2: inactive and active. Ask for 2.")
        assays = keyed(numbers, 1, seed, split, "assay", device=part.items.device) % (len(part.names) // 2)
        classes = torch.cat((2 * assays, 2 * assays + 1), dim=1)
        return draw_items(part, f"{self.name} ({split})", classes, numbers, shape, (seed, split))

    def items(self, split: str, rows: Int[Tensor, "*N"]) -> Float[Tensor, "*N *item"]:
        """Return the items of some rows of a split; fingerprints are 0 or 1, not scaled."""
        molecules = self.split(split).items[rows.flatten(), 0]
        return self.table.index_select(0, molecules).float().unflatten(0, rows.shape)

    def to(self, device: torch.device) -> MoleculeData:
        """Return it with all items on `device`."""
        splits = {name: part.to(device) for name, part in self.splits.items()}
        return replace(self, table=self.table.to(device), splits=splits)

    def describe(self) -> Mapping[str, Any]:
        """Return name, settings, sizes and fingerprint."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "item_shape": list(self.item_shape),
            "splits": {
                name: {"assays": len(part.names) // 2, "measurements": len(part.items)}
                for name, part in self.splits.items()
            },
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all molecules and assays."""
        digest = hashlib.sha256(np.ascontiguousarray(self.table.cpu().numpy()).tobytes())
        for name, part in self.splits.items():
            digest.update(repr((name, part.names, part.sizes.tolist(), part.items.tolist())).encode())
        return digest.hexdigest()
