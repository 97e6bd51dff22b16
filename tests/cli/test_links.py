"""Links in a run folder: no command writes through one of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from metarl.cli.main import main
from tests.helpers.commands import SMALL, contents, refused
from tests.helpers.tiny_fewshot import store, train_by_command

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links as POSIX has them")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's that a run has nothing to do with."""
    folder = tmp_path / "outside"
    for inner in (folder, folder / "test", folder / "maml-trpo"):
        inner.mkdir()
        for name in ("adaptation.csv", "probe.json", "steps-5-way-1-shot.png", "events.out.tfevents.1.a.adaptation"):
            (inner / name).write_bytes(b"kept")
    return folder


@pytest.mark.parametrize("place", ["evaluation", "evaluation/test", "evaluation/test/maml-trpo"])
def test_results_are_not_written_through_a_linked_folder(
    runs: dict[str, Path], tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["maml-trpo"], run, ignore=shutil.ignore_patterns("evaluation"))
    (run / place).parent.mkdir(parents=True, exist_ok=True)
    (run / place).symlink_to(outside)
    before = contents(outside)
    assert "is a link" in refused(["evaluate", str(run), *SMALL, "--no-film"], capsys)
    assert contents(outside) == before
    # As the message says.
    (run / place).unlink()
    assert main(["evaluate", str(run), *SMALL, "--no-film"]) == 0
    assert contents(outside) == before


def test_linked_results_are_replaced(runs: dict[str, Path], tmp_path: Path, outside: Path) -> None:
    names = ("adaptation.csv", "adaptation.json", "adaptation.png", "adaptation.csv.partial", "probe.json")
    out = tmp_path / "out"
    out.mkdir()
    for name in names:
        (out / name).symlink_to(outside / "adaptation.csv")
    before = contents(outside)
    assert main(["evaluate", str(runs["maml-trpo"]), *SMALL, "--no-film", "--out", str(out)]) == 0
    assert contents(outside) == before
    assert (out / "adaptation.csv").read_bytes() != b"kept"
    # A folder that the user names may be a link of the user's own.
    (tmp_path / "mine").symlink_to(out)
    assert main(["evaluate", str(runs["maml-trpo"]), *SMALL, "--no-film", "--out", str(tmp_path / "mine")]) == 0


def test_few_shot_results_are_not_written_through_a_linked_folder(
    tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_by_command(store(tmp_path / "data"), tmp_path / "run", "proto", "--test-episodes", "0")
    (run / "evaluation").symlink_to(outside)
    before = contents(outside)
    assert "is a link" in refused(["fewshot", "evaluate", str(run), "--threads", "1"], capsys)
    assert contents(outside) == before


def test_pictures_take_the_place_of_links(tmp_path: Path, outside: Path) -> None:
    """A link that leads nowhere is no file yet."""
    (tmp_path / "grid.png").symlink_to(outside / "missing")
    (tmp_path / "grid.png.partial").symlink_to(outside / "adaptation.csv")
    before = contents(outside)
    grid = ["render", "point-nav", "--grid", "--rows", "1", "--columns", "1", "--width", "40", "--height", "30"]
    assert main([*grid, "--out", str(tmp_path / "grid.png")]) == 0
    assert contents(outside) == before
