"""Meta-World itself, where scripts/metaworld has made its interpreter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.envs import get, make_worlds
from metarl.envs.metaworld.asking import record
from metarl.envs.metaworld.benchmarks import CLASSES, RECOMBINED
from metarl.envs.metaworld.family import make
from metarl.types import Tasks
from tests.helpers.toys import seeded as generator

PLAIN = Path(__file__).parents[2] / "helpers" / "plain_meta_world.py"


def play(python: Path, steps: int, *names: str) -> Any:
    done = subprocess.run([python, PLAIN, str(steps), *names], capture_output=True, text=True, check=True, cwd="/")
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "names",
    [("reach", "door-open"), pytest.param(CLASSES, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
    ids=len,
)
def test_worlds_do_what_meta_world_does_bit_for_bit(real: Path, names: tuple[str, ...]) -> None:
    steps = 10
    played = play(real, steps, *names)
    episodes = played["episodes"]
    records = [record(episode["class"], episode["vector"]) for episode in episodes]
    family = get("ml45")
    columns = {name: torch.tensor([task[name] for task in records], dtype=torch.float64) for name in records[0]}
    worlds = make_worlds(family, len(records), threads=1, dtype=torch.float64)
    # Each in a world that had another class before, all of a class on one model.
    for shift in (3, 0):
        worlds.set_tasks(Tasks(family.full_name, {name: value.roll(shift, 0) for name, value in columns.items()}))
        observation = worlds.reset(generator())
    for step in range(steps + 1):
        assert observation.tolist() == [episode["observations"][step] for episode in episodes]
        if step < steps:
            taken = worlds.step(torch.tensor(played["actions"][step]).expand(len(records), 4))
            observation = taken.observation
            assert taken.reward.tolist() == [episode["rewards"][step] for episode in episodes]
            assert taken.success is not None
            assert taken.success.tolist() == [episode["successes"][step] for episode in episodes]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("kind", RECOMBINED)
def test_recombined_tasks_are_taken_as_they_are(kind: str) -> None:
    # Meta-World draws in circles, and a worker hangs, where start and goal lie too near.
    family = get(f"ml1@{kind}-recombined")
    records = family.space.sample(1000, "train", generator()).records()
    worlds = make_worlds(family, 50, threads=2, dtype=torch.float64)
    for first in range(0, 1000, 50):
        tasks = family.space.from_records(records[first : first + 50])
        worlds.set_tasks(tasks)
        observation = worlds.reset(generator())
        # The object lies where the vector has it, to what Meta-World's own settling moves it.
        assert (observation[:, 4:6] - tasks["vector"][:, :2]).abs().max() < 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["ml10", "ml1"])
def test_tasks_are_the_same_in_every_process_and_held_out(
    name: str, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name] if name == "ml10" else [f"ml1@{kind}" for kind in CLASSES]
    kept: list[Any] = []
    monkeypatch.setenv("METARL_CACHE", str(tmp_path))
    for full in names:
        kept = _sets(full)
        rows = [{str(task) for task in tasks} for tasks in kept]
        assert [len(part) for part in rows] == [len(tasks) for tasks in kept]
        assert not rows[0] & rows[1]
    assert [len(tasks) for tasks in kept] == ([500, 250] if name == "ml10" else [50, 50])
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "again"))
    make.cache_clear()
    assert _sets(names[-1]) == kept


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("kind", ["reach", "door-open"])
def test_many_tasks_are_a_thousand_others_than_those_of_the_test(kind: str) -> None:
    train, test = ({str(task) for task in tasks} for tasks in _sets(f"ml1@{kind}-many"))
    assert (len(train), len(test)) == (1000, 50)
    assert not train & test
    assert [str(task) in train for task in _sets(f"ml1@{kind}")[0]] == [True] * 50


def _sets(name: str) -> list[Any]:
    """Return the records of both sets."""
    space: Any = get(name).space
    return [space.sample(getattr(space.fixed, split), split, generator()).records() for split in ("train", "test")]
