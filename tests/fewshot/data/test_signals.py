from __future__ import annotations

import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.data import load
from metarl.fewshot.data.signals import Options, SignalReader
from tests.helpers.image_files import data_of

RNG = np.random.default_rng(0)
X = RNG.uniform(-0.9, 0.9, (2, 64))
"""A signal of two channels."""


def write_wav(path: Path, x: np.ndarray, width: int = 2, rate: int = 8000) -> None:
    whole = np.round(x.T * 2.0 ** (8 * width - 1)).astype(np.int64)
    whole += 128 if width == 1 else 0
    raw = whole.reshape(-1, 1).astype("<i8").view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((len(x), width, rate, 0, "NONE", "NONE"))
        file.writeframes(raw)


def write_csv(path: Path, x: np.ndarray, header: str = "") -> None:
    path.write_text(header + "\n".join(",".join(map(repr, row)) for row in x.tolist()))


def tree(folder: Path, classes: int = 5, each: int = 3) -> Path:
    for number in range(classes):
        (folder / f"c{number}").mkdir(parents=True)
        for item in range(each):
            np.save(folder / f"c{number}" / f"{item}.npy", X + 10.0 * number + item)
    return folder


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_every_width_give_numbers_from_minus_1_to_1(width: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, X, width)
    found = SignalReader(Options()).read(path)
    assert found.dtype == np.float32
    assert np.abs(found - X).max() <= 0.5 / 2.0 ** (8 * width - 1) + 1e-7
    # As recorders write more than 16 bits: the number of the format stands further behind.
    content = path.read_bytes()
    more = (22).to_bytes(2, "little") + (8 * width).to_bytes(2, "little") + bytes(4) + b"\1\0" + bytes(14)
    form = b"fmt " + (40).to_bytes(4, "little") + b"\xfe\xff" + content[22:36] + more
    size = (int.from_bytes(content[4:8], "little") + 24).to_bytes(4, "little")
    path.write_bytes(content[:4] + size + content[8:12] + form + content[36:])
    assert np.array_equal(SignalReader(Options()).read(path), found)


def test_wav_files_of_floats_are_taken_and_compressed_ones_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, X, 4)
    content = bytearray(path.read_bytes())
    content[20] = 3
    path.write_bytes(bytes(content[:44]) + X.T.astype("<f4").tobytes())
    assert np.array_equal(SignalReader(Options()).read(path), X.astype(np.float32))
    for number, name in ((7, "mu-law"), (2, "ADPCM"), (99, "format 99")):
        content[20] = number
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"a.wav is a WAV file of {name}, which is not read. Save it as PCM"):
            SignalReader(Options()).read(path)
    path.write_bytes(b"no wave")
    with pytest.raises(UserError, match="cannot be read as a WAV file"):
        SignalReader(Options()).read(path)


def test_tables_and_arrays_have_their_channels_found(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv", "d.npy", "e.npy")]
    write_csv(paths[0], X.T)
    write_csv(paths[1], X.T, "left,right\n")
    write_csv(paths[2], X)
    np.save(paths[3], X)
    np.save(paths[4], X.T)
    for path in paths:
        assert np.array_equal(SignalReader(Options()).read(path), X.astype(np.float32)), path
    np.save(paths[3], X[0])
    assert SignalReader(Options()).read(paths[3]).tolist() == [X[0].astype(np.float32).tolist()]
    square = RNG.random((10, 12))
    np.save(paths[3], square)
    with pytest.raises(UserError, match=r"which axis is the channels'. Give --layout nlc"):
        SignalReader(Options()).read(paths[3])
    assert SignalReader(Options(layout="nlc")).read(paths[3]).shape == (12, 10)
    assert SignalReader(Options(layout="ncl")).read(paths[3]).shape == (10, 12)
    # Names of columns say which way round a table lies.
    write_csv(paths[1], square, ",".join("abcdefghijkl") + "\n")
    assert SignalReader(Options()).read(paths[1]).shape == (12, 10)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,2\n3\n", "rows of different length"),
        ("", "no rows of numbers"),
        ("1\t2\n3\t4\n", "commas stand between them"),
        ("1,2\n3;4\n", "rows of different length"),
        ("0,5;1\n2;3\n", "'0,5'. Write numbers with points"),
        ('a\n"0,5"\n', "'0,5'. Write numbers with points"),
        ("1,2\n3,x\n", "could not convert string to float: 'x'. Give a number in every column"),
        ("1\nnan\n", "NaN, infinite or too large"),
    ],
)
def test_tables_that_are_none_are_refused(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=says):
        SignalReader(Options()).read(tmp_path / "a.csv")


def read(path: Path, content: str) -> list[list[float]]:
    path.write_text(content)
    return SignalReader(Options(layout="nlc")).read(path).tolist()


def test_semicolons_that_every_line_has_stand_between_columns(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "1;2\n3.5;-4e-02\n") == [[1.0, 3.5], [2.0, np.float32(-0.04)]]
    assert read(tmp_path / "a.csv", "left, up;right\n1;2\n\n3;4\n") == [[1.0, 3.0], [2.0, 4.0]]


@pytest.mark.parametrize(
    "content",
    ["1,25\n3,07\n", "-0,5\n1,5\n", "1,5\n2,25e-02\n", "vib\n1,5\n2,5\n", "1,5,2,5\n3,5,4,05\n", "a,b\n1,5,2,5\n"],
)
def test_decimal_commas_are_refused_where_they_are_certain(content: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"values such as -?\d,\d+, whose commas seem to be decimal signs. Write numbers"
    ):
        read(tmp_path / "a.csv", content)
    # The advice works: points; or names, of columns that are some.
    rows = [row for row in content.splitlines() if row[0] in "-0123456789"]
    columns = rows[0].count(",") + 1
    names = ",".join("abcd"[:columns])
    assert len(read(tmp_path / "a.csv", "\n".join([names, *rows]))) == columns
    if columns == 2:
        assert len(read(tmp_path / "a.csv", content.replace(",", "."))) == 1


def test_whole_numbers_in_two_columns_are_read_and_doubt_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(tmp_path / "a.csv", "512,0\n-513,17\n") == [[512.0, -513.0], [0.0, 17.0]]
    doubt = "whole numbers in two columns, taken for 2 channels: if commas are decimal signs, write points."
    assert f"a.csv: {doubt}" in capsys.readouterr().err
    # A sign, a point or a blank before the second number: it is a column.
    for certain in ("-0,5\n1,-5\n", "1,05\n2.5,1\n", "1, 05\n2, 06\n", "1,2,3,4\n5,6,7,8\n", "1;05\n2;06\n"):
        read(tmp_path / "a.csv", certain)
        assert "decimal" not in capsys.readouterr().err


def test_what_the_columns_were_taken_for_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    rows = ["0.00,5.5,1", "0.01,2.5,2", "0.02,3.5,2"]
    path.write_text("\n".join(["# time,vib,", *rows]))
    reader = SignalReader(Options(layout="nlc"))
    assert len(reader.read(path)) == 3
    reader.read(path)
    assert capsys.readouterr().err == (
        f"metarl: {path}: the channels are time, vib, column 3; rising evenly: time (if that is a time or an index, "
        "take it out of the files).\n"
    )
    for content, says in (
        ("\n".join(rows), "a.csv: rising evenly: channel 1 (if"),
        # The advice works.
        ("\n".join(["vib,temp", *(row[5:] for row in rows)]), "a.csv: the channels are vib, temp.\n"),
        ("A line about it\n1.5,2\n1.5,1\n", ""),
        ("1.5,2\n", ""),
        ("1\n2\n3\n", ""),
    ):
        read(path, content)
        err = capsys.readouterr().err
        assert says in err if says else not err


def test_what_differs_from_the_first_signal_is_named(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a.wav", "b.wav", "c.npy", "d.npy", "e.txt", "f.npy")]
    write_wav(names[0], X)
    write_wav(names[1], X, rate=16000)
    np.save(names[2], X[:, :60])
    np.save(names[3], X[:1])
    names[4].write_text("1")
    np.save(names[5], np.array([{}]), allow_pickle=True)
    reader = SignalReader(Options())
    reader.read(names[0])
    for path, says in (
        (names[1], r"a.wav has 8000 values a second and .*b.wav 16000. Bring all signals to one sample rate"),
        (names[2], r"a.wav has 2 channels x 64 values and .*c.npy 2 x 60. Bring them to one length by --length N"),
        (names[3], r"a.wav has 2 channels x 64 values and .*d.npy 1 x 64. Give all signals the same channels"),
        (names[4], r"e.txt is no signal that is read. Give files of .wav, .csv, .npy"),
        (names[5], r"f.npy cannot be read"),
        (tmp_path / "none.npy", "cannot be read"),
    ):
        with pytest.raises(UserError, match=says):
            reader.read(path)
    # The advice works.
    cut = SignalReader(Options(length=60))
    assert cut.read(names[0]).shape == cut.read(names[2]).shape == (2, 60)
    with pytest.raises(UserError, match=r"c.npy has 60 values, and 64 are asked for. Fill it up by --pad zero"):
        SignalReader(Options(length=64)).read(names[2])
    zero, last = (SignalReader(Options(length=64, pad=pad)).read(names[2]) for pad in ("zero", "last"))
    assert zero[:, 60:].tolist() == [[0.0] * 4] * 2
    assert last[:, 60:].tolist() == [[value] * 4 for value in X[:, 59].astype(np.float32).tolist()]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"length": -1}, "length of -1"),
        ({"pad": "zero"}, "--pad zero and no length"),
        ({"layout": "nhw"}, "layout nhw for signals in files"),
        ({"layout": "x"}, "Got the layout 'x'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        load("signals", tree(tmp_path / "s"), **options)


def test_a_folder_of_classes_becomes_a_data_set_and_reads_more_of_them(tmp_path: Path) -> None:
    folder = tree(tmp_path / "mine")
    data = data_of(load("signals", folder))
    assert data.name == "signals-mine"
    assert {name for part in data.splits.values() for name in part.names} == {f"c{number}" for number in range(5)}
    assert (data.item_shape, data.form.kind) == ((2, 64), "signal")
    part = data.split("train")
    assert part.origins[0].endswith("0.npy")
    number = int(part.names[0].removeprefix("c"))
    assert torch.equal(part.items[1], torch.from_numpy(X + 10.0 * number + 1).float())
    assert data.read([folder / "c1" / "2.npy"]).tolist() == [(X + 12.0).astype(np.float32).tolist()]
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in sorted(folder.rglob("*.npy")):
            archive.write(path, path.relative_to(tmp_path))
    assert data_of(load("signals", tmp_path / "mine.zip")).fingerprint == data.fingerprint
    with pytest.raises(UserError, match=r"signals have a length. Leave the size out"):
        load("signals", folder, size=8)


def test_folders_of_splits_are_kept(tmp_path: Path) -> None:
    tree(tmp_path / "s" / "train")
    data = tree(tmp_path / "s" / "test", classes=2)
    (tmp_path / "s" / "test").joinpath("c0").rename(data / "d0")
    with pytest.raises(UserError, match=r"The class 'c1' stands in test and in train. Give it to one split"):
        load("signals", tmp_path / "s")
    (data / "c1").rename(data / "d1")
    found = data_of(load("signals", tmp_path / "s"))
    assert {split: len(part.names) for split, part in found.splits.items()} == {"train": 5, "test": 2}
    tree(tmp_path / "s" / "extra", classes=1)
    with pytest.raises(UserError, match="folders of splits and beside them extra"):
        load("signals", tmp_path / "s")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"does not hold signals in a layout that is known.*files .wav, .csv, .npy"):
        load("signals", tmp_path / "none")
