from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import DATA, Collection, folder, load, options_of, variants
from metarl.fewshot.episodes import EpisodeShape
from tests.helpers.image_files import data_of

pytestmark = pytest.mark.usefixtures("cache_root")


def test_unknown_names_are_told() -> None:
    with pytest.raises(UserError, match=r"Unknown data set 'omniglt'. Did you mean 'omniglot'"):
        load("omniglt")
    with pytest.raises(UserError, match=r"Unknown variant 'vinyal' of omniglot. Did you mean 'vinyals'"):
        load("omniglot@vinyal")
    with pytest.raises(UserError, match=r"Unknown variant 'x' of fc100. It has none"):
        load("fc100@x")
    with pytest.raises(UserError, match="size of -1"):
        load("omniglot", size=-1)


def test_every_file_data_set_says_what_it_offers() -> None:
    for name in ("omniglot", "mini-imagenet", "tiered-imagenet", "cub", "folder", "arrays", "molecules"):
        assert variants(name)
    assert variants("cifar-fs") == variants("fc100") == {}
    assert all(summary and not summary.endswith(".") for _, summary in DATA.values())


@pytest.mark.parametrize("name", ["omniglot", "mini-imagenet", "tiered-imagenet", "cifar-fs", "fc100", "cub"])
def test_missing_and_empty_folders_are_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"{name} is read from files.*--data-root.*METARL_DATA"):
        load(name)
    with pytest.raises(UserError, match=r"nowhere \(--data-root\), which does not exist"):
        load(name, tmp_path / "nowhere")
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"nothing \(METARL_DATA\), which does not exist"):
        load(name)
    (tmp_path / "other" / name).mkdir(parents=True)
    with pytest.raises(
        UserError, match=rf"other/{name} does not hold {name}.*Looked for: .*Found: nothing, it is empty"
    ):
        load(name, tmp_path / "other")
    (tmp_path / "strange" / "videos").mkdir(parents=True)
    (tmp_path / "strange" / "notes.doc").touch()
    with pytest.raises(UserError, match=rf"Looked for: a folder {name}/; .*Found: notes.doc, videos/"):
        load(name, tmp_path / "strange")


def test_root_may_hold_the_data_set_or_be_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = tree.rename(tree.with_name("Folder"))
    monkeypatch.setenv("METARL_DATA", str(renamed.parent))
    outer, direct = load("folder"), load("folder", renamed)
    assert data_of(outer).fingerprint == data_of(direct).fingerprint


def test_collection_by_address(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "all"
    shutil.move(tree, root / "folder")
    np.save(root / "items.npy", np.zeros((40, 3, 6, 6), np.float32))
    np.save(root / "classes.npy", np.arange(40) // 4)
    source = load("folder+arrays", root)
    assert isinstance(source, Collection)
    assert [member.name for member in source.members] == ["folder", "arrays-all"]
    assert source.episodes("test", range(4), EpisodeShape(way=2, query=2), 0).query_x.shape == (4, 4, 3, 6, 6)


def test_a_data_set_gets_options_of_its_own(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[folder.Options] = []
    original = folder.load

    def recording(variant: str, root: Path | None, size: int, options: folder.Options) -> ClassData:
        got.append(options)
        return original(variant, root, size, folder.Options())

    monkeypatch.setattr(folder, "load", recording)
    assert options_of("folder@grey+glyphs") == {"folder": folder.Options}
    load("folder", tree)
    load("folder", tree, range=(0, 4095))
    load("folder", tree, range=[0, 4095.0], ground="black")
    ends = (0.0, 4095.0)
    assert got == [folder.Options(), folder.Options(range=ends), folder.Options(ground="black", range=ends)]
    with pytest.raises(UserError, match=r"folder has no option 'grund'. Did you mean 'ground'"):
        load("folder", tree, grund="black")
    with pytest.raises(UserError, match=r"glyphs has no option 'ground', and no other one. Leave it out"):
        load("glyphs", ground="black")
    with pytest.raises(UserError, match=r"range: got 7 .*where a list"):
        load("folder", tree, range=7)
