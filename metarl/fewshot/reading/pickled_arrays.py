"""What makes arrays of what stands in a pickle: functions of our own under the names of numpy's.

They look at every argument, and take arrays of numbers and of words only. The interpreter of `pickles.py` calls them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU][1-9]\d{0,3})")
"""Types of arrays: numbers, and words of a fixed length."""
_DIMENSIONS = 32
_LARGEST = 1 << 40
"""Numbers along the axes of an array that are not 0."""
_KEYS = (str, bytes, int, float, bool, np.generic)


class Refused(Exception):
    """A pickle holds something else than arrays and containers, or is damaged; says what."""


class Old(bytes):
    """A string of Python 2, which is text or the content of an array."""

    __slots__ = ()


class Type:
    """A type of numbers, while its byte order is not yet known."""

    def __init__(self, code: str) -> None:
        self.order, self.code = ("", code) if code[0] not in "<>|=" else (code[0], code[1:])

    def dtype(self) -> np.dtype[Any]:
        """Return numpy's."""
        return np.dtype(self.order.replace("|", "") + self.code)


class Hollow:
    """An array without content yet."""

    built: np.ndarray | None = None


class Maker:
    """What stands for a function or a class that a pickle names; it gets from `least` to `most` arguments."""

    def __init__(self, make: Callable[..., Any] | None, least: int = 0, most: int = 0) -> None:
        self.make, self.least, self.most = make, least, most


def text_of(value: Any) -> str:
    """Return a name as text.

    Raises:
        Refused: it is none.
    """
    if isinstance(value, Old):
        return value.decode("latin1")
    if type(value) is not str:
        raise Refused("a name in it is no text")
    return value


def _type(code: Any, *_: Any) -> Type:
    name = text_of(code)
    if _TYPE.fullmatch(name) is None:
        raise Refused(f"it holds an array of the type {name[:20]!r}, and only numbers and words are read")
    return Type(name)


def _hollow(kind: Any, *_: Any) -> Hollow:
    if kind is not _NDARRAY:
        raise Refused("it holds an array of a class that is not numpy's")
    return Hollow()


def filled(shape: Any, kind: Any, fortran: Any, content: Any) -> np.ndarray:
    """Return an array of a shape and a type, its numbers by columns or by rows.

    Raises:
        Refused: one of the arguments is of another type, or they do not fit together.
    """
    if not isinstance(kind, Type) or type(shape) is not tuple or len(shape) > _DIMENSIONS:
        raise Refused("an array in it has no type or no shape")
    if type(content) is list:
        raise Refused("it holds an array of objects, and only numbers are read")
    if not isinstance(content, bytes):
        raise Refused("an array in it has no content")
    count = 1
    for length in shape:
        if type(length) is not int or not 0 <= length < _LARGEST:
            raise Refused("an array in it has a shape that is none")
        count *= length
    dtype = kind.dtype()
    if count * dtype.itemsize != len(content):
        raise Refused(f"an array in it has {len(content):,} bytes, and its shape needs {count * dtype.itemsize:,}")
    # Numpy multiplies the axes without those of length 0.
    if not count and math.prod(length for length in shape if length) >= _LARGEST:
        raise Refused("an array in it has a shape that is none")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _scalar(kind: Any, content: Any) -> np.generic:
    return filled((1,), kind, False, content)[0]


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    return filled(shape, kind, text_of(order) == "F", bytes(content) if type(content) is bytearray else content)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if text_of(encoding) not in ("latin1", "latin-1"):
        raise Refused("bytes in it are written in an unknown way")
    return text_of(text).encode("latin1")


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in pairs if type(pairs) in (list, tuple) else ((),):
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise Refused("a dict in it has no pairs")
        found[key_of(pair[0])] = pair[1]
    return found


def key_of(key: Any) -> Any:
    """Return a key of a dict; tuples are none, whose hash may take for ever.

    Raises:
        Refused: it is of another type than a name or a number.
    """
    if isinstance(key, Old):
        return key.decode("latin1")
    if not isinstance(key, _KEYS):
        raise Refused(f"a dict in it has a key of the type {type(key).__name__}")
    return key


_NDARRAY = Maker(None)
_MAKERS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Maker(_type, 1, 3),
    ("collections", "OrderedDict"): Maker(_ordered, 0, 1),
    ("_codecs", "encode"): Maker(_encoded, 1, 2),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Maker(_hollow, 3, 3) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Maker(_scalar, 2, 2) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Maker(_from_buffer, 3, 4) for core in ("core", "_core")},
}


def maker_of(module: str, name: str) -> Maker:
    """Return what stands for a function or a class.

    Raises:
        Refused: arrays do not need it.
    """
    found = _MAKERS.get((module, name))
    if found is None:
        raise Refused(f"it holds {module[:60]}.{name[:60]}, and only numbers are read")
    return found
