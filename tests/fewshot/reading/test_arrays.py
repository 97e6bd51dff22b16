"""Arrays of every type that numpy and torch have, and .npy files that say what is not so."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot import from_arrays
from metarl.fewshot.form import as_numbers
from metarl.fewshot.reading.arrays import array_of, npy_in, read_npy, whole_numbers


@pytest.mark.parametrize("kind", ["?", "i1", "u1", ">i2", "u2", ">u4", "i8", ">u8", "f2", ">f4", "f8"])
def test_numbers_of_every_type_and_byte_order_are_taken(kind: str) -> None:
    rows = np.array([[0, 1], [1, 0]]).astype(kind)
    assert as_numbers(rows).tolist() == [[0, 1], [1, 0]]
    assert as_numbers(list(rows)).tolist() == [[0, 1], [1, 0]]


class Sparse:
    """As those of scipy are: numpy takes it for one object."""

    nnz = 1

    def toarray(self) -> np.ndarray:
        return np.zeros((2, 2))


REFUSED: dict[str, tuple[Any, str]] = {
    "complex": (np.zeros((2, 2), complex), r"type complex128\. Give real numbers, as array\.real"),
    "long double": (np.zeros((2, 2), np.longdouble), r"a long double\. Give array\.astype\('float64'\)"),
    "dates": (np.zeros((2, 2), "M8[s]"), r"type datetime64\[s\]\. Give numbers, as"),
    "durations": (np.zeros((2, 2), "m8[s]"), r"Give numbers, as array\.astype"),
    "records": (np.zeros(2, [("a", "i4")]), "Give one of its fields"),
    "words": (np.array([["a", "b"]]), "type <U1. Give numbers"),
    "objects": (np.array([[1, None]], dtype=object), "type object. Give numbers"),
    "ragged": ([[1, 2], [3]], "of mixed size: item 0 has the shape"),
    "ragged inside": ([[[1], [2, 3]]], "that are no arrays of numbers"),
    "masked": (np.ma.array([[1, 2]], mask=[[False, True]]), "with masked values. Fill them in"),
    "masked rows": ([np.ma.array([1, 2], mask=[False, True])], "with masked values"),
    "sparse": (Sparse(), r"as a sparse array \(Sparse\)\. Give array\.toarray"),
    "sparse rows": ([Sparse()], "as a sparse array"),
    "sparse tensor": (torch.eye(2).to_sparse(), r"as a sparse tensor\. Give tensor\.to_dense"),
    "meta tensor": (torch.zeros(2, 2, device="meta"), "on the device 'meta'"),
    "complex tensor": (torch.zeros(2, 2, dtype=torch.complex64), "type torch.complex64. Give real numbers"),
    "text": ("abc", "of the type str"),
    "none": (None, "of the type NoneType"),
    "NaN": (np.array([[0.0, 1.0], [np.nan, 0.0]]), "1 of 2 items have values that are NaN.*first is item 1"),
    "NaN in a row": (np.array([np.nan]), "NaN"),
    "infinity": (torch.tensor([[float("inf")]]), "NaN, infinite"),
    "too large": (np.array([[1e300]]), "too large for float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_array_of_numbers_is_refused_by_name(name: str) -> None:
    given, says = REFUSED[name]
    with pytest.raises(UserError, match=says):
        as_numbers(given)


def test_masked_arrays_without_a_mask_and_half_floats_are_taken() -> None:
    assert as_numbers(np.ma.array([[1, 2]], mask=[[False, False]])).tolist() == [[1, 2]]
    assert as_numbers(torch.tensor([[0.5]], dtype=torch.bfloat16, requires_grad=True)).tolist() == [[0.5]]
    assert array_of(torch.tensor([0.5], dtype=torch.bfloat16), "x").tolist() == [0.5]
    assert array_of([torch.tensor(1), 2], "x").tolist() == [1, 2]


LABELS: dict[str, tuple[Any, str]] = {
    "beyond 2**63": (np.array([2**63, 2**63 + 1] * 3, np.uint64), r"one is 9223372036854775809\. Give integers below"),
    "masked": (np.ma.array([0, 1] * 3, mask=[False, True] * 3), "classes with masked values"),
    "sparse": (torch.tensor([0, 1] * 3).to_sparse(), "classes as a sparse tensor"),
    "ragged": ([[0], [1, 2]] * 3, "classes that are no array"),
    "truth": ([True, False] * 3, "Give all as integers, or all as words"),
    "dates": (np.array(["2020", "2021"] * 3, "M8[Y]"), "Give all as integers"),
    "a long name": (["a" * 1001, "b"] * 3, "name has 1,001 letters"),
    "floats": (np.array([0.0, np.nan] * 3), "make them integers"),
}


@pytest.mark.parametrize("name", LABELS)
def test_classes_that_are_none_are_refused(name: str) -> None:
    classes, says = LABELS[name]
    with pytest.raises(UserError, match=says):
        from_arrays(np.zeros((6, 4)), classes)


def test_rows_of_a_class_stay_in_their_order() -> None:
    items = np.arange(24.0).reshape(12, 2)
    data = from_arrays(items, np.arange(12) % 4, fractions=(0.5, 0.0, 0.5))
    for part in data.splits.values():
        for place, name in enumerate(part.names):
            first, size = int(part.starts[place]), int(part.sizes[place])
            assert part.items[first : first + size, 0].tolist() == items[int(name) :: 4, 0].tolist()


def test_whole_numbers() -> None:
    assert whole_numbers([], "x").dtype == np.int64
    assert whole_numbers(np.array([1, 2], ">u2"), "x", 3).tolist() == [1, 2]
    with pytest.raises(UserError, match=r"Got x from 0 to 3. Give integers from 0 to 2"):
        whole_numbers([0, 3], "x", 3)
    with pytest.raises(UserError, match="x of the type float64"):
        whole_numbers([0.5], "x")


# -- .npy -------------------------------------------------------------------------------------------------------------


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def written(header: str, content: bytes = b"", version: int = 1) -> bytes:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode("latin1") + content


def headed(kind: str = "'<f4'", shape: str = "(2,)", order: str = "False", more: str = "") -> str:
    return f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, {more}}}\n"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype=">i2"),
        np.array(["a", "bcd"]),
        np.array([b"a"]),
        np.array([True]),
        np.array(2.5),
        np.zeros((0, 3), np.uint8),
    ],
)
def test_files_of_numpy_are_read(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    for found in (read_npy(tmp_path / "a.npy"), npy_in(saved(array), "a")):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


def test_other_writers_are_read() -> None:
    content = np.array([1, 2], np.float32).tobytes()
    assert npy_in(written(headed(shape="(2L,)"), content, version=2), "a").tolist() == [1, 2]
    assert npy_in(written("{'shape': (2,),'descr':'<f4','fortran_order':False}", content), "a").tolist() == [1, 2]


NPY: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is no .npy file"),
    "version 9": (b"\x93NUMPY\x09\0", "it is no .npy file"),
    "a zip file": (b"PK\3\4", "it is no .npy file"),
    "within the header": (saved(np.zeros(3))[:40], "ends within its header"),
    "a header of 4 GB": (
        written("", version=2)[:8] + b"\xff\xff\xff\xff" + bytes(20000),
        "within its header|its header has",
    ),
    "a long header": (written(headed() + " " * 30000, bytes(8)), "its header has 30,0"),
    "nested": (written("(" * 9000, bytes(8)), "says no type, order and shape"),
    "digits": (written(headed(shape="(" + "9" * 300 + ",)")), "its header says the shape"),
    "commas": (written(headed(shape="(" + "9," * 150 + ")")), "150 axes"),
    "a petabyte": (written(headed(shape="(1125899906842624,)")), "1 axes, of 1,125,899,906,842,624 numbers"),
    "a gigabyte": (written(headed(shape="(268435456,)")), "says 1,073,741,824 bytes, and 0 are there"),
    "none of very many": (written(headed(shape="(0, 1099511627776, 1099511627776)")), "3 axes"),
    "negative": (written(headed(shape="(-1,)")), "no type, order and shape"),
    "half": (saved(np.zeros(100))[:-10], "says 800 bytes, and 790 are there"),
    "objects": (written(headed("'|O'")), "it holds objects, and numbers and words are read"),
    "objects of numpy": (b"\x93NUMPY\1\0" + written(headed("'|O8'"))[8:], "it holds objects"),
    "records": (written(headed("[('a', '<i4')]")), "it holds records; give one of their fields"),
    "dates": (written(headed("'<M8[s]'")), r"it holds <M8\[s\]"),
    "empty words": (written(headed("'<U0'")), "it holds <U0"),
    "another machine's": (written(headed("'<f12'")), "this machine does not have"),
    "a call": (written(headed(more="'x': __import__('os')").replace("'descr'", "'d'")), "says no type"),
}


@pytest.mark.parametrize("name", NPY)
def test_files_that_are_none_are_refused_before_memory_is_made(tmp_path: Path, name: str) -> None:
    content, says = NPY[name]
    with pytest.raises(UserError, match=says):
        npy_in(content, "a.npy")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=f"a.npy cannot be read as an array .*{says}.*numpy.save, as numbers; or so"):
        read_npy(tmp_path / "a.npy", "or so")


def test_an_array_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(UserError, match="is a pipe"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"cannot be read as an array .*No such file"):
        read_npy(tmp_path / "b.npy")


def test_an_array_that_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(written(headed(shape="(50000000000,)")))
        # Nothing is stored for what is not written.
        file.truncate(1 << 38)
    with pytest.raises(UserError, match=r"Needs about 400 GB of memory, and .* are free: lower the size of .*a\.npy"):
        read_npy(tmp_path / "a.npy")
