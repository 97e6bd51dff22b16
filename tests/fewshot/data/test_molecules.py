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
from metarl.fewshot.data import fingerprints, load, molecules
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
        UserError,
        match=r"25 molecules of each kind, and no assay of molecules-assays \(train\) has so many: 'NR-\d' has",
    ):
        data.episodes("train", [0], EpisodeShape(way=2, shot=10, query=15), seed=0)


def test_bad_files_are_told(tmp_path: Path, table: Path) -> None:
    path = tmp_path / "bad.csv"
    with pytest.raises(UserError, match=r"no column 'structure'. Choose from: id, SMILES"):
        molecules.from_csv(table, smiles="structure", fingerprint=letters)
    with pytest.raises(UserError, match=r"no assay 'NR-11'. Did you mean 'NR-1'"):
        molecules.from_csv(table, assays=["NR-1", "NR-11"], fingerprint=letters)
    with pytest.raises(
        UserError, match=r"Row 2 of .* has '1.25' for the assay 'weight'. Give 0, 1 or nothing; or say by --thr"
    ):
        molecules.from_csv(table, assays=["weight", "NR-1"], fingerprint=letters)
    with pytest.raises(UserError, match="no column of nothing but 0, 1 and blanks"):
        molecules.from_csv(write(path, [["C", "0.5"]], ["smiles", "value"]), fingerprint=letters)
    with pytest.raises(UserError, match=r"Got 0 assays of bad\.csv"):
        molecules.from_csv(write(path, [["C", "0"], ["N", "0"]], ["smiles", "a"]), fingerprint=letters)
    with pytest.raises(UserError, match=r"Row 3 of .* has 1 columns, and the first has 2"):
        molecules.from_csv(write(path, [["C", "0"], ["N"]], ["smiles", "a"]), fingerprint=letters)
    with pytest.raises(UserError, match="has 1 rows"):
        molecules.from_csv(write(path, [], ["smiles", "a"]), fingerprint=letters)
    rows = [["C", "0"], ["N", "1"], ["CC", "0"], ["CN", "1"]]
    with pytest.raises(UserError, match=r"Got 1 assays of bad\.csv"):
        molecules.from_csv(write(path, rows, ["smiles", "a"]), fingerprint=letters)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"smiles;a\nC;1\n", r"has one column, 'smiles;a'\. Separate columns by commas"),
        (b"smiles\ta\nC\t1\n", r"Separate columns by commas"),
        ("smiles,µ\nC,1\n".encode("latin1"), r"is no text in UTF-8: byte 7 is 0xb5, .*Save it as UTF-8"),
        (b"smiles,a,a\nC,1,0\n", r"has 2 columns 'a'\. Give every column a name of its own"),
        (b"smiles,A,a,Smiles\nC,1,0,N\n", r"has 2 columns 'smiles'\. Give every"),
        (b"smiles,a\nC,1\n ,0\n", r"Row 3 of .* has no SMILES\. Give it one, or take it out"),
        (b"smiles,assay,value\nC,a,1\nN,,0\n", r"Row 3 of .* has no assay\. Give it one, or take it out"),
    ],
)
def test_tables_that_are_not_understood(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_bytes(content)
    with pytest.raises(UserError, match=says):
        molecules.from_csv(tmp_path / "odd.csv", fingerprint=letters)


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

    monkeypatch.setattr(fingerprints, "import_module", missing)
    with pytest.raises(UserError, match=r"need RDKit, .*metarl-suite\[molecules\].*molecules@lingo"):
        load("molecules", table)
    data = load("molecules@lingo", table, size=64)
    assert data.item_shape == (64,)
    assert data.episodes("test", range(3), SHAPE, seed=0).query_x.unique().tolist() == [0.0, 1.0]


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


# -- tables of one's own ----------------------------------------------------------------------------------------------


def outcomes(data: molecules.MoleculeData) -> dict[str, tuple[list[str], list[str]]]:
    """Return which molecules every assay found inactive and active, by their three counts of letters."""
    found = {}
    for part in data.splits.values():
        for place in range(0, len(part.names), 2):
            ends = [int(part.starts[place + way]) for way in (0, 1)]
            rows = [part.items[end : end + int(part.sizes[place + way]), 0] for way, end in enumerate(ends)]
            found[part.groups[place]] = tuple(
                sorted("".join(map(str, row)) for row in data.table[own].tolist()) for own in rows
            )
    return found


LONG = [
    ("C", "a", "0"), ("CC", "a", "0"), ("CCC", "a", "1"), ("CN", "a", "1"), ("CO", "a", "1"),
    ("CO", "b", "1"), ("C", "b", "1"), ("N", "b", "0"), ("O", "b", "0"), ("CCC", "b", ""),
]  # fmt: skip
A, B = (["100", "200"], ["101", "110", "300"]), (["001", "010"], ["100", "101"])


@pytest.mark.parametrize("names", [("assay_id", "activity"), ("Task", "label"), ("assay", "y")])
def test_a_long_table_is_recognised_and_told(tmp_path: Path, names: tuple[str, str], capfd: Any) -> None:
    path = write(tmp_path / "long.csv", [list(row) for row in LONG], ["smiles", *names])
    data = molecules.from_csv(path, fingerprint=letters)
    assert outcomes(data) == {"a": A, "b": B}
    told = f"long.csv: a row a measurement; assays are in {names[0]} and outcomes in {names[1]}."
    assert told in capfd.readouterr().err


def test_columns_of_a_long_table_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "long.csv", [[*row, "7"] for row in LONG], ["mol", "target", "hit", "value"])
    data = molecules.from_csv(path, smiles="mol", assay="target", value="hit", fingerprint=letters)
    assert outcomes(data) == {"a": A, "b": B}
    with pytest.raises(UserError, match=r"no column 'smiles'.* Name it by --smiles"):
        molecules.from_csv(path, fingerprint=letters)
    with pytest.raises(UserError, match=r"and no column that is known for the assay; it has mol, .* by --assay"):
        molecules.from_csv(path, smiles="mol", value="hit", fingerprint=letters)
    path = write(tmp_path / "long.csv", [[*row, "0"] for row in LONG], ["smiles", "assay", "value", "activity"])
    with pytest.raises(UserError, match=r"2 columns that may be it \(value, activity\) for the value.* by --value"):
        molecules.from_csv(path, fingerprint=letters)
    assert outcomes(molecules.from_csv(path, value="value", fingerprint=letters)) == {"a": A, "b": B}


def test_a_threshold_says_what_is_active(tmp_path: Path) -> None:
    scale = {"0": "5.9", "1": "6.0", "": "nan"}
    path = write(tmp_path / "long.csv", [[s, a, scale[v]] for s, a, v in LONG], ["smiles", "assay", "value"])
    with pytest.raises(UserError, match=r"Row 2 of .* has '5.9' for the assay 'a'.*; or say by --threshold"):
        molecules.from_csv(path, fingerprint=letters)
    data = molecules.from_csv(path, threshold=6.0, fingerprint=letters)
    assert outcomes(data) == {"a": A, "b": B}
    assert data.describe()["settings"]["threshold"] == 6
    turned = molecules.from_csv(path, threshold=5.9, active="below", fingerprint=letters)
    assert outcomes(turned) == {"a": A[::-1], "b": B[::-1]}
    path = write(
        tmp_path / "long.csv", [*([s, a, scale[v]] for s, a, v in LONG), ["C", "a", ">7"]], ["smiles", "assay", "value"]
    )
    with pytest.raises(UserError, match=r"Row 12 of .* has '>7' for the assay 'a'. Give a number or nothing"):
        molecules.from_csv(path, threshold=6.0, fingerprint=letters)
    wide = write(tmp_path / "wide.csv", [["C", "1"], ["N", "9"], ["O", "2"], ["CC", "8"]], ["smiles", "x"])
    with pytest.raises(UserError, match=r"Got --threshold 6, and nothing says which columns .* by --assays"):
        molecules.from_csv(wide, threshold=6.0, fingerprint=letters)
    with pytest.raises(UserError, match=r"Got 1 assays"):
        molecules.from_csv(wide, threshold=6.0, assays=["x"], fingerprint=letters)
    with pytest.raises(UserError, match=r"Got --active below and no threshold"):
        molecules.from_csv(wide, active="below", fingerprint=letters)


def test_measurements_that_are_repeated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    again = [("C", "a", "0"), ("CO", "a", "0"), ("CO", "b", "1")]
    path = write(tmp_path / "long.csv", [list(row) for row in (*LONG, *again)], ["smiles", "assay", "value"])
    found = outcomes(molecules.from_csv(path, fingerprint=letters))
    assert found == {"a": (["100", "200"], ["110", "300"]), "b": B}
    assert (
        "3 rows measure a molecule again in the same assay: those that agree count once, and 1 mol"
        in capfd.readouterr().err
    )


def test_assays_with_too_few_are_left_out_by_name(table: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = table.read_text().splitlines()
    lines[0] += ",rare,never,few"
    for m in range(1, 41):
        lines[m] += f",{int(m < 2)},0,{int(m < 4)}"
    table.write_text("\n".join(lines))
    data = molecules.from_csv(table, fingerprint=letters)
    told = capfd.readouterr().err
    assert "13 columns are taken for assays: NR-0, NR-1" in told
    assert (
        "left out 2 of 13 assays, which have fewer than 2 molecules of a kind: rare (1 active), never (0 active)."
        in told
    )
    assert data.describe()["settings"]["left_out"] == {"rare": [39, 1], "never": [40, 0]}
    (split,) = (name for name, part in data.splits.items() if "few" in part.groups)
    drawn = data.draw(split, range(50), SHAPE, seed=0)
    told = capfd.readouterr().err
    number = len(data.splits[split].names) // 2
    assert told == (
        f"metarl: molecules-assays ({split}): left out 1 of {number} assays, which have fewer than 5 molecules of a "
        "kind: few (3 active).\n"
    )
    part = data.splits[split]
    assert "few" not in {part.groups[label] for label in part.labels[drawn.support_rows.flatten()].tolist()}
    # Told once; with fewer shots it takes part.
    data.draw(split, range(50), SHAPE, seed=0)
    drawn = data.draw(split, range(50), EpisodeShape(way=2, shot=1, query=2), seed=0)
    assert "few" in {part.groups[label] for label in part.labels[drawn.support_rows.flatten()].tolist()}
    assert capfd.readouterr().err == ""
    lists = {"train": ["NR-0", "never"], "test": ["NR-1"]}
    assert molecules.from_csv(table, splits=lists, fingerprint=letters).splits["train"].groups == ("NR-0", "NR-0")
    with pytest.raises(UserError, match=r"All assays of the split 'test' of assays.csv are left out. Give it others"):
        molecules.from_csv(table, splits={"train": ["NR-0"], "test": ["rare"]}, fingerprint=letters)


def test_a_split_of_nothing_but_small_assays_is_cured_by_its_advice(tmp_path: Path) -> None:
    rows = [["C" * (m + 1), *(str(int(m < size)) for size in (2, 2, 2, 8, 8))] for m in range(20)]
    path = write(tmp_path / "few.csv", rows, ["smiles", *"abcde"])
    data = molecules.from_csv(path, splits={"train": ["d"], "test": ["a", "b"]}, fingerprint=letters)
    with pytest.raises(UserError, match=r"no assay of .* \(test\) has so many: 'a' has 18 inactive and 2 .*--least 5"):
        data.draw("test", [0], SHAPE, seed=0)
    data = molecules.from_csv(path, least=5, fingerprint=letters)
    assert [set(part.groups) for part in data.splits.values()] in ([{"d"}, {"e"}], [{"e"}, {"d"}])
    assert len(data.draw("test", [0, 1], SHAPE, seed=0)) == 2
    with pytest.raises(UserError, match=r"Got --least 1. It must be at least 2"):
        molecules.from_csv(path, least=1, fingerprint=letters)


def test_assays_are_chosen_by_name_and_pattern(table: Path) -> None:
    data = molecules.from_csv(table, assays=["NR-1", "NR-[45]"], fingerprint=letters)
    assert set(outcomes(data)) == {"NR-1", "NR-4", "NR-5"}
    assert data.describe()["settings"]["assays"] == ["NR-1", "NR-[45]"]


def test_substrings_of_smiles() -> None:
    found = fingerprints.lingo(["CCO", "CCO", "CCOC", "C"], bits=512)
    assert np.array_equal(found[0], found[1])
    assert found.sum(1).tolist() == [2, 2, 3, 1]
    # ^CCO is common to both.
    assert (found[0] & found[2]).sum() == 1
