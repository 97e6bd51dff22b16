from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.data import load
from metarl.fewshot.episodes import EpisodeShape
from tests.helpers.image_files import data_of, entries, write_image

pytestmark = pytest.mark.usefixtures("cache_root")


def test_folder_without_splits(tree: Path) -> None:
    data = data_of(load("folder", tree))
    assert {name: len(part.names) for name, part in data.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    names = [name for part in data.splits.values() for name in part.names]
    assert sorted(names) == [f"class{c}" for c in range(10)]
    assert data.item_shape == (3, 6, 6)
    for part in data.splits.values():
        for row, label in enumerate(part.labels.tolist()):
            c, i = int(part.names[label][-1]), row % 3
            assert part.items[row, :, 0, 0].tolist() == [20 * c + i, (20 * c + i) // 2, 255 - 20 * c - i]
            assert part.origins[row] == f"class{c}/{i}.png"
    train = data.splits["train"].items.double() / 255
    assert data.mean == pytest.approx(train.mean((0, 2, 3)).tolist())
    assert data.deviation == pytest.approx(train.std((0, 2, 3), correction=0).tolist())
    assert data.episodes("test", [0], EpisodeShape(way=2, shot=1, query=2), 0).support.x.shape == (1, 2, 3, 6, 6)


def test_folder_with_splits_size_and_grey(tmp_path: Path) -> None:
    # `train` is a class here, too.
    for split, classes in {"train": ("a", "b"), "val": ("c",), "test": ("train", "e")}.items():
        for name in classes:
            write_image(tmp_path / "mine" / split / name / "deep" / "0.jpg", 100, (40, 20), "L")
            write_image(tmp_path / "mine" / split / name / "1.png", 200)
    data = data_of(load("folder@grey", tmp_path / "mine", size=12))
    assert {name: part.names for name, part in data.splits.items()} == {
        "train": ("a", "b"), "validation": ("c",), "test": ("train", "e")[::-1],
    }  # fmt: skip
    assert data.item_shape == (1, 12, 12)
    assert data.splits["test"].items[:, 0, 5, 5].tolist()[1] == 100


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_folder_in_an_archive(tree: Path, ending: str) -> None:
    plain = data_of(load("folder", tree))
    archive = tree.with_name(f"images.{ending}")
    if ending == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(tree.rglob("*.png")):
                file.write(path, path.relative_to(tree.parent))
            file.writestr("__MACOSX/images/class0/._0.png", b"no image")
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(tree, tree.name)
    packed = data_of(load("folder", archive))
    assert packed.fingerprint == plain.fingerprint


def test_splits_beside_classes_are_refused(tree: Path) -> None:
    write_image(tree / "train" / "a" / "0.png", 1)
    with pytest.raises(UserError, match="folders of splits and beside them class0, class1"):
        load("folder", tree)


def test_class_in_two_splits_is_refused(tmp_path: Path, cache_root: Path) -> None:
    for split in ("train", "test"):
        write_image(tmp_path / "mine" / split / "cat" / "0.png", 1)
    with pytest.raises(UserError, match="class 'cat' of folder stands in train and again in test"):
        load("folder", tmp_path / "mine")
    assert entries(cache_root) == []


def test_mixed_sizes_are_named_and_nothing_is_cached(tree: Path, cache_root: Path) -> None:
    write_image(tree / "class9" / "2.png", 1, (7, 6))
    with pytest.raises(UserError, match=r"mixed size: class\d/0.png has 6 x 6 pixels and class9/2.png 7 x 6"):
        load("folder", tree)
    assert entries(cache_root) == []
    assert data_of(load("folder", tree, size=6)).item_shape == (3, 6, 6)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n\0\0"])
def test_unreadable_images_are_named_and_nothing_is_cached(tree: Path, cache_root: Path, content: bytes) -> None:
    (tree / "class3" / "1.png").write_bytes(content)
    with pytest.raises(UserError, match=r"The image class3/1.png cannot be read"):
        load("folder", tree)
    assert entries(cache_root) == []


def test_half_an_image_is_named(tree: Path) -> None:
    path = tree / "class3" / "1.jpg"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"class3/1.jpg cannot be read \(image file is truncated"):
        load("folder", tree, size=6)


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_half_downloaded_archive_is_told(tree: Path, ending: str) -> None:
    shutil.make_archive(str(tree), "zip" if ending == "zip" else "gztar", tree)
    archive = tree.with_name(f"images.{ending}")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cannot be read as an archive.*not wholly downloaded"):
        load("folder", archive)


def test_too_few_items_for_an_episode_are_told(tree: Path) -> None:
    (tree / "class0" / "2.png").unlink()
    data = load("folder", tree)
    split = next(name for name, part in data_of(data).splits.items() if "class0" in part.names)
    with pytest.raises(UserError, match=r"3 items of a class, and the class 'class0' of folder .* has 2"):
        data.episodes(split, [0], EpisodeShape(way=2, shot=1, query=2), 0)
    with pytest.raises(UserError, match=r"Got 5 ways, and the split 'test' of folder has 2 classes"):
        data.episodes("test", [0], EpisodeShape(way=5), 0)


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "data" / name / "0.png", 100)
    (tmp_path / "data" / "empty").mkdir()
    with pytest.raises(UserError, match=r"data/empty is empty\. Complete the download, or remove it"):
        load("folder", tmp_path / "data", size=8)
