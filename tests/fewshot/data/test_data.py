from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import DATA, Collection, cache, from_arrays, load, variants
from metarl.fewshot.episodes import EpisodeShape, MetaDatasetShape, Source

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METARL_DATA", raising=False)
    return tmp_path / "cache"


def write_image(path: Path, value: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value, value // 2, 255 - value)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """<class>/<image>, ten classes of three images; image i of class c has red 20 * c + i."""
    root = tmp_path / "images"
    for c in range(10):
        for i in range(3):
            write_image(root / f"class{c}" / f"{i}.png", 20 * c + i)
    return root


def data_of(source: Source) -> ClassData:
    assert isinstance(source, ClassData)
    return source


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


# -- registry ---------------------------------------------------------------------------------------------------------


def test_unknown_names_are_told() -> None:
    with pytest.raises(UserError, match=r"Unknown data set 'omniglt'. Did you mean 'omniglot'"):
        load("omniglt")
    with pytest.raises(UserError, match=r"Unknown variant 'vinyal' of omniglot. Did you mean 'vinyals'"):
        load("omniglot@vinyal")
    with pytest.raises(UserError, match=r"Unknown variant 'x' of fc100. It has none"):
        load("fc100@x")
    with pytest.raises(UserError, match="size of -1"):
        load("omniglot", size=-1)


def test_every_file_data_set_says_what_it_offers() -> None:
    for name in ("omniglot", "mini-imagenet", "tiered-imagenet", "cub", "folder", "arrays", "molecules"):
        assert variants(name)
    assert variants("cifar-fs") == variants("fc100") == {}
    assert all(summary and not summary.endswith(".") for _, summary in DATA.values())


@pytest.mark.parametrize("name", ["omniglot", "mini-imagenet", "tiered-imagenet", "cifar-fs", "fc100", "cub"])
def test_missing_and_empty_folders_are_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"{name} is read from files.*--data-root.*METARL_DATA"):
        load(name)
    with pytest.raises(UserError, match=r"nowhere \(--data-root\), which does not exist"):
        load(name, tmp_path / "nowhere")
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"nothing \(METARL_DATA\), which does not exist"):
        load(name)
    (tmp_path / "other" / name).mkdir(parents=True)
    with pytest.raises(
        UserError, match=rf"other/{name} does not hold {name}.*Looked for: .*Found: nothing, it is empty"
    ):
        load(name, tmp_path / "other")
    (tmp_path / "strange" / "videos").mkdir(parents=True)
    (tmp_path / "strange" / "notes.doc").touch()
    with pytest.raises(UserError, match=rf"Looked for: a folder {name}/; .*Found: notes.doc, videos/"):
        load(name, tmp_path / "strange")


def test_root_may_hold_the_data_set_or_be_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = tree.rename(tree.with_name("Folder"))
    monkeypatch.setenv("METARL_DATA", str(renamed.parent))
    outer, direct = load("folder"), load("folder", renamed)
    assert data_of(outer).fingerprint == data_of(direct).fingerprint


# -- folders ----------------------------------------------------------------------------------------------------------


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


# -- cache ------------------------------------------------------------------------------------------------------------


def refuse(*_: object) -> None:
    raise AssertionError("decoded again")


def test_second_load_does_not_decode(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data_of(load("folder", tree))
    monkeypatch.setattr(cache, "decoded", refuse)
    second = data_of(load("folder", tree))
    assert second.describe() == first.describe()
    assert second.mean == first.mean
    assert second.splits["train"].origins == first.splits["train"].origins


def test_other_size_or_files_make_another_entry(tree: Path, cache_root: Path) -> None:
    load("folder", tree)
    assert data_of(load("folder", tree, size=4)).item_shape == (3, 4, 4)
    write_image(tree / "class0" / "2.png", 255)
    os.utime(tree / "class0" / "2.png", ns=(0, 12345))
    changed = data_of(load("folder", tree))
    part = next(part for part in changed.splits.values() if "class0" in part.names)
    row = int(part.starts[part.names.index("class0")]) + 2
    assert int(part.items[row, 0, 0, 0]) == 255
    assert len(entries(cache_root)) == 3


@pytest.mark.parametrize("damage", ["array", "index", "no index", "shapes"])
def test_unusable_entry_is_made_anew(tree: Path, cache_root: Path, damage: str) -> None:
    expected = data_of(load("folder", tree)).fingerprint
    (entry,) = (cache_root / name for name in entries(cache_root))
    if damage == "array":
        (entry / "test.npy").write_bytes((entry / "test.npy").read_bytes()[:-10])
    elif damage == "index":
        (entry / "index.json").write_text((entry / "index.json").read_text()[:-10])
    elif damage == "no index":
        (entry / "index.json").unlink()
    else:
        index = json.loads((entry / "index.json").read_text())
        index["splits"]["test"]["sizes"][0] += 1
        (entry / "index.json").write_text(json.dumps(index))
    assert data_of(load("folder", tree)).fingerprint == expected


def test_killed_decode_leaves_nothing_that_is_taken(tree: Path, cache_root: Path) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from metarl.fewshot.data import cache, load
        decode, count = cache.decoded, 0
        def die(*args):
            global count
            count += 1
            if count == 15:
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(*args)
        cache.decoded = die
        load("folder", Path({str(tree)!r}))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = entries(cache_root)
    assert left.endswith(".partial")
    data = data_of(load("folder", tree))
    assert sum(len(part.items) for part in data.splits.values()) == 30
    assert entries(cache_root) == [left.removesuffix(".partial")]


def test_cache_that_cannot_be_written_is_told(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Could not write the cache of folder .*METARL_CACHE"):
        load("folder", tree)


def test_mapped_items_can_be_used_without_touching_the_cache(tree: Path) -> None:
    data = data_of(load("folder", tree))
    before = data.fingerprint
    data.splits["train"].items.zero_()
    assert data_of(load("folder", tree)).fingerprint == before


# -- arrays -----------------------------------------------------------------------------------------------------------


def test_from_arrays_makes_episodes() -> None:
    classes = np.repeat(np.arange(100, 125), 8)
    np.random.default_rng(0).shuffle(classes)
    items = classes[:, None].astype(np.float64) + np.zeros((200, 4))
    data = from_arrays(items, classes)
    assert {name: len(part.names) for name, part in data.splits.items()} == {"train": 16, "validation": 4, "test": 5}
    assert sorted(name for part in data.splits.values() for name in part.names) == [str(c) for c in range(100, 125)]
    for part in data.splits.values():
        assert part.items[:, 0].tolist() == [float(part.names[label]) for label in part.labels.tolist()]
        assert [items[int(origin.split()[1]), 0] for origin in part.origins] == part.items[:, 0].tolist()
    episodes = data.episodes("train", range(3), EpisodeShape(way=5, shot=2, query=3), seed=0)
    assert episodes.support.x.shape == (3, 10, 4)
    train = data.splits["train"].items
    assert torch.allclose(data.scaled(train).mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(data.scaled(train).std(0, correction=0), torch.ones(4), atol=1e-5)
    assert from_arrays(items, classes, seed=1).splits["test"].names != data.splits["test"].names


def test_from_arrays_with_given_splits() -> None:
    items = torch.arange(60, dtype=torch.uint8).view(15, 2, 2)
    classes = torch.arange(5).repeat_interleave(3)
    data = from_arrays(items, classes, splits={"train": [4, 0], "test": [2]})
    assert {name: part.names for name, part in data.splits.items()} == {"train": ("0", "4"), "test": ("2",)}
    # Grey images got a channel axis, and bytes stayed bytes.
    assert data.item_shape == (1, 2, 2)
    assert data.splits["test"].items.dtype == torch.uint8
    assert data.splits["test"].items.flatten().tolist() == list(range(24, 36))


def test_from_arrays_refuses_bad_input() -> None:
    items, classes = np.zeros((20, 3), np.float32), np.arange(20) // 4
    with pytest.raises(UserError, match=r"classes of the type float64; the first is 0.5. Give integers"):
        from_arrays(items, classes + 0.5)
    with pytest.raises(UserError, match=r"classes of the type <U1; the first is 'a'"):
        from_arrays(items, np.array(list("abcdefghijklmnopqrst")))
    with pytest.raises(UserError, match=r"20 items and classes of the shape \(19,\)"):
        from_arrays(items, classes[1:])
    bad = items.copy()
    bad[7, 2] = np.nan
    bad[9, 0] = np.inf
    with pytest.raises(UserError, match=r"2 of 20 items .*the first is item 7"):
        from_arrays(bad, classes)
    with pytest.raises(UserError, match=r"mixed size: item 0 has the shape \(3,\), item 5 \(4,\)"):
        from_arrays([np.zeros(3 + (i == 5)) for i in range(20)], classes)
    ragged = np.empty(20, object)
    ragged[:] = [np.zeros(3 + (i == 5)) for i in range(20)]
    with pytest.raises(UserError, match="mixed size"):
        from_arrays(ragged, classes)
    with pytest.raises(UserError, match="Got items of the type <U1"):
        from_arrays(np.full((20, 3), "a"), classes)
    with pytest.raises(UserError, match=r"items of the shape \(20,\)"):
        from_arrays(items[:, 0], classes)
    with pytest.raises(UserError, match="Got 1 classes of arrays"):
        from_arrays(items, np.zeros(20, int))
    with pytest.raises(UserError, match=r"3 stands in the splits 'train' and 'test'"):
        from_arrays(items, classes, splits={"train": [1, 3], "test": [3]})
    with pytest.raises(UserError, match=r"names 9, which is not among the 5"):
        from_arrays(items, classes, splits={"train": [1], "test": [9]})
    with pytest.raises(UserError, match="Unknown split 'val'"):
        from_arrays(items, classes, splits={"val": [1]})
    with pytest.raises(UserError, match="three that add up to 1"):
        from_arrays(items, classes, fractions=(0.5, 0.4, 0.4))


def test_arrays_from_files(tmp_path: Path) -> None:
    items, classes = np.random.default_rng(0).random((40, 3)), np.arange(40) // 4
    np.save(tmp_path / "items.npy", items)
    with pytest.raises(UserError, match=r"Looked for: classes.npy. Found: .*items.npy"):
        load("arrays", tmp_path)
    np.save(tmp_path / "classes.npy", classes)
    assert data_of(load("arrays", tmp_path)).fingerprint == from_arrays(items, classes).fingerprint
    (tmp_path / "classes.npy").write_bytes((tmp_path / "classes.npy").read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        load("arrays", tmp_path)


# -- collections ------------------------------------------------------------------------------------------------------


def tinted(name: str, value: float, shape: tuple[int, ...], splits: tuple[str, ...]) -> ClassData:
    data = from_arrays(np.full((80, *shape), value, np.float32), np.arange(80) // 8, name=name)
    # Mean and deviation left aside: an item shows whose it is.
    return ClassData(name=name, splits={split: data.splits[split] for split in splits})


@pytest.fixture
def collection() -> Collection:
    everywhere = ("train", "validation", "test")
    return Collection(
        members=(
            tinted("grey", 1.0, (1, 8, 8), everywhere),
            tinted("colour", 2.0, (3, 16, 16), everywhere),
            tinted("test-only", 3.0, (1, 8, 8), ("test",)),
        )
    )


def test_collection_draws_from_all_members(collection: Collection) -> None:
    shape = EpisodeShape(way=1, shot=1, query=2)
    assert isinstance(collection, Source)
    assert (collection.name, collection.item_shape) == ("grey+colour+test-only", (3, 8, 8))
    for split, values in {"train": {1.0, 2.0}, "test": {1.0, 2.0, 3.0}}.items():
        episodes = collection.episodes(split, range(60), shape, seed=0)
        assert episodes.support.x.shape == (60, 1, 3, 8, 8)
        found = episodes.support.x.amax((1, 2, 3, 4))
        assert set(found.tolist()) == values
        # All items of an episode are of one member.
        assert torch.equal(episodes.query_x.amin((1, 2, 3, 4)), found)


def test_collection_is_the_same_in_any_parts(collection: Collection) -> None:
    shape = EpisodeShape(way=1, shot=1, query=2)
    whole = collection.episodes("test", range(10), shape, seed=0).support.x
    parts = [collection.episodes("test", [n], shape, seed=0).support.x for n in range(10)]
    assert torch.equal(whole, torch.cat(parts))
    shapes = MetaDatasetShape(min_way=2)
    assert collection.episodes("test", [4], shapes, seed=0).support.way == 2
    twin = Collection(members=collection.members[:2])
    assert twin.describe()["fingerprint"] != collection.describe()["fingerprint"]


def test_collection_refuses_what_does_not_fit(collection: Collection) -> None:
    grey = collection.members[0]
    with pytest.raises(UserError, match="collection of grey"):
        Collection(members=(grey,))
    with pytest.raises(UserError, match="each once"):
        Collection(members=(grey, grey))
    with pytest.raises(UserError, match="items of different shapes"):
        Collection(members=(grey, from_arrays(np.zeros((20, 3)), np.arange(20) // 4)))
    with pytest.raises(UserError, match="Unknown split 'nowhere'"):
        collection.episodes("nowhere", [0], EpisodeShape(), 0)


def test_collection_by_address(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "all"
    shutil.move(tree, root / "folder")
    np.save(root / "items.npy", np.zeros((40, 3, 6, 6), np.float32))
    np.save(root / "classes.npy", np.arange(40) // 4)
    source = load("folder+arrays", root)
    assert isinstance(source, Collection)
    assert [member.name for member in source.members] == ["folder", "arrays-all"]
    assert source.episodes("test", range(4), EpisodeShape(way=2, query=2), 0).query_x.shape == (4, 4, 3, 6, 6)


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "data" / name / "0.png", 100)
    (tmp_path / "data" / "empty").mkdir()
    with pytest.raises(UserError, match=r"data/empty is empty\. Complete the download, or remove it"):
        load("folder", tmp_path / "data", size=8)
