from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.errors import UserError
from metarl.ranks import Ranks
from metarl.run.checkpoint import read_header
from metarl.run.driver import _most, train
from metarl.run.folder import RunFolder
from metarl.run.tracking import read_progress
from metarl.seeding import Streams
from tests.helpers.run_folders import CONFIG, assert_same_run, launch, logged, output_of, quiet, saved, wait_for_row
from tests.helpers.same import assert_same
from tests.helpers.tiny_run import ITERATIONS, PAUSE, RUN, Follower, start


def test_best_is_the_interval_with_the_highest_mean_return(whole: Path) -> None:
    returns = [row["return/post"] for row in logged(whole)]
    intervals = [returns[i : i + 4] for i in range(0, ITERATIONS, 4)]
    means = [sum(part) / len(part) for part in intervals]
    winner = means.index(max(means))
    assert saved(whole, "best")["iteration"] == min(4 * (winner + 1), ITERATIONS)
    assert read_header(whole / "checkpoints" / "best.pt")["score"] == max(means)
    assert saved(whole, "last")["iteration"] == ITERATIONS
    assert saved(whole, "previous")["iteration"] == 48


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


def test_the_room_in_the_buffers_of_an_engine_is_kept(tmp_path: Path) -> None:
    rooms = iter([{"contacts": 8}, {"contacts": 16}])
    start(tmp_path, CONFIG, iterations=8, console=quiet(), room=lambda: next(rooms))
    assert saved(tmp_path, "previous")["room"] == RunFolder(tmp_path).standing("previous").room == {"contacts": 8}
    assert RunFolder(tmp_path).standing("last").room == {"contacts": 16}
    # An engine without buffers leaves it as it is.
    start(tmp_path, CONFIG, iterations=12, resume=True, console=quiet())
    assert RunFolder(tmp_path).restore(RUN, "last", Follower(CONFIG)).room == {"contacts": 16}
    assert RunFolder(tmp_path / "none").standing("last").room == {}


def test_the_room_is_that_of_the_rank_with_the_most() -> None:
    class Two(Ranks):
        def largest(self, number: int) -> int:
            return max(number, 10)

    assert _most({"contacts": 8, "constraints": 40}, Two(size=2)) == {"contacts": 10, "constraints": 40}


@pytest.mark.parametrize("name", ["last.pt", "previous.pt", "best.pt"])
def test_a_folder_where_a_checkpoint_is_to_be_is_found_at_the_start(name: str, tmp_path: Path) -> None:
    start(tmp_path, CONFIG, iterations=4, console=quiet())
    kept = tmp_path / "checkpoints" / name
    kept.unlink(missing_ok=True)
    kept.mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"{name} is a folder, and a"):
        start(tmp_path, CONFIG, iterations=8, resume=True, console=quiet())
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_what_is_said_of_checkpoints_is_so(tmp_path: Path) -> None:
    def fails_at(last: int) -> Callable[[int], dict[str, float]]:
        def step(number: int) -> dict[str, float]:
            if number == last:
                raise OSError("no more")
            return {"return/post": 0.0}

        return step

    for last, says in (
        (0, "It has no checkpoint yet. Begin it again with"),
        (5, "Its checkpoints are kept. Go on from"),
    ):
        folder = tmp_path / str(last)
        with pytest.raises(UserError, match=rf"Iteration {last + 1} of .* failed, .*no more.* {says}.*--resume"):
            train(folder, RUN, Follower(CONFIG), fails_at(last), Streams(0), 10, totals=(), console=quiet())
        # The advice works.
        train(folder, RUN, Follower(CONFIG), fails_at(99), Streams(0), 10, totals=(), resume=True, console=quiet())
