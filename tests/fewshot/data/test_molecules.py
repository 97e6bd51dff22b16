from __future__ import annotations

import builtins
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.data import load, molecules
from metarl.fewshot.episodes import EpisodeShape, Source

SHAPE = EpisodeShape(way=2, shot=2, query=3)


def letters(smiles: Sequence[str]) -> np.ndarray:
    """Return counts of C, N and O in place of a fingerprint."""
    return np.array([[text.count(letter) for letter in "CNO"] for text in smiles], np.uint8)


def write(path: Path, rows: list[list[str]], header: list[str]) -> Path:
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten assays of 40 molecules; in assay a molecule m is active if m + a is a multiple of 3, unmeasured if of 7."""
    rows = []
    for m in range(40):
        outcomes = ["" if (m + a) % 7 == 0 else "1" if (m + a) % 3 == 0 else "0" for a in range(10)]
        rows.append([f"mol{m}", "C" * (m % 8 + 1) + "N" * (m // 8), "1.25", *outcomes])
    return write(tmp_path / "assays.csv", rows, ["id", "SMILES", "weight", *(f"NR-{a}" for a in range(10))])


def test_columns_and_splits(table: Path) -> None:
    data = molecules.from_csv(table, fingerprint=letters)
    assert isinstance(data, Source)
    assert (data.name, data.item_shape, data.outputs) == ("molecules-assays", (3,), 0)
    assert {name: len(part.names) // 2 for name, part in data.splits.items()} == {
        "train": 6,
        "validation": 2,
        "test": 2,
    }
    groups = [set(part.groups) for part in data.splits.values()]
    assert set.union(*groups) == {f"NR-{a}" for a in range(10)}
    assert sum(map(len, groups)) == 10
    for part in data.splits.values():
        for place, name in enumerate(part.names):
            assay, label = name.split("/")
            start = int(part.starts[place])
            found = part.items[start : start + int(part.sizes[place]), 0].tolist()
            a = int(assay.removeprefix("NR-"))
            measured = [m for m in range(40) if (m + a) % 7]
            assert found == [m for m in measured if ((m + a) % 3 == 0) == (label == "active")]
    assert data.describe()["splits"]["test"]["assays"] == 2


def test_episodes_are_assays_with_active_as_one(table: Path) -> None:
    data = molecules.from_csv(table, fingerprint=letters, splits={"train": ["NR-0", "NR-4"], "test": ["NR-5"]})
    drawn = data.draw("train", range(80), SHAPE, seed=0)
    part = data.splits["train"]
    seen = set()
    for rows, labels, queries in zip(drawn.support_rows, drawn.support_y, drawn.query_rows, strict=True):
        names = [part.names[label] for label in part.labels[rows].tolist()]
        (assay,) = {name.split("/")[0] for name in names}
        assert [name.split("/")[1] for name in names] == [molecules.LABELS[y] for y in labels.tolist()]
        assert not set(rows.tolist()) & set(queries.tolist())
        seen.add(assay)
    assert seen == {"NR-0", "NR-4"}
    episodes = data.episodes("train", range(80), SHAPE, seed=0)
    smiles = [line.split(",")[1] for line in table.read_text().splitlines()[1:]]
    expected = torch.from_numpy(letters(smiles)).float()[part.items[drawn.support_rows.flatten(), 0]]
    assert torch.equal(episodes.support.x.flatten(0, 1), expected)
    halves = [data.episodes("train", numbers, SHAPE, seed=0) for numbers in (range(40), range(40, 80))]
    assert torch.equal(torch.cat([half.query_x for half in halves]), episodes.query_x)


def test_two_ways_and_enough_molecules(table: Path) -> None:
    data = molecules.from_csv(table, fingerprint=letters)
    with pytest.raises(UserError, match="Got 5 ways, and an assay has 2"):
        data.episodes("train", [0], EpisodeShape(), seed=0)
    with pytest.raises(
        UserError, match=r"25 items of a class, and the class 'NR-\d/active' of molecules-assays \(train\) has 1"
    ):
        data.episodes("train", [0], EpisodeShape(way=2, shot=10, query=15), seed=0)


def test_bad_files_are_told(tmp_path: Path, table: Path) -> None:
    path = tmp_path / "bad.csv"
    with pytest.raises(UserError, match=r"no column 'structure'. Choose from: id, SMILES"):
        molecules.from_csv(table, smiles="structure", fingerprint=letters)
    with pytest.raises(UserError, match=r"no column 'NR-11'. Did you mean 'NR-1'"):
        molecules.from_csv(table, assays=["NR-1", "NR-11"], fingerprint=letters)
    with pytest.raises(UserError, match=r"Row 2 of .* has '1.25' for the assay 'weight'. Give 0, 1 or nothing"):
        molecules.from_csv(table, assays=["weight", "NR-1"], fingerprint=letters)
    with pytest.raises(UserError, match="no column of nothing but 0, 1 and blanks"):
        molecules.from_csv(write(path, [["C", "0.5"]], ["smiles", "value"]), fingerprint=letters)
    with pytest.raises(UserError, match=r"assay 'a' of .* has no active molecule"):
        molecules.from_csv(write(path, [["C", "0"], ["N", "0"]], ["smiles", "a"]), fingerprint=letters)
    with pytest.raises(UserError, match=r"Row 3 of .* has 1 columns, and the first has 2"):
        molecules.from_csv(write(path, [["C", "0"], ["N"]], ["smiles", "a"]), fingerprint=letters)
    with pytest.raises(UserError, match="has 1 rows"):
        molecules.from_csv(write(path, [], ["smiles", "a"]), fingerprint=letters)
    with pytest.raises(UserError, match=r"Got 1 assays of bad\.csv"):
        molecules.from_csv(write(path, [["C", "0"], ["N", "1"]], ["smiles", "a"]), fingerprint=letters)


def test_bad_fingerprints_are_told(table: Path) -> None:
    with pytest.raises(UserError, match=r"40 molecules and fingerprints of the shape \(39, 3\)"):
        molecules.from_csv(table, fingerprint=lambda smiles: letters(smiles)[1:])
    with pytest.raises(UserError, match=r"molecule 1 \('C'\) has values that are not finite"):
        molecules.from_csv(table, fingerprint=lambda smiles: np.where(letters(smiles) > 1, 1.0, np.nan))


def test_missing_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "molecules").mkdir()
    with pytest.raises(UserError, match=r"Looked for: one CSV file\. Found: nothing, it is empty"):
        load("molecules", tmp_path)


def test_without_rdkit(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "rdkit":
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(molecules, "import_module", missing)
    with pytest.raises(UserError, match=r"need RDKit, which is not installed.*metarl-suite\[molecules\]"):
        load("molecules", table)


def test_fingerprints_by_rdkit(table: Path) -> None:
    pytest.importorskip("rdkit", reason="RDKit is not installed: pip install 'metarl-suite[molecules]'")
    importlib.import_module("rdkit.Chem")
    found = molecules.morgan(["CCO", "OCC", "c1ccccc1"])
    assert found.shape == (3, 2048)
    # One molecule written in two ways; ethanol has the environments of 3 atoms at radius 0, 1 and 2.
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert 3 <= found[0].sum() <= 9
    with pytest.raises(UserError, match=r"Molecule 2 has the SMILES 'C1CC', which RDKit cannot read"):
        molecules.morgan(["C", "C1CC"])
    data = load("molecules", table, size=256)
    assert data.item_shape == (256,)
    assert data.episodes("test", range(3), SHAPE, seed=0).query_x.unique().tolist() == [0.0, 1.0]
