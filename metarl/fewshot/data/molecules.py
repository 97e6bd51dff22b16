"""Molecules: learn which are active in an assay from a few of each kind.

A CSV file of SMILES and assays (see assays.py). A task is one assay; its two ways are inactive (label 0) and active
(label 1), in this order: activity means the same in all assays, so that the labels are not permuted. Assays are split
into train, validation and test; a molecule may stand in several.

An assay needs `least` molecules of each kind before assays are split, and as many as an episode has where episodes are
drawn. Those that have fewer are left out, which is told; `describe()` has the former.

Items are fingerprints (fingerprints.py): Morgan's of radius 2, by RDKit (`pip install 'metarl-suite[molecules]'`),
those of SMILES's substrings, or a function of one's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.config import to_plain
from metarl.errors import UserError, tell
from metarl.fewshot.classes import ClassSplit, Drawn, draw_items
from metarl.fewshot.data.assays import LABELS, Options, Outcomes, read_assays
from metarl.fewshot.data.files import find_root, wrong_layout
from metarl.fewshot.data.fingerprints import DEFAULT_SIZE, Fingerprint, lingo, morgan, table_of
from metarl.fewshot.data.splitting import FRACTIONS, split_at_random, split_by_list
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support, check_split, keyed
from metarl.fewshot.form import ItemForm
from metarl.fewshot.reading.tables import listed

VARIANTS = {
    "morgan": "a CSV file of SMILES and assays; Morgan fingerprints by RDKit",
    "lingo": "the same; fingerprints of the substrings of 4 letters that SMILES have, without RDKit",
}


def load(variant: str, root: Path | None, size: int, options: Options) -> MoleculeData:
    """Return the molecules of a CSV file, or of the only CSV file in a folder.

    Arguments and errors as in `metarl.fewshot.data.load`; `size` is the length of the fingerprint.
    """
    place = find_root("molecules", root, ("*.csv",), ("one CSV file",))
    files = [place] if place.is_file() else sorted(place.glob("*.csv"))
    if len(files) != 1:
        raise wrong_layout("molecules", place, ["one CSV file"])
    kinds = {"morgan": morgan, "lingo": lingo}
    return _made(files[0], options, partial(kinds[variant], bits=size or DEFAULT_SIZE))


# -- reading ----------------------------------------------------------------------------------------------------------


def from_csv(
    path: Path,
    *,
    smiles: str = "smiles",
    assays: Sequence[str] | None = None,
    assay: str = "",
    value: str = "",
    threshold: float | None = None,
    active: Literal["above", "below"] = "above",
    least: int = 2,
    splits: Mapping[str, Collection[str]] | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    fingerprint: Fingerprint = morgan,
) -> MoleculeData:
    """Return few-shot tasks from a CSV file of molecules.

    Args:
        path: of the file; its first row names the columns.
        smiles: column of the molecules; capitals do not matter.
        assays: those to be used, as names or patterns. None: all of a long table; of a wide one all columns that hold
            nothing but 0, 1 and blanks.
        assay: column with the assay's name, of a table with a row for each measurement.
        value: column with what was measured, of such a table.
        threshold: value from which on a molecule is active. None: values are 0 and 1.
        active: side of the threshold that is active.
        least: molecules of each kind that an assay has, to be used.
        splits: split -> its assays. None: at random.
        fractions: parts of the assays in train, validation and test, where `splits` is None.
        seed: of the random split.
        fingerprint: gives the items.

    Raises:
        UserError: a column is missing, a value is not what it should be, too few assays are left, or a molecule cannot
            be read; says where.
    """
    options = Options(
        smiles=smiles,
        assays=tuple(assays or ()),
        assay=assay,
        value=value,
        threshold=threshold,
        active=active,
        least=least,
    )
    return _made(path, options, fingerprint, splits, fractions, seed)


def _made(
    path: Path,
    options: Options,
    fingerprint: Fingerprint,
    splits: Mapping[str, Collection[str]] | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
) -> MoleculeData:
    found = read_assays(path, options)
    sizes = {name: (len(inactive), len(active)) for name, (inactive, active) in found.measured.items()}
    few = {name: own for name, own in sizes.items() if min(own) < options.least}
    if few:
        tell(_left_out(path.name, few, len(found.measured), options.least))
    every = list(found.measured)
    if splits is None:
        every = [name for name in every if name not in few]
        parts = split_at_random(f"assays of {path.name}", every, seed, fractions)
    else:
        parts = split_by_list(f"assays of {path.name}", every, splits, known=every)
        parts = {split: [place for place in part if every[place] not in few] for split, part in parts.items()}
        bare = next((split for split, part in parts.items() if not part), None)
        if bare is not None:
            raise UserError(f"All assays of the split '{bare}' of {path.name} are left out. Give it others.")
    asked = {key: setting for key, setting in to_plain(options).items() if setting != to_plain(Options())[key]}
    split = {"seed": seed} if splits is None else {"splits": "given"}
    left_out = {"left_out": {name: list(own) for name, own in few.items()}} if few else {}
    return MoleculeData(
        name=f"molecules-{path.stem}",
        table=table_of(fingerprint, found.smiles),
        splits={split: _split([(every[i], found.measured[every[i]]) for i in part]) for split, part in parts.items()},
        settings={"file": path.name, **split, **asked, **left_out},
        prints=fingerprint,
    )


def _left_out(where: str, few: Mapping[str, tuple[int, ...]], of: int, least: int) -> str:
    """Return the line about assays that have too few molecules of a kind."""
    words = []
    for name, sizes in few.items():
        short = [f"{size} {label}" for label, size in zip(LABELS, sizes, strict=True) if size < least]
        words.append(f"{name} ({', '.join(short)})")
    return (
        f"{where}: left out {len(few)} of {of} assays, which have fewer than {least} molecules of a kind: "
        f"{listed(words)}."
    )


def _split(measured: Sequence[tuple[str, Outcomes]]) -> ClassSplit:
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
    _told: set[tuple[str, int]] = field(default_factory=set, repr=False, compare=False)

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

    def bounds(self, split: str) -> Sequence[int]:
        """Return where its rows begin and end (see `metarl.fewshot.manifest.Rows`)."""
        return 0, len(self.split(split).items)

    def draw(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Drawn:
        """Draw the rows of episodes; arguments and errors as in `episodes`."""
        part = self.split(split)
        if shape.way != 2:
            raise UserError(f"Got {shape.way} ways, and an assay has 2: inactive and active. Ask for 2.")
        large = self._large(split, shape)
        assays = large[keyed(numbers, 1, seed, split, "assay", device=part.items.device) % len(large)]
        classes = torch.cat((2 * assays, 2 * assays + 1), dim=1)
        return draw_items(
            part,
            f"{self.name} ({split})",
            classes,
            numbers,
            shape,
            (seed, split),
            torch.cat((2 * large, 2 * large + 1)),
        )

    def most_way(self, split: str) -> int:
        """Return the ways of its episodes."""
        self.split(split)
        return 2

    def _large(self, split: str, shape: EpisodeShape) -> Int[Tensor, " n"]:
        """Return the assays that have enough molecules for an episode; tell once which have not."""
        part = self.split(split)
        each = shape.shot + shape.query
        sizes = part.sizes.unflatten(0, (-1, 2))
        enough = sizes.amin(1) >= each
        if not bool(enough.any()):
            best = int(sizes.amin(1).argmax())
            inactive, active = sizes[best].tolist()
            raise UserError(
                f"Got {shape.shot} shots and {shape.query} queries, {each} molecules of each kind, and no assay of "
                f"{self.name} ({split}) has so many: '{part.groups[2 * best]}' has {inactive} inactive and {active} "
                f"active ones. Ask for fewer; or give --least {each}, which leaves small assays out before the split."
            )
        if not bool(enough.all()) and (split, each) not in self._told:
            self._told.add((split, each))
            few = {part.groups[2 * row]: tuple(sizes[row].tolist()) for row in torch.nonzero(~enough)[:, 0].tolist()}
            tell(_left_out(f"{self.name} ({split})", few, len(sizes), each))
        return torch.nonzero(enough)[:, 0]

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
