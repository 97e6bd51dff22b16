"""Resuming real training by the command: whatever happened in between, the end is the same bit for bit."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from metarl.cli.main import main
from metarl.run.checkpoint import load
from metarl.run.tracking import read_progress
from tests.helpers.processes import Started
from tests.helpers.run_folders import assert_same_run

ITERATIONS = 16

SMALL = ["--hidden", "16", "--checkpoint-every", "2", "--threads", "1"]
POINT = ["maml-trpo", "--family", "point-nav", "--tasks", "4", "--episodes", "5", "--learn-rates", *SMALL]
RL2 = ["rl2", "--tasks", "4", "--episodes", "4", "--width", "8", "--minibatches", "2", *SMALL[2:]]
GRU = [*RL2, "--family", "tabular-mdp"]
TRANSFORMER = [
    *RL2,
    "--family",
    "bandit+switch=1..3",
    "--core",
    "transformer",
    "--advantages",
    "task",
    "--entropy",
    "0.01",
]
VARIBAD = [
    *["varibad", "--family", "tabular-mdp", *RL2[1:], "--hidden", "8"],
    *["--belief-updates", "3", "--belief-trials", "5", "--buffer", "10"],
]
RMA = [
    *["rma", "--family", "point-nav", "--rewards", "--tasks", "4", "--episodes", "3", *SMALL],
    *["--minibatches", "2", "--student-minibatches", "2", "--student-part", "0.75"],
]
CHEETAH = ["maml-trpo", "--family", "half-cheetah-vel", "--tasks", "2", "--episodes", "2", *SMALL]


def launch(*arguments: str) -> Started:
    return Started("metarl", "train", *arguments)


def finish(process: Started) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def run_here(*arguments: str) -> None:
    assert main(["train", *arguments, "--json"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [POINT, *(pytest.param(of, marks=pytest.mark.slow) for of in (GRU, VARIBAD, RMA))],
    ids=["maml-trpo", "rl2", "varibad", "rma"],
)
def test_runs_killed_at_any_moment_end_the_same(arguments: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_here(*arguments, "--iterations", str(ITERATIONS), "--out", str(whole))
    seconds = min(row["time/iteration"] for row in read_progress(whole))

    moments = random.Random()
    for attempt in range(2):
        if attempt == 0:
            process = launch(*arguments, "--iterations", str(ITERATIONS), "--out", str(killed))
        else:
            process = launch("--resume", str(killed))
        target = len(read_progress(killed)) + moments.randint(1, 4)
        deadline = time.monotonic() + 120.0
        while len(read_progress(killed)) < target:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 2.0 * seconds))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert len(read_progress(killed)) < ITERATIONS

    finish(launch("--resume", str(killed)))
    assert_same_run(killed, whole)


def test_a_fresh_process_goes_on_where_another_ended(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_here(*CHEETAH, "--iterations", "6", "--out", str(whole))
    run_here(*CHEETAH, "--iterations", "4", "--out", str(parts))
    finish(launch("--resume", str(parts), "--iterations", "6"))
    assert_same_run(parts, whole)
    first, last = (
        load(whole / "checkpoints" / f"{name}.pt", {})["agent"]["meta"]["w0"] for name in ("previous", "last")
    )
    assert not torch.equal(first, last)


def test_what_changes_over_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, parts, other = (tmp_path / name for name in ("whole", "parts", "other"))
    run_here(*TRANSFORMER, "--iterations", "6", "--out", str(whole))
    # As a process leaves it that dies while it writes its last checkpoint: four of six iterations are safe.
    shutil.copytree(whole, parts)
    (parts / "checkpoints" / "last.pt").write_bytes(b"")
    finish(launch("--resume", str(parts), "--checkpoint", "previous"))
    assert_same_run(parts, whole)
    rows = read_progress(whole)
    assert [row["update/learning_rate"] for row in rows] == pytest.approx([1e-3 - n * 1.5e-4 for n in range(6)])
    assert [row["update/entropy_weight"] for row in rows] == pytest.approx([0.01 * (6 - n) / 6 for n in range(6)])

    run_here(*TRANSFORMER, "--iterations", "6", "--seed", "1", "--out", str(other))
    ours, theirs = (load(run / "checkpoints" / "last.pt", {})["agent"]["network"] for run in (whole, other))
    assert not any(torch.equal(value, theirs[name]) for name, value in ours.items())
