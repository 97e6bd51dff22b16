"""Published sets and files of one's own whose content is of another kind: pickles, signals, fingerprints, fonts."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot.data import glyphs, load
from metarl.fewshot.data.fingerprints import table_of

pytestmark = pytest.mark.usefixtures("cache_root")

IMAGES = np.zeros((2, 4, 4, 3), np.uint8)


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ([1], r"class_dict of .*train\.pkl should be a dict, and is a list"),
        ({"a": [0.5]}, r"images of class a in .* of the type float64"),
        ({"a": [[0], [1, 2]]}, r"images of class a in .* that are no array"),
        ({"a": [2**62]}, r"has 2 images, and class a names others"),
        ({"a": np.array([2**63], np.uint64)}, r"Give integers below 2\*\*63"),
        ({"a": [0], b"a": [1], 3: [1]}, r"The class 'a' of mini-imagenet stands in train and again in train"),
    ],
)
def test_mini_imagenet_with_strange_classes(tmp_path: Path, classes: Any, says: str) -> None:
    for split in ("train", "val", "test"):
        dump(tmp_path / f"mini-imagenet-cache-{split}.pkl", {"image_data": IMAGES, "class_dict": classes})
    with pytest.raises(UserError, match=says):
        load("mini-imagenet", tmp_path)


LABELS = {"label_specific": [0, 1], "label_specific_str": ["a", "b"], "label_general_str": ["g"]}


@pytest.mark.parametrize(
    ("labels", "images", "says"),
    [
        (LABELS, [1, 2], r"train_images_png\.pkl\[0\] should be the bytes of a PNG file"),
        (LABELS, [np.zeros(3)] * 2, r"an array of uint8\. Download it again"),
        (LABELS, {0: 1}, r"has no list of images, and .* labels 2"),
        ({**LABELS, "label_general": [0]}, [1, 2], r"has 2 images, and .* labels 2"),
        ({**LABELS, "label_specific": ["a", "b"]}, [1, 2], r"label_specific of .* of the type <U1"),
        ({**LABELS, "label_specific_str": 5}, [1, 2], r"should name its classes in a list, and has a int"),
    ],
)
def test_tiered_imagenet_with_strange_labels(tmp_path: Path, labels: Any, images: Any, says: str) -> None:
    for split in ("train", "val", "test"):
        dump(tmp_path / f"{split}_labels.pkl", labels)
        dump(tmp_path / f"{split}_images_png.pkl", images)
    with pytest.raises(UserError, match=says):
        load("tiered-imagenet", tmp_path)


META = {"fine_label_names": ["a", "b"], "coarse_label_names": ["x"]}
PART = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 1], "coarse_labels": [0, 0]}


@pytest.mark.parametrize(
    ("meta", "part", "says"),
    [
        ([1], PART, r"meta should hold fine_label_names, coarse_label_names"),
        ({**META, "fine_label_names": None}, PART, r"fine_label_names of .*meta should be a list"),
        ({**META, "fine_label_names": ["a", "b", "c"]}, PART, r"has no image of the class 'c'"),
        (META, {"data": 1}, r"train should hold fine_labels, coarse_labels, data"),
        (META, {**PART, "data": np.zeros((2, 3072))}, r"should be uint8 \[images, 3072\]"),
        (META, {**PART, "coarse_labels": [0, 9]}, r"coarse_labels of .* from 0 to 9\. Give integers from 0 to 0"),
        (META, {**PART, "fine_labels": [0]}, r"has 2 images, and labels of 1 and 2"),
    ],
)
def test_cifar_with_strange_parts(tmp_path: Path, meta: Any, part: Any, says: str) -> None:
    for name, content in {"meta": meta, "train": part, "test": part}.items():
        dump(tmp_path / "cifar-100-python" / name, content)
    with pytest.raises(UserError, match=says):
        load("cifar-fs", tmp_path)


# -- signals ----------------------------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def wav(kind: int, bits: int, content: bytes = bytes(64)) -> bytes:
    form = struct.pack("<HHIIHH", kind, 1, 8000, 8000 * bits // 8, bits // 8, bits)
    parts = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", npy(np.zeros(3, complex)), r"type complex128\. Give real numbers"),
        ("a.npy", npy(np.zeros(3, np.longdouble)), r"a long double"),
        ("a.npy", npy(np.zeros(0)), r"holds no values\. Take it out"),
        ("a.npy", npy(np.full(9, 1e300)), r"NaN, infinite or too large"),
        ("a.wav", wav(1, 64), r"WAV file with 64 bits a value, which is not read\. Save it as PCM of 16 bits"),
        ("a.wav", wav(3, 16), r"WAV file with 16 bits a value"),
        ("a.wav", wav(1, 16)[:30], r"\(it ends before its end\)"),
        (
            "a.wav",
            wav(1, 16)[:19] + b"\x40" + wav(1, 16)[20:],
            r"cannot be read as a WAV file \(it ends before its end",
        ),
        ("a.wav", wav(3, 64, np.full(8, 1e300).tobytes()), r"NaN, infinite or too large"),
        ("a.csv", "1,2\n3,4\n".encode("utf-16"), r"it is in UTF-16"),
        ("a.csv", b'"' + b"1" * 200_000, r"a quotation mark that is not closed"),
    ],
)
def test_strange_signals(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    for c in range(3):
        (tmp_path / "data" / f"c{c}").mkdir(parents=True)
        (tmp_path / "data" / f"c{c}" / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        load("signals", tmp_path / "data")


@pytest.mark.parametrize("split", ["", "train/"])
def test_every_class_of_signals_has_some(tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    for c in range(4):
        folder = tmp_path / "data" / f"{split}c{c}"
        folder.mkdir(parents=True)
        (folder / "a.npy").write_bytes(npy(np.arange(9.0) + c))
    (tmp_path / "data" / f"{split}c0" / "notes.txt").write_text("x")
    load("signals", tmp_path / "data")
    assert f"signals: left out 1 files that are no signals, as {split}c0/notes.txt" in capsys.readouterr().err
    (tmp_path / "data" / f"{split}c3" / "a.npy").rename(tmp_path / "data" / f"{split}c3" / "a.txt")
    with pytest.raises(UserError, match=rf"{split}c3 holds other files and no signals\. Take it out, or complete it"):
        load("signals", tmp_path / "data")


# -- fingerprints and fonts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prints", "says"),
    [
        ([[1, None], [1, 2]], r"fingerprints of the type object"),
        ([[1], [1, 2]], r"fingerprints that are no array"),
        (np.zeros((2, 3), complex), r"fingerprints of the type complex128"),
        (np.zeros((2, 3), np.longdouble), r"a long double"),
        (np.array([[0.0], [np.nan]]), r"fingerprint of molecule 2 \('CC'\) has values that are not finite"),
        (np.zeros((1, 3)), r"Got 2 molecules and fingerprints of the shape \(1, 3\)"),
        (None, r"fingerprints of the type object"),
    ],
)
def test_strange_fingerprints(prints: Any, says: str) -> None:
    make: Any = getattr(table_of, "__wrapped__", table_of)
    with pytest.raises(UserError, match=says):
        make(lambda smiles: prints, ["C", "CC"])


def test_fingerprints_of_another_byte_order() -> None:
    assert table_of(lambda smiles: np.array([[0, 1], [1, 0]], ">i2"), ["C", "CC"]).tolist() == [[0, 1], [1, 0]]


def test_a_font_with_letters_of_any_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "_WIDEST", 1)
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / font.name).write_bytes(font.read_bytes())
    with pytest.raises(UserError, match=r"DejaVuSans\.ttf cannot be read \(a letter of it is more than 1 pixels"):
        load("glyphs", tmp_path / "fonts")
