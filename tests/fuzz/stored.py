"""Runs and manifests that somebody else made, or damaged: config.yaml, checkpoints, manifests, progress.csv."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from tests.fuzz.foreign import DATED, PLAIN, SPECIAL, YAML, changed, damaged, mutated, paths, put_special, short
from tests.fuzz.stock import Sealed, Stock, figures, loaded, logged, opened, saved
from tests.helpers.fuzzing import Case

USED = ("maml", "rl2", "rl2", "few", "few")
"""Runs by how often they are taken: what is evaluated sooner is taken more often."""

Draw = Callable[[st.SearchStrategy[Any]], Any]


def used(stock: Stock, draw: Draw, run: str, what: str, lay: Callable[[Path], object]) -> Case:
    """Return a case that evaluates or resumes a run: it is refused, or gives what the run gave before."""
    names = (run, "data") if run == "few" else (run,)

    def laid(place: Path) -> None:
        stock.lay(place, *names)
        lay(place / run)

    if draw(st.integers(0, 2)):
        same = _evaluates(stock, run)
        return Case(what=what, arguments=stock.evaluate(run), lay=laid, like=same, writes=("made",))
    return Case(what=what, arguments=stock.resume(run), lay=laid, like=_resumes(stock, run), writes=(run,))


def _evaluates(stock: Stock, run: str) -> Callable[[Path, str], str]:
    def like(place: Path, output: str) -> str:
        return "" if figures(output) == stock.evaluated[run] else f"other figures: {output[:200]}"

    return like


def _resumes(stock: Stock, run: str) -> Callable[[Path, str], str]:
    def like(place: Path, output: str) -> str:
        # An earlier row may be gone with its file, and nothing else.
        found = logged(place / run)
        return "" if found[-1:] == stock.resumed[run][-1:] else f"other rows: {found[-1:]}"

    return like


# -- config.yaml ------------------------------------------------------------------------------------------------------


@st.composite
def configs(draw: Draw, stock: Stock) -> Case:
    """Return a run with another config.yaml."""
    run = draw(st.sampled_from(USED))
    text = (stock.folder / run / "config.yaml").read_text()
    way = draw(
        st.sampled_from(
            ["unchanged", "tree", "tree", "tree", "tree", "text", "text", "text", "bytes", "bytes", "special"]
        )
    )
    if way == "special":
        kind = draw(st.sampled_from(SPECIAL))
        return used(stock, draw, run, f"{run}/config.yaml is {kind}", lambda at: put_special(at / "config.yaml", kind))
    if way == "unchanged":
        return replace(used(stock, draw, run, way, lambda at: None), good=True)
    if way == "tree":
        tree, what = mutated(yaml.safe_load(text), draw, PLAIN | DATED)
        content = _dumped(tree)
    elif way == "text":
        lines = text.splitlines()
        at = draw(st.integers(0, len(lines) - 1))
        value = draw(YAML)
        key = lines[at].partition(":")[0]
        doubled = draw(st.booleans())
        lines[at : at + 1] = [*([lines[at]] if doubled else []), f"{key}: {value}"]
        content, what = "\n".join(lines).encode(), f"line {at} is {key}: {short(value)}{', twice' * doubled}"
    else:
        content, what = damaged(text.encode(), draw)
    return used(stock, draw, run, f"{run}/config.yaml: {what}", lambda at: (at / "config.yaml").write_bytes(content))


def _dumped(tree: Any) -> bytes:
    try:
        return yaml.dump(tree, sort_keys=False).encode()
    # Numbers of too many digits.
    except ValueError:
        return b"run: {}"


# -- checkpoints ------------------------------------------------------------------------------------------------------


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
    "a compressed sparse tensor": lambda: torch.eye(3).to_sparse_csr(),
    "a tensor without memory": lambda: torch.empty(3, 3, device="meta"),
    "complex numbers": lambda: torch.zeros(3, dtype=torch.complex64),
    "booleans": lambda: torch.zeros(3, dtype=torch.bool),
    "an empty tensor": lambda: torch.zeros(0),
    "a number": lambda: torch.tensor(1.0),
    "NaN": lambda: torch.full((3,), float("nan")),
    "a quantised tensor": lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
    "a billion times one number": lambda: torch.zeros(1).expand(10**9),
    "many axes": lambda: torch.zeros([1] * 20),
}
ALIKE: dict[str, Callable[[torch.Tensor], Any]] = {
    "in float64": lambda old: old.double(),
    "in float16": lambda old: old.half(),
    "in whole numbers": lambda old: old.long(),
    "with NaN": lambda old: torch.full_like(old.float(), float("nan")),
    "with infinity": lambda old: torch.full_like(old.float(), float("inf")),
    "with a row more": lambda old: torch.cat([old, old]) if old.dim() else old.expand(2),
    "turned": lambda old: old.transpose(0, -1).contiguous() if old.dim() > 1 else old[None],
    "sparse": lambda old: old.to_sparse(),
    "without memory": lambda old: old.to("meta"),
    "as a list": lambda old: old.tolist(),
}
"""In place of a tensor, one that is like it."""
RUNS_CODE = (
    b"cos\nsystem\n(S'touch ../canary2'\ntR.",
    b"cposix\nsystem\n(S'touch ../canary2'\ntR.",
    b"cbuiltins\neval\n(S'1'\ntR.",
    b"ctorch\nload\n(S'x'\ntR.",
    b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI2\ntR.",
    b"\x80\x04" + b"]" * 3000 + b".",
    b"\x80\x04\x8b\xff\xff\xff\x7f",
    b"\x80\x04\x95" + b"\xff" * 8,
)
"""In place of the pickle in a checkpoint."""


@st.composite
def checkpoints(draw: Draw, stock: Stock) -> Case:
    """Return a run with another checkpoint, mostly one whose checksum is right."""
    run = draw(st.sampled_from(USED))
    name = "best.pt" if run == "few" else "last.pt"
    before = (stock.folder / run / "checkpoints" / name).read_bytes()
    way = draw(
        st.sampled_from(
            [
                "unchanged",
                "header",
                "payload",
                "payload",
                "payload",
                "payload",
                "zip",
                "bytes",
                "sealed bytes",
                "special",
            ]
        )
    )
    if way == "special":
        kind = draw(st.sampled_from(SPECIAL))
        return used(stock, draw, run, f"{name} is {kind}", lambda at: put_special(at / "checkpoints" / name, kind))
    if way == "unchanged":
        return replace(used(stock, draw, run, way, lambda at: None), good=True)
    parts = opened(before)
    if way == "header":
        header, what = mutated(parts.header, draw, PLAIN)
        content = _closed(Sealed(parts.magic, header, parts.payload))
    elif way == "payload":
        payload, what = _foreign(draw, loaded(parts.payload))
        content = Sealed(parts.magic, parts.header, payload).closed()
    elif way == "zip":
        payload, what = _rezipped(draw, parts.payload)
        content = Sealed(parts.magic, parts.header, payload).closed()
    elif way == "bytes":
        content, what = damaged(before, draw)
    else:
        payload, what = damaged(parts.payload, draw)
        content = Sealed(parts.magic, parts.header, payload).closed()

    def lay(at: Path) -> None:
        # The others would take its place.
        for other in (at / "checkpoints").iterdir():
            other.write_bytes(content)

    case = used(stock, draw, run, f"{run}/{name}, {way}: {what}", lay)
    # A flipped bit of a weight is another weight, and another number of iterations may be true.
    return replace(case, like=None) if way == "sealed bytes" or what.startswith("iteration ") else case


def _closed(sealed: Sealed) -> bytes:
    try:
        return sealed.closed()
    except (TypeError, ValueError):
        return b"metarl checkpoint"


def _foreign(draw: Draw, payload: Any) -> tuple[bytes, str]:
    """Return the payload with something else in one place."""
    path = draw(st.sampled_from([path for path in paths(payload) if path]))
    old = payload
    for key in path:
        old = old[key]
    way = draw(st.sampled_from(["alike", "alike", "tensor", "plain", "removed"])) if torch.is_tensor(old) else "plain"
    way = draw(st.sampled_from(["removed", "added", way, way]))
    if way == "alike" and old.dtype in (torch.float32, torch.float64):
        name = draw(st.sampled_from(sorted(ALIKE)))
        # What is float64 already is no other then.
        new: Any = ALIKE[name](old) if not (name == "in float64" and old.dtype == torch.float64) else old.float()
    elif way in ("alike", "tensor"):
        name = draw(st.sampled_from(sorted(TENSORS)))
        # Torch warns of some of them.
        with warnings.catch_warnings(action="ignore"):
            new = TENSORS[name]()
    else:
        new = draw(PLAIN)
        name = f"{way} {short(new)}"
    tree = changed(payload, path, way if way in ("removed", "added") else "replaced", new)
    with warnings.catch_warnings(action="ignore"):
        return saved(tree), f"{'.'.join(map(str, path))} {name}"


def _rezipped(draw: Draw, payload: bytes) -> tuple[bytes, str]:
    """Return the payload with another pickle, or with other numbers of bytes of its tensors."""
    new = io.BytesIO()
    way = draw(st.sampled_from(["pickle", "cut tensors", "no tensors", "packed"]))
    pickle = draw(st.sampled_from(RUNS_CODE))
    with zipfile.ZipFile(io.BytesIO(payload)) as old, zipfile.ZipFile(new, "w") as made:
        for member in old.infolist():
            content = old.read(member)
            if way == "pickle" and member.filename.endswith("data.pkl"):
                content = pickle
            if "/data/" in member.filename and way in ("cut tensors", "no tensors"):
                if way == "no tensors":
                    continue
                content = content[: len(content) // 2]
            kind = zipfile.ZIP_DEFLATED if way == "packed" else zipfile.ZIP_STORED
            made.writestr(member.filename, content, compress_type=kind)
    return new.getvalue(), f"{way} {pickle[:20]!r}" if way == "pickle" else way


# -- manifests, progress.csv ------------------------------------------------------------------------------------------


@st.composite
def manifests(draw: Draw, stock: Stock) -> Case:
    """Return a manifest, mostly one whose checksum is right."""
    before = (stock.folder / "manifest").read_bytes()
    way = draw(
        st.sampled_from(
            [
                "unchanged",
                "header",
                "header",
                "header",
                "header",
                "rows",
                "rows",
                "rows",
                "bytes",
                "sealed bytes",
                "special",
            ]
        )
    )
    bad = False
    if way == "special":
        kind = draw(st.sampled_from(SPECIAL))
        return _tested(stock, f"the manifest is {kind}", lambda place: put_special(place / "manifest", kind), bad=True)
    if way == "unchanged":
        return replace(_tested(stock, way, lambda place: None), good=True)
    parts = opened(before)
    if way == "header":
        header, what = mutated(parts.header, draw, PLAIN)
        content = _closed(Sealed(parts.magic, header, parts.payload))
    elif way == "rows":
        bad = True
        values = np.frombuffer(parts.payload, "<i4").copy()
        at = draw(st.integers(0, len(values) - 1))
        values[at] = draw(st.sampled_from([-1, -(2**31), 2**31 - 1, 100000]))
        content, what = Sealed(parts.magic, parts.header, values.tobytes()).closed(), f"number {at} is {values[at]}"
    elif way == "bytes":
        content, what = damaged(before, draw)
    else:
        payload, what = damaged(parts.payload, draw)
        content = Sealed(parts.magic, parts.header, payload).closed()
    case = _tested(stock, f"manifest, {way}: {what}", lambda place: (place / "manifest").write_bytes(content), bad=bad)
    # Another row is another episode.
    return case if way != "sealed bytes" else replace(case, like=None)


def _tested(stock: Stock, what: str, lay: Callable[[Path], object], *, bad: bool = False) -> Case:
    def laid(place: Path) -> None:
        stock.lay(place, "few", "data", "manifest")
        lay(place)

    def like(place: Path, output: str) -> str:
        found, known = json.loads(output)["tests"][0], stock.evaluated["few"]["tests"][0]
        same = found["rows"][0]["mean"] == known["rows"][0]["mean"]
        return "" if same else f"another accuracy: {found['rows'][0]['mean']}"

    command = ("fewshot", "evaluate", "few", "--data-root", "data", "--manifest", "manifest", "--out", "made")
    return Case(
        what=what, arguments=(*command, "--threads", "1", "--json"), lay=laid, bad=bad, like=like, writes=("made",)
    )


@st.composite
def logs(draw: Draw, stock: Stock) -> Case:
    """Return a run with another progress.csv, events, or lock."""
    run = draw(st.sampled_from(USED))
    name = draw(st.sampled_from(["progress.csv", "progress.csv", "events", "lock"]))
    if name == "progress.csv":
        content, what = damaged((stock.folder / run / name).read_bytes(), draw)
        cell = draw(st.sampled_from(["", "nan", "1e999", "x", "\0", "9" * 200000, '"', "-1", "\ufeff"]))
        if draw(st.booleans()):
            content, what = (
                (stock.folder / run / name).read_bytes().replace(b"1", cell.encode(), 1),
                f"{cell[:9]!r} for a 1",
            )
        kind = draw(st.sampled_from([*SPECIAL, *[""] * 9]))
    else:
        content, what, kind = b"", "", draw(st.sampled_from(SPECIAL))

    def lay(place: Path) -> None:
        stock.lay(place, run, *(["data"] if run == "few" else []))
        at = place / run
        found = {"progress.csv": at / "progress.csv", "lock": at / ".lock"}
        path = found.get(name) or next(at.glob("events*"))
        put_special(path, kind) if kind else path.write_bytes(content)

    return Case(what=f"{run}/{name} {kind or what}", arguments=stock.resume(run), lay=lay, writes=(run,))
