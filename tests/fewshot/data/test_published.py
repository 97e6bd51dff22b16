from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import cifar, load
from tests.helpers.image_files import counts, read

pytestmark = pytest.mark.usefixtures("cache_root")


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def picture(value: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8) * np.array([1, 0, 1], np.uint8)


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


PurePickler: Any = pickle._Pickler


class Python2Pickler(PurePickler):
    """Writes texts and bytes as Python 2 wrote its strings: most of these sets were published by it."""

    def save_string(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + len(content).to_bytes(4, "little") + content)
        self.memoize(value)

    dispatch = PurePickler.dispatch | {str: save_string, bytes: save_string}


def dump_by_python_2(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)


# -- miniImageNet -----------------------------------------------------------------------------------------------------

MINI = {"train": 4, "val": 2, "test": 3}


def mini_images(split: str) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Return `image_data` and `class_dict`; classes lie mixed, and image i has the value i."""
    count = 3 * MINI[split]
    images = np.stack([picture(i, 84) for i in range(count)])
    return images, {f"n{split}{c}": list(range(c, count, MINI[split])) for c in range(MINI[split])}


def write_mini_pickles(root: Path) -> None:
    for split in MINI:
        images, classes = mini_images(split)
        dump(root / f"mini-imagenet-cache-{split}.pkl", {"image_data": images, "class_dict": classes})


def check_mini(data: ClassData) -> None:
    assert counts(data) == {"train": 4, "validation": 2, "test": 3}
    assert data.item_shape == (3, 84, 84)
    for split, name in {"train": "train", "validation": "val", "test": "test"}.items():
        part, classes = data.splits[split], mini_images(name)[1]
        for place, label in enumerate(part.names):
            rows = range(int(part.starts[place]), int(part.starts[place] + part.sizes[place]))
            assert [int(part.items[row, 0, 40, 40]) for row in rows] == classes[label]
            assert part.items[rows[0], 1].max() == 0


def test_mini_imagenet_pickles(tmp_path: Path) -> None:
    write_mini_pickles(tmp_path)
    check_mini(read("mini-imagenet", tmp_path))
    assert read("mini-imagenet@pickle", tmp_path, size=12).item_shape == (3, 12, 12)


def test_mini_imagenet_pickles_with_bytes_for_keys_in_an_archive(tmp_path: Path) -> None:
    for split in MINI:
        images, classes = mini_images(split)
        content = {b"image_data": images, b"class_dict": classes}
        dump(tmp_path / "inside" / f"mini-imagenet-cache-{split}.pkl", content)
    root = tmp_path / "mini-imagenet"
    root.mkdir()
    with tarfile.open(root / "mini-imagenet.tar.gz", "w:gz") as archive:
        for path in (tmp_path / "inside").iterdir():
            archive.add(path, f"./{path.name}")
    check_mini(read("mini-imagenet", tmp_path))


def test_mini_imagenet_lists(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for split in MINI:
        images, classes = mini_images(split)
        rows = [(f"{label}{row:08d}.png", label, row) for label, rows in classes.items() for row in rows]
        for file, _, row in rows:
            Image.fromarray(images[row]).save(tmp_path / "images" / file)
        lines = ["filename,label", *(f"{file},{label}" for file, label, _ in rows)]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    check_mini(read("mini-imagenet", tmp_path))
    gone = sorted((tmp_path / "images").iterdir())[0]
    gone.unlink()
    with pytest.raises(
        UserError, match=rf"test.csv names 9 images, and 1 of them are not in .*images; the first is {gone.name}"
    ):
        load("mini-imagenet", tmp_path)
    (tmp_path / "val.csv").unlink()
    with pytest.raises(UserError, match=r"Looked for: val.csv. Found: cache/, images/, test.csv, train.csv"):
        load("mini-imagenet@csv", tmp_path)


def test_mini_imagenet_folders(tmp_path: Path) -> None:
    for split in MINI:
        images, classes = mini_images(split)
        for label, rows in classes.items():
            for row in rows:
                path = tmp_path / split / label / f"{row:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[row]).save(path)
    check_mini(read("mini-imagenet", tmp_path))
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(UserError, match=r"Looked for: val/ with a folder per class. Found: cache/, test/, train/"):
        load("mini-imagenet", tmp_path)


def test_mini_imagenet_bad_pickles(tmp_path: Path) -> None:
    write_mini_pickles(tmp_path)
    path = tmp_path / "mini-imagenet-cache-val.pkl"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(
        UserError, match=r"mini-imagenet-cache-val.pkl cannot be read as a pickle.*not wholly downloaded"
    ):
        load("mini-imagenet", tmp_path)
    path.unlink()
    with pytest.raises(
        UserError, match=r"Looked for: mini-imagenet-cache-val.pkl. Found: .*mini-imagenet-cache-test.pkl"
    ):
        load("mini-imagenet", tmp_path)
    dump(path, {"something": 1})
    with pytest.raises(UserError, match="should hold image_data and class_dict, and holds something"):
        load("mini-imagenet", tmp_path)
    images, classes = mini_images("val")
    dump(path, {"image_data": images.astype(float), "class_dict": classes})
    with pytest.raises(UserError, match=r"should be uint8 \[images, height, width, 3\], and are float64"):
        load("mini-imagenet", tmp_path)
    dump(path, {"image_data": images, "class_dict": {"n0": [0, 99]}})
    with pytest.raises(UserError, match="has 6 images, and class n0 names others"):
        load("mini-imagenet", tmp_path)


class Trap:
    """Its pickle would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_run_nothing(tmp_path: Path) -> None:
    write_mini_pickles(tmp_path)
    dump(tmp_path / "mini-imagenet-cache-train.pkl", {"image_data": Trap(tmp_path / "sprung"), "class_dict": {}})
    with pytest.raises(UserError, match=r"it holds posix.mkdir, and only numbers are read"):
        load("mini-imagenet", tmp_path)
    assert not (tmp_path / "sprung").exists()


# -- tieredImageNet ---------------------------------------------------------------------------------------------------


def write_tiered(root: Path, column: bool) -> None:
    for split, start in {"train": 0, "val": 50, "test": 100}.items():
        images = [np.frombuffer(png(picture(start + i, 84)), np.uint8) for i in range(6)]
        # OpenCV's encoder gave [bytes, 1] when the set was published.
        write = dump_by_python_2 if column else dump
        write(root / f"{split}_images_png.pkl", [image[:, None] if column else image for image in images])
        labels = {
            "label_specific": np.array([1, 0, 1, 0, 2, 2], np.int32),
            "label_general": np.array([0, 0, 0, 0, 1, 1], np.int32),
            "label_specific_str": ["crane", f"{split} b", "crane"],
            "label_general_str": [f"{split} birds", f"{split} machines"],
        }
        write(root / f"{split}_labels.pkl", labels)


@pytest.mark.parametrize("column", [True, False])
def test_tiered_imagenet(tmp_path: Path, column: bool) -> None:
    write_tiered(tmp_path, column)
    data = read("tiered-imagenet", tmp_path)
    assert counts(data) == {"train": 3, "validation": 3, "test": 3}
    part = data.splits["validation"]
    assert part.names == ("val birds/crane #0", "val birds/val b", "val machines/crane #2")
    assert part.groups == ("val birds", "val birds", "val machines")
    assert part.items[:, 0, 3, 3].tolist() == [51, 53, 50, 52, 54, 55]


def test_tiered_imagenet_half_there(tmp_path: Path) -> None:
    write_tiered(tmp_path, True)
    dump(tmp_path / "test_images_png.pkl", [])
    with pytest.raises(UserError, match=r"test_images_png.pkl has 0 images, and .*test_labels.pkl labels 6"):
        load("tiered-imagenet", tmp_path)
    (tmp_path / "val_labels.pkl").unlink()
    with pytest.raises(UserError, match=r"Looked for: val_labels.pkl. Found: "):
        load("tiered-imagenet", tmp_path)


# -- CIFAR ------------------------------------------------------------------------------------------------------------


def cifar_names() -> tuple[list[str], list[str], list[int]]:
    """Return 100 fine names, 20 coarse ones, and the coarse number of each fine one."""
    known = [name for names in cifar.CIFAR_FS.values() for name in names]
    fine = sorted(known + [f"other{i}" for i in range(64)])
    coarse = sorted([name for names in cifar.FC100.values() for name in names] + [f"group{i}" for i in range(12)])
    return fine, coarse, [i % 20 for i in range(100)]


def write_cifar(root: Path) -> None:
    fine, coarse, of_fine = cifar_names()
    for part, labels in {"train": [*range(100), *range(100)], "test": list(range(100))}.items():
        # Planes of red, green and blue, each row by row.
        data = np.zeros((len(labels), 3, 1024), np.uint8)
        data[:, 0] = np.array(labels)[:, None]
        data[:, 2, 31] = 255
        content = {
            "data": data.reshape(len(labels), 3072),
            "fine_labels": labels,
            "coarse_labels": [of_fine[label] for label in labels],
        }
        dump_by_python_2(root / "cifar-100-python" / part, content)
    names = {"fine_label_names": fine, "coarse_label_names": coarse}
    dump_by_python_2(root / "cifar-100-python" / "meta", names)


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_as_published(tmp_path: Path, packed: bool) -> None:
    write_cifar(tmp_path)
    if packed:
        with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "cifar-100-python", "cifar-100-python")
        shutil.rmtree(tmp_path / "cifar-100-python")
    fine, coarse, of_fine = cifar_names()
    data = read("cifar-fs", tmp_path)
    assert counts(data) == {"train": 64, "validation": 16, "test": 20}
    assert data.splits["test"].names == cifar.CIFAR_FS["test"]
    assert data.splits["test"].items[:3, 0, 5, 5].tolist() == [fine.index("baby")] * 3
    assert data.splits["test"].items[0, 2, 0].tolist() == [0] * 31 + [255]
    by_group = read("fc100", tmp_path)
    assert counts(by_group) == {"train": 60, "validation": 20, "test": 20}
    assert set(by_group.splits["validation"].groups) == set(cifar.FC100["validation"])
    name = by_group.splits["test"].names[0]
    assert coarse[of_fine[fine.index(name)]] == by_group.splits["test"].groups[0]
    assert int(by_group.splits["test"].items[0, 0, 0, 0]) == fine.index(name)


def test_cifar_fs_lists_in_the_published_archive(tmp_path: Path) -> None:
    lists = {"train": ["bus", "train"], "val": ["sea"], "test": ["baby", "bed"]}
    with zipfile.ZipFile(tmp_path / "cifar100.zip", "w") as archive:
        for split, names in lists.items():
            archive.writestr(f"cifar100/splits/bertinetto/{split}.txt", "\n".join(names) + "\n")
            for name in names:
                for i in range(2):
                    archive.writestr(f"cifar100/data/{name}/{name}_s_{i:06d}.png", png(picture(10 + i, 32)))
    data = read("cifar-fs", tmp_path)
    assert [part.names for part in data.splits.values()] == [("bus", "train"), ("sea",), ("baby", "bed")]
    assert data.splits["test"].items[:, 0, 0, 0].tolist() == [10, 11, 10, 11]
    with zipfile.ZipFile(tmp_path / "cifar100.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert read("cifar-fs", tmp_path / "unpacked").fingerprint == data.fingerprint
    shutil.rmtree(tmp_path / "unpacked" / "cifar100" / "data" / "bed")
    with pytest.raises(
        UserError, match=r"test.txt names 2 classes, and 1 of them have no images in data/; the first is bed"
    ):
        load("cifar-fs", tmp_path / "unpacked")


@pytest.mark.parametrize(("name", "stem"), [("cifar-fs", "CIFAR_FS"), ("fc100", "FC100")])
def test_cifar_pickles(tmp_path: Path, name: str, stem: str) -> None:
    for split in MINI:
        images = np.stack([picture(i, 32) for i in range(6)])
        dump(tmp_path / f"{stem}_{split}.pickle", {"data": images, "labels": [5, 7, 5, 7, 5, 5]})
    data = read(name, tmp_path)
    assert data.splits["test"].names == (f"{stem}_test/5", f"{stem}_test/7")
    assert data.splits["test"].items[:, 2, 9, 9].tolist() == [0, 2, 4, 5, 1, 3]
    (tmp_path / f"{stem}_val.pickle").unlink()
    with pytest.raises(UserError, match=rf"Looked for: {stem}_val.pickle. Found: "):
        load(name, tmp_path)


# -- CUB --------------------------------------------------------------------------------------------------------------


def write_cub(root: Path, species: int) -> list[str]:
    names = [f"{i:03d}.Bird_{i}" for i in range(1, species + 1)]
    for i, name in enumerate(names):
        folder = root / "CUB_200_2011" / "images" / name
        folder.mkdir(parents=True)
        for k in range(2):
            Image.fromarray(picture(i, 9)[:, : 5 + k]).save(folder / f"Bird_{i + 1}_{k}.png")
    (root / "CUB_200_2011" / "train_test_split.txt").write_text("1 0\n")
    return names


def test_cub_as_chen_split_it(tmp_path: Path) -> None:
    names = write_cub(tmp_path, 200)
    data = read("cub", tmp_path, size=16)
    assert counts(data) == {"train": 100, "validation": 50, "test": 50}
    assert data.splits["train"].names[:3] == ("001.Bird_1", "003.Bird_3", "005.Bird_5")
    assert data.splits["validation"].names[:3] == ("002.Bird_2", "006.Bird_6", "010.Bird_10")
    assert data.splits["test"].names[-1] == names[-1] == "200.Bird_200"
    # Two images of different size were brought to one.
    assert data.splits["test"].items[:2, 0, 8, 8].tolist() == [3, 3]
    with tarfile.open(tmp_path / "CUB_200_2011.tgz", "w:gz") as archive:
        archive.add(tmp_path / "CUB_200_2011", "CUB_200_2011")
    shutil.rmtree(tmp_path / "CUB_200_2011")
    assert read("cub", tmp_path, size=16).fingerprint == data.fingerprint


def test_cub_with_lists(tmp_path: Path) -> None:
    names = write_cub(tmp_path, 6)
    with pytest.raises(UserError, match=r"over 200 species, and .* has 6"):
        load("cub", tmp_path)
    root = tmp_path / "CUB_200_2011"
    (root / "train.txt").write_text(f"{names[0]}\nBird_3\n")
    (root / "val.txt").write_text(f"{names[4]}\n")
    with pytest.raises(UserError, match=r"Looked for: test\.txt or test\.csv or testing\.txt"):
        load("cub@lists", tmp_path)
    (root / "test.txt").write_text("Bird_2\n")
    data = read("cub@lists", tmp_path, size=16)
    assert [part.names for part in data.splits.values()] == [(names[0], names[2]), (names[4],), (names[1],)]
    assert [len(part.items) for part in data.splits.values()] == [4, 2, 2]
    for split, place in {"train": 0, "val": 1, "test": 5}.items():
        (root / f"{split}.txt").unlink()
        (root / "split").mkdir(exist_ok=True)
        (root / "split" / f"{split}.csv").write_text(f"filename,label\nBird_{place + 1}_1.png,{names[place]}\n")
    data = read("cub@lists", tmp_path, size=16)
    assert [part.names for part in data.splits.values()] == [(names[0],), (names[1],), (names[5],)]
    assert data.splits["test"].origins == (f"CUB_200_2011/images/{names[5]}/Bird_6_1.png",)
    (root / "split" / "val.csv").write_text("filename,label\nEagle_1.png,9\n")
    with pytest.raises(UserError, match=r"val.csv names 'Eagle_1.png,9', which is no species and no image"):
        load("cub@lists", tmp_path)
