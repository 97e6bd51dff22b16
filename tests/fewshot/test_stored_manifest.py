"""Manifests by somebody else, whose hash fits: each is good, or refused in one line."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot import Source
from metarl.fewshot.episodes import MetaDatasetShape
from metarl.fewshot.manifest import Manifest, make, read, write
from metarl.fewshot.summary import label
from tests.fewshot.test_manifest import BOTH
from tests.helpers.mutations import mutations, seal, unseal
from tests.helpers.tiny_fewshot import SHAPE, Lines, vectors

VARYING = MetaDatasetShape(min_way=2, max_query=3, max_support=20, max_way=8)
CASES: dict[str, tuple[Source, Any]] = {
    "rows": (vectors(), SHAPE),
    "varying": (vectors(), VARYING),
    "collection": (BOTH, SHAPE),
    "functions": (Lines(), SHAPE),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Source, Path, Manifest]:
    source, shape = CASES[request.param]
    manifest = make(source, "test", 4, shape, 0)
    write(manifest, tmp_path / "it.manifest")
    return source, tmp_path / "it.manifest", manifest


def read_or_refused(path: Path, source: Source) -> bool:
    """Tell whether a manifest is read; then all that is done with one has to go well, and stay in its folder."""
    try:
        found = read(path, source)
    except UserError:
        return False
    assert os.sep not in label(found)
    for chunk in found.chunks(source, 50):
        assert len(chunk)
    return True


def test_every_entry_of_the_header_is_checked(case: tuple[Source, Path, Manifest]) -> None:
    source, path, manifest = case
    magic, header, payload = unseal(path)
    outcomes = {True: 0, False: 0}
    # Each kind of value meets some of the entries, and each entry some of the values.
    for where, changed in islice(mutations(header), 0, None, 5):
        seal(path, magic, changed, payload)
        good = read_or_refused(path, source)
        outcomes[good] += 1
        # What may be otherwise: the name of the data, the seed, and settings that do not show in what was drawn.
        if good and changed != header:
            assert (
                where[0] in ("data", "seed", "split")
                or (where[0] == "shape" and "shot" not in manifest.header["shape"])
                or (
                    # Functions have no ways.
                    where[:2] == ("shape", "way") and "support_rows" not in manifest.arrays
                )
            )
    assert outcomes[False] > 80


@pytest.mark.parametrize("shot", ["x/../../..", "1", 1.0, True, [1]])
def test_what_becomes_a_name_of_a_file_is_a_number(tmp_path: Path, shot: Any) -> None:
    source = vectors()
    write(make(source, "test", 2, SHAPE, 0), tmp_path / "it.manifest")
    magic, header, payload = unseal(tmp_path / "it.manifest")
    header["shape"]["shot"] = shot
    seal(tmp_path / "it.manifest", magic, header, payload)
    with pytest.raises(UserError, match=r"no manifest that can be used: .*shot"):
        read(tmp_path / "it.manifest", source)


VALUES = (-1, -(2**31), 2**31 - 1, 10_000, 0, 3)


def test_every_entry_of_the_arrays_is_checked(case: tuple[Source, Path, Manifest]) -> None:
    source, path, manifest = case
    for name, array in manifest.arrays.items():
        for place in (0, array.size // 2, array.size - 1):
            for value in (*VALUES, *((np.nan, np.inf) if array.dtype.kind == "f" else ())):
                changed = array.copy()
                changed.flat[place] = value
                write(Manifest(header=manifest.header, arrays={**manifest.arrays, name: changed}), path)
                good = read_or_refused(path, source)
                if name == "sizes" and value != array.flat[place]:
                    assert not good
                if array.dtype.kind == "f":
                    assert good == np.isfinite(value)
                elif value not in (0, 3):
                    assert not good


def test_arrays_of_other_kinds_and_shapes_are_refused(case: tuple[Source, Path, Manifest]) -> None:
    source, path, manifest = case
    kinds = ("<f2", "<c8", "|b1", "<u8", ">i4", "|S4", "<U2", "<M8[s]", "|V8", "<f8", "<i8", "|u1")
    for name, array in manifest.arrays.items():
        shapes = [array[:-1], array[:0], array[None], array[..., None], np.concatenate([array, array[:1]])]
        others = [np.zeros(array.shape, kind) for kind in kinds]
        for changed in (*shapes, *others):
            write(Manifest(header=manifest.header, arrays={**manifest.arrays, name: changed}), path)
            good = read_or_refused(path, source)
            assert not good or changed.dtype.kind in "fi"
        less = {other: value for other, value in manifest.arrays.items() if other != name}
        for arrays in (less, {**manifest.arrays, "more": array}, {**less, f"{name}/../x": array}):
            write(Manifest(header=manifest.header, arrays=arrays), path)
            assert not read_or_refused(path, source)


def test_an_array_that_is_said_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    source, path = vectors(), tmp_path / "it.manifest"
    write(make(source, "test", 2, SHAPE, 0), path)
    magic, header, payload = unseal(path)
    for shape in ([2**40], [2**31, 2**31, 2**31], [-1], [0, 2**62], [10**30], []):
        header["arrays"]["support_rows"]["shape"] = shape
        seal(path, magic, header, payload)
        assert not read_or_refused(path, source)


def test_a_row_of_another_data_set_of_a_collection_is_refused(tmp_path: Path) -> None:
    manifest = make(BOTH, "test", 6, SHAPE, 0)
    rows = manifest.arrays["query_rows"].copy()
    rows[0] = BOTH.bounds("test")[1] - 1 if rows[0] >= BOTH.bounds("test")[1] else BOTH.bounds("test")[1]
    write(Manifest(header=manifest.header, arrays={**manifest.arrays, "query_rows": rows}), tmp_path / "it.manifest")
    with pytest.raises(UserError, match="query_rows has rows beyond those of the data"):
        read(tmp_path / "it.manifest", BOTH)


def test_a_manifest_that_has_grown_is_refused_by_its_size(case: tuple[Source, Path, Manifest]) -> None:
    source, path, _ = case
    os.truncate(path, 3 << 30)
    with pytest.raises(UserError, match=r"bytes follow its header, and [\d,]+ should"):
        read(path, source)
