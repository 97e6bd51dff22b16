from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from metarl.errors import UserError
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig
from tests.helpers.run_folders import CONFIG, launch, logged, quiet, saved, wait_for_row
from tests.helpers.tiny_run import ITERATIONS, PAUSE, RUN, Follower, start


def test_a_run_folder_holds_everything(whole: Path) -> None:
    names = {entry.name.split(".out.")[0] for entry in whole.iterdir()}
    assert names == {"config.yaml", "checkpoints", "progress.csv", "events"}
    content = yaml.safe_load((whole / "config.yaml").read_text())
    assert list(content) == ["format", "version", "iterations", "run", "config", "signature"]
    assert RunFolder(whole).settings(RunConfig) == (RUN, {"iterations": ITERATIONS, "rate": 0.1, "seconds": PAUSE})
    assert RunFolder(whole).iterations() == ITERATIONS

    rows = logged(whole)
    assert [row["step"] for row in rows] == list(range(1, ITERATIONS + 1))
    assert [row["env/steps"] for row in rows] == [12.0 * step for step in range(1, ITERATIONS + 1)]
    assert rows[0]["env/failures"] == 0.0


def test_an_untrained_agent_can_be_stored(tmp_path: Path) -> None:
    start(tmp_path / "run", CONFIG, iterations=0, console=quiet())
    assert RunFolder(tmp_path / "run").restore(RUN, "last", Follower(CONFIG)).iteration == 0


def test_restore_brings_back_the_agent(whole: Path) -> None:
    agent = Follower(replace(CONFIG, seconds=PAUSE))
    assert RunFolder(whole).restore(RUN, "previous", agent).iteration == 48
    assert torch.equal(agent.position, saved(whole, "previous")["agent"]["position"])
    with pytest.raises(UserError, match=r"config\.rate is 0\.1 there and 0\.5 here"):
        RunFolder(whole).restore(RUN, "last", Follower(replace(CONFIG, seconds=PAUSE, rate=0.5)))


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(folder, CONFIG, iterations=3, console=quiet())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"exists already.*--resume .*--out"):
        start(folder, CONFIG, iterations=3, console=quiet())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match="is a file"):
        start(folder / "config.yaml", CONFIG, iterations=3, console=quiet())


def test_an_empty_folder_and_one_of_a_start_killed_at_once_are_taken(tmp_path: Path) -> None:
    (tmp_path / "config.yaml.partial").write_text("vers")
    _, result = start(tmp_path, CONFIG, iterations=1, console=quiet())
    assert result.iteration == 1
    assert not (tmp_path / "config.yaml.partial").exists()


def test_what_does_not_fit_is_not_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="There is no run in"):
        start(folder, CONFIG, resume=True, console=quiet())
    start(folder, CONFIG, iterations=8, console=quiet())
    before = (folder / "config.yaml").read_bytes()
    for run, config in [(replace(RUN, seed=4), CONFIG), (RUN, replace(CONFIG, rate=0.2))]:
        with pytest.raises(UserError, match="Got other settings than"):
            start(folder, config, run=run, resume=True, console=quiet())
    assert (folder / "config.yaml").read_bytes() == before

    last = folder / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(UserError, match=r"truncated or damaged.*--checkpoint previous"):
        start(folder, CONFIG, resume=True, console=quiet())
    _, result = start(folder, CONFIG, iterations=8, resume=True, checkpoint="previous", console=quiet())
    assert result.iteration == 8
    assert len(logged(folder)) == 8

    for text, says in [
        ("run: {}\n", "needs the entries config, iterations, run, version"),
        (before.decode().split("run:")[0] + "run: 7\nconfig: {}\n", "got run 7 where a mapping is needed"),
    ]:
        (folder / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=says):
            RunFolder(folder).settings(RunConfig)


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = launch(folder)
    wait_for_row(folder, 1, process)
    with pytest.raises(UserError, match="Another process is training in"):
        start(folder, replace(CONFIG, seconds=PAUSE), resume=True, console=quiet())
    process.kill()
    process.communicate()
    _, result = start(folder, replace(CONFIG, seconds=PAUSE), resume=True, iterations=3, console=quiet())
    assert result.iteration >= 3


def test_a_run_that_lost_its_checkpoints_is_not_started_again(tmp_path: Path) -> None:
    start(tmp_path, CONFIG, iterations=8, console=quiet())
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "progress.csv").read_bytes()
    with pytest.raises(UserError, match=r"checkpoints of .* are gone"):
        start(tmp_path, CONFIG, resume=True, console=quiet())
    assert (tmp_path / "progress.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.yaml", b"\xff\xfe\x9e", "config"),
        ("config.yaml", None, "iterations 'many' where int is needed"),
        ("progress.csv", b"step,return/post\n1,\xff\n", "is damaged"),
        ("progress.csv", b"foo,bar\n1,2\n", "is damaged"),
        ("progress.csv", b"step\n1,2,3\n", "is damaged"),
    ],
)
def test_damaged_text_files_are_refused(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    start(tmp_path, CONFIG, iterations=4, console=quiet())
    file = tmp_path / name
    file.write_bytes(content or file.read_bytes().replace(b"iterations: 4", b"iterations: many", 1))
    # Nor is anything else written.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=says):
        start(tmp_path, CONFIG, resume=True, console=quiet())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_other_code_is_refused_in_one_line(tmp_path: Path) -> None:
    start(tmp_path / "run", CONFIG, iterations=1)

    class Larger(Follower):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise ValueError("the stored network has 4 numbers, this one 5")

    with pytest.raises(UserError, match=r"last\.pt does not fit: the stored network has 4 numbers, this one 5\. Use"):
        RunFolder(tmp_path / "run").restore(RUN, "last", Larger(CONFIG))


def test_a_mistake_in_an_agent_is_not_taken_for_other_code(tmp_path: Path) -> None:
    start(tmp_path / "run", CONFIG, iterations=1)

    class Mistaken(Follower):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            state["no such entry"]

    with pytest.raises(KeyError, match="no such entry"):
        RunFolder(tmp_path / "run").restore(RUN, "last", Mistaken(CONFIG))
