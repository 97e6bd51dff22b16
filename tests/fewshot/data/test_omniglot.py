from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.data import load
from metarl.fewshot.episodes import EpisodeShape
from tests.helpers.image_files import counts, read

# Characters of every alphabet, as in the published set.
BACKGROUND = {
    "Alphabet_of_the_Magi": 20, "Anglo-Saxon_Futhorc": 29, "Arcadian": 26, "Armenian": 41,
    "Asomtavruli_(Georgian)": 40, "Balinese": 24, "Bengali": 46, "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
    "Braille": 26, "Burmese_(Myanmar)": 34, "Cyrillic": 33, "Early_Aramaic": 22, "Futurama": 26, "Grantha": 43,
    "Greek": 24, "Gujarati": 48, "Hebrew": 22, "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Japanese_(hiragana)": 52, "Japanese_(katakana)": 47, "Korean": 40, "Latin": 26, "Malay_(Jawi_-_Arabic)": 40,
    "Mkhedruli_(Georgian)": 41, "N_Ko": 33, "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14, "Sanskrit": 42,
    "Syriac_(Estrangelo)": 23, "Tagalog": 17, "Tifinagh": 55,
}  # fmt: skip
EVALUATION = {
    "Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26, "Avesta": 26, "Ge_ez": 26,
    "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41, "Keble": 26, "Malayalam": 47, "Manipuri": 40, "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46, "Sylheti": 28, "Syriac_(Serto)": 23, "Tengwar": 25,
    "Tibetan": 42, "ULOG": 26,
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("cache_root")


def write_part(path: Path, alphabets: Mapping[str, int], drawings: int = 1) -> None:
    """Write a zip file in the published layout: dark strokes on white, 1 bit a pixel."""
    stroke = np.ones((105, 105), bool)
    stroke[:20, :50] = False
    file = io.BytesIO()
    Image.fromarray(stroke).save(file, "png")
    with zipfile.ZipFile(path, "w") as archive:
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                for drawing in range(1, drawings + 1):
                    name = f"{path.stem}/{alphabet}/character{character:02d}/0001_{drawing:02d}.png"
                    archive.writestr(name, file.getvalue())


@pytest.fixture(scope="module")
def omniglot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "omniglot"
    root.mkdir()
    write_part(root / "images_background.zip", BACKGROUND)
    write_part(root / "images_evaluation.zip", EVALUATION)
    return root


def test_omniglot_as_vinyals_split_it(omniglot: Path) -> None:
    data = read("omniglot", omniglot, size=8)
    assert counts(data) == {"train": 4 * 1028, "validation": 4 * 172, "test": 4 * 423}
    where = {name: split for split, part in data.splits.items() for name in part.names}
    assert where["Hebrew/character22/rot090"] == where["Bengali/character46/rot000"] == "validation"
    assert where["Gurmukhi/character41/rot270"] == where["Tifinagh/character55/rot000"] == "train"
    assert where["Gurmukhi/character42/rot000"] == where["ULOG/character26/rot180"] == "test"
    # The four turns of a character are in one split.
    assert {name[:-3] for part in data.splits.values() for name in part.names} == {f"{n[:-3]}" for n in where}
    characters = {name.rpartition("/")[0]: split for name, split in where.items()}
    assert all(where[f"{name}/rot{turn:03d}"] == split for name, split in characters.items() for turn in (0, 90, 180))


def test_omniglot_turns_and_ink(omniglot: Path) -> None:
    data = read("omniglot@vinyals", omniglot, size=21)
    part = data.splits["test"]
    first = [
        part.items[int(part.starts[part.names.index(f"ULOG/character01/rot{turn:03d}")]), 0]
        for turn in range(0, 360, 90)
    ]
    # Strokes at the upper left; counter-clockwise: lower left, lower right, upper right.
    corners = [(0, 0), (20, 0), (20, 20), (0, 20)]
    for image, corner in zip(first, corners, strict=True):
        assert int(image[corner]) == 255
        assert int(image[20 - corner[0], 20 - corner[1]]) == 0
    assert all(torch.equal(torch.rot90(first[0], turn), image) for turn, image in enumerate(first))
    assert part.groups[0] == part.names[0].split("/")[0]


def test_omniglot_upright_random_and_by_alphabet(omniglot: Path) -> None:
    assert counts(read("omniglot@vinyals-upright", omniglot, 4)) == {"train": 1028, "validation": 172, "test": 423}
    chosen = read("omniglot@random-upright", omniglot, 4)
    assert counts(chosen) == {"train": 1100, "validation": 100, "test": 423}
    assert len(set(chosen.splits["test"].groups)) > 40
    by_alphabet = read("omniglot@alphabet", omniglot, 4)
    groups = {split: set(part.groups) for split, part in by_alphabet.splits.items()}
    assert {split: len(names) for split, names in groups.items()} == {"train": 25, "validation": 5, "test": 20}
    assert groups["test"] == set(EVALUATION)


def test_omniglot_unpacked_and_in_one_root(omniglot: Path, tmp_path: Path) -> None:
    for part in ("images_background", "images_evaluation"):
        shutil.unpack_archive(omniglot / f"{part}.zip", tmp_path / "omniglot")
    packed = read("omniglot@alphabet", omniglot, 4)
    assert read("omniglot@alphabet", tmp_path, 4).fingerprint == packed.fingerprint
    (tmp_path / "one").mkdir()
    for part in ("images_background", "images_evaluation"):
        for alphabet in (tmp_path / "omniglot" / part).iterdir():
            alphabet.rename(tmp_path / "one" / alphabet.name)
    assert read("omniglot@alphabet", tmp_path / "one", 4).fingerprint == packed.fingerprint


def test_omniglot_half_there(omniglot: Path, tmp_path: Path) -> None:
    shutil.copy(omniglot / "images_background.zip", tmp_path)
    with pytest.raises(
        UserError, match=r"needs images_evaluation \(a folder or .zip\), and .* has images_background.zip"
    ):
        load("omniglot", tmp_path)
    write_part(tmp_path / "images_evaluation.zip", dict(list(EVALUATION.items())[:7]))
    with pytest.raises(UserError, match=r"1028/172/423 characters, and the files give 987/172/0"):
        load("omniglot", tmp_path)
    with pytest.raises(UserError, match=r"1100/100/423 characters, and the files give"):
        load("omniglot@random", tmp_path)
    whole = (omniglot / "images_evaluation.zip").read_bytes()
    (tmp_path / "images_evaluation.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"images_evaluation.zip cannot be read as an archive"):
        load("omniglot", tmp_path)


def test_small_sets_leave_out_what_they_share(tmp_path: Path) -> None:
    write_part(tmp_path / "images_background_small1.zip", {"Greek": 3, "Korean": 4})
    write_part(tmp_path / "images_background_small2.zip", {"Greek": 3, "Sanskrit": 5})
    there = read("omniglot@small1-small2", tmp_path, 4)
    assert {split: set(part.groups) for split, part in there.splits.items()} == {
        "train": {"Greek", "Korean"}, "test": {"Sanskrit"},
    }  # fmt: skip
    assert counts(read("omniglot@small2-small1", tmp_path, 4)) == {"train": 8, "test": 4}
    assert counts(read("omniglot@small2-small1-x4", tmp_path, 4)) == {"train": 32, "test": 16}
    with pytest.raises(UserError, match=r"Unknown split 'validation'"):
        there.episodes("validation", [0], EpisodeShape(), 0)
    with pytest.raises(
        UserError, match=r"omniglot@vinyals needs images_background and images_evaluation.*small1-small2"
    ):
        load("omniglot", tmp_path)


def test_real_omniglot(data_root: Path) -> None:
    if not (data_root / "omniglot" / "images_background_small1.zip").is_file():
        pytest.skip(f"no Omniglot at {data_root}")
    data = read("omniglot@small1-small2", data_root)
    assert counts(data) == {"train": 136, "test": 106}
    assert set(data.splits["test"].groups) == {"Sanskrit", "Tagalog", "Japanese_(katakana)"}
    assert all(int(part.sizes.min()) == int(part.sizes.max()) == 20 for part in data.splits.values())
    assert data.item_shape == (1, 28, 28)
    # Ink is bright, and there is little of it.
    assert 0.05 < data.mean[0] < 0.12
