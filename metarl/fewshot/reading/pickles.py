"""Pickles of arrays, taken apart by an interpreter of our own: no function of Python or numpy gets what stands in them.

A pickle is a program. Of its language only the words that write numbers, texts, lists, dicts and arrays are understood,
as Python 2 and 3 wrote them in protocols 0 to 5. What makes an array are the functions of
`pickled_arrays.py` under numpy's names, which take arrays of numbers and of words only.

    objects in arrays, sets, other classes, persistent names     refused
    lengths                                                      at most what the file has
    words of the program                                         at most 2 million, and one more for each 256 bytes
    lists in lists                                               at most 16 deep; none may hold itself, and those that
                                                                 stand in several places may not multiply the whole
"""

from __future__ import annotations

import codecs
import io
import re
import struct
from collections.abc import Callable
from typing import Any

from metarl.fewshot.reading.pickled_arrays import Hollow, Maker, Old, Refused, Type, filled, key_of, maker_of, text_of

__all__ = ["Refused", "load"]


MOST_WORDS = 2_000_000
"""Words of a pickle's program, beside those that its length allows."""
BYTES_A_WORD = 256
DEEPEST = 16
"""Lists in lists."""
_LONGEST_NAME = 256
_INTEGER = re.compile(rb"[+-]?\d{1,20}L?")


def load(file: io.BufferedIOBase, size: int) -> Any:
    """Return what a pickle holds: numbers, texts, lists, tuples, dicts and arrays.

    Args:
        file: at its begin; read in small pieces.
        size: of the file, in bytes.

    Raises:
        Refused: it is damaged, or holds something else.
    """
    reader = _Reader(file, size)
    try:
        return reader.settled(reader.run(), 0)
    except (IndexError, KeyError) as error:
        raise Refused("it uses what it does not have") from error
    except UnicodeError as error:
        raise Refused(f"a text in it is none: {error}") from error


# -- the interpreter --------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, file: io.BufferedIOBase, size: int) -> None:
        self.file, self.size = file, size
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.words = 0

    def run(self) -> Any:
        """Return what the program leaves; arrays in it may be hollow."""
        read, most = self.file.read, MOST_WORDS + self.size // BYTES_A_WORD
        while True:
            self.words += 1
            if self.words > most:
                raise Refused(f"it has more than {most:,} words of program for {self.size:,} bytes")
            code = read(1)
            if code == b".":
                return self.stack.pop()
            word = _WORDS.get(code)
            if word is None:
                if not code:
                    raise Refused("it ends before its end")
                raise Refused(f"it has the word {code!r}, which arrays do not need")
            word(self)

    def settled(self, value: Any, depth: int) -> Any:
        """Return a value with Python 2's texts as texts; refuse what is no data, or more than was written."""
        self.left = 2 * self.words + 1000
        return self._settled(value, depth)

    def _settled(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if depth > DEEPEST or self.left < 0:
            raise Refused(f"lists in it stand more than {DEEPEST} deep in one another, or in many places at once")
        kind = type(value)
        if kind is Old:
            return value.decode("latin1")
        if kind is list:
            value[:] = [self._settled(entry, depth + 1) for entry in value]
        elif kind is tuple:
            return tuple([self._settled(entry, depth + 1) for entry in value])
        elif kind is dict:
            for key in value:
                value[key] = self._settled(value[key], depth + 1)
        elif kind is Hollow:
            return self._settled(value.built, depth)
        elif kind is bytearray:
            return bytes(value)
        elif kind in (Maker, Type) or (value is None and depth == 0):
            raise Refused("it holds no data")
        return value

    # -- pieces of the file

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if not 0 <= count <= self.size:
            raise Refused(f"a part of it is to have {count:,} bytes, and all of it has {self.size:,}")
        found = self.file.read(count)
        if len(found) < count:
            raise Refused("it ends before its end")
        return found

    def number(self, form: str) -> int:
        """Return the next number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, most: int = _LONGEST_NAME) -> bytes:
        """Return the rest of the line."""
        found = self.file.readline(most)
        if not found.endswith(b"\n"):
            raise Refused("a line in it does not end")
        return found[:-1].removesuffix(b"\r")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Take everything since the last mark from the stack."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def top(self, kind: type) -> Any:
        """Return the last value, which stays."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise Refused("it uses what it does not have")
        found = self.stack[-1]
        if type(found) is not kind:
            raise Refused(f"it uses a {type(found).__name__} as a {kind.__name__}")
        return found

    # -- words of the program

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def get(self, place: int) -> None:
        value = self.memo[place]
        built = value.built if type(value) is Hollow else None
        self.push(value if built is None else built)

    def integer(self) -> int:
        line = self.line()
        if _INTEGER.fullmatch(line) is None:
            raise Refused(f"it has the number {line[:30].decode('latin1')!r}")
        return int(line.removesuffix(b"L"))

    def int_line(self) -> None:
        line = self.line()
        if line in (b"00", b"01"):
            self.push(line == b"01")
        elif _INTEGER.fullmatch(line) is None:
            raise Refused(f"it has the number {line[:30].decode('latin1')!r}")
        else:
            self.push(int(line.removesuffix(b"L")))

    def float_line(self) -> None:
        line = self.line()
        try:
            self.push(float(line))
        except ValueError as error:
            raise Refused(f"it has the number {line[:30].decode('latin1')!r}") from error

    def long(self, form: str) -> None:
        count = self.number(form)
        if count > 9:
            raise Refused(f"it has an integer of {count} bytes, and at most 9 are read")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def string_line(self) -> None:
        quoted = self.line(self.size)
        if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
            raise Refused("a string in it has no quotes")
        try:
            self.push(Old(codecs.escape_decode(quoted[1:-1])[0]))
        except ValueError as error:
            raise Refused(f"a string in it is damaged: {error}") from error

    def old(self, form: str) -> None:
        self.push(Old(self.take(self.number(form))))

    def unicode(self, form: str) -> None:
        self.push(self.take(self.number(form)).decode("utf-8", "surrogatepass"))

    def set_items(self, entries: list[Any]) -> None:
        target = self.top(dict)
        if len(entries) % 2:
            raise Refused("a dict in it has a key without a value")
        for i in range(0, len(entries), 2):
            target[key_of(entries[i])] = entries[i + 1]

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def append(self) -> None:
        value = self.stack.pop()
        self.top(list).append(value)

    def extend(self) -> None:
        entries = self.since_mark()
        self.top(list).extend(entries)

    def new_dict(self) -> None:
        entries = self.since_mark()
        self.push({})
        self.set_items(entries)

    def tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise Refused("it uses what it does not have")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def named(self) -> None:
        module, name = (self.line().decode("ascii", "replace") for _ in range(2))
        self.push(maker_of(module, name))

    def named_on_stack(self) -> None:
        name, module = text_of(self.stack.pop()), text_of(self.stack.pop())
        self.push(maker_of(module, name))

    def reduce(self) -> None:
        arguments = self.stack.pop()
        maker = self.stack.pop()
        if type(maker) is not Maker or maker.make is None or type(arguments) is not tuple:
            raise Refused("it calls what cannot be called")
        if not maker.least <= len(arguments) <= maker.most:
            raise Refused(f"an array in it has {len(arguments)} parts, as none has")
        self.push(maker.make(*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(state) is not tuple:
            raise Refused("it changes what cannot be changed")
        if type(target) is Type:
            # Version, byte order, and of a type of plain numbers nothing else but small numbers.
            if not (4 < len(state) < 9 and all(part is None or type(part) is int for part in state[2:])):
                raise Refused("it holds an array of a type with parts, and only numbers are read")
            order = text_of(state[1])
            if order not in tuple("<>|="):
                raise Refused(f"it has the byte order {order[:20]!r}")
            target.order = order
        elif type(target) is Hollow and target.built is None:
            # The oldest have no version.
            shape, kind, fortran, content = state[-4:] if len(state) in (4, 5) else (None,) * 4
            self.stack[-1] = target.built = filled(shape, kind, fortran, content)
        else:
            raise Refused("it changes what cannot be changed")

    def protocol(self) -> None:
        number = self.number("<B")
        if number > 5:
            raise Refused(f"it is of the protocol {number}, and 0 to 5 are known")

    def frame(self) -> None:
        # Only says how much could be read at once.
        self.number("<Q")


_WORDS: dict[bytes, Callable[[_Reader], None]] = {
    b"(": _Reader.mark,
    b"0": _Reader.pop,
    b"1": lambda self: self.since_mark().clear(),
    b"N": lambda self: self.push(None),
    b"\x88": lambda self: self.push(True),
    b"\x89": lambda self: self.push(False),
    b"I": _Reader.int_line,
    b"L": lambda self: self.push(self.integer()),
    b"J": lambda self: self.push(self.number("<i")),
    b"K": lambda self: self.push(self.take(1)[0]),
    b"M": lambda self: self.push(self.number("<H")),
    b"\x8a": lambda self: self.long("<B"),
    b"\x8b": lambda self: self.long("<i"),
    b"F": _Reader.float_line,
    b"G": lambda self: self.push(struct.unpack(">d", self.take(8))[0]),
    b"S": _Reader.string_line,
    b"T": lambda self: self.old("<i"),
    b"U": lambda self: self.old("<B"),
    b"V": lambda self: self.push(self.line(self.size).decode("raw-unicode-escape")),
    b"X": lambda self: self.unicode("<I"),
    b"\x8c": lambda self: self.unicode("<B"),
    b"\x8d": lambda self: self.unicode("<Q"),
    b"B": lambda self: self.push(self.take(self.number("<I"))),
    b"C": lambda self: self.push(self.take(self.number("<B"))),
    b"\x8e": lambda self: self.push(self.take(self.number("<Q"))),
    b"\x96": lambda self: self.push(bytearray(self.take(self.number("<Q")))),
    b"]": lambda self: self.push([]),
    b"l": lambda self: self.push(self.since_mark()),
    b"a": _Reader.append,
    b"e": _Reader.extend,
    b")": lambda self: self.push(()),
    b"t": lambda self: self.push(tuple(self.since_mark())),
    b"\x85": lambda self: self.tuple(1),
    b"\x86": lambda self: self.tuple(2),
    b"\x87": lambda self: self.tuple(3),
    b"}": lambda self: self.push({}),
    b"d": _Reader.new_dict,
    b"s": _Reader.set_item,
    b"u": lambda self: self.set_items(self.since_mark()),
    b"p": lambda self: self.put(self.integer()),
    b"q": lambda self: self.put(self.take(1)[0]),
    b"r": lambda self: self.put(self.number("<I")),
    b"\x94": lambda self: self.put(len(self.memo)),
    b"g": lambda self: self.get(self.integer()),
    b"h": lambda self: self.get(self.take(1)[0]),
    b"j": lambda self: self.get(self.number("<I")),
    b"c": _Reader.named,
    b"\x93": _Reader.named_on_stack,
    b"R": _Reader.reduce,
    b"b": _Reader.build,
    b"\x80": _Reader.protocol,
    b"\x95": _Reader.frame,
}
"""What every word of the program does."""
