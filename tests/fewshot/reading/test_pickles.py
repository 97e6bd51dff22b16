"""Pickles: what published files need is read as it was, and nothing else is, however it is written."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot.data import load as load_data
from metarl.fewshot.reading import pickles
from metarl.fewshot.reading.pickles import Refused, load


def read(raw: bytes) -> Any:
    return load(io.BytesIO(raw), len(raw))


def program(*words: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + b"".join(words) + b"."


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


ARRAYS = {
    "bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">i4"),
    "words": np.array(["crane", "a"]),
    "old words": np.array([b"crane", b"a"]),
    "truth": np.array([True, False]),
    "short floats": np.array([0.5, 2.0], np.float16),
    "one number": np.array(3),
    "nothing": np.zeros((0, 3)),
}


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_what_was_written(protocol: int) -> None:
    # Python writes nothing at all as a call of `bytes` in the old protocols.
    arrays = {name: array for name, array in ARRAYS.items() if protocol > 2 or array.size}
    plain = [1, -5, 2**40, 2.5, "é", b"xy", True, None, (1, ("a",)), {"k": [1], 3: 4}]
    found = read(pickle.dumps([arrays, plain, np.int64(7), [np.float32(0.5)]], protocol=protocol))
    assert found[1:] == [plain, 7, [0.5]]
    for name, array in arrays.items():
        assert found[0][name].dtype == array.dtype
        np.testing.assert_array_equal(found[0][name], array)


def test_an_array_in_two_places_is_one() -> None:
    array = np.arange(3)
    for protocol in range(6):
        found = read(pickle.dumps({"a": array, "b": [array]}, protocol=protocol))
        assert found["b"][0].tolist() == found["a"].tolist() == [0, 1, 2]


def test_an_ordered_dict_is_a_dict() -> None:
    from collections import OrderedDict

    assert read(pickle.dumps(OrderedDict(a=1, b=2), protocol=4)) == {"a": 1, "b": 2}
    assert read(program(named("collections", "OrderedDict"), b"]](K\1K\2ea\x85R")) == {1: 2}


NUMBERS = named("numpy", "dtype") + b"X\2\0\0\0u1\x85R"
OBJECTS = named("numpy", "dtype") + b"X\2\0\0\0O8\x85R"
HOLLOW = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\0\x85X\1\0\0\0b\x87R"
TOWER = b")" + b"q\0h\0\x86" * 60

ATTACKS = {
    # What numpy's own functions crash from.
    "an array of objects": (pickle.dumps(np.array([1, "a"], dtype=object)), "type 'O8'"),
    "a scalar of an object": (
        program(named("numpy.core.multiarray", "scalar"), OBJECTS, b"B\x08\0\0\0AAAAAAAA\x86R"),
        "type 'O8'",
    ),
    "a buffer of objects": (
        program(named("numpy.core.numeric", "_frombuffer"), b"(B\x08\0\0\0AAAAAAAA", OBJECTS, b"K\1\x85tR"),
        "type 'O8'",
    ),
    "objects without a type": (program(HOLLOW, b"(K\1K\1\x85", NUMBERS, b"\x89]tb"), "an array of objects"),
    "a type that becomes objects": (
        program(NUMBERS, b"(K\3X\1\0\0\0|N(X\1\0\0\0atN", b"K\1K\1K\x3ftb"),
        "a type with parts",
    ),
    "a type that is built by a number": (program(NUMBERS, b"K\1b"), "changes what cannot be changed"),
    "an unknown byte order": (program(NUMBERS, b"(K\3X\1\0\0\0?NNNK\1K\1K\0tb"), r"the byte order '\?'"),
    "records": (pickle.dumps(np.zeros(2, [("a", "i4")])), "type 'V4'"),
    "complex numbers": (pickle.dumps(np.zeros(2, complex)), "type 'c16'"),
    "another class of array": (
        program(named("numpy.core.multiarray", "_reconstruct"), NUMBERS, b"K\0\x85X\1\0\0\0b\x87R"),
        "a class that is not numpy's",
    ),
    "an array that is built twice": (
        program(HOLLOW, b"q\1(K\1K\0\x85", NUMBERS, b"\x89C\0tb0h\1(K\1K\0\x85", NUMBERS, b"\x89C\0tb"),
        "changes what cannot be changed",
    ),
    "too few arguments": (program(named("numpy.core.multiarray", "scalar"), b")R"), "has 0 parts"),
    "a negative axis": (program(HOLLOW, b"(K\1J\xff\xff\xff\xff\x85", NUMBERS, b"\x89C\1atb"), "a shape that is none"),
    "axes beyond all": (
        program(HOLLOW, b"(K\1(", b"\x8a\6\0\0\0\0\0\x01" * 9, b"K\0t", NUMBERS, b"\x89C\0tb"),
        "a shape that is none",
    ),
    "less content than its shape": (program(HOLLOW, b"(K\1K\x09\x85", NUMBERS, b"\x89C\1atb"), "1 bytes, .*needs 9"),
    "no content": (program(HOLLOW, b"(K\1K\x09\x85", NUMBERS, b"\x89NtbN"), "has no content"),
    "no shape": (program(HOLLOW, b"(K\1N", NUMBERS, b"\x89C\1atb"), "no type or no shape"),
    "an array that stays hollow": (program(HOLLOW), "no data"),
    "a type alone": (program(NUMBERS), "no data"),
    "a name of bytes": (program(named("numpy", "dtype"), b"C\2u1\x85R"), "a name in it is no text"),
    # What Python could run.
    "os.system": (program(named("os", "system"), b"X\4\0\0\0true\x85R"), r"it holds os\.system"),
    "builtins.eval": (program(b"\x8c\x08builtins\x8c\x04eval\x93", protocol=4), r"it holds builtins\.eval"),
    "a dotted name": (program(b"\x8c\5numpy\x8c\x0fdtype.__class__\x93", protocol=4), r"numpy\.dtype\.__class__"),
    "a call of an array's class": (program(named("numpy", "ndarray"), b")R"), "calls what cannot be called"),
    "another encoding": (program(named("_codecs", "encode"), b"X\1\0\0\0aX\3\0\0\0zip\x86R"), "an unknown way"),
    "instances": (b"(ios\nsystem\n.", "the word b'i'"),
    "objects made anew": (program(named("numpy", "ndarray"), b")\x81"), r"the word b'\\x81'"),
    "persistent names": (program(b"Pname\n"), "the word b'P'"),
    "registered names": (program(b"\x82\1"), r"the word b'\\x82'"),
    "a set": (pickle.dumps({1}), r"the word b'\\x8f'"),
    # What takes memory or time.
    "2 to the 60 bytes": (program(b"\x8e" + struct.pack("<Q", 1 << 60)), "is to have 1,152,921,504,606,846,976 bytes"),
    "a text of 4 GB": (program(b"X\xff\xff\xff\xff"), "is to have 4,294,967,295 bytes"),
    "fewer than none": (program(b"T\xff\xff\xff\xff"), "is to have -1 bytes"),
    "an integer of 2 GB": (program(b"\x8b\xff\xff\xff\x7f"), "an integer of 2147483647 bytes"),
    "5,000 digits": (program(b"I" + b"9" * 5000 + b"\n"), "a line in it does not end"),
    "a tower": (program(TOWER), "more than 16 deep"),
    "a tower as a key": (program(b"}", TOWER, b"Ns"), "a key of the type tuple"),
    "wide lists in many places": (
        program(b"]q\0(", b"N" * 500, b"e]q\1(", b"h\0" * 500, b"e](", b"h\1" * 500, b"e"),
        "in many places at once",
    ),
    "a list in itself": (program(b"]q\0h\0a"), "more than 16 deep"),
    "a dict in itself": (program(b"}q\0X\1\0\0\0ah\0s"), "more than 16 deep"),
    # What is no program.
    "nothing": (b"", "ends before its end"),
    "an end": (b".", "uses what it does not have"),
    "half": (pickle.dumps([1.5] * 50)[:150], "ends before its end"),
    "a mark that is not there": (program(b"t"), "uses what it does not have"),
    "under a mark": (program(b"](K\1a"), "uses what it does not have"),
    "one of two": (program(b"K\1\x86"), "uses what it does not have"),
    "what was not kept": (program(b"h\5"), "uses what it does not have"),
    "a number as a list": (program(b"K\1K\2a"), "uses a int as a list"),
    "a key alone": (program(b"}(K\1u"), "a key without a value"),
    "protocol 9": (program(b"N", protocol=9), "of the protocol 9"),
    "no integer": (program(b"I1x\n"), "has the number '1x'"),
    "no long integer": (program(b"L1x\n"), "has the number '1x'"),
    "no float": (program(b"F1x\n"), "has the number '1x'"),
    "no quotes": (program(b"Sab\n"), "has no quotes"),
    "half an escape": (program(b"S'\\x'\n"), "a string in it is damaged"),
    "no text": (program(b"X\2\0\0\0\xff\xfe"), "a text in it is none"),
    "no pairs": (program(named("collections", "OrderedDict"), b"K\1\x85R"), "has no pairs"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_array_is_refused_and_nothing_is_run(name: str) -> None:
    raw, says = ATTACKS[name]
    with pytest.raises(Refused, match=says):
        read(raw)


def test_a_place_in_the_memo_makes_no_memory() -> None:
    assert read(program(b"K\1r\xff\xff\xff\x7f0j\xff\xff\xff\x7f")) == 1
    assert read(program(b"K\1p99999999999\n0g99999999999\n")) == 1


def test_the_program_may_be_as_long_as_its_bytes_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_WORDS", 10)
    array = pickle.dumps(np.zeros(10_000))
    assert read(array).shape == (10_000,)
    with pytest.raises(Refused, match="more than 10 words of program for 31 bytes"):
        read(program(b"N" * 28))


def test_the_words_of_old_programs() -> None:
    assert read(b"(lp0\nI01\naI00\naI-7\naL5L\naF2.5\naS'a\\n'\naV\\u00e9\na.") == [True, False, -7, 5, 2.5, "a\n", "é"]
    assert read(b"(dp0\nS'k'\nI1\ns.") == {"k": 1}
    assert read(b"(S'k'\nI1\nd.") == {"k": 1}
    assert read(b"K\1(K\2K\3" + b"1" + b".") == 1
    assert read(b"K\1(0K\2" + b"0" + b".") == 1


def test_a_data_set_with_objects_ends_in_a_line(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"mini-imagenet-cache-{split}.pkl").write_bytes(ATTACKS["a buffer of objects"][0])
    with pytest.raises(UserError, match=r"train\.pkl cannot be read as a pickle of arrays .*download it again"):
        load_data("mini-imagenet", tmp_path)
