"""Arrays that users give: the one guard for what they hold, and .npy files without numpy's own reader.

Numbers are booleans, integers and floats of at most 64 bits, big-endian ones too. Complex numbers, long doubles, dates,
records, objects, masked values and sparse arrays are refused by name, each with what to do. A .npy file's header is
compared with a pattern and with the size of the file, so that nothing in it is evaluated, and memory is made only for
what is there.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.files import open_regular
from metarl.memory import check_room

MOST_BYTES = 1 << 40
"""Of a .npy file."""
MOST_LETTERS = 1000
"""Of a class's name."""
_MAGIC = b"\x93NUMPY"
_HEADER = 10_000
_AXES = 32
_EMPTY = 1 << 40
"""Most numbers along the other axes of an array that has none."""
_FIELDS = {
    "type": re.compile(r"'descr':\s*'([^']{1,40})'"),
    "order": re.compile(r"'fortran_order':\s*(True|False)"),
    "shape": re.compile(r"'shape':\s*\(([\d\s,L]{0,400})\)"),
}
_SIDE = re.compile(r"\d{1,18}L?")
_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU][1-9]\d{0,8})")
_ADVICE = {
    "c": "Give real numbers, as array.real, or both parts as channels.",
    "M": "Give numbers, as (array - array[0]).astype('float64').",
    "m": "Give numbers, as array.astype('float64').",
    "V": "Give one of its fields, or numbers in columns.",
}
"""Kinds of types that are refused -> what to do."""
_LABEL = 1 << 63


# -- what is given in Python ------------------------------------------------------------------------------------------


def check_numbers(dtype: np.dtype[Any], what: str) -> None:
    """Refuse a type that is no type of real numbers of at most 64 bits.

    Raises:
        UserError: it is another one; says which, and what to do.
    """
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise UserError(f"Got {what} of the type {dtype}, a long double. Give array.astype('float64').")
    if dtype.kind not in "biuf":
        raise UserError(f"Got {what} of the type {dtype}. {_ADVICE.get(dtype.kind, 'Give numbers.')}")


def array_of(given: Any, what: str) -> np.ndarray:
    """Return what a user gave as an array of numpy, of whatever type; a tensor as it is on the CPU.

    Raises:
        UserError: it is sparse, masked or ragged, or no array.
    """
    if isinstance(given, Tensor):
        return tensor_of(given, what).cpu().numpy() if given.dtype != torch.bfloat16 else given.detach().float().numpy()
    refuse_sparse(given, what)
    if isinstance(given, list | tuple):
        given = [tensor_of(entry, what).cpu().numpy() if isinstance(entry, Tensor) else entry for entry in given]
    if np.ma.is_masked(given):
        raise UserError(f"Got {what} with masked values. Fill them in, by array.filled(value), or leave them out.")
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise UserError(f"Got {what} that are no array: {error}. Give all of one shape.") from error


def tensor_of(given: Tensor, what: str) -> Tensor:
    """Return a tensor without its gradient.

    Raises:
        UserError: it is sparse, quantized, complex, or has no numbers.
    """
    if given.layout != torch.strided:
        raise UserError(f"Got {what} as a sparse tensor. Give tensor.to_dense().")
    if given.is_meta:
        raise UserError(f"Got {what} on the device 'meta', which holds no numbers. Give a tensor that does.")
    if given.is_quantized:
        raise UserError(f"Got {what} as a quantized tensor. Give tensor.dequantize().")
    if given.is_complex():
        raise UserError(f"Got {what} of the type {given.dtype}. {_ADVICE['c']}")
    return given.detach()


def refuse_sparse(given: Any, what: str) -> None:
    """Refuse a sparse matrix of scipy, which numpy would take for one object.

    Raises:
        UserError: it is one.
    """
    if hasattr(given, "toarray") and hasattr(given, "nnz"):
        raise UserError(f"Got {what} as a sparse array ({type(given).__name__}). Give array.toarray().")


def whole_numbers(given: Any, what: str, below: int | None = None) -> np.ndarray:
    """Return a row of integers, int64.

    Args:
        given: a row of integers of any type.
        what: they are called in errors.
        below: all are from 0 to this, exclusive. None: any that 64 bits hold.

    Raises:
        UserError: they are others; says which.
    """
    array = array_of(given, what)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(f"Got {what} of the type {array.dtype} and the shape {array.shape}. Give a row of integers.")
    if array.dtype.kind == "u" and int(array.max()) >= _LABEL:
        raise UserError(f"Got {what} of which one is {array.max()}. Give integers below 2**63.")
    found = array.astype(np.int64)
    if below is not None and not (int(found.min()) >= 0 and int(found.max()) < below):
        raise UserError(f"Got {what} from {found.min()} to {found.max()}. Give integers from 0 to {below - 1}.")
    return found


# -- files ------------------------------------------------------------------------------------------------------------


def read_npy(path: Path, advice: str = "") -> np.ndarray:
    """Return the array in a .npy file, mapped into memory.

    Args:
        path: of the file.
        advice: what to do with what is no array of numbers, beside the usual.

    Raises:
        UserError: it cannot be read, or holds no numbers or words.
    """
    try:
        file = open_regular(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be read as an array ({error}). Write it with numpy.save.") from error
    with file:
        size = file.seek(0, 2)
        file.seek(0)
        dtype, shape, order, first = _header(file.read(_HEADER + 12), size, str(path), advice)
        if 0 in shape:
            return np.zeros(shape, dtype)
        # It is mapped, and copied once or twice as float32 by whoever takes it.
        check_room(2 * math.prod(shape) * (1 if dtype == np.uint8 else 4), str(path))
        return np.memmap(file, dtype, "r", first, shape, order)


def npy_in(content: bytes, name: str) -> np.ndarray:
    """Return the array in the content of a .npy file; errors as in `read_npy`."""
    dtype, shape, order, first = _header(content[: _HEADER + 12], len(content), name)
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.frombuffer(content, dtype, math.prod(shape), first).reshape(shape, order=order).copy("K")


def _header(start: bytes, size: int, name: str, advice: str = "") -> tuple[np.dtype[Any], tuple[int, ...], Any, int]:
    """Return type, shape, order and place of the numbers of a .npy file of a size."""

    def refused(why: str) -> UserError:
        return UserError(
            f"{name} cannot be read as an array ({why}). Write it with numpy.save, as numbers{advice and '; '}{advice}."
        )

    if start[:6] != _MAGIC or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise refused("it is no .npy file")
    width = 2 if start[6] == 1 else 4
    first = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
    if first > len(start):
        raise refused(f"its header has {first:,} bytes" if first <= size else "it ends within its header")
    text = start[8 + width : first].decode("latin1")
    found = {key: pattern.search(text) for key, pattern in _FIELDS.items()}
    if found["type"] is None and "'descr': [" in text:
        raise refused("it holds records; give one of their fields, or columns")
    if None in found.values():
        raise refused("its header says no type, order and shape")
    kind, order, axes = (match[1] for match in found.values() if match is not None)
    if _TYPE.fullmatch(kind) is None:
        raise refused(f"it holds {'objects' if 'O' in kind else kind}, and numbers and words are read")
    sides = [axis.strip() for axis in axes.split(",") if axis.strip()]
    if not all(map(_SIDE.fullmatch, sides)):
        raise refused(f"its header says the shape ({axes[:40]})")
    shape = tuple(int(side.rstrip("L")) for side in sides)
    try:
        dtype = np.dtype(kind)
    # Long doubles of another kind of machine.
    except TypeError as error:
        raise refused(f"it holds {kind}, which this machine does not have") from error
    if len(shape) > _AXES or math.prod(axis for axis in shape if axis) >= _EMPTY << (0 if 0 in shape else 8):
        raise refused(f"its header says {len(shape)} axes, of {math.prod(shape):,} numbers")
    if first + math.prod(shape) * dtype.itemsize > size:
        raise refused(f"its header says {math.prod(shape) * dtype.itemsize:,} bytes, and {size - first:,} are there")
    return dtype, shape, "F" if order == "True" else "C", first
