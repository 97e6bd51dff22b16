from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.devices import resolve_device, resolve_threads
from metarl.errors import UserError
from metarl.run.checkpoint import load, read_header
from metarl.run.driver import train
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig, by_settings
from metarl.run.tracking import read_progress
from metarl.seeding import Streams
from tests.helpers.tiny_run import ITERATIONS, PAUSE, RUN, Follower, FollowerConfig, start

CONFIG = FollowerConfig()


def quiet() -> Console:
    return Console(file=io.StringIO())


def saved(folder: Path, name: str) -> dict[str, Any]:
    return load(folder / "checkpoints" / f"{name}.pt", {})


def logged(folder: Path) -> list[dict[str, float]]:
    """Return progress.csv without the times, which no two runs share."""
    rows = read_progress(folder)
    return [{tag: value for tag, value in row.items() if not tag.startswith("time/")} for row in rows]


def assert_same(first: Any, second: Any) -> None:
    """Compare checkpoints bit for bit."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    else:
        assert first == second


def assert_same_run(first: Path, second: Path) -> None:
    for name in ("last", "best"):
        assert_same(saved(first, name), saved(second, name))
    assert logged(first) == logged(second)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    start(folder, replace(CONFIG, seconds=PAUSE), console=quiet())
    return folder


def test_a_run_folder_holds_everything(whole: Path) -> None:
    names = {entry.name.split(".out.")[0] for entry in whole.iterdir()}
    assert names == {"config.yaml", "checkpoints", "progress.csv", "events"}
    content = yaml.safe_load((whole / "config.yaml").read_text())
    assert list(content) == ["version", "iterations", "run", "config"]
    assert RunFolder(whole).settings(RunConfig) == (RUN, {"iterations": ITERATIONS, "rate": 0.1, "seconds": PAUSE})
    assert RunFolder(whole).iterations() == ITERATIONS

    rows = logged(whole)
    assert [row["step"] for row in rows] == list(range(1, ITERATIONS + 1))
    assert [row["env/steps"] for row in rows] == [12.0 * step for step in range(1, ITERATIONS + 1)]
    assert rows[0]["env/failures"] == 0.0


def test_best_is_the_interval_with_the_highest_mean_return(whole: Path) -> None:
    returns = [row["return/post"] for row in logged(whole)]
    intervals = [returns[i : i + 4] for i in range(0, ITERATIONS, 4)]
    means = [sum(part) / len(part) for part in intervals]
    winner = means.index(max(means))
    assert saved(whole, "best")["iteration"] == min(4 * (winner + 1), ITERATIONS)
    assert read_header(whole / "checkpoints" / "best.pt")["score"] == max(means)
    assert saved(whole, "last")["iteration"] == ITERATIONS
    assert saved(whole, "previous")["iteration"] == 48


def launch(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.tiny_run", str(folder), *options],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_row(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60.0
    while not any(row["step"] >= step for row in read_progress(folder)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_killed_run_resumes_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    # Before the first checkpoint, in the middle of an interval, and about when a checkpoint is written.
    for attempt, step in enumerate([2, 11, 20]):
        process = launch(folder, *(["--resume"] if attempt else []))
        wait_for_row(folder, step, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    assert len(read_progress(folder)) < ITERATIONS
    process = launch(folder, "--resume")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert_same_run(folder, whole)
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("return/post")] == list(range(1, ITERATIONS + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_cleanly(whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "stopped"
    process = launch(folder)
    wait_for_row(folder, 6, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    done = saved(folder, "last")["iteration"]
    assert 6 <= done < ITERATIONS
    assert done == len(read_progress(folder))
    assert f"Stopped by {number.name} after iteration {done} of {ITERATIONS}" in output
    assert f"metarl train --resume {folder}" in output

    start(folder, replace(CONFIG, seconds=PAUSE), resume=True, console=quiet())
    assert_same_run(folder, whole)


def test_handlers_and_threads_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    start(tmp_path / "run", CONFIG, run=replace(RUN, threads=2), iterations=2, console=quiet())
    assert (
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        torch.get_num_threads(),
    ) == before


def test_a_run_can_be_made_longer(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "longer"
    _, result = start(folder, replace(CONFIG, seconds=PAUSE, iterations=20), iterations=20, console=quiet())
    assert (result.iteration, result.totals["env/steps"], result.interrupted) == (20, 240.0, False)
    _, result = start(folder, replace(CONFIG, seconds=PAUSE), resume=True, console=quiet())
    assert (result.iteration, result.totals["env/steps"]) == (ITERATIONS, 12.0 * ITERATIONS)
    assert_same_run(folder, whole)
    assert RunFolder(folder).iterations() == ITERATIONS


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path: Path) -> None:
    start(tmp_path / "run", CONFIG, iterations=5, console=quiet())
    before = saved(tmp_path / "run", "last")
    console = quiet()
    _, result = start(tmp_path / "run", CONFIG, iterations=5, resume=True, console=console)
    assert (result.iteration, result.interrupted) == (5, False)
    assert "has 5 of 5 iterations: give more --iterations" in output_of(console)
    assert_same(saved(tmp_path / "run", "last"), before)
    assert len(logged(tmp_path / "run")) == 5


def test_an_untrained_agent_can_be_stored(tmp_path: Path) -> None:
    start(tmp_path / "run", CONFIG, iterations=0, console=quiet())
    assert RunFolder(tmp_path / "run").restore(RUN, "last", Follower(CONFIG)) == 0


def test_restore_brings_back_the_agent(whole: Path) -> None:
    agent = Follower(replace(CONFIG, seconds=PAUSE))
    assert RunFolder(whole).restore(RUN, "previous", agent) == 48
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

    (folder / "config.yaml").write_bytes(before.replace(b"version: ", b"version: 9."))
    with pytest.raises(UserError, match=r"is of version 9\."):
        RunFolder(folder).settings(RunConfig)
    (folder / "config.yaml").write_text("run: {}\n")
    with pytest.raises(UserError, match="needs the entries config, iterations, run, version"):
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
    with pytest.raises(UserError, match=says):
        start(tmp_path, CONFIG, resume=True, console=quiet())


def test_bad_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any]
    for fields in ({"seed": -1}, {"threads": -1}, {"checkpoint_every": 0}):
        with pytest.raises(UserError, match="Correct the option"):
            RunConfig(agent="follower", **fields)
    with pytest.raises(UserError, match="Ask for 0"):
        start(tmp_path / "run", CONFIG, iterations=-1)
    start(tmp_path / "whole", CONFIG, iterations=1, console=quiet())
    with pytest.raises(UserError, match="Unknown checkpoint 'lst'"):
        RunFolder(tmp_path / "whole").restore(RUN, "lst", Follower(CONFIG))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="finds no CUDA device here"):
        start(tmp_path / "run", CONFIG, run=replace(RUN, device="cuda"))
    assert not (tmp_path / "run").exists()


def test_threads_default_to_the_cores_that_the_process_may_use() -> None:
    assert resolve_threads(3) == 3
    assert resolve_threads(0) == len(os.sched_getaffinity(0))


def output_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_json_lines(tmp_path: Path) -> None:
    console = quiet()
    start(tmp_path / "run", CONFIG, iterations=3, json=True, console=console)
    lines = [json.loads(line) for line in output_of(console).splitlines()]
    assert [line.get("iteration") for line in lines] == [1, 2, 3, None]
    assert lines[2]["return/post"] == logged(tmp_path / "run")[2]["return/post"]
    assert lines[3]["message"].startswith("Trained 3 iterations")


def test_log_lines_are_few_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    start(tmp_path / "run", CONFIG, iterations=30, console=console)
    lines = output_of(console).splitlines()
    assert [line.split("  ")[:2] for line in lines[:2]] == [
        ["follower tiny", "1/30"],
        ["follower tiny", "30/30"],
    ]
    last = logged(tmp_path / "run")[-1]
    assert f"return {last['return/pre']:.2f} -> {last['return/post']:.2f}" in lines[1]
    assert len(lines) == 3


def test_the_live_line_shows_iterations_and_returns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    start(tmp_path / "run", CONFIG, iterations=5, console=console)
    output = output_of(console)
    last = logged(tmp_path / "run")[-1]
    assert "5/5" in output
    assert f"return {last['return/pre']:.2f} -> {last['return/post']:.2f}" in output


def test_rows_of_several_iterations_have_their_means(whole: Path, tmp_path: Path) -> None:
    start(tmp_path / "run", replace(CONFIG, seconds=PAUSE), iterations=8, stride=3, console=quiet())
    rows, single = logged(tmp_path / "run"), logged(whole)
    # Every third iteration, and every fourth with its checkpoint.
    assert [row["step"] for row in rows] == [3, 4, 6, 8]
    assert [row["env/steps"] for row in rows] == [36.0, 48.0, 72.0, 96.0]
    for row, part in zip(rows, (single[0:3], single[3:4], single[4:6], single[6:8]), strict=True):
        assert row["return/post"] == pytest.approx(sum(one["return/post"] for one in part) / len(part))


def test_best_is_the_lowest_where_lower_is_better(tmp_path: Path) -> None:
    agent = Follower(CONFIG)
    losses = [3.0, 1.0, 2.0]
    run = replace(RUN, checkpoint_every=1)
    result = train(
        tmp_path,
        run,
        agent,
        lambda number: {"validation/loss": losses[number]},
        Streams(0),
        3,
        totals=(),
        score="validation/loss",
        console=quiet(),
    )
    assert result.totals == {}
    assert saved(tmp_path, "best")["iteration"] == 2
    assert read_header(tmp_path / "checkpoints" / "best.pt")["score"] == -1.0


def test_slow_iterations_are_shown_before_their_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.run.driver.SLOW", 0.0)
    console = quiet()
    start(tmp_path / "run", CONFIG, iterations=4, stride=4, json=True, console=console)
    lines = [json.loads(line) for line in output_of(console).splitlines()]
    assert [line.get("iteration") for line in lines] == [1, 2, 3, 4, None]
    assert len(logged(tmp_path / "run")) == 1


def test_settings_tell_groups_of_one_name_apart() -> None:
    things = [
        ("a", {"rate": 1, "steps": 2}, "first"),
        ("b", {"rate": 1}, "second"),
        ("a", {"rate": 2, "steps": 2}, "third"),
        ("a", {"rate": 1, "steps": 2}, "fourth"),
    ]
    assert by_settings(things) == [("a rate=1", ["first", "fourth"]), ("b", ["second"]), ("a rate=2", ["third"])]


def test_a_checkpoint_of_other_code_is_refused_in_one_line(tmp_path: Path) -> None:
    start(tmp_path / "run", CONFIG, iterations=1)

    class Larger(Follower):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise ValueError("the stored network has 4 numbers, this one 5")

    with pytest.raises(UserError, match=r"last\.pt does not fit: the stored network has 4 numbers, this one 5\. Use"):
        RunFolder(tmp_path / "run").restore(RUN, "last", Larger(CONFIG))
