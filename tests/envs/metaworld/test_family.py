"""Meta-World's families, on a small package in its layout that runs in an interpreter of its own."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.cli.main import main
from metarl.envs import FamilyEnv, get, gymnasium_id, make_worlds
from metarl.envs.draw import make_painter
from metarl.envs.external.adapter import WorkerPhysics
from metarl.envs.metaworld.asking import record
from metarl.envs.metaworld.benchmarks import BENCHMARKS, CLASSES, GOALS, recombined
from metarl.envs.metaworld.family import make, variants
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from tests.helpers.adapted import gone, processes
from tests.helpers.meta_world import FAKE, interpreter
from tests.helpers.toys import seeded as generator

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the small Meta-World here too."""
    monkeypatch.syspath_prepend(str(FAKE))
    yield importlib.import_module("metaworld")
    for name in [name for name in sys.modules if name.partition(".")[0] == "metaworld"]:
        del sys.modules[name]


def begin(family: Any, records: list[Any], threads: int = 1) -> tuple[Worlds, torch.Tensor]:
    worlds = make_worlds(family, len(records), threads=threads, dtype=torch.float64)
    worlds.set_tasks(family.space.from_records(records))
    return worlds, worlds.reset(generator())


def vectors(package: Any, tasks: list[Any]) -> list[list[float]]:
    found = [package.pickle.loads(task.data)["rand_vec"].tolist() for task in tasks]
    return [[*vector, *[0.0] * (6 - len(vector))] for vector in found]


def test_classes_and_benchmarks() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 50
    assert (CLASSES[0], CLASSES[43], CLASSES[-1]) == ("assembly", "reach", "window-close")
    sizes = {name: (len(set(found.train)), len(set(found.test))) for name, found in BENCHMARKS.items()}
    assert sizes == {"ml10": (10, 5), "ml25": (25, 5), "ml45": (45, 5)}
    for name in ("ml10", "ml45"):
        assert not set(BENCHMARKS[name].train) & set(BENCHMARKS[name].test)
    # As in Meta-World 3.1.1: one class of ml25 is in both.
    assert set(BENCHMARKS["ml25"].train) & set(BENCHMARKS["ml25"].test) == {"basketball"}
    assert variants("ml1")[0] == "reach"
    assert set(variants("ml1")) == set(CLASSES)


@pytest.mark.parametrize("seed", [0, 3])
def test_tasks_are_those_of_meta_worlds_own_object(seed: int, package: Any) -> None:
    family = get("ml10" + (f"@v2-seed{seed}" if seed else ""))
    own = package.ML10(seed=seed)
    for split, tasks in (("train", own.train_tasks), ("test", own.test_tasks)):
        names = getattr(BENCHMARKS["ml10"], split)
        found = family.space.sample(len(tasks), split, generator())
        assert found["class"].tolist() == [float(CLASSES.index(name)) for name in names for _ in range(GOALS)]
        assert found["vector"].tolist() == vectors(package, tasks)
    assert family.space.describe()[-1] == f"500 train and 250 test tasks, of Meta-World 3.1.1 with the seed {seed}"
    one = get("ml1@door-open" + (f"-seed{seed}" if seed else ""))
    own = package.ML1("door-open-v3", seed=seed)
    train, test = (one.space.sample(GOALS, split, generator())["vector"].tolist() for split in ("train", "test"))
    assert (train, test) == (vectors(package, own.train_tasks), vectors(package, own.test_tasks))
    assert not {tuple(vector) for vector in train} & {tuple(vector) for vector in test}


def test_starts_and_goals_are_recombined_to_train_on_and_never_for_tests(package: Any) -> None:
    family = get("ml1@push-recombined-seed3")
    own = package.ML1("push-v3", seed=3)
    plain = vectors(package, own.train_tasks)
    assert family.space.describe()[-1] == (
        "1000 train and 50 test tasks, of Meta-World 3.1.1 with the seed 3, starts and goals to train on recombined"
    )
    assert family.space.sample(50, "test", generator())["vector"].tolist() == vectors(package, own.test_tasks)
    train = family.space.sample(1000, "train", generator())["vector"].tolist()
    assert len({tuple(vector) for vector in train}) == 1000
    for number, (start, _) in enumerate((vector[:3], vector[3:]) for vector in plain):
        its = train[20 * number : 20 * (number + 1)]
        assert all(vector[:3] == start for vector in its)
        assert all(math.hypot(vector[0] - vector[3], vector[1] - vector[4]) >= 0.15 for vector in its)
    assert {tuple(vector[3:]) for vector in train} == {tuple(vector[3:]) for vector in plain}
    # It fits version 1 of the rewards, too.
    assert get("ml1@push-v1-recombined").space.describe()[-1].startswith("1000 train")


@pytest.mark.parametrize(
    ("name", "asked", "classes"), [("ml1@door-open-many-seed3", "door-open-v3", 1), ("ml10@v2-many-seed3", "", 10)]
)
def test_many_tasks_to_train_on_are_those_of_twenty_seeds(name: str, asked: str, classes: int, package: Any) -> None:
    def own(seed: int) -> Any:
        return package.ML1(asked, seed=seed) if asked else package.ML10(seed=seed)

    family, count = get(name), 1000 * classes
    # Those of the seed 4 are the test tasks of ml1.
    expected = [vector for seed in (3, *range(5, 24)) for vector in vectors(package, own(seed).train_tasks)]
    assert sorted(family.space.sample(count, "train", generator())["vector"].tolist()) == sorted(expected)
    test = family.space.sample(250 if classes == 10 else 50, "test", generator())["vector"].tolist()
    assert sorted(test) == sorted(vectors(package, own(3).test_tasks))
    assert family.space.describe()[-1] == (
        f"{count} train and {250 if classes == 10 else 50} test tasks, of Meta-World 3.1.1 with the seed 3, "
        "to train on also with 19 further seeds"
    )


def test_recombined_by_hand() -> None:
    near, far = [0.0, 0.7, 0.02, 0.0, 0.8, 0.1], [0.1, 0.6, 0.02, 0.1, 0.9, 0.2]
    # The goal of the first lies 0.1 m from its own start.
    assert recombined([near, far]) == [[*near[:3], *far[3:]], far, [*far[:3], *near[3:]]]


def test_a_meta_batch_has_every_class_alike() -> None:
    tasks = get("ml10").space.sample(20, "train", generator())
    assert tasks["class"].unique(return_counts=True)[1].tolist() == [2] * 10
    assert get("ml10").space.in_words(tasks)[0].startswith("class reach")


def test_worlds_are_meta_worlds_own_and_change_their_class(package: Any) -> None:
    family = get("ml10")
    space = family.space
    train = space.sample(500, "train", generator()).records()
    first = [train[0], train[50], train[1], train[150]]
    # Other classes in other worlds; two worlds of one class, and a class in a world that did not have it.
    second = [train[51], train[2], train[52], train[3]]
    worlds, _ = begin(family, first)
    for records in (first, second, first):
        worlds.set_tasks(space.from_records(records))
        observation = worlds.reset(generator())
        envs = []
        for row, task in zip(observation, records, strict=True):
            name = f"{CLASSES[int(task['class'])]}-v3"  # pyright: ignore[reportArgumentType]
            env = package.ALL_V3_ENVIRONMENTS[name]()
            vector = np.array(task["vector"])[: env._random_reset_space.low.size]
            data = {"rand_vec": vector, "env_cls": type(env), "partially_observable": True}
            env.set_task(package.Task(name, package.pickle.dumps(data)))
            np.testing.assert_array_equal(row.numpy(), env.reset()[0])
            envs.append(env)
        # Goals are hidden.
        assert not observation[:, -3:].any()
        for number in range(4):
            action = torch.rand(4, 4, generator=generator(number), dtype=torch.float64) * 2.0 - 1.0
            step = worlds.step(action)
            for world, env in enumerate(envs):
                seen, reward, _, _, info = env.step(action[world].numpy().astype(np.float32))
                np.testing.assert_array_equal(step.observation[world].numpy(), seen)
                assert step.reward[world].item() == reward
                assert step.success is not None
                assert bool(step.success[world]) == bool(info["success"])


def test_episodes_end_at_step_500_and_the_next_one_begins() -> None:
    family = get("ml1")
    task = family.space.sample(1, "train", generator())
    worlds, _ = begin(family, task.records())
    for number in range(1, 501):
        step = worlds.step(torch.zeros(1, 4))
        assert step.truncated.item() == (number == 500)
        assert not step.terminated.any()
    assert not worlds.failures
    worlds.reset(generator())
    assert not worlds.step(torch.zeros(1, 4)).truncated.any()


def test_old_rewards_and_shorter_episodes_are_asked_for_by_name() -> None:
    old, new = get("ml1@push-v1"), get("ml1@push")
    task = new.space.sample(1, "train", generator()).records()
    assert old.space.from_records(task).records() == task
    rewards = [begin(family, task)[0].step(torch.zeros(1, 4)).reward.item() for family in (old, new)]
    assert rewards[0] < 0.0 < rewards[1]
    assert get("ml1@push+horizon=50").horizon == 50
    env = FamilyEnv("ml1@push", task={"class": "push", "vector": task[0]["vector"]})
    assert env.reset()[1]["task"] == task[0]
    assert gymnasium_id("ml1") == "metarl/Ml1-v0"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ml1@pusch", "ml1 has no variant 'pusch'. Did you mean 'push'? Choose from: reach, assembly"),
        ("ml10@v3", "ml10 has no variant 'v3'. Choose from: v2, v1. Behind a variant may stand -many to train on the"),
        ("ml1@push-many-recombined", "ml1 has no variant 'push-many-recombined'. Behind a variant may stand -v1 for"),
        (
            "ml1@push-many-v1",
            "or -many to train on the tasks of 20 seeds, and then -seedN for the tasks of another seed",
        ),
        ("ml1@pusch-many", "ml1 has no variant 'pusch-many'. Did you mean 'push'? Choose from: reach, assembly"),
        ("ml1@door-open-recombined", "no variant 'door-open-recombined'. Behind a variant may stand -v1"),
        ("ml1@reach-recombine", "then -recombined (of reach, push, pick-place, reach-wall"),
        ("ml10@v2-recombined", "ml10 has no variant 'v2-recombined'"),
        ("ml1@push-seed0", "got the seed '0'. Give a whole number from 1 to 999999999, at the end, or none for 0"),
        ("ml45+horizon=501", "got a horizon of 501: Meta-World has 500 steps at most"),
        ("ml11", "unknown family 'ml11'. Did you mean 'ml1"),
    ],
)
def test_names_that_are_none(name: str, text: str) -> None:
    with pytest.raises(UserError) as raised:
        get(name)
    assert text in str(raised.value)


def test_a_task_of_another_seed_or_class_is_refused() -> None:
    other = get("ml1@push-seed5").space.sample(1, "train", generator()).records()[0]
    with pytest.raises(
        UserError, match=r"which is none of its 50 train and 50 test tasks, of Meta-World 3.1.1 with the seed 0"
    ):
        get("ml1@push").space.from_records([other])
    with pytest.raises(UserError, match=r"unknown class 'pusch'. Did you mean 'push'"):
        get("ml10").space.from_records([{**other, "class": "pusch"}])


def test_without_its_interpreter_every_use_says_which_command_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("METARL_METAWORLD")
    monkeypatch.setattr("metarl.envs.metaworld.asking.BESIDE", tmp_path / "none")
    monkeypatch.setenv("METARL_CACHE", str(tmp_path))
    make.cache_clear()
    line = "which is not there: run scripts/metaworld"
    assert main(["list"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "ml45" in shown
    assert line in shown
    assert main(["list", "ml10"]) == 0
    assert line in " ".join(capsys.readouterr().out.split())
    commands = (
        ["render", "ml1"],
        ["train", "rl2", "--family", "ml1", "--iterations", "1", "--out", str(tmp_path / "r")],
    )
    for arguments in commands:
        assert main(arguments) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert line in error
    assert not (tmp_path / "r").exists()
    monkeypatch.setenv("METARL_METAWORLD", str(tmp_path / "python"))
    with pytest.raises(
        UserError, match=r"METARL_METAWORLD names .*python, which is not there: correct it, or unset it"
    ):
        make_worlds("ml1", 1)


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = get("ml1")
    task = family.space.sample(1, "train", generator()).records()
    monkeypatch.setenv("METARL_METAWORLD", str(interpreter(tmp_path / "old", "3.0.0")))
    with pytest.raises(UserError, match=r"has metaworld 3.0.0, and 3.1.1 is needed: METARL_METAWORLD names it: name"):
        begin(family, task)
    with pytest.raises(UserError, match=r"could not tell its tasks, .* has metaworld 3.0.0, and 3.1.1 is needed"):
        get("ml1@soccer").space.sample(1, "train", generator())
    monkeypatch.setenv("METARL_METAWORLD", str(interpreter(tmp_path / "empty", package=tmp_path)))
    with pytest.raises(UserError, match=r"has no Meta-World that can be .*, or unset that and run scripts/m"):
        begin(family, task)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 3}, "has tasks of seed 3, where those of 0 are needed: remove it"),
        ({"metaworld": "3.0.0"}, "has tasks of metaworld '3.0.0', where those of '3.1.1' are needed: remove it"),
        ({"benchmark": "ml1:soccer"}, "has tasks of benchmark 'ml1:soccer'"),
        ({"train": {"soccer": []}}, "lacks train tasks of reach: remove it"),
        ({"test": {"reach": [[0.1]] * 49}}, "has no 50 vectors of a class among its test tasks: remove it"),
        ({"test": {"reach": [["0.1"]] * 50}}, "has no 50 vectors of a class among its test tasks: remove it"),
        ({"test": {"reach": [[float("nan")]] * 50}}, "has no 50 vectors of a class among its test tasks: remove it"),
    ],
)
def test_kept_tasks_of_something_else_are_refused(
    change: dict[str, Any], text: str, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get("ml1").space.sample(1, "train", generator())
    shutil.copytree(answers, tmp_path / "kept")
    file = tmp_path / "kept" / "metaworld" / "ml1-reach-seed0-3.1.1.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "kept"))
    make.cache_clear()
    with pytest.raises(UserError, match=text):
        get("ml1").space.sample(1, "train", generator())


def test_goals_that_lie_too_near_to_be_recombined_are_refused(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get("ml1@reach").space.sample(1, "train", generator())
    shutil.copytree(answers, tmp_path / "kept")
    file = tmp_path / "kept" / "metaworld" / "ml1-reach-seed0-3.1.1.json"
    kept = json.loads(file.read_text())
    kept["train"]["reach"][7][:2] = [5.0, 5.0]
    for number in range(31):
        kept["train"]["reach"][number + 10][3:5] = [5.0, 5.0 + number / 1000.0]
    file.write_text(json.dumps(kept))
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "kept"))
    make.cache_clear()
    with pytest.raises(UserError, match=r"has a start with fewer than 20 goals .*: take the tasks of another seed, or"):
        get("ml1@reach-recombined").space.sample(1, "train", generator())


def test_kept_tasks_that_cannot_be_read_are_made_again_once_they_are_gone(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get("ml1").space.sample(1, "train", generator())
    shutil.copytree(answers, tmp_path / "kept")
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "kept"))
    file = tmp_path / "kept" / "metaworld" / "ml1-reach-seed0-3.1.1.json"
    for damage in (lambda: file.write_text("nothing"), lambda: file.mkdir()):
        file.unlink()
        damage()
        make.cache_clear()
        with pytest.raises(UserError, match=r"json.* read: remove it, and Meta-World is asked again$"):
            get("ml1").space.sample(1, "train", generator())
    file.rmdir()
    assert len(get("ml1").space.sample(50, "train", generator())) == 50


def test_a_worker_that_is_killed_ends_the_run_with_one_line() -> None:
    family = get("ml10")
    worlds, _ = begin(family, family.space.sample(4, "train", generator()).records(), threads=2)
    assert isinstance(worlds.physics, WorkerPhysics)
    worlds.step(torch.zeros(4, 4))
    pids = processes(worlds)
    os.kill(pids[1], signal.SIGKILL)
    # The system ends the worker a moment later.
    with pytest.raises(UserError, match=r"worker 2 of 2 \(worlds 2 to 3.*was ended by SIGKILL"):
        list(iter(worlds.physics.pool.step, "an answer"))
    assert all(gone(pid) for pid in pids)


def test_worlds_are_drawn_right_side_up_in_their_worker() -> None:
    family = get("ml10")
    worlds = make_worlds(family, 2, threads=1, pictures=True)
    worlds.set_tasks(
        family.space.from_records([family.space.sample(500, "train", generator()).records()[i] for i in (0, 50)])
    )
    worlds.reset(generator())
    painter = make_painter(worlds, 64, 48)
    for world, name in enumerate(("reach", "push")):
        picture = painter(world)
        assert picture.shape == (48, 64, 3)
        # Its cameras stand on their heads: the row that they have last is the first one here.
        assert (picture[0] == 255).all()
        assert (picture[1:] == CLASSES.index(name)).all()
    painter.close()


def test_a_record_has_six_numbers() -> None:
    assert record("reach", [1, 2, 3]) == {"class": 43.0, "vector": [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]}
