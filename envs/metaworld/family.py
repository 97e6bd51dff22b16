"""The families ml1, ml10, ml25 and ml45 of Meta-World (Yu et al. 2019; Meta-World+, McLean et al. 2025; version 3.1.1).

A robot arm with a gripper and one class of objects, or many. A task is a class and its vector: the random numbers that
the class makes its goal and its objects' start of. Train and test tasks are those that Meta-World's own benchmark
object has with the family's seed. An agent is not told the goal: the last three numbers that it observes are zero.

| observed | meaning | unit |
|---|---|---|
| 0-2 | position of the hand | m |
| 3 | opening of the gripper, 0..1 | 1 |
| 4-10, 11-17 | position and quaternion of the first and of the second object; zero where there is none | m, 1 |
| 18-35 | the same, one step before | |
| 36-38 | where the goal would be: 0 | |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from metarl.envs.external.adapter import GymnasiumFamily, Spaces
from metarl.envs.external.pool import Job
from metarl.envs.family import Observable
from metarl.envs.metaworld.asking import LONGEST, VERSION, WORKER, Asked, how_to_get_it, interpreter
from metarl.envs.metaworld.benchmarks import BENCHMARKS, CLASSES, GOALS, GOALS_A_START, RECOMBINED, Benchmark
from metarl.errors import UserError, nearest
from metarl.space.fixed import ListedTasks
from metarl.space.parameter import Parameter

NAMES = ("ml1", *BENCHMARKS)
"""The families."""
MIXED = "-recombined"
"""Behind a variant of ml1: starts and goals of the train tasks are recombined."""
MANY = "-many"
"""Behind a variant: the train tasks of `SEEDS` seeds are trained on."""
SEEDS = 20
FIRST = "reach"
"""Class of ml1 where none is named."""
EPISODE = 500
"""Steps, after which Meta-World takes no other."""
SOURCE = f"Meta-World {VERSION} (Yu et al. 2019; McLean et al. 2025, arXiv 2505.11289)"

_OBJECT = ("x m", "y m", "z m", *(f"{axis} 1" for axis in ("qx", "qy", "qz", "qw")))
_NOW = ("hand x m", "hand y m", "hand z m", "gripper 1", *(f"object {i} {part}" for i in (1, 2) for part in _OBJECT))
OBSERVED = tuple(
    Observable(f"{name}{when}", "-", unit)
    for when in ("", ", a step before")
    for name, _, unit in (row.rpartition(" ") for row in _NOW)
) + tuple(Observable(f"goal {axis}, hidden: 0", "-", "m") for axis in "xyz")
"""The observation table."""


@dataclass(frozen=True, kw_only=True)
class MetaWorldFamily(GymnasiumFamily):
    """A benchmark of Meta-World.

    Raises:
        UserError: a horizon that Meta-World does not have.
    """

    classes: tuple[str, ...]
    """Names of its classes, in the order of their numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon > EPISODE:
            raise UserError(
                f"{self.full_name}: got a horizon of {self.horizon}: Meta-World has {EPISODE} steps at most"
            )

    @property
    def job(self) -> Job:
        """What worker processes are to run, where the interpreter is there."""
        lacking = how_to_get_it()
        if lacking:
            raise UserError(f"{self.full_name}: {lacking}")
        return replace(super().job, python=interpreter())

    @property
    def _spaces(self) -> Spaces:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What every class has: no environment has to be made to know it."""
        return [row.meaning for row in OBSERVED], {"low": [-1.0] * 4, "high": [1.0] * 4}, []

    @property
    def observables(self) -> tuple[Observable, ...]:
        """The observation table."""
        return OBSERVED


def variants(name: str) -> tuple[str, ...]:
    """Return the variants of a family, the default first; `endings` says what may follow."""
    return (FIRST, *(one for one in CLASSES if one != FIRST)) if name == "ml1" else ("v2", "v1")


def endings(name: str) -> str:
    """Return what may stand behind a variant, in words."""
    of_one = (
        f"-v1 for the rewards of version 1, then {MIXED} (of {', '.join(RECOMBINED)}) to train on starts and goals "
        "that are recombined, or "
    )
    example = f"{name}@{variants(name)[0]}{MANY}-seed7"
    return (
        f"Behind a variant may stand {of_one * (name == 'ml1')}{MANY} to train on the tasks of {SEEDS} seeds, and then "
        f"-seedN for the tasks of another seed than 0: {example}"
    )


@cache
def make(name: str, variant: str) -> MetaWorldFamily:
    """Return a family by its name and variant.

    Args:
        name: one of `NAMES`.
        variant: one of `variants`, with what `endings` says behind it; "" for the default.

    Raises:
        UserError: there is no such variant.
    """
    variant = variant or variants(name)[0]
    plain, seed = _seed(name, variant)
    mixed, many = plain.endswith(MIXED), plain.endswith(MANY)
    plain = plain.removesuffix(MIXED if mixed else MANY)
    kind = plain.removesuffix("-v1") if name == "ml1" else plain
    if kind not in variants(name) or (mixed and kind not in RECOMBINED):
        # Where there is such a class, it is what stands behind it that is wrong.
        base = re.sub(rf"(-v1|{MIXED}|{MANY})+$", "", plain)
        others = "" if base in variants(name) else nearest(base, variants(name))
        raise UserError(f"{name} has no variant '{variant}'.{others} {endings(name)}.")
    if name == "ml1":
        asked, benchmark = f"ml1:{kind}", Benchmark(train=(kind,), test=(kind,))
        summary = f"Meta-World: {kind.replace('-', ' ')}, at unseen goals and starts"
    else:
        asked, benchmark = name, BENCHMARKS[name]
        summary = f"Meta-World: {len(benchmark.train)} kinds of tasks, tested on {len(benchmark.test)} others"
    # With one seed Meta-World tests on what it trains on with the next.
    more = tuple(range(seed + 2, seed + 1 + SEEDS)) if many else ()
    numbers = tuple(float(CLASSES.index(one)) for one in benchmark.classes)
    which = Parameter(
        name="class",
        unit="",
        description="kind of task, by Meta-World's number",
        scale="choice",
        choices=numbers,
        choice_names=benchmark.classes,
    )
    vector = Parameter(
        name="vector",
        unit="m",
        description="what makes goal and objects' start",
        scale="uniform",
        low=-1.0,
        high=1.0,
        size=LONGEST,
    )
    return MetaWorldFamily(
        name=name,
        variant=variant,
        summary=summary,
        source=SOURCE,
        make=f"{WORKER}:MetaWorld",
        folder=str(WORKER.parent),
        python=interpreter(),
        kwargs={"rewards": "v1" if plain.endswith("v1") else "v2"},
        parameters=(which, vector),
        fixed=ListedTasks(
            records=Asked(asked, benchmark, seed, mixed, more),
            train=GOALS * len(benchmark.train) * (GOALS_A_START if mixed else 1 + len(more)),
            test=GOALS * len(benchmark.test),
            source=f"of Meta-World {VERSION} with the seed {seed}"
            + mixed * ", starts and goals to train on recombined"
            + many * f", to train on also with {SEEDS - 1} further seeds",
        ),
        horizon=EPISODE,
        success_key="success",
        step_seconds=0.0125,
        action_unit="of 1 cm a step of the hand, and of the gripper's force",
        classes=benchmark.classes,
    )


def _seed(name: str, variant: str) -> tuple[str, int]:
    """Return a variant without its seed, and the seed."""
    plain, mark, digits = variant.partition("-seed")
    if not mark:
        return variant, 0
    if not re.fullmatch(r"[1-9]\d{0,8}", digits):
        raise UserError(
            f"{name}@{variant}: got the seed '{digits}'. Give a whole number from 1 to 999999999, at the end, or none "
            "for 0."
        )
    return plain, int(digits)
