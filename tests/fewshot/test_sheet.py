"""Contact sheets: every image in its place, in its colours."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.sheet import GAP, LABEL, MARGIN, sheet

TOP, LEFT = 2 * MARGIN + 16, MARGIN + LABEL


def data_of(items: torch.Tensor, sizes: list[int], **more: Any) -> ClassData:
    split = ClassSplit(
        items=items, sizes=torch.tensor(sizes), names=tuple(f"class {i}" for i in range(len(sizes))), **more
    )
    return ClassData(name="made", splits={"test": split})


def opened(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def cell(picture: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    top, left = TOP + row * (side + GAP), LEFT + column * (side + GAP)
    return picture[top : top + side, left : left + side]


def test_rows_are_classes_and_columns_items() -> None:
    items = torch.randint(0, 256, (3 + 2 + 4, 1, 24, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    picture = opened(sheet(data_of(items, [3, 2, 4]), "test"))
    first = 0
    for row, size in enumerate([3, 2, 4]):
        for column in range(size):
            expected = items[first + column, 0].numpy().repeat(2, 0).repeat(2, 1)
            assert (cell(picture, row, column, 48) == expected[..., None]).all()
        assert (cell(picture, row, size, 48) == 255).all()
        first += size


def test_colours_stay() -> None:
    items = torch.randint(0, 256, (4, 3, 48, 48), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    picture = opened(sheet(data_of(items, [2, 2]), "test"))
    assert (cell(picture, 1, 0, 48) == items[2].permute(1, 2, 0).numpy()).all()


def test_large_images_are_made_smaller_and_float_ones_are_spread() -> None:
    items = torch.stack((torch.full((3, 200, 200), -1.5), torch.full((3, 200, 200), 2.5)))
    picture = opened(sheet(data_of(items, [2]), "test"))
    assert (cell(picture, 0, 0, 96) == 0).all()
    assert (cell(picture, 0, 1, 96) == 255).all()


def test_the_choice_of_classes_and_items_is_fixed() -> None:
    shades = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 48, 48).contiguous()
    data = data_of(shades, [10] * 4)
    content = sheet(data, "test", classes=2, items=3)
    assert content == sheet(data, "test", classes=2, items=3)
    picture = opened(content)
    seen = [[int(cell(picture, row, column, 48)[0, 0, 0]) for column in range(3)] for row in range(2)]
    assert all(len({shade // 10 for shade in row}) == 1 for row in seen)
    assert seen[0][0] // 10 < seen[1][0] // 10
    assert all(row == sorted(set(row)) for row in seen)
    assert picture.shape[0] == TOP + 2 * (48 + GAP) + MARGIN


def test_title_and_labels_are_written_and_long_names_are_cut() -> None:
    blank = torch.full((2, 1, 48, 48), 255, dtype=torch.uint8)
    plain = opened(sheet(data_of(blank, [1, 1]), "test"))
    named = ClassSplit(
        items=blank,
        sizes=torch.tensor([1, 1]),
        names=("a name that is far too long for the place that there is/character07", "b"),
        groups=("first", "second"),
    )
    other = opened(sheet(ClassData(name="made", splits={"test": named}), "test"))
    assert (plain[:TOP] < 100).any()
    assert (plain[TOP:, :LEFT] < 100).any()
    assert (other[TOP:, : MARGIN + LABEL - MARGIN] < 100).any()
    # Nothing runs into the images.
    assert (other[TOP:, LEFT - MARGIN :] == 255).all()


@pytest.mark.parametrize("shape", [(5,), (2, 8, 8), (8, 8)])
def test_only_images_can_be_shown(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="they are no images"):
        sheet(data_of(torch.zeros(2, *shape), [2]), "test")


def test_bad_requests_are_refused() -> None:
    data = data_of(torch.zeros(2, 1, 8, 8), [2])
    with pytest.raises(UserError, match="Unknown split 'train'"):
        sheet(data, "train")
    with pytest.raises(UserError, match="at least one"):
        sheet(data, "test", classes=0)
