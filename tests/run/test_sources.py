"""Where a run's files are looked for."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from metarl.run.sources import Source, digest, find, from_folder, of_file, reach


@pytest.fixture
def made(tmp_path: Path) -> tuple[Source, Path]:
    """A project with a run, and what the run says of the project's file."""
    file, run = tmp_path / "project" / "sub" / "mine.py", tmp_path / "project" / "runs" / "r"
    file.parent.mkdir(parents=True)
    run.mkdir(parents=True)
    file.write_text("x = 1\n")
    return from_folder(of_file("family", file), run), run


def test_a_file_is_told_by_its_path_content_and_place(made: tuple[Source, Path]) -> None:
    source, run = made
    file = run.parents[1] / "sub" / "mine.py"
    assert (source.path, source.given, source.label) == ("../../sub/mine.py", str(file), "mine.py")
    assert source.sha256 == digest(file)
    assert find(source, run) == file


def test_a_project_may_be_moved(made: tuple[Source, Path], tmp_path: Path) -> None:
    source, run = made
    (tmp_path / "project").rename(tmp_path / "renamed")
    assert find(source, tmp_path / "renamed" / "runs" / "r") == tmp_path / "renamed" / "sub" / "mine.py"
    assert find(source, run) is None


def test_a_run_folder_may_be_moved(made: tuple[Source, Path], tmp_path: Path) -> None:
    source, run = made
    run.rename(tmp_path / "r")
    assert find(source, tmp_path / "r") == Path(source.given)


def test_both_may_be_moved_apart(made: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, run = made
    run.rename(tmp_path / "r")
    moved = (tmp_path / "project").rename(tmp_path / "elsewhere")
    assert find(source, tmp_path / "r") is None
    for folder in (moved, moved / "sub"):
        monkeypatch.chdir(folder)
        assert find(source, tmp_path / "r") == moved / "sub" / "mine.py"
    # Found by its name alone it has to be the same; of format 1 nobody knows what it held.
    (moved / "sub" / "mine.py").write_text("x = 2\n")
    assert find(source, tmp_path / "r") is None
    assert find(replace(source, sha256="", path=""), tmp_path / "r") == moved / "sub" / "mine.py"


def test_of_two_the_one_that_holds_the_same_is_taken(made: tuple[Source, Path], tmp_path: Path) -> None:
    source, _ = made
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "project", copy)
    here, there = copy / "sub" / "mine.py", tmp_path / "project" / "sub" / "mine.py"
    assert find(source, copy / "runs" / "r") == here
    here.write_text("x = 2\n")
    assert find(source, copy / "runs" / "r") == there
    there.write_text("x = 3\n")
    assert find(source, copy / "runs" / "r") == here
    # Runs of format 1 have no content to compare.
    assert find(replace(source, sha256="", path=""), copy / "runs" / "r") == there


def test_a_module_without_a_file_has_no_place(tmp_path: Path) -> None:
    source = Source(role="family", module="somewhere.else")
    assert from_folder(source, tmp_path) == source
    assert find(source, tmp_path) is None
    assert (source.label, str(source)) == ("somewhere.else", "somewhere.else (family)")


@pytest.mark.parametrize(
    ("file", "module", "root"),
    [
        ("pkg/mine.py", "pkg.mine", "."),
        ("pkg/deep/__init__.py", "pkg.deep", "."),
        ("pkg/deep/mine.py", "", "."),
        ("pkg/renamed.py", "pkg.mine", "."),
        ("plain/mine.py", "plain.mine", "."),
        ("plain/mine.py", "mine", "plain"),
        ("plain/mine.py", "", None),
        ("plain/mine.py", "other.mine", None),
        ("plain/mine.py", ".".join("a" * 99), None),
        ("site-packages/pkg/mine.py", "pkg.mine", None),
    ],
)
def test_a_package_is_imported_from_the_folder_that_holds_it(
    file: str, module: str, root: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for folder in ("pkg", "pkg/deep"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    source, place = Source(role="make", module=module), tmp_path / file
    folders = [] if root is None else [str(tmp_path / root)]
    assert reach([source], {"make": place}) == folders
    assert sys.path[len(sys.path) - len(folders) :] == folders
    before = list(sys.path)
    assert reach([source], {"make": place}, place) == [folder for folder in folders if folder != str(place.parent)]
    assert reach([source], {"make": None}) == reach([source], {}) == []
    assert sys.path == before
