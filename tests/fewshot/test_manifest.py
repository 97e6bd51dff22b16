from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot import Episodes, EpisodeShape, Source
from metarl.fewshot.data import Collection
from metarl.fewshot.episodes import MetaDatasetShape
from metarl.fewshot.manifest import join, make, read, write
from tests.helpers.tiny_fewshot import SHAPE, Lines, share, vectors


def assert_equal(first: Episodes, second: Episodes) -> None:
    assert first.support.way == second.support.way
    pairs = [(first.support.x, second.support.x), (first.support.y, second.support.y)]
    for one, other in [*pairs, (first.query_x, second.query_x), (first.query_y, second.query_y)]:
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


BOTH = Collection(members=(vectors(), vectors(seed=1, name="others")))


@pytest.mark.parametrize("source", [vectors(), BOTH, Lines()], ids=["rows", "collection", "functions"])
def test_it_has_the_episodes_of_the_source(source: Source) -> None:
    manifest = make(source, "test", 130, SHAPE, 7)
    assert len(manifest) == 130
    assert_equal(manifest.episodes(source, 120, 125), source.episodes("test", range(120, 125), SHAPE, 7))
    chunks = list(manifest.chunks(source, 100))
    assert sum(map(len, chunks)) == 130
    assert all(len(chunk) * (chunk.support.x.shape[1] + chunk.query_x.shape[1]) <= 100 for chunk in chunks)
    # Rows, or values where there are no rows.
    assert ("support_x" in manifest.arrays) == isinstance(source, Lines)
    assert_equal(chunks[0], source.episodes("test", range(len(chunks[0])), SHAPE, 7))


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    for number, source in enumerate((vectors(), Lines())):
        manifest = make(source, "test", 30, SHAPE, 0)
        path = tmp_path / "new" / f"{number}.manifest"
        write(manifest, path)
        found = read(path, source)
        assert found.hash == manifest.hash
        assert found.header == manifest.header
        assert_equal(found.episodes(source, 0, 30), manifest.episodes(source, 0, 30))
    assert {entry.name for entry in (tmp_path / "new").iterdir()} == {"0.manifest", "1.manifest"}


def test_the_hash_tells_everything_apart() -> None:
    data = vectors()
    made = [
        make(data, "test", 20, SHAPE, 0),
        make(data, "test", 21, SHAPE, 0),
        make(data, "test", 20, SHAPE, 1),
        make(data, "validation", 20, SHAPE, 0),
        make(data, "test", 20, EpisodeShape(way=5, shot=2, query=2), 0),
        make(vectors(seed=1), "test", 20, SHAPE, 0),
        make(Lines(), "test", 20, SHAPE, 0),
    ]
    assert len({manifest.hash for manifest in made}) == len(made)
    assert make(vectors(), "test", 20, SHAPE, 0).hash == made[0].hash


def test_workers_draw_the_same_episodes() -> None:
    data, count = vectors(), 64
    whole = make(data, "test", count, SHAPE, 3)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        for workers in (1, 2, 4):
            size = count // workers
            shares = [range(first, first + size) for first in range(0, count, size)]
            parts = list(pool.map(partial(share, seed=3), shares))
            assert join(data, "test", parts, SHAPE, 3).hash == whole.hash


def test_episodes_of_varying_size() -> None:
    data = vectors()
    shape = MetaDatasetShape(min_way=2, max_query=3, max_support=20, max_way=8)
    manifest = make(data, "test", 12, shape, 0)
    assert len({tuple(size) for size in manifest.arrays["sizes"].tolist()}) > 3
    chunks = list(manifest.chunks(data, 10_000))
    first = 0
    for chunk in chunks:
        for place in range(len(chunk)):
            expected = data.episodes("test", [first], shape, 0)
            assert_equal(manifest.episodes(data, first, first + 1), expected)
            assert torch.equal(chunk.query_x[place], expected.query_x[0])
            first += 1
    assert first == 12
    with pytest.raises(UserError, match="lines has no classes whose number could vary"):
        make(Lines(), "test", 3, shape, 0)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    data, path = vectors(), tmp_path / "episodes.manifest"
    write(make(data, "test", 10, SHAPE, 0), path)
    with pytest.raises(UserError, match=r"of the data vectors with fingerprint .*, and vectors has .*Use the data"):
        read(path, vectors(seed=1))
    whole = path.read_bytes()
    for content, says in [
        (whole[:-1], "truncated or damaged"),
        (whole.replace(b'"seed": 0', b'"seed": 1'), "truncated or damaged"),
        (whole.replace(b"episodes 1\n", b"episodes 9\n"), "has manifest format 9, this version reads 1"),
        (b"something else", "is not a manifest of episodes"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=says):
            read(path, data)
    with pytest.raises(UserError, match="There is no manifest"):
        read(tmp_path / "nowhere", data)
    with pytest.raises(UserError, match="Got 0 episodes"):
        make(data, "test", 0, SHAPE, 0)
    with pytest.raises(UserError, match="Got 50 ways"):
        make(data, "test", 10, EpisodeShape(way=50, shot=1, query=1), 0)
