"""Tables and sounds of a user's."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.foreign import SPECIAL, damaged, put_special, short
from tests.fuzz.stock import VECTORS, Stock
from tests.helpers.fuzzing import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]

CELLS = st.sampled_from([
    "", " ", "x", "nan", "inf", "-1e400", "1e999", "1,5", "1;5", '"', '""', "'", "\0", "\ufeff", "\r", "\n", "=1+1",
    "é", "0x10",
    "1_0", "٣", "true", "9" * 200000, "a" * 200000, "1\t2", "-0", "1e-320", "C" * 3000, "%n",
])  # fmt: skip
ENCODINGS = ("utf-16", "utf-32", "latin-1", "cp1252", "utf-8-sig", "utf-7", "shift_jis")


def _tables() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Return kind -> name of its file, its text, the command that reads it."""
    points = [f"f{i},{x / 5},{x * i / 5}" for i in range(12) for x in range(10)]
    signal = [f"{i / 9},{i * i / 81}" for i in range(16)]
    smiles = [f"{'C' * (i % 7 + 1)}{'O' * (i % 3)}{'N' * (i % 5)}" for i in range(60)]
    assays = ["smiles,a,b,c,d,e,f,g,h"] + [
        f"{s},{','.join(str((i * k + i // 3) % 2) for k in range(1, 9))}" for i, s in enumerate(smiles)
    ]
    return {
        "functions": ("functions.csv", "\n".join(["function,x1,y1", *points]),
                      ("fewshot", "train", "maml", "--data", "functions", "--data-root", "given", *VECTORS, "--shot",
                      "2")),
        "signals": ("c0/0.csv", "\n".join(["left,right", *signal]),
                    ("fewshot", "audit", "signals", "--data-root", "given", "--episodes", "1")),
        "molecules": ("assays.csv", "\n".join(assays),
                      ("fewshot", "audit", "molecules@lingo", "--data-root", "given/assays.csv", "--episodes", "1")),
    }  # fmt: skip


@st.composite
def tables(draw: Draw, stock: Stock) -> Case:
    """Return a CSV file with other cells, lines, or bytes."""
    kinds = _tables()
    name = draw(st.sampled_from(sorted(kinds)))
    file, text, command = kinds[name]
    way = draw(
        st.sampled_from(["unchanged", "cell", "cell", "cell", "lines", "columns", "encoding", "bytes", "special"])
    )
    lines, kind = text.splitlines(), ""
    if way == "unchanged":
        content, what = text.encode(), way
    elif way == "cell":
        row = draw(st.integers(0, len(lines) - 1))
        cells = lines[row].split(",")
        column = draw(st.integers(0, len(cells) - 1))
        value = draw(CELLS)
        cells[column] = value
        lines[row] = ",".join(cells)
        content, what = "\n".join(lines).encode(), f"line {row}, column {column}: {short(value)}"
    elif way == "lines":
        what = draw(
            st.sampled_from(
                ["no line", "one line", "twice the header", "no header", "empty lines", "lines of one cell"]
            )
        )
        content = {
            "no line": "", "one line": lines[0], "twice the header": "\n".join([lines[0], *lines]),
            "no header": "\n".join(lines[1:]),
            "empty lines": "\n\n\r\n".join(lines), "lines of one cell": "\n".join(line.split(",")[0] for line in lines),
        }[what].encode()  # fmt: skip
    elif way == "columns":
        what = draw(
            st.sampled_from(["names twice", "100000 columns", "semicolons", "tabs", "a cell more", "a cell less"])
        )
        content = {
            "names twice": "\n".join([lines[0].replace("2", "1").replace("right", "left").replace(",b", ",a"),
            *lines[1:]]),
            "100000 columns": "\n".join(line + ",1" * 100000 for line in lines[:4]), "semicolons": text.replace(",",
            ";"),
            "tabs": text.replace(",", "\t"), "a cell more": text.replace("\n", "\n1,", 1),
            "a cell less": text[: text.rindex(",")],
        }[what].encode()  # fmt: skip
    elif way == "encoding":
        what = draw(st.sampled_from(ENCODINGS))
        content = text.encode(what)
    elif way == "bytes":
        content, what = damaged(text.encode(), draw)
    else:
        kind = draw(st.sampled_from(SPECIAL))
        content, what = b"", kind

    def lay(place: Path) -> None:
        path = place / "given" / file
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        if name == "signals":
            for number in range(6):
                for item in range(4):
                    other = place / "given" / f"c{number}" / f"{item}.csv"
                    other.parent.mkdir(exist_ok=True)
                    if other != path:
                        other.write_text(text.replace("0.", f"{number}.{item}"))
        if kind:
            put_special(path, kind)

    return Case(
        what=f"{name}: {what}",
        arguments=command,
        lay=lay,
        bad=way == "special",
        good=way == "unchanged",
        writes=("made",),
    )


@st.composite
def sounds(draw: Draw, stock: Stock) -> Case:
    """Return WAV files, one of which is damaged."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setparams((1, 2, 8000, 0, "NONE", "NONE"))
        opened.writeframes(bytes(range(256)))
    content, what = damaged(file.getvalue(), draw)

    def lay(place: Path) -> None:
        for number in range(6):
            for item in range(4):
                path = place / "given" / f"c{number}" / f"{item}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                other = file.getvalue()[:44] + bytes((4 * number + item + i) % 256 for i in range(256))
                path.write_bytes(content if (number, item) == (0, 0) else other)

    command = ("fewshot", "audit", "signals", "--data-root", "given", "--episodes", "1")
    return Case(what=f"a WAV file: {what}", arguments=command, lay=lay, writes=("made",))
