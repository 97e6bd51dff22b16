"""Links in a run folder: a training writes through none of them, and changes nothing outside."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from metarl.errors import UserError
from metarl.files import Folder
from metarl.run import events
from metarl.run.events import Events, clear_events
from tests.helpers.commands import contents
from tests.helpers.run_folders import CONFIG, quiet
from tests.helpers.tiny_run import start

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links as POSIX has them")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Files of the user's that a run has nothing to do with."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("precious", "last.pt", "events.out.tfevents.1.host.1.0.adaptation", "steps-1.png"):
        (folder / name).write_bytes(b"kept")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    start(tmp_path / "run", CONFIG, iterations=5, console=quiet())
    return tmp_path / "run"


def linked(path: Path, target: Path) -> None:
    """Put a link in the place of a file, whose content it keeps beside."""
    if path.exists():
        path.rename(path.with_name(f"{path.name}.kept"))
    path.symlink_to(target)


@pytest.mark.parametrize(
    "name",
    ["config.yaml.partial", "progress.csv.partial", "metarl-0.partial", "checkpoints/last.pt.partial", ".lock"],
)
def test_a_link_in_the_place_of_a_file_that_is_made_goes(run: Path, outside: Path, name: str) -> None:
    before = contents(outside)
    linked(run / name, outside / "precious")
    start(run, CONFIG, iterations=6, resume=True, console=quiet())
    assert contents(outside) == before


@pytest.mark.parametrize("name", ["config.yaml", "progress.csv", "checkpoints/last.pt", "checkpoints/previous.pt"])
def test_a_file_that_is_linked_is_replaced_by_one_of_the_run(run: Path, outside: Path, name: str) -> None:
    (outside / "file").write_bytes((run / name).read_bytes())
    before = contents(outside)
    linked(run / name, outside / "file")
    start(run, CONFIG, iterations=9, resume=True, console=quiet())
    assert contents(outside) == before
    assert not (run / name).is_symlink()


def test_checkpoints_in_a_linked_folder_are_not_written(run: Path, outside: Path) -> None:
    for file in (run / "checkpoints").iterdir():
        (outside / file.name).write_bytes(file.read_bytes())
    linked(run / "checkpoints", outside)
    before = contents(run)
    with pytest.raises(UserError, match=r"checkpoints is a link.*Remove it, or write elsewhere"):
        start(run, CONFIG, iterations=9, resume=True, console=quiet())
    assert contents(run) == before


def test_rows_are_not_appended_through_a_link(run: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(outside)
    write = Folder.write

    def swapped(self: Folder, name: str, content: bytes) -> Path:
        path = write(self, name, content)
        if name == "progress.csv":
            linked(path, outside / "precious")
        return path

    monkeypatch.setattr(Folder, "write", swapped)
    with pytest.raises(UserError, match=r"progress\.csv is a link"):
        start(run, CONFIG, iterations=9, resume=True, console=quiet())
    assert contents(outside) == before


def test_rows_are_not_read_from_a_pipe(run: Path) -> None:
    (run / "progress.csv").unlink()
    os.mkfifo(run / "progress.csv")
    with pytest.raises(UserError, match="is a pipe"):
        start(run, CONFIG, iterations=9, resume=True, console=quiet())


def test_events_take_a_name_that_is_free(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 7.0)
    monkeypatch.setattr(events, "_NUMBERS", iter(range(10)))
    before = contents(outside)
    begin = f"events.out.tfevents.0000000007.{socket.gethostname()}.{os.getpid()}"
    run = tmp_path / "run"
    run.mkdir()
    for number in range(3):
        (run / f"{begin}.{number}").symlink_to(outside / ("precious" if number else "missing"))
    with Events(Folder(run)) as written:
        written.add_scalar("return/post", 1.0, 1)
    assert contents(outside) == before
    assert (run / f"{begin}.3").stat().st_size > 0


def test_earlier_events_are_removed_from_no_linked_folder(tmp_path: Path, outside: Path) -> None:
    before = contents(outside)
    run = tmp_path / "run"
    with Events(Folder(run).below("agent"), ".adaptation"):
        pass
    (run / "other").symlink_to(outside)
    clear_events(Folder(run), ".adaptation")
    assert contents(outside) == before
    assert [entry.name for entry in run.iterdir()] == ["other"]
