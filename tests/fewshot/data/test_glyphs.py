"""The letters written from fonts: which they are, that they stay the same, and that they are as hard as handwriting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from scipy import ndimage

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import glyphs, pen
from metarl.fewshot.episodes import EpisodeShape

FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARL_CACHE", str(folder))
        yield folder


def folder_of(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "fonts"
    folder.mkdir(parents=True)
    for name in names:
        shutil.copy(FONTS / name, folder)
    return folder


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> ClassData:
    """All letters of one font that has nine scripts."""
    return glyphs.load("pen", folder_of(tmp_path_factory.mktemp("mono"), "DejaVuSansMono.ttf"), 0)


@pytest.fixture(scope="module")
def sans() -> glyphs.Printed:
    """What a font prints."""
    return glyphs.printed_letters([FONTS / "DejaVuSans.ttf"])


@pytest.fixture(scope="module")
def held_out() -> ClassData:
    """The test scripts of the default fonts."""
    script_of = glyphs.script_of

    def tested(letter: str) -> str | None:
        script = script_of(letter)
        return script if script is not None and glyphs.SPLIT_OF.get(script) == "test" else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "script_of", tested)
        return glyphs.load("pen", None, 28)


# -- classes ----------------------------------------------------------------------------------------------------------


def test_splits_share_no_script_and_no_class(letters: ClassData) -> None:
    assert list(letters.splits) == ["train", "validation", "test"]
    for of in (lambda part: set(part.groups), lambda part: set(part.names), lambda part: set(part.origins)):
        found = [of(part) for part in letters.splits.values()]
        assert all(found)
        assert sum(map(len, found)) == len(set().union(*found))
    for split, part in letters.splits.items():
        assert {glyphs.split_of(script) for script in part.groups} == {split}
        assert all(name.startswith(f"{group}/U+") for name, group in zip(part.names, part.groups, strict=True))
        assert all(part.groups.count(script) >= glyphs.FEWEST for script in set(part.groups))
        assert len(set(part.origins)) == len(part.items)


def test_every_class_has_20_images_with_ink_that_differ(letters: ClassData) -> None:
    for part in letters.splits.values():
        assert part.items.dtype == torch.uint8
        assert part.items.shape[1:] == (1, 28, 28)
        assert part.sizes.tolist() == [20] * len(part.names)
        ink = (part.items > 127).flatten(1).float().mean(1)
        assert float(ink.min()) > 0.002
        assert float(ink.max()) < 0.6
        assert len(part.items.flatten(1).unique(dim=0)) == len(part.items)
    # Background 0: the median pixel of any letter is empty.
    assert int(letters.split("test").items.flatten(1).median(1).values.max()) == 0


def test_look_alikes_are_one(sans: glyphs.Printed) -> None:
    kept = set(glyphs.distinct(sans).letters)
    latin, greek, cyrillic = "A", "\u0391", "\u0410"
    assert {latin, greek, cyrillic} <= set(sans.letters)
    assert kept & {latin, greek, cyrillic} == {latin}
    # Sizes do not tell letters apart; I and l are the same line.
    assert kept.isdisjoint({"c", "o", "s", "x", "l", "\u03bf", "\u043e"})
    assert set("ABCEGHIKMORST23457abdefghkt") <= kept


def test_marks_accents_and_boxes_are_no_letters(tmp_path: Path, sans: glyphs.Printed) -> None:
    found = set(sans.letters)
    # Accented, for mathematics, a modifier, a sign, a dot, blank.
    assert found.isdisjoint({"\u00c1", "\U0001d400", "\u02b0", "+", "\u0660", "\u3164", " "})
    with pytest.raises(UserError, match="no script of 5 or more"):
        glyphs.load("pen", folder_of(tmp_path, "LastResortHE-Regular.ttf"), 28)


def test_a_style_a_font(tmp_path: Path) -> None:
    data = glyphs.load("pen", folder_of(tmp_path, "cmr10.ttf", "cmss10.ttf", "cmtt10.ttf"), 28)
    part = data.split("train")
    place = part.names.index("Latin/U+0041")
    origins = part.origins[int(part.starts[place]) :][:20]
    assert origins[:4] == (
        "cmr10.ttf U+0041 0",
        "cmss10.ttf U+0041 1",
        "cmtt10.ttf U+0041 2",
        "cmr10.ttf U+0041 3",
    )


# -- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letter", "script"),
    [
        ("A", "Latin"),
        ("7", "Latin"),
        ("\u0416", "Cyrillic"),
        ("\u1401", "Canadian"),
        ("\u06f4", "Arabic"),
        ("\u4e00", "Cjk"),
        ("\U00010300", "Old Italic"),
        ("\U00010a80", "Old North Arabian"),
        ("\U00010a60", "Old South Arabian"),
        ("\u1950", "Tai Le"),
        ("\u00c4", None),
        ("\u00b2", None),
        ("!", None),
        ("\ue000", None),
    ],
)
def test_script_of_a_letter(letter: str, script: str | None) -> None:
    assert glyphs.script_of(letter) == script


def test_scripts_are_those_of_unicode() -> None:
    unicode = pytest.importorskip("fontTools.unicodedata")
    # A few names of Latin letters begin otherwise; they are too few to be a script.
    belongs: dict[str, set[str]] = {}
    for code in range(0x20000):
        script = glyphs.script_of(chr(code))
        if script is not None and not chr(code).isdigit():
            belongs.setdefault(script, set()).add(unicode.script(chr(code)))
    assert len(belongs) > 150
    assert {script: found for script, found in belongs.items() if len(found) > 1} == {}


def test_split_of_an_unknown_script_never_changes() -> None:
    scripts = ["Bengali", "Cherokee", "Thai", "Runic", "Vai", "Ethiopic", "Old Persian"]
    splits = ["test", "train", "validation", "train", "test", "train", "test"]
    assert [glyphs.split_of(script) for script in scripts] == splits


# -- the same every time ----------------------------------------------------------------------------------------------


def test_made_twice_it_is_the_same_and_then_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fonts = folder_of(tmp_path, "cmr10.ttf")
    first = glyphs.load("pen", fonts, 28)
    with monkeypatch.context() as patch:
        patch.setattr(glyphs, "_listing", lambda *_: pytest.fail("rendered again"))
        assert glyphs.load("pen", fonts, 28).fingerprint == first.fingerprint
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "other"))
    # Where the fonts lie does not matter.
    moved = tmp_path / "elsewhere"
    shutil.copytree(fonts, moved / "deep")
    again = glyphs.load("pen", moved, 28)
    assert again.fingerprint == first.fingerprint
    assert again.describe() == first.describe()


def test_other_fonts_and_other_sizes_are_other_entries(tmp_path: Path) -> None:
    small = glyphs.load("pen", folder_of(tmp_path / "a", "cmr10.ttf"), 28)
    large = glyphs.load("pen", folder_of(tmp_path / "b", "cmr10.ttf"), 84)
    other = glyphs.load("pen", folder_of(tmp_path / "c", "cmb10.ttf"), 28)
    assert large.item_shape == (1, 84, 84)
    assert large.split("train").items.dtype == torch.uint8
    assert small.fingerprint != other.fingerprint
    # The same letters, drawn with more pixels.
    reduced = torch.nn.functional.avg_pool2d(large.split("train").items.float(), 3)
    difference = (reduced - small.split("train").items.float()).abs().mean(dim=(1, 2, 3))
    assert large.split("train").names == small.split("train").names
    assert float(difference.max()) < 12.0
    json.dumps(small.describe())


def test_a_killed_rendering_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fonts, cache = folder_of(tmp_path, "cmss10.ttf"), tmp_path / "cache"
    monkeypatch.setenv("METARL_CACHE", str(cache))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(glyphs, "written", killed)
        with pytest.raises(KeyboardInterrupt):
            glyphs.load("pen", fonts, 28)
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []
    assert len(glyphs.load("pen", fonts, 28).split("train").names) > 30


# -- bad input --------------------------------------------------------------------------------------------------------


def test_folders_without_fonts_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no font")
    with pytest.raises(UserError, match=r"Looked for fonts .*found 1 other entries: notes\.txt"):
        glyphs.load("pen", tmp_path, 28)
    with pytest.raises(UserError, match="no folder"):
        glyphs.load("pen", tmp_path / "missing", 28)


def test_an_unreadable_font_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "cmr10.ttf")
    (folder / "broken.ttf").write_bytes(b"no font at all")
    with pytest.raises(UserError, match=r"broken\.ttf cannot be read"):
        glyphs.load("pen", folder, 28)


def test_a_font_of_bitmaps_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "cmr10.ttf")
    (folder / "bitmap.otf").write_text(
        "STARTFONT 2.1\nFONT -a-b-medium-r-normal--8-80-75-75-c-80-iso10646-1\nSIZE 8 75 75\nFONTBOUNDINGBOX 8 8 0 0\n"
        'STARTPROPERTIES 4\nFONT_ASCENT 8\nFONT_DESCENT 0\nCHARSET_REGISTRY "ISO10646"\nCHARSET_ENCODING "1"\n'
        "ENDPROPERTIES\nCHARS 1\nSTARTCHAR B\nENCODING 66\nSWIDTH 500 0\nDWIDTH 8 0\nBBX 8 8 0 0\nBITMAP\n"
        "FF\nFF\nFF\nFF\nFF\nFF\nFF\nFF\nENDCHAR\nENDFONT\n"
    )
    data = glyphs.load("pen", folder, 28)
    assert {origin.split()[0] for origin in data.split("train").origins} == {"cmr10.ttf"}


# -- the pen ----------------------------------------------------------------------------------------------------------


def pieces(ink: np.ndarray, *, corners: bool) -> int:
    labels = np.zeros(ink.shape, dtype=np.int32)
    ndimage.label(ink, ndimage.generate_binary_structure(2, 1 + corners), output=labels)
    return int(labels.max())


def test_thinning_keeps_pieces_and_holes_and_is_thin() -> None:
    noise = np.random.default_rng(0).normal(size=(60, 64, 64))
    ink = ndimage.gaussian_filter(noise, (0, 3, 3)) > 0.05
    ink[:, [0, -1]] = ink[:, :, [0, -1]] = False
    thin = pen.thinned(ink)
    assert not (thin & ~ink).any()
    for before, after in zip(ink, thin, strict=True):
        assert pieces(before, corners=True) == pieces(after, corners=True)
        assert pieces(~before, corners=False) == pieces(~after, corners=False)
        assert not ndimage.binary_erosion(after, np.ones((3, 3))).any()
    assert thin.mean() < 0.25 * ink.mean()


@pytest.mark.parametrize("side", [1, 2, 3, 4, 9])
def test_thinning_leaves_a_dot_of_every_size(side: int) -> None:
    ink = np.zeros((1, 64, 64), dtype=bool)
    ink[0, 20 : 20 + side, 30 : 30 + side] = True
    assert pen.thinned(ink).sum() >= 1


def test_a_bar_becomes_a_line_through_its_middle() -> None:
    ink = np.zeros((1, 64, 64), dtype=bool)
    ink[0, 30:35] = True
    lines = pen.strokes(ink)
    assert float(lines.points[:, 1].abs().max()) < 0.1
    assert float(lines.points[:, 0].min()) < -0.9
    assert float(lines.points[:, 0].max()) > 0.9


def test_a_dot_is_written_as_a_round_spot_of_the_pens_size() -> None:
    dot = pen.Strokes(points=torch.zeros(1, 2), starts=torch.tensor([0, 1]))
    image = pen.written(dot, [0], 85, pen.Hand(pen=0.2))[0, 0].double() / 255
    assert float(image[42, 42]) == 1.0
    assert torch.equal(image, image.T)
    assert torch.equal(image, image.flip(0))
    assert float(image.sum()) == pytest.approx(np.pi * (0.2 * 42.5) ** 2, rel=0.02)


def test_nothing_leaves_the_image() -> None:
    line = pen.Strokes(
        points=torch.stack((torch.linspace(-1, 1, 100), torch.zeros(100)), 1), starts=torch.tensor([0, 100])
    )
    images = pen.written(
        line.take(torch.zeros(50, dtype=torch.int64)), list(range(50)), 56, pen.Hand(shift=0.6, size=0.5, pen=0.03)
    )
    # Both ends of every line are there: it is as long in the image as its ends are apart.
    columns = (images[:, 0] > 0).any(1)
    assert not columns[:, 0].any()
    assert not columns[:, -1].any()


def test_writing_depends_on_the_number_alone() -> None:
    line = pen.Strokes(
        points=torch.stack((torch.linspace(-1, 1, 100), torch.zeros(100)), 1), starts=torch.tensor([0, 100])
    )
    many = line.take(torch.zeros(5, dtype=torch.int64))
    together = pen.written(many, [3, 1, 4, 1, 5], 28, glyphs.HAND)
    alone = torch.cat([pen.written(line, [number], 28, glyphs.HAND) for number in (3, 1, 4, 1, 5)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])
    assert pen.written(line.take(torch.zeros(0, dtype=torch.int64)), [], 28, glyphs.HAND).shape == (0, 1, 28, 28)


# -- difficulty -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "shot", "least", "most"), [(5, 1, 0.41, 0.49), (5, 5, 0.62, 0.70), (20, 1, 0.20, 0.29)]
)
def test_pixels_do_not_tell_letters_apart_any_better_than_handwriting(
    held_out: ClassData, way: int, shot: int, least: float, most: float
) -> None:
    # 600 episodes of all default fonts: 45.2, 65.8 and 24.4 %. Omniglot: 41, 62 and 22 %.
    drawn = held_out.episodes("test", range(150), EpisodeShape(way=way, shot=shot, query=5), seed=0)
    nearest = torch.cdist(drawn.query_x.flatten(2), drawn.support.x.flatten(2)).argmin(2)
    accuracy = float((drawn.support.y.gather(1, nearest) == drawn.query_y).float().mean())
    assert least < accuracy < most


def test_the_test_scripts_of_the_default_fonts(held_out: ClassData) -> None:
    part = held_out.split("test")
    assert list(held_out.splits) == ["test"]
    assert set(part.groups) == {script for script, split in glyphs.SPLIT_OF.items() if split == "test"}
    assert len(part.names) > 200
