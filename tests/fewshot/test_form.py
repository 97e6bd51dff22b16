from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.form import ItemForm
from metarl.fewshot.layout import Kind

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 9)).astype(np.uint8)


def form(kind: Kind, shape: tuple[int, ...], layout: str, **settings: Any) -> ItemForm:
    usual = {"name": "mine", "bytes": False, "low": 0.0, "high": 1.0}
    return ItemForm(kind=kind, shape=shape, layout=layout, **{**usual, **settings})


BYTES = form("picture", (3, 8, 9), "nhwc", bytes=True, high=255.0)
FLOATS = form("picture", (3, 8, 9), "nchw")
SIGNALS = form("signal", (2, 64), "nchw", low=-5.0, high=400.0)
PRINTS = form("fingerprint", (16,), "nf")


def test_items_are_taken_in_the_layout_of_training_and_in_those_that_fit_alone() -> None:
    wanted = torch.from_numpy(PICTURES)
    for given in (PICTURES.transpose(0, 2, 3, 1), PICTURES, list(PICTURES), wanted, PICTURES.astype(np.int64)):
        assert torch.equal(BYTES.take(given), wanted)
    assert torch.equal(BYTES.take(PICTURES.transpose(2, 3, 1, 0), layout="hwcn"), wanted)
    # Two layouts fit: it is the training's.
    cube = form("picture", (8, 8, 8), "nhwc")
    x = torch.rand(2, 8, 8, 8)
    assert torch.equal(cube.take(x), x.permute(0, 3, 1, 2))
    signals = torch.rand(5, 2, 64)
    for given in (signals, signals.mT, signals[:, :, None], signals.mT[:, None]):
        assert torch.equal(SIGNALS.take(given), signals)
    grey = form("picture", (1, 8, 9), "nhw")
    for given in (torch.rand(2, 8, 9), torch.rand(2, 1, 8, 9), torch.rand(2, 8, 9, 1)):
        assert torch.equal(grey.take(given).flatten(), given.flatten())


@pytest.mark.parametrize("given", [[], np.zeros((0, 8, 9, 3), np.uint8), np.zeros((0, 3, 8, 9)), torch.zeros(0)])
def test_no_items_are_no_items(given: Any) -> None:
    assert BYTES.take(given).shape == (0, 3, 8, 9)


@pytest.mark.parametrize(
    ("of", "given", "says"),
    [
        (
            BYTES,
            PICTURES.reshape(6, 3, 9, 8),
            r"\(6, 3, 9, 8\); mine was trained on pictures, 3 channels x 8 x 9 pixels",
        ),
        (BYTES, PICTURES[:, :1], r"given as \[n, 8, 9, 3\] \(nhwc\). Bring them to that shape"),
        (BYTES, PICTURES[0].transpose(1, 2, 0), r"For one item put an axis before it: x\[None\]"),
        (BYTES, PICTURES / 255.0, r"from 0 to 1 \(float32\), and mine was trained on bytes from 0 to 255"),
        (BYTES, PICTURES > 128, r"trained on bytes"),
        (BYTES, PICTURES + np.int64(1000), r"trained on bytes"),
        (BYTES, PICTURES.astype(float) - 300.0, r"trained on bytes"),
        (
            FLOATS,
            PICTURES,
            r"\(uint8\), and mine was trained on float32 from 0 to 1. Give them on that scale, as floats",
        ),
        (FLOATS, PICTURES.astype(float), r"trained on pictures from 0 to 1. Give them on that scale"),
        (FLOATS, PICTURES * np.nan, r"6 of 6 items have values that are NaN"),
        (FLOATS, [PICTURES[0], PICTURES[1, :2]], r"mixed size: item 0 has the shape \(3, 8, 9\), item 1 \(2, 8, 9\)"),
        (FLOATS, np.full((2, 3, 8, 9), "a"), r"items of the type <U1"),
        (FLOATS, np.ma.masked_less(PICTURES / 255.0, 0.5), r"masked values. Fill them in, by array.filled\(value\)"),
        (FLOATS, torch.zeros(2, 3, 8, 9, dtype=torch.complex64), r"type torch.complex64. Give real numbers"),
        (SIGNALS, np.zeros((3, 2, 63)), r"signals, 2 channels x 64 values, given as \[n, 2, 1, 64\] \(nchw\)"),
        (SIGNALS, np.zeros((3, 1, 8, 16)), r"trained on signals"),
        (PRINTS, np.full((2, 16), 3), r"from 3 to 3 .* trained on fingerprints of 0 and 1"),
        (PRINTS, np.zeros((2, 15)), r"fingerprints, 16 numbers"),
    ],
)
def test_what_differs_is_said(of: ItemForm, given: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        of.take(given)


def test_a_layout_that_gives_another_item_is_refused() -> None:
    with pytest.raises(UserError, match=r"pictures of the shape \(8, 9, 3\) by the layout nchw; mine was trained on"):
        BYTES.take(PICTURES.transpose(0, 2, 3, 1), layout="nchw")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
def test_fingerprints_are_the_same_in_every_type(dtype: type) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (5, 16))
    found = PRINTS.take(bits.astype(dtype))
    assert found.dtype == torch.float32
    assert found.tolist() == bits.tolist()


def test_advice_about_the_scale_works() -> None:
    assert FLOATS.take((PICTURES / 255.0).astype(np.float32)).dtype == torch.float32
    assert torch.equal(BYTES.take((PICTURES / 255.0 * 255.0).round().astype(np.uint8)), torch.from_numpy(PICTURES))
    assert BYTES.take(PICTURES[:1].transpose(0, 2, 3, 1)).shape == (1, 3, 8, 9)
