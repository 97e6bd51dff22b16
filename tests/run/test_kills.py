"""Trainings and evaluations that are killed at any moment, again and again: the end is as if nothing had happened.

Every chain is a run that is killed and resumed until it has ended, and then evaluated, with the evaluation killed and
started again. Parameters, progress.csv and the table of the evaluation must be those of a run that nobody killed, bit
for bit, and no other file may be there.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.files import PARTIAL
from tests.helpers.processes import Started
from tests.helpers.run_folders import assert_same_run
from tests.helpers.traced import Note

LOG = os.environ.get("METARL_KILLS_LOG")
"""A file that every kill is added to, and every end that was compared."""
KILLS = int(os.environ.get("METARL_KILLS", "20"))
"""In all; each of what is trained gets as many."""
SMALL = ["--iterations", "12", "--checkpoint-every", "2", "--threads", "1"]
TRAINED = {
    "maml-trpo": "maml-trpo --family half-cheetah-vel --horizon 40 --tasks 2 --episodes 2 --hidden 16",
    "rl2": "rl2 --family tabular-mdp --tasks 4 --episodes 4 --width 8 --minibatches 2",
    "varibad": "varibad --family tabular-mdp --tasks 4 --episodes 4 --width 8 --hidden 8 --minibatches 2 "
    "--belief-updates 3 --belief-trials 5 --buffer 10",
    "multitask": "multitask --family point-nav --tasks 4 --episodes 5 --hidden 16",
    "rma": "rma --family point-nav --rewards --student-part 0.5 --tasks 4 --episodes 3 --hidden 16 --minibatches 2 "
    "--student-minibatches 2",
    "maml": "maml --data sinusoid --shot 5 --inner-rate 0.001 --tasks 4 --hidden 16 --log-every 1 --validation 20 "
    "--test-episodes 0",
}
"""Options of `train`, by what is trained; the last one is a few-shot learner."""
MOMENTS = [(stage, phase) for stage in ("training", "evaluation") for phase in ("collecting", "updating", "writing")]


class Chain:
    """One run in a folder, that is killed and goes on until it has been trained and evaluated."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.room = ["fewshot"] if name == "maml" else []
        self.options = [*TRAINED[name].split(), *SMALL]
        self.table = folder / "evaluation" / "test" / ("fewshot.csv" if self.room else "adaptation.csv")
        self.trained = False

    @property
    def stage(self) -> str:
        return "evaluation" if self.trained else "training"

    def command(self) -> list[str]:
        """Return what brings it further."""
        if self.trained:
            few = ["--episodes", "20"] if self.room else ["--tasks", "3", "--episodes", "2", "--no-film"]
            return [*self.room, "evaluate", str(self.folder), *few, "--threads", "1"]
        if (self.folder / "config.yaml").exists():
            return [*self.room, "train", "--resume", str(self.folder)]
        return [*self.room, "train", *self.options, "--out", str(self.folder)]

    def files(self) -> set[str]:
        """Return the names of its files, of which every start writes one more for TensorBoard."""
        names = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
        return {re.sub(r"tfevents\.[\w.-]+?(\.metarl)?$", "tfevents", name) for name in names}


OFTEN = {"training": (6, (-5.0, -1.5)), "evaluation": (1, (-4.0, -0.3))}
"""How often a phase begins at least, and decades of the time, s, that it may take."""


def kill_in(process: Started, note: Note, stage: str, phase: str, moments: random.Random) -> str | None:
    """Kill a process some time after a phase has begun, and return what it did then; None if it ended before."""
    often, decades = OFTEN[stage]
    wanted = note.count(phase) + moments.randint(1, often)
    while note.count(phase) < wanted or note.phase != phase:
        if process.poll() is not None:
            return None
        time.sleep(0.0002)
    until = time.perf_counter() + 10.0 ** moments.uniform(*decades)
    while time.perf_counter() < until:
        pass
    process.kill()
    return note.phase if process.wait(60.0) == -signal.SIGKILL else None


def told(line: str) -> None:
    if LOG:
        with Path(LOG).open("a") as file:
            file.write(f"{line}\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.timeout(60 + 60 * KILLS)
def test_whatever_is_killed_ends_the_same(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Chain(name, tmp_path / "whole")
    assert main(whole.command()) == 0
    whole.trained = True
    assert main(whole.command()) == 0

    moments = random.Random()
    shares = [3, 3, 3, 2, 1, 3]
    wanted = Counter(
        {
            moment: -(-KILLS * share // (len(TRAINED) * sum(shares)))
            for moment, share in zip(MOMENTS, shares, strict=True)
        }
    )
    # An agent with a memory learns from nothing at evaluation.
    wanted[("evaluation", "updating")] *= name not in ("rl2", "varibad", "rma")
    killed: Counter[tuple[str, str]] = Counter()
    chain = Chain(name, tmp_path / "killed")
    while (left := wanted - killed) or chain.trained or chain.folder.exists():
        here = [phase for stage, phase in left.elements() if stage == chain.stage]
        note = Note(tmp_path / "note")
        process = Started("tests.helpers.traced", str(tmp_path / "note"), *chain.command())
        phase = kill_in(process, note, chain.stage, moments.choice(here), moments) if here else None
        if phase is not None:
            killed[chain.stage, phase] += 1
            told(f"{name}: killed in {chain.stage}, {phase}")
            process.communicate()
            continue
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        if not chain.trained:
            chain.trained = True
            continue
        for left_over in chain.table.parent.rglob(f"*{PARTIAL}"):
            # What is being written by another process is let be for an hour.
            os.utime(left_over, (0.0, 0.0))
        assert main(chain.command()) == 0
        assert_same_run(chain.folder, whole.folder)
        assert chain.table.read_bytes() == whole.table.read_bytes()
        assert chain.files() == whole.files()
        told(f"{name}: equal after {sum(killed.values())} kills")
        shutil.rmtree(chain.folder)
        chain = Chain(name, chain.folder)
    with capsys.disabled():
        counts = ", ".join(f"{stage} {phase} {count}" for (stage, phase), count in sorted(killed.items()))
        print(f"\n{name}: {sum(killed.values())} kills, all equal: {counts}")
