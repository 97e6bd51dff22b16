from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

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


def test_mapped_items_can_be_used_without_touching_the_cache(tree: Path) -> None:
    data = data_of(load("folder", tree))
    before = data.fingerprint
    data.splits["train"].items.zero_()
    assert data_of(load("folder", tree)).fingerprint == before
