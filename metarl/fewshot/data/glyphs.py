"""Letters of many scripts, written from fonts by a shaky hand: an image set that needs no download.

The letters are those of the fonts that come with matplotlib, or of any folder of fonts. Every letter is thinned to its
lines and written 20 times, each time from another font style as far as there are some, turned, slanted, bent and with
another pen (see `metarl.fewshot.data.pen`). A class is a letter, a group a script, and no script is in two splits.
Letters that look like another one are left out: of the Latin, the Greek and the Cyrillic A the first stays, and of
small and capital O one.

The set is made at first use and kept in the cache, under a hash of the fonts, of everything set here and of FreeType.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, features
from rich.console import Console

from metarl import memory
from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data.cache import Listed, Picture, cached
from metarl.fewshot.data.pen import SIDE, Hand, Strokes, joined, strokes, written
from metarl.fewshot.data.pictures import ImageForm
from metarl.fewshot.episodes import SPLITS
from metarl.fewshot.reading.folders import files_below
from metarl.files import read_regular

DEFAULT_SIZE = 28
VARIANTS = {"pen": "letters written from fonts, split by script"}

MOST_BYTES = 1 << 29
"""Of a font."""
ITEMS = 20
"""Items of a class, as many as Omniglot has."""
VERSION = 1
"""Number of the way in which the letters are made; another one makes the cache anew."""

SPLIT_OF = {
    "Latin": "train", "Canadian": "train", "Arabic": "train",
    "Greek": "validation", "Coptic": "validation", "Cyrillic": "validation", "Ogham": "validation",
    "Old Italic": "validation",
    "Armenian": "test", "Georgian": "test", "Hebrew": "test", "Lao": "test", "Nko": "test", "Tifinagh": "test",
}  # fmt: skip
"""Split of every script of matplotlib's fonts. Any other script has the one that its name determines."""

HAND = Hand(
    turn=0.2,
    slant=0.25,
    stretch=0.25,
    size=0.1,
    shift=0.048,
    bend=0.062,
    tremble=0.01,
    pen=0.066,
    pen_spread=0.15,
    pressure=0.15,
)
"""As hard as handwriting: see the test of the difficulty."""

ALIKE = 0.92
"""Two letters are one where the cosine of their images, brought to one size, is greater than this in any two styles."""
FEWEST = 5
"""A script with fewer letters is left out."""
MOST = 400
"""Of a script with more letters (Han, Hangul, Yi), only the first are taken."""
LEAST = 0.3
"""A letter whose longer side is less than this part of the font's size is a mark, and is left out."""

_ENDINGS = (".ttf", ".otf", ".ttc", ".otc")
# Their character maps give signs of mathematics for the codes of Latin letters.
_NOT_UNICODE = ("cmex10", "cmmi10", "cmsy10")
# Of the fonts where they are rendered, before letters are brought to one size.
_SIZE = 96
_WIDEST = 50 * _SIZE
_CATEGORIES = ("Lu", "Ll", "Lo", "Nd")


# -- scripts ----------------------------------------------------------------------------------------------------------

_OTHER_NAMES = {"DIGIT": "Latin", "EXTENDED": "Arabic", "ARABIC-INDIC": "Arabic", "HENTAIGANA": "Hiragana"}
# First words that several scripts share.
_TWO_WORDS = ("OLD", "TAI", "LINEAR", "MEROITIC", "INSCRIPTIONAL")
_NORTH_AND_SOUTH = ("NORTH", "SOUTH")


def script_of(letter: str) -> str | None:
    """Return the script of a letter or digit that stands for itself.

    The first word of a letter's Unicode name is the first word of its script's, or its second for some.

    Returns:
        None for all other characters, and for those that are made of others: accented letters, forms for mathematics.
    """
    if unicodedata.category(letter) not in _CATEGORIES or unicodedata.decomposition(letter):
        return None
    words = unicodedata.name(letter, "").replace("IDEOGRAPH-", "IDEOGRAPH ").split()
    if not words:
        return None
    if words[0] in _OTHER_NAMES:
        return _OTHER_NAMES[words[0]]
    count = 3 if words[0] == "OLD" and words[1] in _NORTH_AND_SOUTH else 2 if words[0] in _TWO_WORDS else 1
    return " ".join(words[:count]).title()


def split_of(script: str) -> str:
    """Return the split of a script: always the same, whatever other scripts there are."""
    if script in SPLIT_OF:
        return SPLIT_OF[script]
    share = hashlib.sha256(script.encode()).digest()[0] / 256
    return "train" if share < 0.6 else "validation" if share < 0.75 else "test"


# -- the data set -----------------------------------------------------------------------------------------------------


def load(variant: str, root: Path | None, size: int) -> ClassData:
    """Return the letters, from the cache where they are in it.

    Args:
        variant: one of VARIANTS.
        root: folder of fonts, with all its subfolders; None: matplotlib's.
        size: side of the images in pixels; 0: DEFAULT_SIZE.

    Raises:
        UserError: there are no fonts, one cannot be read, or they have too few letters.
    """
    folder = root.expanduser() if root is not None else Path(matplotlib.get_data_path(), "fonts", "ttf")
    files = _font_files(folder)
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(read_regular(file, MOST_BYTES)).digest())
    settings = {
        "variant": variant,
        "version": VERSION,
        "fonts": digest.hexdigest(),
        "freetype": features.version("freetype2"),
        "items": ITEMS,
        "alike": ALIKE,
        "letters": [FEWEST, MOST, LEAST],
        "hand": asdict(HAND),
        "splits": SPLIT_OF,
    }
    form = ImageForm(size=size or DEFAULT_SIZE, channels=1)
    return cached("glyphs", settings, [], form, partial(_listing, folder, files, form.size))


def _font_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"Looked for fonts in {folder}, which is no folder. Give a folder with {', '.join(_ENDINGS)}.")
    paths = [folder / name for name in files_below(folder, empty=True)]
    found = [path for path in paths if path.suffix.lower() in _ENDINGS and path.stem not in _NOT_UNICODE]
    if not found:
        here = sorted(path.name for path in folder.iterdir())
        raise UserError(
            f"Looked for fonts ({', '.join(_ENDINGS)}) in {folder} and below, and found {len(here)} other entries"
            f"{': ' + ', '.join(here[:5]) if here else ''}. Give a folder of fonts, or none for matplotlib's "
            "(METARL_DATA gives the folder of other data sets)."
        )
    # The fonts decide, not where they lie.
    return sorted(found, key=lambda path: (path.name, path.as_posix()))


def _listing(folder: Path, files: Sequence[Path], size: int) -> dict[str, list[Listed]]:
    """Return the classes with their images, by split."""
    with Console(stderr=True).status(f"Writing glyphs of {len(files)} fonts, once"):
        printed = distinct(printed_letters(files))
        every = _places(printed, folder, files)
        rows = torch.tensor(
            [[printed.styles[place][item % len(printed.styles[place])] for item in range(ITEMS)] for place in every]
        )
        numbers = [ord(printed.letters[place]) * ITEMS + item for place in every for item in range(ITEMS)]
        memory.require({"--size": 2 * len(numbers) * size**2})
        images = written(printed.lines.take(rows.flatten()), numbers, size, HAND).numpy()
    found: dict[str, list[Listed]] = {}
    for i, place in enumerate(every):
        letter = printed.letters[place]
        code, script = f"U+{ord(letter):04X}", script_of(letter)
        assert script is not None, "only letters with a script are printed"
        pictures = [
            Picture(
                origin=f"{printed.fonts[row]} {code} {item}",
                read=partial(images.__getitem__, (i * ITEMS + item, 0)),
                place=i * ITEMS + item,
            )
            for item, row in enumerate(rows[i].tolist())
        ]
        found.setdefault(split_of(script), []).append(Listed(name=f"{script}/{code}", group=script, pictures=pictures))
    return {split: found[split] for split in SPLITS if split in found}


def _places(printed: Printed, folder: Path, files: Sequence[Path]) -> list[int]:
    """Return the places of the letters whose script has enough of them."""
    scripts = Counter(script_of(letter) for letter in printed.letters)
    every = [place for place, letter in enumerate(printed.letters) if scripts[script_of(letter)] >= FEWEST]
    if not every:
        raise UserError(
            f"The {len(files)} fonts in {folder} have no script of {FEWEST} or more different letters. Give others, or "
            "none for matplotlib's."
        )
    return every


# -- printed letters --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Printed:
    """Letters as fonts print them, thinned to lines.

    Attributes:
        letters: by code point.
        styles: rows of every letter, one for each font that has it.
        fonts: name of each row's font.
        lines: of all rows.
    """

    letters: Sequence[str]
    styles: Sequence[Sequence[int]]
    fonts: Sequence[str]
    lines: Strokes


def printed_letters(files: Sequence[Path]) -> Printed:
    """Return the letters of fonts, each in ITEMS styles at the most.

    Raises:
        UserError: a file cannot be read.
    """
    charts = {file: chart for file in files if (chart := _chart(file))}
    wanted = _first_of_scripts(set().union(*charts.values()))
    styles: dict[str, list[int]] = {}
    fonts: list[str] = []
    parts: list[Strokes] = []
    for file, chart in charts.items():
        letters = [letter for letter in chart if letter in wanted and len(styles.get(letter, ())) < ITEMS]
        shapes = []
        try:
            for letter, shape in _shapes(file, letters):
                styles.setdefault(letter, []).append(len(fonts))
                fonts.append(file.name)
                shapes.append(shape)
        except OSError as error:
            raise _unreadable(file, error) from error
        if shapes:
            parts.append(strokes(np.stack(shapes)))
    known = sorted(styles)
    return Printed(letters=known, styles=[styles[letter] for letter in known], fonts=fonts, lines=joined(parts))


def _chart(file: Path) -> list[str]:
    """Return the letters that a font has, by code point."""
    try:
        _opened(file)
        glyphs = FT2Font(str(file)).get_charmap()
    except (RuntimeError, OSError) as error:
        # Fonts of bitmaps, such as those of emoji, have no outlines.
        if "invalid pixel size" in str(error):
            return []
        raise _unreadable(file, error) from error
    # A font of last resort has one box for all characters of a script.
    if 2 * len(set(glyphs.values())) < len(glyphs):
        return []
    return sorted(chr(code) for code, glyph in glyphs.items() if glyph and script_of(chr(code)) is not None)


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"The font {file} cannot be read ({error}). Take it out of the folder.")


def _first_of_scripts(letters: set[str]) -> set[str]:
    taken: Counter[str | None] = Counter()
    first = set()
    for letter in sorted(letters):
        taken[script_of(letter)] += 1
        if taken[script_of(letter)] <= MOST:
            first.add(letter)
    return first


def _shapes(file: Path, letters: Sequence[str]) -> Iterator[tuple[str, Bool[np.ndarray, "64 64"]]]:
    """Yield letters that leave ink, each cut out and brought to the same size."""
    font = _opened(file)
    missing = _cut_out(font, chr(0x10FFFF))
    for letter in letters:
        image = _cut_out(font, letter)
        if image is None or max(image.size) < LEAST * _SIZE or image == missing:
            continue
        width, height = (max(1, round(length * SIDE / max(image.size))) for length in image.size)
        ink = np.asarray(image.resize((width, height), Image.Resampling.BOX)) >= 128
        if ink.any():
            shape = np.zeros((SIDE, SIDE), dtype=bool)
            top, left = (SIDE - height) // 2, (SIDE - width) // 2
            shape[top : top + height, left : left + width] = ink
            yield letter, shape


def _opened(file: Path) -> ImageFont.FreeTypeFont:
    # The basic layout takes the glyph of the letter itself, whatever its neighbours and the language.
    return ImageFont.truetype(str(file), _SIZE, layout_engine=ImageFont.Layout.BASIC)


def _cut_out(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image | None:
    """Return a letter without margins; None: it leaves no ink."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(letter))
    margin = 2
    if max(right - left, bottom - top) > _WIDEST:
        raise OSError(f"a letter of it is more than {_WIDEST} pixels wide or high")
    image = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(image).text((margin - left, margin - top), letter, fill=255, font=font)
    box = image.getbbox()
    return None if box is None else image.crop(box)


def distinct(printed: Printed) -> Printed:
    """Leave out every letter that in any style looks like a letter before it in any style, whatever their sizes."""
    looks = written(printed.lines, [0] * len(printed.lines), 16, Hand(pen=0.1, fill=0.8)).flatten(1).float()
    looks = looks / looks.norm(dim=1, keepdim=True)
    kept = torch.empty_like(looks)
    count = 0
    places: list[int] = []
    for place, rows in enumerate(printed.styles):
        own = looks[list(rows)]
        if count == 0 or float((own @ kept[:count].T).max()) <= ALIKE:
            kept[count : count + len(own)] = own
            count += len(own)
            places.append(place)
    return Printed(
        letters=[printed.letters[place] for place in places],
        styles=[printed.styles[place] for place in places],
        fonts=printed.fonts,
        lines=printed.lines,
    )
