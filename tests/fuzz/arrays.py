"""Arrays of a user's: data of a training, and what `predict` is asked."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.foreign import DIGITS, SPECIAL, damaged, put_special
from tests.fuzz.stock import VECTORS, Stock, npy
from tests.helpers.fuzzing import Case
from tests.helpers.tiny_fewshot import arrays as vectors

Draw = Callable[[st.SearchStrategy[Any]], Any]

WRITTEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "object": lambda a: a.astype(object),
    "complex64": lambda a: a.astype(np.complex64),
    "float16": lambda a: a.astype(np.float16),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "longdouble": lambda a: a.astype(np.longdouble),
    "float64": lambda a: a.astype(np.float64),
    "text": lambda a: a.astype(str),
    "bytes": lambda a: a.astype(str).astype(bytes),
    "dates": lambda a: a.astype(np.int64).astype("datetime64[s]"),
    "spans": lambda a: a.astype(np.int64).astype("timedelta64[s]"),
    "booleans": lambda a: a > 0,
    "uint64": lambda a: a.astype(np.int64).astype(np.uint64),
    "uint64 near its end": lambda a: np.full(a.shape, 2**64 - 1, np.uint64),
    "int8": lambda a: a.astype(np.int8),
    "records": lambda a: np.zeros(len(a), [("a", "f4"), ("b", "i2")]),
    "void": lambda a: np.zeros(a.shape, "V7"),
    "NaN everywhere": lambda a: np.full(a.shape, np.nan, np.float32),
    "one NaN": lambda a: _with(a, np.nan),
    "one infinity": lambda a: _with(a, -np.inf),
    "1e300": lambda a: _with(a.astype(np.float64), 1e300),
    "tiny": lambda a: a.astype(np.float64) * 1e-310,
    "fewer": lambda a: a[:-1],
    "none": lambda a: a[:0],
    "no axis": lambda a: np.array(a.flat[0]),
    "an axis more": lambda a: a[:, None],
    "an axis at the end": lambda a: a[..., None],
    "an axis of nothing": lambda a: np.zeros((len(a), 0), np.float32),
    "five axes": lambda a: a.reshape(len(a), 1, 1, 1, -1),
    "columns first": lambda a: np.asfortranarray(a),
    "all alike": np.zeros_like,
    "one for each": lambda a: np.arange(len(a)),
}
NEVER = {
    "object", "complex64", "dates", "spans", "records", "void", "NaN everywhere", "one NaN", "one infinity", "fewer",
    "none",
    "no axis", "an axis of nothing",
}  # fmt: skip
"""No items, nor labels, are like this."""
USUAL = {"float64", "big-endian", "columns first"}
"""All are like this at times."""
HEADERS = (
    "{'descr': '|O', 'fortran_order': False, 'shape': (480,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (480, 10000000000), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (480, -12), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (480, 12.0), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 300 + ")" * 300 + ", }",
    "{'descr': '<f4', 'fortran_order': 7, 'shape': (480, 12), }",
    "{'descr': [('a', '<f4')] * 9, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + DIGITS + ",), }",
    "__import__('os').system('touch ../canary2')",
    "9" + "+9" * 20000,
)


def _with(array: np.ndarray, value: float) -> np.ndarray:
    copy = array.astype(array.dtype if array.dtype.kind == "f" else np.float64)
    copy[len(copy) // 2] = value
    return copy


@st.composite
def arrays(draw: Draw, stock: Stock) -> Case:
    """Return .npy files, for a training or a prediction, one of which is something else."""
    items, classes = vectors()
    task = draw(st.sampled_from(["train", "train", "predict", "functions"]))
    if task == "functions":
        x = np.linspace(-1.0, 1.0, 20 * 12, dtype=np.float32).reshape(20, 12, 1)
        files = {"x.npy": x, "y.npy": x * np.arange(20, dtype=np.float32)[:, None, None]}
        command = ("fewshot", "train", "maml", "--data", "functions", "--data-root", "given", *VECTORS, "--shot", "2")
    elif task == "train":
        files = {"items.npy": items, "classes.npy": classes}
        command = ("fewshot", "train", "proto", "--data", "arrays", "--data-root", "given", *VECTORS)
    else:
        files = {"items.npy": items[::12][:5], "labels.npy": np.arange(5)}
        command = (
            "fewshot",
            "predict",
            "few",
            "--data-root",
            "data",
            "--support",
            "given",
            "--query",
            "given",
            "--threads",
            "1",
        )
    name = draw(st.sampled_from(sorted(files)))
    way = draw(st.sampled_from(["written", "written", "written", "header", "bytes", "special", "gone", "npz"]))
    bad, good, content, kind = False, False, b"", ""
    if way == "written":
        what = draw(st.sampled_from(sorted(WRITTEN)))
        # The items are asked about, too; there may be fewer of those, and any number of axes is one of labels' own.
        bad = what in NEVER and not (what in ("an axis of nothing", "no axis") and name == "labels.npy")
        good = what in USUAL and name not in ("classes.npy", "labels.npy")
        content = npy(WRITTEN[what](files[name]), pickled=True)
    elif way == "header":
        header = draw(st.sampled_from(HEADERS))
        what, bad = header[:60], True
        text = header.encode() + b"\n"
        content = b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + files[name].tobytes()
    elif way == "bytes":
        content, what = damaged(npy(files[name]), draw)
    elif way == "npz":
        file = io.BytesIO()
        np.savez_compressed(file, files[name])
        content, what, bad = file.getvalue(), "an .npz file", True
    else:
        kind = "a link to itself" if way == "gone" else draw(st.sampled_from(SPECIAL))
        what, bad = kind, True

    def lay(place: Path) -> None:
        if task == "predict":
            stock.lay(place, "few", "data")
        (place / "given").mkdir()
        for file, array in files.items():
            (place / "given" / file).write_bytes(content if file == name else npy(array))
        if kind:
            put_special(place / "given" / name, kind)

    return Case(
        what=f"{task}: {name} is {what}",
        arguments=command,
        lay=lay,
        bad=bad,
        good=good,
        writes=("made", "few"),
        keeps=("made",) if what == "1e300" else (),
    )
