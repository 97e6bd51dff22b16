"""Meta-World's interpreter, and the tasks that it is asked for once: kept as plain data with their seed and version.

What it answers is JSON, which is read with care here: nothing of Meta-World's pickles comes into this process.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metarl.envs.metaworld.benchmarks import CLASSES, GOALS, GOALS_A_START, Benchmark, recombined
from metarl.errors import UserError, tell
from metarl.files import cache_folder, read_regular, write_atomically
from metarl.plain import parse_json
from metarl.types import Record

VERSION = "3.1.1"
"""Of Meta-World, as in worker.py."""
PYTHON = "METARL_METAWORLD"
"""Environment variable that names another interpreter with Meta-World."""
COMMAND = "scripts/metaworld"
"""Makes the interpreter."""
WORKER = Path(__file__).resolve().with_name("worker.py")
"""What the interpreter runs."""
BESIDE = Path(__file__).resolve().parents[2] / ".venv-metaworld" / "bin" / "python"
"""The interpreter that `COMMAND` makes."""
LONGEST = 6
"""Numbers of a vector, as in worker.py."""
PATIENCE = 3600.0
"""How long Meta-World may take to make the tasks of a benchmark, s."""
MOST_BYTES = 4_000_000
"""Of an answer."""
AGAIN = "remove it, and Meta-World is asked again"
"""What helps where kept tasks are no good."""


def interpreter() -> str:
    """Return the path of the Python that runs Meta-World, whether it is there or not."""
    return os.environ.get(PYTHON) or str(BESIDE)


def how_to_get_it() -> str:
    """Return in a line what brings Meta-World; nothing where it is there."""
    python = interpreter()
    if Path(python).expanduser().is_file():
        return ""
    if os.environ.get(PYTHON):
        return f"{PYTHON} names {python}, which is not there: correct it, or unset it and run {COMMAND}"
    return f"Meta-World runs in an interpreter of its own, which is not there: run {COMMAND}"


@dataclass(frozen=True)
class Asked:
    """Gives the tasks of a benchmark, under `train` and `test`; Meta-World is asked for them once.

    Attributes:
        name: `ml1:CLASS`, `ml10`, `ml25` or `ml45`.
        benchmark: its classes.
        seed: that Meta-World makes them with.
        mixed: whether starts and goals of the train tasks are recombined.
        more: further seeds, whose train tasks are trained on too.
    """

    name: str
    benchmark: Benchmark
    seed: int
    mixed: bool = False
    more: tuple[int, ...] = ()

    def __call__(self) -> dict[str, list[Record]]:
        """Return the tasks of both splits, class by class; those to train on seed by seed.

        Raises:
            UserError: the interpreter is not there, or what is kept or answered is not of this benchmark and seed.
        """
        records = self._kept()
        for seed in self.more:
            records["train"] += replace(self, seed=seed)._kept()["train"]
        return records

    def _kept(self) -> dict[str, list[Record]]:
        """Return the tasks of the seed, which are asked for where they are not kept."""
        file = cache_folder() / "metaworld" / f"{self.name.replace(':', '-')}-seed{self.seed}-{VERSION}.json"
        try:
            kept = read_regular(file, MOST_BYTES)
        except FileNotFoundError:
            answer = self._ask()
            records = self._read(answer, interpreter(), f"run {COMMAND} again")
            write_atomically(file, answer)
            return records
        except UserError as error:
            raise UserError(f"{file}, where metarl keeps tasks, cannot be read: {AGAIN}") from error
        return self._read(kept, str(file), AGAIN)

    def _ask(self) -> bytes:
        """Have Meta-World make the tasks."""
        lacking = how_to_get_it()
        if lacking:
            raise UserError(f"{self.name}: {lacking}")
        count = len(self.benchmark.train) + len(self.benchmark.test)
        tell(f"asking Meta-World for the tasks of {self.name} with the seed {self.seed}, once: about {count * 3} s")
        left_out = ("PYTHONPATH", "PYTHONHOME")
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        command = [str(Path(interpreter()).expanduser()), str(WORKER), self.name, str(self.seed)]
        try:
            done = subprocess.run(
                command, capture_output=True, cwd=WORKER.parent, env=environment, timeout=PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{self.name}: {interpreter()} could not be asked for its tasks, {error}") from error
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{self.name}: Meta-World could not tell its tasks, {' '.join(words) or 'without a word'}")
        return done.stdout

    def _read(self, answer: bytes, where: str, cure: str) -> dict[str, list[Record]]:
        """Return what was answered as records, or refuse what is not of this benchmark, seed and version."""
        try:
            found = parse_json(answer, where)
        except UserError as error:
            raise UserError(f"{where} has no tasks that can be read: {cure}") from error
        for key, wanted in (("metaworld", VERSION), ("benchmark", self.name), ("seed", self.seed)):
            if found.get(key) != wanted:
                raise UserError(
                    f"{where} has tasks of {key} {found.get(key)!r}, where those of {wanted!r} are needed: {cure}"
                )
        sets = {"train": self.benchmark.train, "test": self.benchmark.test}
        records: dict[str, list[Record]] = {}
        for split, names in sets.items():
            vectors = found.get(split)
            if not isinstance(vectors, dict) or list(vectors) != list(names):
                raise UserError(f"{where} lacks {split} tasks of {', '.join(names)}: {cure}")
            if not all(_right(its) for its in vectors.values()):
                raise UserError(f"{where} has no {GOALS} vectors of a class among its {split} tasks: {cure}")
            if self.mixed and split == "train":
                vectors = {name: recombined(vectors[name]) for name in names}
                if any(len(its) != GOALS * GOALS_A_START for its in vectors.values()):
                    raise UserError(
                        f"{where} has a start with fewer than {GOALS_A_START} goals that are far enough from it: take "
                        f"the tasks of another seed, or without -recombined"
                    )
            records[split] = [record(name, vector) for name in names for vector in vectors[name]]
        return records


def record(name: str, vector: Sequence[float]) -> Record:
    """Return the task of a class with a vector, filled up with zeros."""
    return {"class": float(CLASSES.index(name)), "vector": [*map(float, vector), *[0.0] * (LONGEST - len(vector))]}


def _right(vectors: Any) -> bool:
    """Tell whether something is the vectors of a class."""
    return (
        isinstance(vectors, list)
        and len(vectors) == GOALS
        and all(
            isinstance(vector, list)
            and 0 < len(vector) <= LONGEST
            and all(isinstance(number, float | int) and math.isfinite(number) for number in vector)
            for vector in vectors
        )
    )
