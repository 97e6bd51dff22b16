"""Pictures of any kind as items: the one place where image files are decoded, in stages.

    open          one of FORMATS with one frame; what is animated or has several pages is refused
    orientation   the EXIF tag is obeyed: a picture comes as a viewer shows it
    colours       palettes, bits, CMYK, YCbCr, LAB and HSV become red, green, blue; colour profiles are not used
    range         the values are brought to 0 .. 255 by a range that all pictures of a data set share
    ground        what is transparent is laid on a colour
    channels      grey, or red, green, blue
    size          height and width; the ratio of the sides is not kept

Pictures of 8 bits a channel have the range 0 .. 255, and stay uint8. Others (metarl/fewshot/data/deep.py) become
float32 on the scale of 0 to 255, with all their precision; their range is, if none is stated,

    16 bits a channel                   0 to 255, 1023, 4095, 16383 or 65535: the least that no picture of the data set,
                                        in any split, exceeds; a sensor often has 10, 12 or 14 bits of 16
    floats                              0 to 1; refused where a value of the data set lies outside
    integers of 32 bits, or signed      refused

Where a range is stated, values outside are cut to it.
"""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from metarl.errors import UserError
from metarl.fewshot.data.deep import WORDS, Deep, Kind, NotRead, kind_of, read
from metarl.files import read_regular

FORMATS = (
    "PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "ICNS", "PCX",
    "QOI", "SGI", "MSP", "XBM", "BLP", "DDS", "SPIDER",
)  # fmt: skip
"""Formats that are read, by Pillow's names; of an MPO file, which is a JPEG file with more pictures, the first one."""
MOST_BYTES = 1 << 28
"""Of a picture's file."""
MOST_DEEP = 1 << 26
"""Numbers of a deep picture: height times width times channels."""
MOST_SCANS = 256
"""Of a JPEG file; some ten are usual."""
LARGE = 1 << 22
"""Pixels above which one picture is decoded at a time."""
GROUND = "white"
"""Colour under transparent pictures, if none is stated."""

Range = tuple[float, float]
"""Least and greatest value."""

_LARGE = Lock()
_PPM_HEADER = 1 << 16
"""Bytes that Pillow would read one by one."""
_COMMENT = re.compile(rb"#[^\n]*\n?")
_LARGEST = (255, 1023, 4095, 16383, 65535)
"""Greatest values that 16 bits are taken to have."""
_GREY = np.array([19595, 38470, 7471]) / 65536
"""Red, green and blue in grey (ITU-R 601-2), as Pillow has them."""
_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, AttributeError, RuntimeError, ArithmeticError,
    struct.error, zlib.error, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What decoders raise about files that are damaged."""


@dataclass(frozen=True, kw_only=True)
class ImageForm:
    """What images are brought to.

    Attributes:
        size: height and width, in pixels; the ratio of the sides is not kept. 0: as they are, all of one size.
        channels: 1 (grey) or 3 (red, green, blue).
        invert: dark becomes bright.
        rotations: every class stands there four times, turned by 0, 90, 180 and 270 degrees.
        ground: colour under transparent pictures: a name or #rrggbb.
        range: of pictures that are deeper than 8 bits, as the user stated it. None: by the rule (see the module).
        ranges: of every kind of deep picture in the data set, once they are known; without them such are refused.
    """

    size: int
    channels: int = 3
    invert: bool = False
    rotations: bool = False
    ground: str = GROUND
    range: Range | None = None
    ranges: Mapping[Kind, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            colour = ImageColor.getrgb(self.ground)
        except ValueError as error:
            raise UserError(
                f"Got --ground {self.ground}. Give a colour, as white, black or '#8080ff' (red, green, blue)."
            ) from error
        if len(colour) != 3:
            raise UserError(f"Got --ground {self.ground}, which is transparent itself. Give it without its last part.")
        if self.range is not None and not -math.inf < self.range[0] < self.range[1] < math.inf:
            low, high = self.range
            raise UserError(f"Got --range {low:g} {high:g}. Give the least value and the greatest, two finite numbers.")

    def read(self, path: Path) -> Shaped[np.ndarray, "C H W"]:
        """Return the picture in a file, in the form of a data set's items (see `ItemReader`).

        Raises:
            UserError: it cannot be read, or has values beyond the range of the data set.
        """
        try:
            content = read_regular(path, MOST_BYTES)
        except FileNotFoundError as error:
            raise UserError(f"The image {path} cannot be read ({error}). Give a file.") from error
        with bombs_refused():
            try:
                item = decoded(content, self, str(path))
            except DeeperThanKnown as deeper:
                raise UserError(
                    f"The image {path} has {WORDS[deeper.kind]}, and no image of the data has, so that its range "
                    "is not known. Save it as those are."
                ) from deeper
        # One deep picture makes all items of the data floats.
        return item.astype(np.float32) if self.ranges else item


class DeeperThanKnown(Exception):
    """A picture is of a deep kind whose range is not known yet."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind: Kind = kind


@dataclass
class Survey:
    """The least and the greatest value of deep pictures, by kind, and where they are; filled by `look`."""

    least: dict[Kind, tuple[float, str]] = field(default_factory=dict)
    greatest: dict[Kind, tuple[float, str]] = field(default_factory=dict)

    def add(self, found: Iterable[tuple[Kind, float, float, str] | None]) -> None:
        """Add what `extremes` found."""
        for kind, low, high, origin in filter(None, found):
            self.least[kind] = min(self.least.get(kind, (math.inf, "")), (low, origin))
            self.greatest[kind] = max(self.greatest.get(kind, (-math.inf, "")), (high, origin))

    def ranges(self, name: str, stated: Range | None) -> dict[Kind, Range]:
        """Return the range of every kind of deep picture that was found, by the rule (see the module).

        Raises:
            UserError: the rule does not say.
        """
        found: dict[Kind, Range] = {}
        for kind, (low, first) in self.least.items():
            high, last = self.greatest[kind]
            if stated is not None:
                found[kind] = stated
            elif kind == "16 bits":
                found[kind] = (0.0, float(next(most for most in _LARGEST if high <= most)))
            elif kind == "float" and low >= 0.0 and high <= 1.0:
                found[kind] = (0.0, 1.0)
            else:
                raise UserError(
                    f"The pictures of {name} hold {WORDS[kind]} from {low:g} ({first}) to {high:g} ({last}), and "
                    "nothing says which of them is black and which white. Give --range LEAST GREATEST (in Python "
                    "range=(LEAST, GREATEST)): what lies outside is cut."
                )
        return found


def extremes(content: bytes | UInt8[np.ndarray, "..."], origin: str) -> tuple[Kind, float, float, str] | None:
    """Return kind, least and greatest value of a picture, and `origin`; None of one with 8 bits.

    Raises:
        UserError: it cannot be read.
    """
    if isinstance(content, np.ndarray):
        return None
    with _named(origin):
        image = _opened(content)
        if kind_of(image) is None:
            return None
        with _one_large_at_a_time(image):
            deep = _deep(content, origin)
            return deep.kind, float(deep.values.min()), float(deep.values.max()), origin


def decoded(
    content: bytes | UInt8[np.ndarray, "..."], form: ImageForm, origin: str
) -> UInt8[np.ndarray, "C H W"] | Float[np.ndarray, "C H W"]:
    """Return a picture in the asked form.

    Args:
        content: of an image file; or an image, [height, width] or [height, width, 3].
        form: what it is brought to.
        origin: what it is called in errors.

    Returns:
        uint8; float32 on the same scale of a deep picture.

    Raises:
        UserError: it cannot be read.
        DeeperThanKnown: it is a deep picture, and the form has no range for its kind.
    """
    with _named(origin):
        image = Image.fromarray(content) if isinstance(content, np.ndarray) else _opened(content)
        kind = None if isinstance(content, np.ndarray) else kind_of(image)
        with _one_large_at_a_time(image):
            if kind is None:
                array = _shallow(image, form)
            elif kind not in form.ranges:
                raise DeeperThanKnown(kind)
            else:
                assert isinstance(content, bytes), "an array has 8 bits"
                array = _scaled(_deep(content, origin), form, origin)
    return 255 - array if form.invert else array


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Have pictures refused that claim more pixels than Pillow's limit, by which archives blow up memory."""
    # For all threads at once: filters of warnings cannot be set in one of them.
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Of damaged tags, as those of cameras, in pictures that can be read.
        warnings.simplefilter("ignore", UserWarning)
        yield


# -- the stages -------------------------------------------------------------------------------------------------------


@contextmanager
def _named(origin: str) -> Iterator[None]:
    """Turn what decoders raise into an error that names the picture."""
    try:
        yield
    except UserError:
        raise
    except NotRead as error:
        raise UserError(
            f"The image {origin} is of a kind that is not read: {error}. Save it as PNG, or as TIFF with one page."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"The image {origin} has more than {Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller, or take it out of "
            "the data."
        ) from error
    except _FAULTS as error:
        words = "no picture that is known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(
            f"The image {origin} cannot be read ({words or type(error).__name__}). Download it again, or take it out "
            "of the data."
        ) from error


def _opened(content: bytes) -> Image.Image:
    """Open a picture, without decoding it yet."""
    if re.match(rb"P[1-7Ffy]", content) and len(_COMMENT.sub(b" ", content[:_PPM_HEADER]).split()) < 3:
        raise NotRead(f"PPM with a header of more than {_PPM_HEADER:,} bytes")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        # Pillow knows more formats: some are films, and for some it starts another program.
        other = Image.open(io.BytesIO(content)).format
        raise NotRead(str(other)) from None
    # Not how many: some formats would be run through to count them.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise NotRead(f"{image.format} with several frames or pages")
    if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > MOST_SCANS:
        raise NotRead(f"JPEG that is drawn more than {MOST_SCANS} times over")
    return image


@contextmanager
def _one_large_at_a_time(image: Image.Image) -> Iterator[None]:
    """Hold the lock of large pictures, where it is one: threads would need the memory of all at once."""
    with _LARGE if math.prod(image.size) > LARGE else nullcontext():
        yield


def _upright(image: Image.Image) -> Image.Image:
    # Some formats are turned while they are loaded, and lose their tag then.
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _shallow(image: Image.Image, form: ImageForm) -> UInt8[np.ndarray, "C H W"]:
    """Return a picture of 8 bits a channel."""
    if image.format is not None:
        image = _upright(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("P", "PA") or image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, form.ground), image)
    elif image.mode == "LAB":
        image = image.convert("RGB")
    image = image.convert("L" if form.channels == 1 else "RGB")
    if form.size and image.size != (form.size, form.size):
        image = image.resize((form.size, form.size), Image.Resampling.LANCZOS)
    array = np.asarray(image)
    return array[None] if form.channels == 1 else array.transpose(2, 0, 1)


def _deep(content: bytes, origin: str) -> Deep:
    image = _opened(content)
    count = math.prod(image.size) * len(image.getbands())
    if count > MOST_DEEP:
        raise UserError(
            f"The image {origin} has {count:,} numbers of more than 8 bits, and at most {MOST_DEEP:,} are read. Make "
            "it smaller, or save it with 8 bits a channel."
        )
    deep = read(lambda: _opened(content), _upright)
    if not np.isfinite(deep.values).all():
        raise UserError(f"The image {origin} has values that are NaN or infinite. Correct it, or take it out.")
    return deep


def _scaled(deep: Deep, form: ImageForm, origin: str) -> Float[np.ndarray, "C H W"]:
    """Return a deep picture on the scale of 0 to 255."""
    low, high = form.ranges[deep.kind]
    least, greatest = deep.values.min(), deep.values.max()
    if form.range is None and (least < low or greatest > high):
        raise UserError(
            f"The image {origin} has values from {least:g} to {greatest:g}, and those of the data go from {low:g} to "
            f"{high:g}. Give pictures of the same kind, or train with a --range that holds all."
        )
    values = (deep.values.clip(low, high) - low) * (255.0 / (high - low))
    if deep.inverted:
        values = 255.0 - values
    if deep.alpha is not None:
        alpha = deep.alpha[:, :, None]
        values = alpha * values + (1.0 - alpha) * np.array(ImageColor.getrgb(form.ground), np.float64)
    if form.channels == 1 and values.shape[2] == 3:
        values = values @ _GREY[:, None]
    planes = np.broadcast_to(values, (*values.shape[:2], form.channels)).transpose(2, 0, 1).astype(np.float32)
    if form.size and planes.shape[1:] != (form.size, form.size):
        sizes = (form.size, form.size)
        planes = np.stack(
            [np.asarray(Image.fromarray(plane).resize(sizes, Image.Resampling.LANCZOS)) for plane in planes]
        )
    # Between dark and bright the filter goes a little beyond both.
    return planes.clip(0.0, 255.0)
