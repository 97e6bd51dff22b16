"""Contact sheets: what the images of a data set look like, a class a row and an item a column."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.episodes import keyed

PAPER = (255, 255, 255)
INK = (32, 32, 32)
GAP = 3
"""Pixels between images."""
MARGIN = 10
LABEL = 170
"""Width of the labels in pixels; longer ones are cut."""
SMALLEST, LARGEST = 48, 96
"""Small images are enlarged by a whole number to at least, and large ones brought to at most, so many pixels."""


def sheet(data: ClassData, split: str, classes: int = 20, items: int = 20) -> bytes:
    """Draw a contact sheet.

    Args:
        data: images, grey or coloured.
        split: one of its splits.
        classes: rows at the most; which classes they are depends on their number and on nothing else.
        items: columns at the most.

    Returns:
        A PNG file.

    Raises:
        UserError: there is no such split, the items are no images, or no class or item is asked for.
    """
    part = data.split(split)
    if len(data.item_shape) != 3 or data.item_shape[0] not in (1, 3):
        raise UserError(
            f"The items of {data.name} have the shape {data.item_shape}: they are no images, which have (1, height, "
            "width) or (3, height, width). Show a data set of images."
        )
    if min(classes, items) < 1:
        raise UserError(f"Got {classes} classes and {items} items. Ask for at least one of each.")
    rows = _some(len(part.names), classes, split, "sheet")
    places = [part.starts[row].cpu() + _some(int(part.sizes[row]), items, split, "sheet", row) for row in rows.tolist()]
    images = [_bytes(part.items[place.to(part.items.device)].cpu()) for place in places]
    drawn = _drawn(images, [_label(part, row) for row in rows.tolist()], _title(data.name, split, part, rows, images))
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _some(count: int, most: int, *key: object) -> Int[Tensor, " n"]:
    """Return the places of some of `count`, ascending, always the same."""
    return keyed(range(count), 1, *key)[:, 0].argsort()[:most].sort().values


def _bytes(items: Shaped[Tensor, "n C H W"]) -> UInt8[Tensor, "n C H W"]:
    """Return images from 0 to 255; those in other numbers from their class's least to its greatest."""
    if items.dtype == torch.uint8:
        return items
    values: Float[Tensor, "n C H W"] = items.double()
    least, most = values.min(), values.max()
    return ((values - least) / (most - least).clamp(min=1e-12) * 255).round().to(torch.uint8)


def _label(part: ClassSplit, row: int) -> str:
    """Return a class's name, and its group where the name does not say it."""
    name, group = part.names[row], part.groups[row] if part.groups else ""
    return name if not group or group in name else f"{group}: {name}"


def _title(
    name: str, split: str, part: ClassSplit, rows: Int[Tensor, " n"], images: list[UInt8[Tensor, "_ C H W"]]
) -> str:
    groups = len({group for group in part.groups if group})
    among = f" of {groups} groups" if groups else ""
    return (
        f"{name}, {split}: {len(part.names)} classes{among}, {len(part.items)} items; "
        f"{len(rows)} classes and {max(map(len, images))} items of each are shown"
    )


def _drawn(images: list[UInt8[Tensor, "_ C H W"]], labels: list[str], title: str) -> Image.Image:
    height, width = images[0].shape[-2:]
    factor = (
        max(1, -(-SMALLEST // max(height, width))) if max(height, width) <= LARGEST else LARGEST / max(height, width)
    )
    cell = max(1, round(width * factor)), max(1, round(height * factor))
    # Class names may be in any script; the font that Pillow brings has Latin letters only.
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 12)
    columns = max(map(len, images))
    left, top = MARGIN + LABEL, 2 * MARGIN + 16
    wide = max(left + columns * (cell[0] + GAP), round(font.getlength(title)) + MARGIN) + MARGIN
    paper = Image.new("RGB", (wide, top + len(images) * (cell[1] + GAP) + MARGIN), PAPER)
    pen = ImageDraw.Draw(paper)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=font)
    resampling = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    for row, (own, label) in enumerate(zip(images, labels, strict=True)):
        y = top + row * (cell[1] + GAP)
        pen.text((MARGIN, y + cell[1] // 2), _cut(label, font), fill=INK, font=font, anchor="lm")
        for column, image in enumerate(own):
            array = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
            paper.paste(Image.fromarray(array).resize(cell, resampling), (left + column * (cell[0] + GAP), y))
    return paper


def _cut(label: str, font: ImageFont.FreeTypeFont) -> str:
    """Return a label that fits, its middle replaced by … where it is too long."""
    kept = len(label)
    short = label
    while font.getlength(short) > LABEL - MARGIN:
        kept -= 1
        short = f"{label[: kept // 2]}…{label[len(label) - kept + kept // 2 :]}"
    return short
