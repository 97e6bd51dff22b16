from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot.data import cache, load
from tests.helpers.image_files import data_of, entries, write_image

REPOSITORY = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.usefixtures("cache_root")


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


def test_a_disk_without_room_for_the_cache_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(
        UserError, match=r"need [\d,]+ bytes in the cache, and 1,000 are free there. Give a smaller --size"
    ):
        load("folder", tree)
    assert not entries(cache.cache_folder())


def test_files_are_read_a_few_at_a_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data_of(load("folder", tree)).fingerprint
    shutil.rmtree(cache.cache_folder())
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 1)
    assert data_of(load("folder", tree)).fingerprint == whole
    pictures = [cache.Picture(origin=str(i), read=partial(bytes, 10)) for i in range(7)]
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 25)
    assert [len(part) for _, part in cache._read_in_parts(pictures)] == [3, 3, 1]
    monkeypatch.setattr(cache, "_CHUNK", 2)
    assert [len(part) for _, part in cache._read_in_parts(pictures)] == [2, 2, 2, 1]


def test_mapped_items_can_be_used_without_touching_the_cache(tree: Path) -> None:
    data = data_of(load("folder", tree))
    before = data.fingerprint
    data.splits["train"].items.zero_()
    assert data_of(load("folder", tree)).fingerprint == before


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
@pytest.mark.parametrize("end", ["", ".partial", ".lock"])
@pytest.mark.parametrize("kind", ["folder", "file", "nothing", "pipe"])
def test_nothing_outside_the_cache_is_written(
    tree: Path, cache_root: Path, tmp_path: Path, end: str, kind: str
) -> None:
    load("folder", tree)
    (name,) = entries(cache_root)
    shutil.rmtree(cache_root)
    cache_root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "index.json").write_bytes(b"kept")
    if kind == "pipe":
        os.mkfifo(outside / "pipe")
    targets = {"folder": outside, "file": outside / "index.json"}
    (cache_root / f"{name}{end}").symlink_to(targets.get(kind, outside / kind))
    # A folder is locked as it is.
    if end == ".lock" and kind != "folder":
        with pytest.raises(UserError, match="Could not write the cache of folder"):
            load("folder", tree)
    else:
        load("folder", tree)
    assert {path.name: path.is_file() and path.read_bytes() for path in outside.iterdir()} == {
        "index.json": b"kept",
        **({"pipe": False} if kind == "pipe" else {}),
    }


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")
@pytest.mark.parametrize("name", ["index.json", "test.npy"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read_from_an_entry(tree: Path, cache_root: Path, name: str, kind: str) -> None:
    expected = data_of(load("folder", tree)).fingerprint
    (entry,) = (cache_root / name for name in entries(cache_root))
    (entry / name).unlink()
    if kind == "pipe":
        os.mkfifo(entry / name)
    elif kind == "device":
        (entry / name).symlink_to("/dev/zero")
    else:
        (entry / name).mkdir()
    assert data_of(load("folder", tree)).fingerprint == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(mean=[float("nan")]),
        lambda index: index.update(mean="0"),
        lambda index: index.update(deviation=[0.0]),
        lambda index: index.update(deviation=[[1.0]]),
        lambda index: index.update(ranges={"uint16": [1, 0]}),
        lambda index: index.update(ranges={"other": [0, 1]}),
        lambda index: index.update(ranges=[]),
        lambda index: index.update(more=1),
        lambda index: index.pop("mean"),
        lambda index: index["splits"].update({"../../test": index["splits"]["test"]}),
        lambda index: index["splits"]["test"].update(sizes=[-1, 31]),
        lambda index: index["splits"]["test"].update(sizes=[10**30]),
        lambda index: index["splits"]["test"].update(sizes="3"),
        lambda index: index["splits"]["test"].update(names=[1]),
        lambda index: index["splits"]["test"].update(names=["a"] * 99),
        lambda index: index["splits"]["test"].update(origins=[None]),
    ],
)
def test_an_index_that_does_not_hold_what_it_should_is_made_anew(tree: Path, cache_root: Path, change: Any) -> None:
    expected = data_of(load("folder", tree))
    (entry,) = (cache_root / name for name in entries(cache_root))
    index = json.loads((entry / "index.json").read_text())
    change(index)
    (entry / "index.json").write_text(json.dumps(index))
    found = data_of(load("folder", tree))
    assert (found.fingerprint, found.mean, found.deviation) == (expected.fingerprint, expected.mean, expected.deviation)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1' + "0" * 9000 + "}", "\xff", '{"splits": {}, "splits": {}}'])
def test_an_index_that_is_no_plain_json_is_made_anew(tree: Path, cache_root: Path, text: str) -> None:
    expected = data_of(load("folder", tree)).fingerprint
    (entry,) = (cache_root / name for name in entries(cache_root))
    (entry / "index.json").write_text(text, encoding="latin-1")
    assert data_of(load("folder", tree)).fingerprint == expected


@pytest.mark.parametrize("kind", ["object", "complex", "wide", "huge"])
def test_an_array_of_another_kind_is_made_anew(tree: Path, cache_root: Path, kind: str) -> None:
    data = data_of(load("folder", tree))
    expected = data.fingerprint
    (entry,) = (cache_root / name for name in entries(cache_root))
    items = data.splits["test"].items.numpy().copy()
    if kind == "huge":
        header = (entry / "test.npy").read_bytes()[:128].replace(str(len(items)).encode(), b"9" * 15, 1)
        (entry / "test.npy").write_bytes(header)
    else:
        other = {"object": object, "complex": complex, "wide": np.float64}[kind]
        np.save(entry / "test.npy", items.astype(other))
    assert data_of(load("folder", tree)).fingerprint == expected
