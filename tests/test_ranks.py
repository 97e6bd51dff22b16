"""Training by several processes: the same as by one, and what happens when a process ends."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.cli.main import main
from metarl.errors import UserError
from metarl.ranks import ALONE, Ranks, join
from metarl.run.checkpoint import load
from metarl.run.tracking import read_progress
from tests.helpers.processes import Started
from tests.helpers.ranked import CASES, ITERATIONS, VALIDATED, run_case

TOLERANCE: dict[str, float] = {"maml-trpo": 1e-8, "multitask": 1e-6, "oracle": 1e-8}
"""Of parameters and everything else that is learned, for those cases that need more than the usual 1e-10: conjugate
gradients make rounding errors of 1e-16 larger."""
PATIENCE = 120.0
"""How long processes may take, s."""
POINT = ["maml-trpo", "--family", "point-nav", "--tasks", "4", "--episodes", "2", "--hidden", "8", "--threads", "1"]


def environment(rank: int, port: int) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def launch(program: str, *arguments: str) -> list[Started]:
    """Start two ranks of `python -m PROGRAM ARGUMENTS`, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [Started(program, *arguments, environment=environment(rank, port)) for rank in range(2)]


def finish(processes: list[Started]) -> list[tuple[int | None, str]]:
    """Return exit codes and error texts."""
    try:
        texts = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, texts, strict=True)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train all cases by two ranks."""
    folder = tmp_path_factory.mktemp("pair")
    ended = finish(launch("tests.helpers.ranked", str(folder)))
    assert [code for code, _ in ended] == [0, 0], ended
    return folder


@pytest.fixture(scope="module")
def answers(pair: Path) -> list[dict[str, Any]]:
    return [json.loads((pair / f"rank{rank}.json").read_text()) for rank in range(2)]


def leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from leaves(value, f"{name}.{number}")
    else:
        yield name, state


def assert_same_run(first: Path, second: Path) -> None:
    near = TOLERANCE.get(second.name, 1e-10)
    ours, theirs = (load(folder / "checkpoints" / "last.pt", {}) for folder in (first, second))
    assert ours["iteration"] == theirs["iteration"] == ITERATIONS
    assert ours["totals"] == theirs["totals"]
    assert ours["waited"] == theirs["waited"]
    assert ours["reference"] == pytest.approx(theirs["reference"], rel=1e-6)
    # The ranks draw the same numbers, and as many.
    for (name, a), (_, b) in zip(leaves(ours["streams"]), leaves(theirs["streams"]), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, name
    for (name, a), (other, b) in zip(leaves(ours["agent"]), leaves(theirs["agent"]), strict=True):
        assert name == other
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=near, atol=near, msg=lambda text, n=name: f"{n}: {text}")
        else:
            assert a == b, name
    for ours, theirs in zip(read_progress(first), read_progress(second), strict=True):
        assert set(ours) == set(theirs)
        for tag in ours:
            if not tag.startswith(("time/", "speed/")):
                # Some figures are computed in float32.
                assert theirs[tag] == pytest.approx(ours[tag], rel=1e-6, abs=1e-6), tag


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_as_one_process_does(case: str, pair: Path, tmp_path: Path) -> None:
    run_case(case, tmp_path, ALONE)
    assert_same_run(tmp_path / case, pair / case)
    validated = {tag for row in read_progress(pair / case) for tag in row if tag == "validation/return"}
    assert bool(validated) == (case in VALIDATED)
    first, last = (load(tmp_path / case / "checkpoints" / f"{name}.pt", {})["agent"] for name in ("previous", "last"))
    assert any(
        not torch.equal(a, b)
        for (_, a), (_, b) in zip(leaves(first), leaves(last), strict=True)
        if isinstance(a, Tensor)
    )


@pytest.mark.parametrize("case", ["maml-trpo", "rl2-gru", "varibad", "maml"])
def test_one_process_goes_on_where_two_ended(case: str, pair: Path, tmp_path: Path) -> None:
    run_case(case, tmp_path, ALONE, iterations=ITERATIONS - 1)
    folder = pair / case
    copy = tmp_path / "went on" / case
    shutil.copytree(folder, copy)
    # The checkpoint before the last one is that of two ranks after all iterations but one.
    (copy / "checkpoints" / "previous.pt").replace(copy / "checkpoints" / "last.pt")
    run_case(case, copy.parent, ALONE, resume=True)
    assert_same_run(copy, folder)


def test_sums_and_means_are_over_the_ranks(answers: list[dict[str, Any]]) -> None:
    # The first has 3 rows, the second 5.
    assert [found["place"] for found in answers] == [[0, 8], [3, 8]]
    for found in answers:
        assert found["sum"] == {"a": [3.0, [[3.0], [3.0]]], "b": [4]}
        assert found["mean"] == [[0.5, 1.0], 1.5]
        assert found["gathered"] == [[1, 1], [2, 2]]
        assert found["largest"] == 5
        assert found["once"] == "of rank 0"


def test_replicas_that_differ_are_named(answers: list[dict[str, Any]]) -> None:
    for found in answers:
        assert found["equal"] == ""
        assert found["unequal"].startswith("'layers.0.weight' is not the same on the ranks 0 and 1")


def test_what_the_first_rank_is_refused_all_are(answers: list[dict[str, Any]]) -> None:
    for found in answers:
        assert found["refused"] == "rank 0 refuses " + found["refused"].split()[-1]
        assert "exists already" in found["taken"]


def test_a_rank_draws_for_all_and_takes_its_own() -> None:
    second = Ranks(rank=1, size=3)
    assert second.share(12) == 4
    assert second.own(torch.arange(6)).tolist() == [2, 3]
    assert second.whole(torch.Size([2, 5])) == (6, 5)
    with pytest.raises(UserError, match=r"Got 3 processes for 4 tasks.*Start 1, 2, 4 processes"):
        second.share(4)


NCCL = (
    "NCCL error in: ProcessGroupNCCL.cpp:94, invalid usage\nncclInvalidUsage: this usually reflects invalid usage.\n"
    "Last error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 50000"
)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.distributed.DistBackendError(NCCL), r"invalid usage: Duplicate GPU detected : rank 1"),
        (
            RuntimeError("Connection closed by peer\nException raised from"),
            r"cannot be reached \(Connection closed by peer\)",
        ),
    ],
)
def test_what_kept_a_message_from_others_is_told(
    error: RuntimeError, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.distributed, "all_reduce", fails)
    with pytest.raises(UserError, match=says):
        Ranks(rank=0, size=2).sum(1.0)


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate", "CUDA error: an illegal memory access"])
def test_what_ones_own_gpu_did_wrong_is_not_said_of_others(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch.distributed, "all_reduce", fails)
    with pytest.raises(RuntimeError, match=text):
        Ranks(rank=0, size=2).sum(1.0)


def test_alone_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    values = {"a": torch.ones(2)}
    with join(torch.device("cpu")) as ranks:
        assert ranks == ALONE
        assert ranks.sum(values) is values
        assert ranks.mean(values) is values
        assert ranks.once(lambda: 3) == 3
        assert ranks.place(7) == (0, 7)
    assert not torch.distributed.is_initialized()


def test_an_environment_that_is_not_torchruns_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert main(["train", *POINT, "--out", str(tmp_path / "run")]) == 2
    assert "Start several processes with torchrun, or unset WORLD_SIZE" in capsys.readouterr().err
    assert main(["list"]) == 2
    assert "Only train and fewshot train share work out" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert main(["train", *POINT, "--out", str(tmp_path / "run")]) == 2
    assert "Got WORLD_SIZE=two" in capsys.readouterr().err


def wait_for(rows: int, folder: Path, processes: list[Started]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(read_progress(folder)) < rows:
        assert all(process.poll() is None for process in processes), finish(processes)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_signals_and_deaths_of_one_rank_end_all_and_other_numbers_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = [*POINT, "--iterations", "100000", "--checkpoint-every", "2", "--out", str(run)]
    processes = launch("metarl", "train", *words)
    wait_for(3, run, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert [code for code, _ in finish(processes)] == [130, 130]
    stopped = load(run / "checkpoints" / "last.pt", {})["iteration"]
    assert stopped == len(read_progress(run))

    processes = launch("metarl", "train", "--resume", str(run))
    wait_for(stopped + 3, run, processes)
    processes[1].kill()
    (code, text), (killed, _) = finish(processes)
    assert (code, killed) == (2, -signal.SIGKILL)
    assert "metarl (rank 0 of 2): error: Iteration" in text
    assert "another process of this training has ended" in text
    assert f"Its checkpoints are kept. Go on from its last checkpoint with: metarl train --resume {run}" in text

    at = load(run / "checkpoints" / "last.pt", {})["iteration"]
    assert at >= stopped + 2
    assert main(["train", "--resume", str(run), "--iterations", str(at + 1), "--json"]) == 0
    assert load(run / "checkpoints" / "last.pt", {})["iteration"] == at + 1
    capsys.readouterr()


def test_few_shot_runs_are_validated_and_tested_by_the_first_rank(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--data", "sinusoid", "--tasks", "4", "--shot", "5", "--inner-rate", "0.01", "--iterations", "4"]
    options = [
        "--out",
        str(run),
        "--validation",
        "8",
        "--test-episodes",
        "8",
        "--threads",
        "1",
        "--checkpoint-every",
        "2",
    ]
    ended = finish(launch("metarl", "fewshot", "train", "maml", *words, *options))
    assert [code for code, _ in ended] == [0, 0], ended
    rows = read_progress(run)
    assert all("validation/loss" in row for row in rows)
    assert (run / "evaluation" / "test" / "fewshot.json").is_file()
