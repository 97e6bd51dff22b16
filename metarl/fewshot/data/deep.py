"""Pictures of more than 8 bits a channel: their values as their files have them, before any scale.

Pillow itself reads grey of 16 bits, integers of 32 bits and floats. Colour of 16 bits it brings to 8 by leaving the low
bytes out, which would make a sensor's 12 bits black; it is read twice here, for the high bytes and for the low ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

Kind = Literal["16 bits", "integer", "float"]
"""Of a deep picture: unsigned integers of 16 bits; of 32 bits, or signed; floats."""

WORDS: dict[Kind, str] = {
    "16 bits": "16 bits a channel",
    "integer": "integers of 32 bits, or signed ones",
    "float": "floating point numbers",
}

_INVERTED = 262
"""Tag of a TIFF file that says whether 0 is white (0) or black."""
_BITS, _PLANES, _SIGNS = 258, 284, 339
"""Tags of a TIFF file: bits of every channel; 2 where channels stand in planes of their own; 1 for unsigned numbers."""


class NotRead(Exception):
    """A picture is of a kind that is not read; says of which."""


@dataclass(frozen=True)
class Deep:
    """A deep picture.

    Attributes:
        kind: of its numbers.
        values: as they are in the file; C is 1 or 3.
        alpha: from 0 (transparent) to 1; None where all of it is opaque.
        inverted: the least value is white.
    """

    kind: Kind
    values: Float[np.ndarray, "H W C"]
    alpha: Float[np.ndarray, "H W"] | None = None
    inverted: bool = False


def kind_of(image: Image.Image) -> Kind | None:
    """Return the kind of a picture that was opened and not yet loaded; None: it has 8 bits a channel, or fewer.

    Raises:
        NotRead: Pillow would read it wrongly.
    """
    if _tag(image, _PLANES) == 2 and 16 in (_tag(image, _BITS) or ()):
        raise NotRead("TIFF with 16 bits a channel in planes")
    if image.mode == "F":
        return "float"
    if image.mode.startswith("I;16"):
        return "16 bits"
    if image.mode == "I":
        # These two have no other numbers of more than 8 bits.
        return "16 bits" if image.format in ("PNG", "PPM") else "integer"
    raw = _raw_mode(image)
    if ";16" not in raw or raw.startswith("BGR"):
        if _halved(image):
            raise NotRead(f"{image.format} with colours of 16 bits a channel")
        return None
    if raw.split(";")[0] not in ("LA", "RGB", "RGBA", "RGBX"):
        raise NotRead(f"{image.format} with {image.mode} of 16 bits a channel")
    return "16 bits"


def read(open_again: Callable[[], Image.Image], upright: Callable[[Image.Image], Image.Image]) -> Deep:
    """Return a deep picture.

    Args:
        open_again: opens the file, anew every time.
        upright: loads an image and turns it as its file says.
    """
    image = open_again()
    kind = kind_of(image)
    assert kind is not None, "asked for a deep picture"
    inverted = _tag(image, _INVERTED) == 0
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        numbers = np.asarray(upright(image))
        if kind == "integer" and _tag(image, _BITS) == (32,) and _tag(image, _SIGNS) in (None, 1, (1,)):
            # Pillow has no unsigned integers of 32 bits.
            numbers = numbers.view(np.uint32)
        values = numbers.astype(np.float64)[:, :, None]
        return Deep(kind, values, _keyed(values, image.info), inverted)
    raw = _raw_mode(image)
    if raw.startswith("LA"):
        # Its four bytes, one after the other: grey and alpha, each with the high one first.
        found = np.asarray(upright(_as(image, "RGBA", "RGBA"))).astype(np.float64)
        numbers = found[..., ::2] * 256 + found[..., 1::2]
    else:
        high, low = (
            np.asarray(upright(_as(each, each.mode, f"{raw.split(';')[0]};16{end}"))).astype(np.float64)
            for each, end in ((open_again(), "B"), (open_again(), "L"))
        )
        # The unpacker of the other byte order takes the other bytes.
        big = raw.endswith("B") or (raw.endswith("N") and sys.byteorder == "big")
        numbers = high * 256 + low if big else low * 256 + high
    colours = 1 if raw.startswith("LA") else 3
    values = numbers[..., :colours]
    alpha = numbers[..., colours] / 65535 if raw.startswith(("LA", "RGBA")) else _keyed(values, image.info)
    return Deep(kind, values, alpha)


def _keyed(values: Float[np.ndarray, "H W C"], info: dict[Any, Any]) -> Float[np.ndarray, "H W"] | None:
    """Return the alpha of a picture of which one colour is transparent."""
    key = info.get("transparency")
    if key is None:
        return None
    other: Bool[np.ndarray, "H W"] = (values != np.asarray(key)).any(-1)
    return other.astype(np.float64)


def _as(image: Image.Image, mode: str, raw: str) -> Image.Image:
    """Return an image that is not yet loaded with other orders for the unpacker of its bytes."""
    tiles: Any = image
    for place, tile in enumerate(tiles.tile):
        codec, extents, offset, args = tile
        orders = raw if isinstance(args, str) else (raw, *args[1:])
        tiles.tile[place] = type(tile)(codec, extents, offset, orders)
    tiles._mode = mode
    return image


def _raw_mode(image: Image.Image) -> str:
    """Return how the bytes of an image that is not yet loaded are packed."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    args = tiles[0][3]
    return str(args if isinstance(args, str) else args[0] if args else "")


def _halved(image: Image.Image) -> bool:
    """Return whether a decoder leaves out the low bytes of 16 bits without a word."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return False
    codec, args = tiles[0][0], tiles[0][3]
    if image.format == "SGI":
        return codec == "SGI16" or (codec == "sgi_rle" and args[2] == 2)
    return image.format == "PPM" and codec.startswith("ppm") and not isinstance(args, str) and args[1] > 255


def _tag(image: Image.Image, tag: int) -> Any:
    return getattr(image, "tag_v2", {}).get(tag)
