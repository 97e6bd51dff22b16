from __future__ import annotations

import re

import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.layout import arranged, check_layout, recognised


@pytest.mark.parametrize(
    ("sides", "layout"),
    [
        ((1,), "nf"),
        ((640,), "nf"),
        ((2, 128), "ncl"),
        ((128, 2), "nlc"),
        ((22, 1000), "ncl"),
        ((1, 1), "ncl"),
        ((5, 1), "nlc"),
        ((28, 28), "nhw"),
        ((48, 64), "nhw"),
        ((3, 32, 32), "nchw"),
        ((32, 32, 3), "nhwc"),
        ((1, 28, 28), "nchw"),
        ((28, 28, 1), "nhwc"),
        ((4, 5, 300), "nchw"),
        ((2, 1, 128), "nchw"),
        ((128, 1, 2), "nhwc"),
        ((1, 1, 128), "nchw"),
        ((1, 128, 1), "nchw"),
        ((1, 28, 160), "nchw"),
        ((64, 480, 1), "nhwc"),
        ((1, 40, 400), "nchw"),
    ],
)
def test_layouts_that_are_certain(sides: tuple[int, ...], layout: str) -> None:
    assert recognised((10, *sides)) == layout


@pytest.mark.parametrize(
    "sides",
    [
        (2, 2),
        (64, 128),
        (40, 400),
        (3, 16),
        (3, 32, 3),
        (16, 16, 16),
        (13, 64, 64),
        (1, 28, 3),
        (1, 128, 2),
        (2, 3, 50),
        (1, 8, 1000),
        (8, 1000, 1),
        (1, 1000, 8),
        (1000, 8, 1),
        (12, 100, 1),
        (5, 100, 1),
        (1, 2, 100),
        (2, 100, 1),
    ],
)
def test_layouts_that_are_not_are_asked_for(sides: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"can be read in several ways.*`layout` \(--layout.*(ncl|nchw) or n(lc|hwc)"):
        recognised((10, *sides))


@pytest.mark.parametrize(
    ("sides", "advice", "where"),
    [((1, 8, 1000), "x[:, 0]", 1), ((1000, 8, 1), "x[..., 0]", 3), ((3, 1, 16), "x[:, :, 0]", 2)],
)
def test_signals_with_an_axis_too_many_are_asked_for_and_told_which(
    sides: tuple[int, ...], advice: str, where: int
) -> None:
    with pytest.raises(UserError, match=re.escape(f"signals leave the axis of length 1 out, as {advice}, and say ncl")):
        recognised((2, *sides))
    # The advice works, and so does the layout of a picture.
    x = torch.rand(2, *sides)
    signals = x.select(where, 0)
    layout = "ncl" if signals.shape[1] < signals.shape[2] else "nlc"
    found, kind = arranged(signals, layout)
    assert (sorted(found.shape[1:]), kind) == (list(found.shape[1:]), "signal")
    assert arranged(x, "nchw")[1] == ("signal" if 1 in sides[1:] else "picture")
    with pytest.raises(UserError) as caught:
        recognised((2, 3, 32, 3))
    assert "axis of length 1" not in str(caught.value)


def test_more_axes_are_taken_as_they_stand_where_one_says_so() -> None:
    with pytest.raises(UserError, match=r"\(10, 4, 5, 6, 7\).*plain"):
        recognised((10, 4, 5, 6, 7))
    x = torch.rand(10, 4, 5, 6, 7)
    assert arranged(x, "plain") == (x, "array")


@pytest.mark.parametrize(
    ("layout", "axes", "stored", "kind"),
    [
        ("nhwc", (0, 2, 3, 1), (2, 3, 5, 6), "picture"),
        ("hwcn", (2, 3, 1, 0), (2, 3, 5, 6), "picture"),
        ("nchw", (0, 1, 2, 3), (2, 3, 5, 6), "picture"),
    ],
)
def test_axes_are_moved(layout: str, axes: tuple[int, ...], stored: tuple[int, ...], kind: str) -> None:
    x = torch.arange(180).view(2, 3, 5, 6)
    found, what = arranged(x.permute(axes), layout)
    assert (tuple(found.shape), what) == (stored, kind)
    assert torch.equal(found, x)


def test_channels_come_in_where_there_are_none_and_thin_pictures_are_signals() -> None:
    x = torch.rand(4, 7, 9)
    for layout, kind, wanted in (
        ("nhw", "picture", x[:, None]),
        ("ncl", "signal", x),
        ("nlc", "signal", x.mT),
    ):
        found, what = arranged(x, layout)
        assert what == kind
        assert torch.equal(found, wanted)
    assert arranged(x[:, 0], "nl")[0].shape == (4, 1, 9)
    for given, layout in ((x[:, :, None], "nchw"), (x.mT[:, None], "nhwc"), (x[..., None], "nchw")):
        found, what = arranged(given, layout)
        assert what == "signal"
        assert torch.equal(found, x)


@pytest.mark.parametrize("layout", ["nhcx", "hwc", "nnhw", "", "NHWC", None])
def test_letters_that_are_no_layout_are_refused(layout: str) -> None:
    with pytest.raises(UserError, match=f"Got the layout '{layout}'. Give a letter for every axis"):
        check_layout(layout)


def test_a_layout_of_other_axes_is_refused() -> None:
    with pytest.raises(UserError, match=r"layout nhwc, 4 axes, and items of the shape \(4, 7, 9\), 3 axes"):
        arranged(torch.rand(4, 7, 9), "nhwc")
