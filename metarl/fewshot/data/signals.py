"""A tree of signals of one's own: `<split>/<class>/<file>`, or `<class>/<file>`, which is split by class at random.

    .wav    whole numbers of 8, 16, 24 or 32 bits, as numbers from -1 to 1; or floats, as they are. One sample rate
    .csv    a row a moment and a column a channel, with or without a line of names; or the other way round (`layout`).
            What the columns were taken for is told of the first one (`signal_tables`)
    .npy    [length] of one channel, or two axes: recognised or told by `layout`, as arrays are

All signals have the same channels. They have one length, or are brought to it by `length`.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from metarl.errors import UserError, tell
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.data.arrays import moments
from metarl.fewshot.data.files import SPLIT_FOLDERS, Tree, find_root, open_tree, wrong_layout
from metarl.fewshot.data.signal_tables import read_table, told
from metarl.fewshot.data.splitting import split_at_random
from metarl.fewshot.layout import AUTO, arranged, check_layout, recognised
from metarl.fewshot.reading.arrays import check_numbers, npy_in
from metarl.files import read_regular

DEFAULT_SIZE = 0
VARIANTS = {"files": "signals in WAV, CSV and NPY files"}
ENDINGS = (".wav", ".csv", ".npy")
MOST_BYTES = 1 << 30
"""Of a signal's file."""
_LOOKED_FOR = ("<split>/<class>/<file> with splits train, val, test", "<class>/<file>", f"files {', '.join(ENDINGS)}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How signals are read."""

    length: int = 0
    """Values that every signal is brought to: of longer ones the first so many are taken; 0: all are of one length."""
    pad: Literal["refuse", "zero", "last"] = "refuse"
    """What shorter signals are filled up with behind their end: zeros, or their last value; refuse: nothing."""
    layout: str = AUTO
    """Axes of CSV and NPY files: nlc (a row a moment), ncl (a row a channel); auto: recognised where certain."""

    def __post_init__(self) -> None:
        if self.length < 0:
            raise UserError(f"Got a length of {self.length} values. Give at least 1, or 0 for that of the files.")
        if self.pad != "refuse" and not self.length:
            raise UserError(f"Got --pad {self.pad} and no length. Say by --length how many values signals get.")
        check_layout(self.layout)
        if self.layout not in (AUTO, "nlc", "ncl"):
            raise UserError(f"Got the layout {self.layout} for signals in files. Give nlc (a row a moment) or ncl.")


def load(variant: str, root: Path | None, size: int, options: Options) -> ClassData:
    """Return the signals of a tree; arguments and errors as in `metarl.fewshot.data.load`."""
    if size:
        raise UserError(f"Got a size of {size} pixels, and signals have a length. Leave the size out; give --length.")
    folder = find_root("signals", root, ("*",), _LOOKED_FOR)
    with open_tree(folder) as tree:
        listed = _listed(tree)
        reader = SignalReader(options=options)
        splits = {split: _split(tree, classes, reader) for split, classes in listed.items()}
    mean, deviation = moments(splits["train"].items)
    return ClassData(
        name=f"signals-{folder.stem}",
        splits=splits,
        mean=tuple(mean),
        deviation=tuple(deviation),
        settings=vars(options),
        reader=reader,
        layout="ncl",
    )


def _listed(tree: Tree) -> dict[str, dict[str, list[str]]]:
    """Return split -> class -> names of its files.

    Raises:
        UserError: there are none, splits and classes are mixed, or a class has two kinds of place.
    """
    names = [name for name in tree.names if name.lower().endswith(ENDINGS)]
    parts = [name.split("/") for name in names]
    top = 0
    # An archive often holds one folder that holds everything.
    while parts and min(map(len, parts)) > 2 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
        top += 1
    if not parts or min(map(len, parts)) < 2:
        raise wrong_layout("signals", tree.path, _LOOKED_FOR)
    of_split = {top: split for split, tops in SPLIT_FOLDERS.items() for top in tops}
    found = {of_split.get(part[0].lower()) for part in parts}
    _tell_others(tree, top + 1 + ("train" in found))
    if "train" not in found:
        classes = _by_class(names, [part[0] for part in parts])
        known = list(classes)
        by_split = split_at_random("classes of signals", known, seed=0)
        return {split: {known[i]: classes[known[i]] for i in places} for split, places in by_split.items()}
    if None in found or min(map(len, parts)) < 3:
        strange = sorted({part[0] for part in parts if len(part) < 3 or part[0].lower() not in of_split})
        raise UserError(
            f"{tree.path} has folders of splits and beside them {', '.join(strange[:5])}. Give every file the place "
            "<split>/<class>/<file>, with the splits train, val, test."
        )
    given: dict[str, dict[str, list[str]]] = {}
    for split in SPLIT_FOLDERS:
        rows = [i for i, part in enumerate(parts) if of_split[part[0].lower()] == split]
        if rows:
            given[split] = _by_class([names[i] for i in rows], [parts[i][1] for i in rows])
    twice = [(a, b, name) for a in given for b in given if a < b for name in given[a] if name in given[b]]
    if twice:
        raise UserError(
            f"The class '{twice[0][2]}' stands in {twice[0][0]} and in {twice[0][1]}. Give it to one split."
        )
    return given


def _tell_others(tree: Tree, depth: int) -> None:
    """Tell which files are no signals, and refuse a folder of a class that holds none; it is so many folders deep."""
    others = [name for name in tree.names if not name.lower().endswith(ENDINGS)]
    known = {tuple(name.split("/")[:depth]) for name in tree.names if name.lower().endswith(ENDINGS)}
    folders = [tuple(name.split("/")[:depth]) for name in others if name.count("/") >= depth]
    bare = next((folder for folder in folders if folder not in known), None)
    if bare is not None:
        raise UserError(
            f"The folder {tree.path.joinpath(*bare)} holds other files and no signals. Take it out, or complete it."
        )
    if others:
        tell(f"signals: left out {len(others)} files that are no signals, as {others[0]}.")


def _by_class(names: Sequence[str], classes: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, key in sorted(zip(names, classes, strict=True), key=lambda pair: (pair[1], pair[0])):
        found.setdefault(key, []).append(name)
    return found


def _split(tree: Tree, classes: dict[str, list[str]], reader: SignalReader) -> ClassSplit:
    names = [name for members in classes.values() for name in members]
    items = []
    for name in names:
        items.append(reader.of(name, tree.read(name, MOST_BYTES)))
    return ClassSplit(
        items=torch.stack(items),
        sizes=torch.tensor([len(members) for members in classes.values()]),
        names=tuple(classes),
        origins=tuple(names),
    )


# -- one file ---------------------------------------------------------------------------------------------------------


class SignalReader:
    """Reads signals, all in one form: that of the first.

    Args:
        options: how.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._first: tuple[str, tuple[int, ...]] | None = None
        self._rated: tuple[str, int] | None = None
        self._told = False

    def read(self, path: Path) -> Float32[np.ndarray, "channels length"]:
        """Return the signal in a file.

        Raises:
            UserError: it cannot be read, or differs from the others in channels, length or sample rate; says which.
        """
        try:
            content = read_regular(path, MOST_BYTES)
        except FileNotFoundError as error:
            raise UserError(
                f"The signal {path} cannot be read ({error}). Give a file of {', '.join(ENDINGS)}."
            ) from error
        return self.of(str(path), content).numpy()

    def of(self, name: str, content: bytes) -> Float32[Tensor, "channels length"]:
        """Return the signal in the content of a file; errors as in `read`."""
        ending = Path(name).suffix.lower()
        if ending == ".wav":
            rows, rate = _wav(name, content)
            self._rated = self._rated or (name, rate)
            if self._rated[1] != rate:
                raise UserError(
                    f"{self._rated[0]} has {self._rated[1]} values a second and {name} {rate}. Bring all signals to "
                    "one sample rate."
                )
        elif ending == ".csv":
            table = read_table(name, content)
            rows = self._placed(name, table.numbers, named=table.titled)
            words = "" if self._told else told(name, table, rows)
            if words:
                tell(words)
            self._told = True
        elif ending == ".npy":
            rows = npy_in(content, name)
            check_numbers(rows.dtype, name)
            rows = self._placed(name, rows, named=False)
        else:
            raise UserError(f"{name} is no signal that is read. Give files of {', '.join(ENDINGS)}.")
        if not rows.size:
            raise UserError(f"{name} has the shape {rows.shape}: it holds no values. Take it out.")
        # A number too large for float32 becomes infinite, and is refused below.
        with np.errstate(over="ignore"):
            signal = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        if not bool(signal.isfinite().all()):
            raise UserError(f"{name} has values that are NaN, infinite or too large. Correct it, or take it out.")
        rows = self._cut(name, signal)
        self._first = self._first or (name, tuple(rows.shape))
        if tuple(rows.shape) != self._first[1]:
            (channels, length), (others, size) = self._first[1], rows.shape
            advice = (
                "Give all signals the same channels."
                if channels != others
                else ("Bring them to one length by --length N (and --pad zero or last for shorter ones).")
            )
            raise UserError(
                f"{self._first[0]} has {channels} channels x {length} values and {name} {others} x {size}. {advice}"
            )
        return rows

    def _placed(self, name: str, rows: np.ndarray, named: bool) -> np.ndarray:
        """Return [channels, length]; a table with names of columns has a row a moment."""
        if rows.ndim == 1:
            return rows[None]
        if rows.ndim != 2:
            raise UserError(f"{name} has the shape {rows.shape}. Give [length], or two axes: length and channels.")
        layout = "nlc" if named and self.options.layout == AUTO else self.options.layout
        if layout == AUTO:
            layout = recognised((1, *rows.shape), f"a signal ({name})")
            if layout == "nhw":
                raise UserError(
                    f"Got {name} of the shape {rows.shape}: which axis is the channels'? Give --layout nlc (a row a "
                    "moment) or --layout ncl (a row a channel)."
                )
        return arranged(torch.from_numpy(np.ascontiguousarray(rows))[None], layout)[0][0].numpy()

    def _cut(self, name: str, rows: Tensor) -> Tensor:
        length = self.options.length
        if not length or rows.shape[1] == length:
            return rows
        missing = length - rows.shape[1]
        if missing < 0:
            return rows[:, :length]
        if self.options.pad == "refuse" or not rows.shape[1]:
            raise UserError(
                f"{name} has {rows.shape[1]} values, and {length} are asked for. Fill it up by --pad zero or --pad "
                "last, or give a smaller --length."
            )
        last = rows[:, -1:] if self.options.pad == "last" else torch.zeros_like(rows[:, -1:])
        return torch.cat((rows, last.expand(-1, missing)), dim=1)


_FORMATS = {1: "PCM", 2: "ADPCM", 3: "float", 6: "A-law", 7: "mu-law", 85: "MP3"}
"""Numbers by which WAV files say what they hold."""
_EXTENSIBLE = 0xFFFE
"""The real one stands further behind then."""


def _wav(name: str, content: bytes) -> tuple[np.ndarray, int]:
    """Return values from -1 to 1, [channels, length], and how many a second has."""
    place = content.find(b"fmt ", 12) + 8
    tag = int.from_bytes(content[place : place + 2], "little")
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(content[place + 24 : place + 26], "little")
    if content[:4] == b"RIFF" and place > 8 and tag not in (1, 3):
        kind = _FORMATS.get(tag, f"format {tag}")
        raise UserError(f"{name} is a WAV file of {kind}, which is not read. Save it as PCM or float, or as NPY.")
    try:
        # The standard library reads no other number than that of PCM, though all of these lie alike.
        with wave.open(io.BytesIO(content[:place] + b"\1\0" + content[place + 2 :])) as file:
            channels, width, rate, frames = file.getparams()[:4]
            raw = file.readframes(frames)
    # A RuntimeError without a word: a part is said to end behind the file's end.
    except (wave.Error, EOFError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot be read as a WAV file ({str(error) or 'it ends before its end'}). Record it again, or save "
            "it as NPY."
        ) from error
    if width not in ((4, 8) if tag == 3 else (1, 2, 3, 4)):
        raise UserError(
            f"{name} is a WAV file with {8 * width} bits a value, which is not read. Save it as PCM of 16 bits."
        )
    if len(raw) != frames * channels * width:
        raise UserError(f"{name} ends before its end: it is not whole. Download or record it again.")
    if tag == 3:
        with np.errstate(over="ignore"):
            values = np.frombuffer(raw, f"<f{width}").astype(np.float32)
    elif width == 1:
        values = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128.0) / 128.0
    else:
        # The upper bytes of 32-bit numbers, whatever the width.
        wide = np.zeros((frames * channels, 4), np.uint8)
        wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
        values = (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    return values.reshape(frames, channels).T, rate
