from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageCms

from metarl.errors import UserError
from metarl.fewshot.data import pictures
from metarl.fewshot.data.deep import Kind
from metarl.fewshot.data.pictures import FORMATS, DeeperThanKnown, ImageForm, Range, Survey, decoded, extremes

Image.init()

RANGES: dict[Kind, Range] = {"16 bits": (0.0, 65535.0), "integer": (0.0, 65535.0), "float": (0.0, 1.0)}
COLOUR = ImageForm(size=0, ranges=RANGES)
GREY = ImageForm(size=0, channels=1, ranges=RANGES)

# Squares of 8 pixels: formats that share colours among neighbours still have them right.
_COLOURS = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
RGB = Image.fromarray(_COLOURS.repeat(8, 0).repeat(8, 1))
L = RGB.convert("L")
LEVELS = np.asarray(L)

_TO_LAB = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")


def raw(mode: str, kind: str, factor: int) -> Image.Image:
    return Image.frombytes(mode, L.size, (LEVELS.astype(kind) * factor).astype(kind).tobytes())


MODES: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "1": (lambda: L.convert("1", dither=Image.Dither.NONE), "bits"),
    "L": (lambda: L, "grey"),
    "LA": (lambda: L.convert("LA"), "grey"),
    "La": (lambda: L.convert("LA").convert("La"), "grey"),
    "I": (lambda: raw("I", "=i4", 257), "grey"),
    "I;16": (lambda: raw("I;16", "<u2", 257), "grey"),
    "I;16L": (lambda: raw("I;16L", "<u2", 257), "grey"),
    "I;16B": (lambda: raw("I;16B", ">u2", 257), "grey"),
    "I;16N": (lambda: raw("I;16N", "=u2", 257), "grey"),
    "F": (lambda: Image.fromarray(LEVELS / np.float32(255)), "grey"),
    "P": (lambda: RGB.quantize(16), "colour"),
    "PA": (lambda: RGB.quantize(16).convert("PA"), "colour"),
    "RGB": (lambda: RGB, "colour"),
    "RGBA": (lambda: RGB.convert("RGBA"), "colour"),
    "RGBa": (lambda: RGB.convert("RGBA").convert("RGBa"), "colour"),
    "RGBX": (lambda: RGB.convert("RGBX"), "colour"),
    "CMYK": (lambda: RGB.convert("CMYK"), "colour"),
    "YCbCr": (lambda: RGB.convert("YCbCr"), "near"),
    "HSV": (lambda: RGB.convert("HSV"), "near"),
    "LAB": (lambda: ImageCms.applyTransform(RGB, _TO_LAB), "lab"),  # type: ignore[dict-item]
}
"""Mode of Pillow -> the picture in it, and what it should decode to: TRUTHS."""
TRUTHS: dict[str, tuple[Image.Image, float]] = {
    "bits": (L.convert("1", dither=Image.Dither.NONE).convert("RGB"), 0.0),
    "grey": (L.convert("RGB"), 0.0),
    "colour": (RGB, 0.0),
    "near": (RGB, 6.0),
    # Not all colours of the screen are in it to the bit.
    "lab": (RGB, 26.0),
}
NO_WRITER = {"BUFR", "GRIB", "HDF5", "WMF"}
"""Formats that Pillow writes with another program only."""
REFUSED = {
    "IM": "is of a kind that is not read: IM",
    "EPS": "is of a kind that is not read: EPS",
    "PALM": "no picture that is known",
    "PDF": "no picture that is",
}
"""Formats that Pillow writes and this does not read, with the reason."""
LOSSLESS: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0},
}
"""Options with which a format loses least."""
LOSS = {"AVIF": 3.0, "JPEG": 2.0, "MPO": 2.0}
"""Most that these lose, of 255."""
CLIPPED = {"AVIF", "GIF", "ICNS", "WEBP"}
"""Formats into which Pillow writes deep pictures as white."""


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def written(image: Image.Image, name: str) -> bytes | None:
    """Return the picture in a format; None where Pillow does not write its mode in it."""
    try:
        return saved(image, name, **LOSSLESS.get(name, {}))
    except (OSError, ValueError, KeyError):
        return None


@pytest.mark.filterwarnings("ignore:IM image format is deprecated")
@pytest.mark.parametrize("name", sorted(set(Image.SAVE) - NO_WRITER))
def test_one_picture_in_every_mode_and_format_is_one_picture(name: str) -> None:
    modes = []
    for mode, (make, truth) in MODES.items():
        if mode[0] in "IF" and name in CLIPPED:
            continue
        content = written(make(), name)
        if content is None:
            continue
        modes.append(mode)
        if name in REFUSED:
            with pytest.raises(UserError, match=f"The image mine .*{REFUSED[name]}"):
                decoded(content, COLOUR, "mine")
            continue
        if name == "SPIDER" and mode != "F":
            # It has floats only: those of other modes are 0 to 255 or more.
            with pytest.raises(UserError, match=r"has values from .* those of the data go from 0 to 1"):
                decoded(content, COLOUR, "mine")
            continue
        picture, loss = TRUTHS[truth]
        # Pillow writes icons of macOS enlarged.
        form = ImageForm(size=32, ranges=RANGES) if name == "ICNS" else COLOUR
        found = decoded(content, form, "mine").transpose(1, 2, 0)
        assert found.shape == (32, 32, 3), mode
        # Blocks that were enlarged and made smaller are the same in their middle.
        inner = np.s_[3::8, 3::8] if name == "ICNS" else np.s_[:]
        difference = np.abs(found.astype(float) - np.asarray(picture))[inner].max()
        assert difference <= loss + LOSS.get(name, 0.0) + (6.0 if name == "ICNS" else 1e-3), mode
        assert found.dtype == (np.float32 if mode[0] in "IF" else np.uint8), mode
    assert modes, "Pillow writes something in it"


def test_the_formats_are_those_of_this_pillow() -> None:
    assert set(FORMATS) <= set(Image.OPEN)
    assert set(Image.SAVE) - set(FORMATS) == {*NO_WRITER, *REFUSED, "MPO"}


@pytest.mark.parametrize("mode", [mode for mode, (_, truth) in MODES.items() if truth in ("bits", "grey", "colour")])
def test_grey_of_every_mode(mode: str) -> None:
    content = written(MODES[mode][0](), "TIFF")
    expected = np.asarray(TRUTHS[MODES[mode][1]][0].convert("L"))
    if content is not None:
        assert np.abs(decoded(content, GREY, "mine")[0] - expected.astype(float)).max() < 1e-3


INK = np.arange(256, dtype=np.uint8).reshape(16, 16)


def inked(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """Return black ink of every strength on a transparent ground, and what the writer of PNG has to be told."""
    ink, black = Image.fromarray(INK), Image.new("L", (16, 16))
    if mode == "LA":
        return Image.merge("LA", (black, ink)), {}
    if mode == "RGBA":
        return Image.merge("RGBA", (black, black, black, ink)), {}
    palette = Image.new("P", (16, 16))
    palette.putpalette([0, 0, 0] * 256)
    if mode == "PA":
        palette = palette.convert("PA")
        palette.putalpha(ink)
        return palette, {}
    # Every colour of the palette is black, and has an alpha of its own.
    palette.frombytes(INK.tobytes())
    return palette, {"transparency": bytes(range(256))}


@pytest.mark.parametrize(
    ("mode", "names"),
    [("LA", "PNG TIFF JPEG2000 TGA"), ("RGBA", "PNG TIFF WEBP JPEG2000 TGA QOI ICO"), ("PA", "TIFF"), ("P", "PNG")],
)
def test_transparent_pictures_are_laid_on_the_ground(mode: str, names: str) -> None:
    for name in names.split():
        picture, options = inked(mode)
        laid_on_the_ground(saved(picture, name, **options, **LOSSLESS.get(name, {})))


def laid_on_the_ground(content: bytes) -> None:
    assert np.array_equal(decoded(content, GREY, "mine")[0], 255 - INK)
    assert np.array_equal(decoded(content, COLOUR, "mine")[2], 255 - INK)
    assert (decoded(content, ImageForm(size=0, ground="black"), "mine") == 0).all()
    red = decoded(content, ImageForm(size=0, ground="#ff0000"), "mine")
    assert np.array_equal(red[0], 255 - INK)
    assert (red[1:] == 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_a_transparent_colour_shows_the_ground(mode: str) -> None:
    levels = np.array([[0, 255], [255, 0]], np.uint8)
    picture = Image.fromarray(levels)
    key: Any = {"RGB": (0, 0, 0)}.get(mode, 0)
    if mode == "I;16":
        picture = Image.fromarray(levels.astype(np.uint16) * 257)
    elif mode == "P":
        picture = picture.quantize(2)
        key = int(np.asarray(picture)[0, 0])
    else:
        picture = picture.convert(mode)
    content = saved(picture, "PNG", transparency=key)
    form = ImageForm(size=0, channels=1, ground="#808080", ranges=RANGES)
    assert decoded(content, form, "mine")[0].tolist() == [[128, 255], [255, 128]]


UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}
"""Orientation -> how a picture stands in a file with this tag (EXIF 2.3, tag 274)."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["PNG", "JPEG", "MPO", "TIFF", "WEBP", "AVIF", "deep PNG", "deep TIFF"])
def test_pictures_come_as_a_viewer_shows_them(name: str, orientation: int) -> None:
    tag = Image.Exif()
    tag[274] = orientation
    # Large squares: lossy formats keep those.
    levels = STORED[orientation].repeat(16, 0).repeat(16, 1)
    deep = name.startswith("deep")
    picture = Image.fromarray(levels.astype(np.uint16) * 257 if deep else levels)
    name = name.removeprefix("deep ")
    content = saved(picture, name, exif=tag, **LOSSLESS.get(name, {}))
    found = decoded(content, GREY, "mine")[0]
    assert found.shape == (32, 48)
    assert np.abs(found.astype(float)[8::16, 8::16] - UPRIGHT).max() <= LOSS.get(name, 0.0)


def test_frames_are_refused_by_name() -> None:
    frames = [Image.new("L", (4, 4), level) for level in (0, 100, 200)]
    for name in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):
        content = saved(frames[0], name, save_all=True, append_images=frames[1:])
        with pytest.raises(
            UserError, match=rf"image mine is of a kind .* {name} with several frames or pages. Save it as"
        ):
            decoded(content, GREY, "mine")
        one = saved(frames[1], name, save_all=True, **LOSSLESS.get(name, {}))
        assert np.abs(decoded(one, GREY, "mine").astype(float) - 100).max() <= LOSS.get(name, 0.0)
    # The first picture of these is the photograph, and the others are small ones, or for the other eye.
    stereo = saved(frames[1], "MPO", save_all=True, append_images=frames[2:])
    assert np.abs(decoded(stereo, GREY, "mine").astype(float) - 100).max() <= 2


# -- deep pictures ----------------------------------------------------------------------------------------------------


def deep_png(values: np.ndarray, *, key: tuple[int, ...] = ()) -> bytes:
    """Return [height, width, channels] of 16 bits as PNG, which Pillow does not write in colour."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    parts += [(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def deep_tiff(
    values: np.ndarray,
    *,
    order: Literal["<", ">"] = "<",
    planes: int = 1,
    white: int | None = None,
    sign: int = 1,
    more: int = 2,
) -> bytes:
    """Return [height, width, channels] of 8, 16 or 32 bits as TIFF; `more` says what a second or fourth channel is."""
    height, width, channels = values.shape
    bits = 8 * values.dtype.itemsize
    if planes == 2:
        values = values.transpose(2, 0, 1)
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    if len(data) % 2:
        data += b"\0"
    where = 8 + len(data)
    light = (2 if channels > 2 else 1) if white is None else white
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: light, 273: 8, 277: channels, 278: height}
    tags |= {279: len(data), 284: planes, 339: sign}
    pack = struct.Struct
    after = where + 2 + 12 * (len(tags) + (channels in (2, 4))) + 4
    extra = b""
    entries = []
    if channels in (2, 4):
        tags[338] = more
    for tag, value in sorted(tags.items()):
        if tag in (258, 339) and channels > 2:
            entries.append(pack(order + "HHII").pack(tag, 3, channels, after + len(extra)))
            extra += pack(order + f"{channels}H").pack(*[value] * channels)
        elif tag in (258, 339) and channels == 2:
            entries.append(pack(order + "HHIHH").pack(tag, 3, 2, value, value))
        elif tag in (258, 259, 262, 277, 284, 338, 339):
            entries.append(pack(order + "HHIHH").pack(tag, 3, 1, value, 0))
        else:
            entries.append(pack(order + "HHII").pack(tag, 4, 1, value))
    head = (b"II*\0" if order == "<" else b"MM\0*") + pack(order + "I").pack(where)
    table = pack(order + "H").pack(len(entries)) + b"".join(entries) + pack(order + "I").pack(0)
    return head + data + table + extra


FINE = np.random.default_rng(1).integers(0, 65536, (5, 7, 4)).astype(np.uint16)


@pytest.mark.parametrize("write", [deep_png, deep_tiff, lambda values: deep_tiff(values, order=">")])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colour_of_16_bits_keeps_them(write: Callable[[np.ndarray], bytes], channels: int) -> None:
    content = write(FINE[..., :channels])
    values = FINE / 65535 * 255
    colours = values[..., : min(channels, 3)]
    if channels == 4:
        alpha = FINE[..., 3:] / 65535
        colours = alpha * colours + (1 - alpha) * 255
    found = decoded(content, COLOUR, "mine").transpose(1, 2, 0)
    assert np.abs(found - colours).max() < 1e-4
    grey = colours @ np.array([0.299, 0.587, 0.114]) if channels > 1 else colours[..., 0]
    assert np.abs(decoded(content, GREY, "mine")[0] - grey).max() < 2e-3


def test_grey_of_16_bits_with_alpha_and_with_a_transparent_colour() -> None:
    alpha = FINE[..., 1] / 65535
    found = decoded(deep_png(FINE[..., :2]), GREY, "mine")[0]
    assert np.abs(found - (alpha * FINE[..., 0] / 257 + (1 - alpha) * 255)).max() < 1e-4
    key = tuple(FINE[2, 3, :3].tolist())
    expected = FINE[..., :3] / 257
    expected[2, 3] = 0
    black = ImageForm(size=0, ground="black", ranges=RANGES)
    found = decoded(deep_png(FINE[..., :3], key=key), black, "mine").transpose(1, 2, 0)
    assert np.abs(found - expected).max() < 1e-4


def test_what_pillow_would_read_wrongly_is_right_or_refused() -> None:
    grey = FINE[..., :1]
    white_first = decoded(deep_tiff(grey, white=0), GREY, "mine")[0]
    assert np.abs(white_first - (255 - grey[..., 0] / 257)).max() < 1e-4
    with pytest.raises(
        UserError, match="image mine is of a kind that is not read: TIFF with 16 bits a channel in planes"
    ):
        decoded(deep_tiff(FINE[..., :3], planes=2), COLOUR, "mine")
    pixels = FINE[..., :3].astype(">u2").tobytes()
    with pytest.raises(UserError, match="not read: PPM with colours of 16 bits"):
        decoded(b"P6 7 5 65535\n" + pixels, COLOUR, "mine")
    with pytest.raises(UserError, match="not read: SGI with colours of 16 bits"):
        decoded(saved(L, "SGI", bpc=2), COLOUR, "mine")
    # Integers without a sign, beyond what an integer with a sign holds.
    large = np.array([[[0], [2**31], [2**32 - 1]]], np.uint32)
    assert extremes(deep_tiff(large), "mine") == ("integer", 0.0, 2.0**32 - 1, "mine")
    signed = np.array([[[-5], [7]]], np.int16)
    assert extremes(deep_tiff(signed, sign=2), "mine") == ("integer", -5.0, 7.0, "mine")


def test_premultiplied_pictures_are_divided_by_their_alpha() -> None:
    # Half transparent, and white where it is not: on black it is as it stands in the file.
    grey = np.full((2, 3, 2), 128, np.uint8)
    colour = np.full((2, 3, 4), 128, np.uint8)
    for values in (grey, colour):
        content = deep_tiff(values, more=1)
        assert (decoded(content, COLOUR, "mine") == 255).all()
        assert (decoded(content, ImageForm(size=0, ground="black"), "mine") == 128).all()


def test_a_deep_picture_keeps_what_8_bits_lose() -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    form = ImageForm(size=0, channels=1, ranges={"16 bits": (0.0, 4095.0)})
    found = decoded(saved(Image.fromarray(values), "PNG"), form, "mine")
    assert found.dtype == np.float32
    assert np.unique(found).size == 4096
    assert (found.min(), found.max()) == (0.0, 255.0)
    inverted = decoded(saved(Image.fromarray(values), "PNG"), ImageForm(**{**vars(form), "invert": True}), "mine")
    assert np.array_equal(inverted, 255 - found)


def test_a_deep_picture_is_resized_as_one_of_8_bits() -> None:
    across = np.sin(np.linspace(0, 9, 40))[:, None] * np.cos(np.linspace(0, 7, 30))
    waves = (127.5 + 127.5 * across).astype(np.uint8)
    form = ImageForm(size=20, channels=1, ranges=RANGES)
    coarse = decoded(saved(Image.fromarray(waves), "PNG"), form, "mine")
    fine = decoded(saved(Image.fromarray(waves.astype(np.uint16) * 257), "PNG"), form, "mine")
    assert fine.shape == (1, 20, 20)
    assert np.abs(fine - coarse).max() < 1.5
    assert decoded(saved(Image.fromarray(waves / np.float32(255)), "TIFF"), form, "mine").max() <= 255


@pytest.mark.parametrize(
    ("greatest", "white"),
    [(0, 255), (255, 255), (256, 1023), (1024, 4095), (4095, 4095), (5000, 16383), (40000, 65535)],
)
def test_16_bits_have_the_least_range_that_holds_the_data_set(greatest: int, white: float) -> None:
    survey = Survey()
    survey.add([("16 bits", 0.0, 0.0, "a"), None, ("16 bits", 0.0, float(greatest), "b")])
    assert survey.ranges("mine", None) == {"16 bits": (0.0, white)}
    assert survey.ranges("mine", (10.0, 20.0)) == {"16 bits": (10.0, 20.0)}


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("float", -0.1, 1.0), ("float", 0.0, 1.1), ("integer", 0.0, 100.0), ("integer", -1.0, 1.0)],
)
def test_a_range_that_nothing_says_is_asked_for(kind: Kind, low: float, high: float) -> None:
    survey = Survey()
    survey.add([(kind, low, 0.5, "a/0.tif"), (kind, 0.5, high, "b/1.tif")])
    told = rf"from {low:g} \(a/0.tif\) to {high:g} \(b/1.tif\).* Give --range LEAST GREATEST \(in Python range="
    with pytest.raises(UserError, match=told):
        survey.ranges("mine", None)
    assert survey.ranges("mine", (-2.0, 2.0)) == {kind: (-2.0, 2.0)}


def test_floats_from_0_to_1_are_as_they_are() -> None:
    survey = Survey()
    survey.add([extremes(saved(Image.fromarray(LEVELS / np.float32(255)), "TIFF"), "mine")])
    assert survey.ranges("mine", None) == {"float": (0.0, 1.0)}
    for bad in (np.nan, np.inf):
        levels = np.full((4, 4), 0.5, np.float32)
        levels[1, 2] = bad
        with pytest.raises(UserError, match="image mine has values that are NaN or infinite"):
            extremes(saved(Image.fromarray(levels), "TIFF"), "mine")


def test_a_stated_range_cuts_and_a_found_one_refuses() -> None:
    content = saved(Image.fromarray(np.array([[0, 1000], [2000, 4000]], np.uint16)), "PNG")
    stated = ImageForm(size=0, channels=1, range=(1000.0, 2000.0), ranges={"16 bits": (1000.0, 2000.0)})
    assert decoded(content, stated, "mine")[0].tolist() == [[0, 0], [255, 255]]
    found = ImageForm(size=0, channels=1, ranges={"16 bits": (0.0, 1023.0)})
    with pytest.raises(
        UserError, match="image mine has values from 0 to 4000, and those of the data go from 0 to 1023"
    ):
        decoded(content, found, "mine")
    with pytest.raises(DeeperThanKnown):
        decoded(content, ImageForm(size=0), "mine")


# -- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "AVIF", "JPEG2000", "PPM", "QOI", "SGI"])
def test_half_a_picture_is_refused(name: str) -> None:
    content = written(Image.effect_noise((64, 64), 90) if name not in ("QOI",) else RGB, name)
    assert content is not None
    for size in (0, 1, 20, len(content) // 2):
        with pytest.raises(UserError, match=r"The image mine cannot be read \(.+\)\. Download it again"):
            decoded(content[:size], COLOUR, "mine")


def test_a_text_and_a_bomb_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image mine cannot be read \(no picture that is known\)"):
        decoded(b"name,class\ncat,1\n" * 20, COLOUR, "mine")
    bomb = bytearray(saved(Image.new("L", (8, 8)), "PNG"))
    for side in (10_000, 60_000):
        bomb[16:24] = struct.pack(">II", side, side)
        bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
        path = tmp_path / "bomb.png"
        path.write_bytes(bomb)
        with pytest.raises(UserError, match=r"bomb.png has more than 89,478,485 pixels. Make it smaller"):
            COLOUR.read(path)


def test_pictures_that_take_time_or_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = saved(Image.new("L", (64, 64), 7), "JPEG", progressive=True)
    last = drawn.rfind(b"\xff\xda")
    with pytest.raises(UserError, match="not read: JPEG that is drawn more than 256 times over"):
        decoded(drawn[:last] + drawn[last:-2] * 300 + b"\xff\xd9", COLOUR, "mine")
    for start in (b"P6" + b" " * 100_000, b"P6\n#" + b"x" * 100_000 + b"\n8 8 255\n"):
        with pytest.raises(UserError, match="not read: PPM with a header of more than 65,536 bytes"):
            decoded(start, COLOUR, "mine")
    monkeypatch.setattr(pictures, "MOST_DEEP", 1000)
    deep = saved(raw("I;16", "<u2", 257), "TIFF")
    assert L.size == (32, 32)
    for read in (lambda: decoded(deep, COLOUR, "mine"), lambda: extremes(deep, "mine")):
        with pytest.raises(UserError, match="image mine has 1,024 numbers of more than 8 bits, and at most 1,000 are"):
            read()


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(RGB, "PNG")
    once = decoded(content, COLOUR, "mine")
    monkeypatch.setattr(pictures, "LARGE", 0)
    np.testing.assert_array_equal(decoded(content, COLOUR, "mine"), once)
    with pictures._LARGE, ThreadPoolExecutor(1) as pool:
        job = pool.submit(decoded, content, COLOUR, "mine")
        with pytest.raises(TimeoutError):
            job.result(timeout=0.1)
        monkeypatch.setattr(pictures, "LARGE", 1 << 20)
        decoded(content, COLOUR, "another")
        pictures._LARGE.release()
        np.testing.assert_array_equal(job.result(timeout=10.0), once)
        pictures._LARGE.acquire()


def test_damaged_tags_do_not_matter(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 65535) + bytes(1000)
    (tmp_path / "a.jpg").write_bytes(saved(RGB, "JPEG", exif=exif))
    assert COLOUR.read(tmp_path / "a.jpg").shape == (3, 32, 32)


def test_settings_that_make_no_sense_are_refused() -> None:
    for ground in ("whit", "#12", ""):
        with pytest.raises(UserError, match=f"Got --ground {ground}.* Give a colour, as white, black or"):
            ImageForm(size=0, ground=ground)
    with pytest.raises(UserError, match="which is transparent itself"):
        ImageForm(size=0, ground="#ffffff00")
    for ends in ((1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(UserError, match=r"Got --range .* Give the least value and the greatest, two finite"):
            ImageForm(size=0, range=ends)
