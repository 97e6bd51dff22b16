from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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


# -- pictures of other kinds than 8 bits ------------------------------------------------------------------------------


def deep_tree(root: Path, factor: float, kind: type[np.generic], ending: str, splits: bool = False) -> Path:
    """Write six classes of two pictures, whose values are those of 8 bits times a factor."""
    levels = np.random.default_rng(0).integers(0, 256, (6, 2, 5, 4))
    levels[:, :, 0, :2] = 0, 255
    for c in range(6):
        folder = root / (["train", "val", "test"][c // 2] if splits else "") / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray((levels[c, i] * factor).astype(kind)).save(folder / f"{i}.{ending}")
    return root


def items_of(root: Path, **options: Any) -> torch.Tensor:
    """Return all items, in the order of their classes."""
    data = data_of(load("folder@grey", root, **options))
    parts = {name: part.items[part.labels == i] for part in data.splits.values() for i, name in enumerate(part.names)}
    return torch.cat([parts[name] for name in sorted(parts)])


def test_deep_pictures_are_those_of_8_bits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = items_of(deep_tree(tmp_path / "8", 1, np.uint8, "png")).float()
    assert capfd.readouterr().err == ""
    for name, factor, kind, ending, told in (
        ("16", 257, np.uint16, "png", "16 bits a channel have values from 0 to 65535; 0 is taken for black and 65535"),
        (
            "12",
            4095 / 255,
            np.uint16,
            "tif",
            "16 bits a channel have values from 0 to 4095; 0 is taken for black and 4",
        ),
        ("float", 1 / 255, np.float32, "tif", "floating point numbers have values from 0 to 1; 0 is taken for black"),
    ):
        root = deep_tree(tmp_path / name, factor, kind, ending)
        deep = items_of(root)
        assert deep.dtype == torch.float32
        assert (deep - plain).abs().max() < 0.1
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert told in error
        # The next time it is in the cache.
        assert torch.equal(items_of(root), deep)
        assert capfd.readouterr().err == ""


def test_the_range_is_that_of_all_splits_and_stands_with_the_data(tmp_path: Path) -> None:
    root = deep_tree(tmp_path / "mine", 1000 / 255, np.uint16, "png", splits=True)
    assert data_of(load("folder", root)).describe()["settings"]["ranges"] == {"16 bits": [0.0, 1023.0]}
    Image.fromarray(np.full((5, 4), 4000, np.uint16)).save(root / "test" / "class4" / "2.png")
    data = data_of(load("folder", root))
    assert data.describe()["settings"]["ranges"] == {"16 bits": [0.0, 4095.0]}
    assert data.splits["train"].items.max() == pytest.approx(255 * 1000 / 4095)
    train = data.splits["train"].items.double()
    assert data.mean == pytest.approx(train.mean((0, 2, 3)).tolist())
    assert data.deviation == pytest.approx(train.std((0, 2, 3), correction=0).tolist())
    scaled = data.items("train", torch.arange(4))
    assert scaled.mean().item() == pytest.approx(0, abs=1e-5)
    assert scaled.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_a_stated_range_is_taken_and_the_advice_for_it_works(tmp_path: Path) -> None:
    root = deep_tree(tmp_path / "hounsfield", 1400 / 255, np.float32, "tif")
    with pytest.raises(
        UserError, match=r"of folder hold floating .* to 1400 \(.*Give --range LEAST GREATEST \(in Pyth"
    ):
        load("folder@grey", root)
    found = items_of(root, range=(200, 1200))
    plain = items_of(deep_tree(tmp_path / "8", 1, np.uint8, "png")).float()
    expected = ((plain * (1400 / 255)).clamp(200, 1200) - 200) / 1000 * 255
    assert (found - expected).abs().max() < 1e-3
    assert data_of(load("folder", root, range=(200, 1200))).settings["ranges"] == {"float": [200.0, 1200.0]}
    with pytest.raises(UserError, match=r"Got --range 0 4095, and all pictures of folder have 8 bits .* Leave it out"):
        items_of(tmp_path / "8", range=(0, 4095))
    assert items_of(tmp_path / "8").dtype == torch.uint8


def test_one_deep_picture_among_others_makes_floats_of_all(tree: Path) -> None:
    before = data_of(load("folder@grey", tree))
    Image.fromarray(np.full((6, 6), 40 * 257, np.uint16)).save(tree / "class9" / "2.png")
    after = data_of(load("folder@grey", tree))
    for split, part in before.splits.items():
        changed = torch.tensor([origin == "class9/2.png" for origin in part.origins])
        assert torch.equal(after.splits[split].items[~changed], part.items[~changed].float())
        # Too dark for all that 16 bits can hold, and too light for fewer.
        assert after.splits[split].items[changed].unique().tolist() in ([], [pytest.approx(40 * 257 / 16383 * 255)])


def test_other_files_are_read_as_the_data_were(tmp_path: Path) -> None:
    root = deep_tree(tmp_path / "mine", 4095 / 255, np.uint16, "png")
    data = data_of(load("folder@grey", root))
    names = [f"{name}/{i}.png" for part in data.splits.values() for name in part.names for i in range(2)]
    stored = torch.cat([part.items for part in data.splits.values()])
    assert torch.equal(data.read([root / name for name in names]), stored)
    dark = tmp_path / "dark.png"
    Image.fromarray(np.full((5, 4), 200, np.uint16)).save(dark)
    assert data.read([dark]).unique().tolist() == [pytest.approx(200 / 4095 * 255)]
    Image.fromarray(np.full((5, 4), 77, np.uint8)).save(dark)
    assert data.read([str(dark)]).unique().tolist() == [77.0]
    Image.fromarray(np.full((5, 4), 5000, np.uint16)).save(dark)
    with pytest.raises(
        UserError, match=r"dark.png has values from 5000 to 5000, and those of the data go from 0 to 4095"
    ):
        data.read([dark])
    Image.fromarray(np.full((6, 4), 77, np.uint8)).save(dark)
    with pytest.raises(
        UserError, match=r"dark.png has the shape \(1, 6, 4\), and folder has \(1, 5, 4\).* with a --size"
    ):
        data.read([dark])
    with pytest.raises(UserError, match=r"nowhere.png cannot be read .*Give a file"):
        data.read([tmp_path / "nowhere.png"])
    with pytest.raises(UserError, match=r"Got no files"):
        data.read([])
    plain = data_of(load("folder@grey", deep_tree(tmp_path / "8", 1, np.uint8, "png")))
    assert plain.read([tmp_path / "8" / "class0" / "0.png"]).dtype == torch.uint8
    with pytest.raises(
        UserError, match=r"0.png has 16 bits a channel, and no image of the data has.* Save it as those"
    ):
        plain.read([root / "class0" / "0.png"])


def test_the_ground_is_an_option(tmp_path: Path) -> None:
    for c in range(3):
        (tmp_path / "ink" / f"{c}").mkdir(parents=True)
        Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "ink" / f"{c}" / "0.png")
    assert items_of(tmp_path / "ink").unique().tolist() == [255]
    assert items_of(tmp_path / "ink", ground="black").unique().tolist() == [0]
    assert data_of(load("folder", tmp_path / "ink", ground="#102030")).read([tmp_path / "ink" / "0" / "0.png"])[
        0, :, 0, 0
    ].tolist() == [16, 32, 48]
    with pytest.raises(UserError, match=r"Got --ground whit\. Give a colour"):
        load("folder", tmp_path / "ink", ground="whit")


def test_files_that_are_no_pictures_are_told_or_refused(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tree / "class1" / "notes.txt").write_text("mine")
    (tree / "Thumbs.db").write_bytes(b"")
    load("folder", tree)
    assert "folder: left out 2 files that are no pictures, as Thumbs.db." in capfd.readouterr().err
    (tree / "class2" / "3.HEIC").write_bytes(b"a phone's")
    with pytest.raises(UserError, match=r"has 1 files of kinds that are not read, as class2/3.HEIC. Save them as PNG"):
        load("folder", tree)
    (tree / "class2" / "3.HEIC").unlink()
    (tree / "class99").mkdir()
    (tree / "class99" / "list.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"class99 holds other files and no pictures. Take it out"):
        load("folder", tree)
