"""The payload of a checkpoint: tensors and plain data, read from what anybody may have written.

A payload has the form that `torch.save` gives it: an archive with the numbers of every tensor, and a pickle that says
how they hang together. Only what such a pickle needs is understood: containers, numbers, text, and plain tensors on a
CPU. Each tensor has to lie within the numbers that are stored for it, and each of these is stored once, as it is. So
nothing runs, nothing is unpacked, and nothing becomes larger than its file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from metarl.plain import DEPTH, shown

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_CODES = (
    *("PROTO", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("SETITEM", "SETITEMS", "APPEND", "APPENDS", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
    *("LONG1", "BINFLOAT", "BINUNICODE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "BINPERSID"),
    *("REDUCE", "BUILD"),
)
"""What a pickle may do."""
_BYTES, _LONGEST = 32, 1 << 48
"""Bytes of a whole number, and the largest one in a shape."""


class Foreign(ValueError):
    """Says what is in a payload that has no place there."""


def read_payload(content: bytes) -> dict[str, Any]:
    """Return a payload: nested dicts, lists and tuples with tensors, numbers, text, booleans and None.

    Raises:
        Foreign: it holds, or is, something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _Archive(archive, content).load()
    except Foreign:
        raise
    # What a zip file or a pickle that is none can raise; nothing of ours is called in between.
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        struct.error,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise Foreign(f"it is no archive of tensors ({type(error).__name__}: {error})") from error


class _Archive:
    """The files of an archive."""

    def __init__(self, archive: zipfile.ZipFile, content: bytes) -> None:
        self._files: dict[str, bytes | memoryview] = {}
        whole = memoryview(content)
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            if (
                entry.compress_type != zipfile.ZIP_STORED
                or entry.flag_bits & 1
                or entry.file_size != entry.compress_size
            ):
                raise Foreign(f"{shown(entry.filename)} is compressed or encrypted")
            if name in self._files:
                raise Foreign(f"{shown(entry.filename)} stands in it twice")
            length, more = struct.unpack_from("<HH", content, entry.header_offset + 26)
            begin = entry.header_offset + 30 + length + more
            if not 0 <= begin <= begin + entry.file_size <= len(content):
                raise Foreign(f"{shown(entry.filename)} goes beyond its end")
            self._files[name] = whole[begin : begin + entry.file_size]
        self._storages: dict[str, Tensor] = {}

    def load(self) -> dict[str, Any]:
        """Return what the pickle says."""
        if bytes(self._files.get("byteorder", b"little")) != b"little":
            raise Foreign("its numbers are big-endian")
        text = bytes(self._files["data.pkl"])
        for code, argument, _ in pickletools.genops(text):
            if code.name not in _CODES:
                raise Foreign(f"its pickle has the code {code.name}")
            if isinstance(argument, int) and argument.bit_length() > 8 * _BYTES:
                raise Foreign("it holds a number of too many digits")
        found = _Unpickler(io.BytesIO(text), self).load()
        if type(found) is not dict:
            raise Foreign(f"it holds {shown(found)} where a mapping is needed")
        return _plain(found, 0, {})

    def storage(self, key: Any) -> Tensor:
        """Return the numbers that a pickle means, [n]."""
        word, kind, name, device, size = key
        # What lay on a device comes back on the CPU.
        if word != "storage" or not isinstance(kind, torch.dtype) or type(size) is not int or type(device) is not str:
            raise Foreign(f"it holds numbers of another kind: {shown(key)}")
        content = self._files[f"data/{name}"]
        if size < 0 or len(content) != size * kind.itemsize:
            raise Foreign(f"it says {size} numbers of {kind}, and there are {len(content)} bytes")
        made = self._storages.get(name)
        if made is None:
            # A copy: what is read is to be written to.
            made = self._storages[name] = torch.empty(size, dtype=kind)
            if size:
                made.view(torch.uint8).copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            if kind == torch.bool and size and int(made.view(torch.uint8).max()) > 1:
                raise Foreign("it holds a boolean that is neither true nor false")
        if made.dtype != kind:
            raise Foreign("it holds the same numbers as two kinds")
        return made


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: _Archive) -> None:
        super().__init__(file)
        self._archive = archive

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == "torch" and global_name in _STORAGES:
            return _STORAGES[global_name]
        if (module_name, global_name) in _CALLS:
            return _CALLS[module_name, global_name]
        raise Foreign(f"it holds {module_name[:60]}.{global_name[:60]}, neither plain data nor a plain tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        return self._archive.storage(pid)


@dataclass(frozen=True, slots=True)
class _Held:
    """A tensor that a pickle can hand on and nothing else."""

    tensor: Tensor

    def __setstate__(self, state: Any) -> None:
        raise Foreign("it changes a tensor after it was made")


class _Ordered(dict[Any, Any]):
    """A mapping that a module gave; what PyTorch notes down beside it is left out."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or set(state) != {"_metadata"}:
            raise Foreign("it changes a mapping after it was made")


@dataclass(frozen=True, slots=True)
class _Call:
    """What a pickle may call, and do nothing else with."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Foreign("it changes what it calls")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any) -> _Held:
    """Return a view of stored numbers that lies within them."""
    numbers = (offset, *size, *stride)
    if type(storage) is not Tensor or len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise Foreign("it holds a tensor of no possible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and last >= len(storage):
        raise Foreign("it holds a tensor that reaches beyond its numbers")
    # The shape of one that repeats its numbers, or has none, may say anything.
    if count > max(len(storage), 1) or any(n > _LONGEST for n in numbers):
        raise Foreign(f"it holds a tensor of the shape {shown(size)} with {len(storage)} numbers")
    if type(requires_grad) is not bool or hooks:
        raise Foreign("it holds a tensor with hooks")
    made = storage.as_strided(size, stride, offset)
    return _Held(made.requires_grad_() if requires_grad else made)


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> _Held:
    if type(data) is not _Held or type(requires_grad) is not bool or hooks:
        raise Foreign("it holds a parameter of another kind")
    return _Held(torch.nn.Parameter(data.tensor.detach(), requires_grad))


_CALLS = {
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    ("collections", "OrderedDict"): _Call(_Ordered),
}


def _plain(value: Any, depth: int, made: dict[int, Any]) -> Any:
    """Return a value of a pickle as plain data.

    Args:
        value: what it is.
        depth: containers around it.
        made: results by what they were made of: what stands in several places is one thing.
    """
    if type(value) in (int, float, str, bool, NoneType):
        return value
    if type(value) is _Held:
        return value.tensor
    if id(value) in made:
        return made[id(value)]
    if depth > DEPTH:
        raise Foreign(f"more than {DEPTH} containers stand one in the other")
    if type(value) in (dict, _Ordered):
        if not all(type(key) in (str, int) for key in value):
            raise Foreign("a mapping has a key that is neither text nor a whole number")
        kind = OrderedDict if type(value) is _Ordered else dict
        found = kind((key, _plain(inner, depth + 1, made)) for key, inner in value.items())
    elif type(value) in (list, tuple):
        found = type(value)(_plain(inner, depth + 1, made) for inner in value)
    else:
        raise Foreign(f"it holds {shown(value)}, which is neither plain data nor a tensor")
    made[id(value)] = found
    return found
