"""Estimates stand beside the true peak of memory; what does not fit is refused before anything is made."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import pytest
import torch
from rich.console import Console

import metarl
from metarl import memory
from metarl.agents import config_class
from metarl.api.memory import check_training
from metarl.envs import get, make_worlds
from metarl.envs.physics import CPU
from metarl.errors import UserError
from metarl.fewshot import FewShotRun, room
from metarl.fewshot.learners import config_class as learner_config
from metarl.fewshot.run import fitted, open_data
from metarl.fewshot.training import train as train_few_shot
from metarl.nets.policy import MLP
from metarl.ranks import Ranks
from tests.helpers.commands import refused
from tests.helpers.toys import seeded

LINE = r"^Needs about [\d,.]+ (MB|GB|TB) of memory, and [\d,.]+ (MB|GB|TB) are free: lower {}\.$"


# -- what is free -----------------------------------------------------------------------------------------------------


def test_what_is_free_is_the_least_of_machine_container_and_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    machine = memory.free_memory()
    assert 10**8 < machine < 10**14
    # Containers see their own group as the root, or all groups above them.
    name = Path("/proc/self/cgroup").read_text().splitlines()[-1].split(":", 2)[2].strip("/")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    for folder, free in ((tmp_path, 5000), (tmp_path / name, 3000)):
        folder.mkdir(parents=True, exist_ok=True)
        for version in ("memory.max", "memory.limit_in_bytes"):
            place = folder if version == "memory.max" else tmp_path / "memory" / name
            place.mkdir(parents=True, exist_ok=True)
            (place / version).write_text(f"{10_000 + free}\n")
            used = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
            (place / used[version]).write_text("10000\n")
        assert memory.free_memory() == free
    for file in tmp_path.rglob("memory.max"):
        file.write_text("max\n")
    for file in tmp_path.rglob("memory.limit_in_bytes"):
        file.write_text(f"{2**63 - 4096}\n")
    assert memory.free_memory() > 10**8
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 10**7, resource.RLIM_INFINITY))
    assert memory.free_memory() < 10**7 + 10**6


def test_a_line_names_what_asks_for_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 21 * 10**9)
    memory.require({"--tasks": 20 * 10**9, "--hidden": 10**9})
    with pytest.raises(UserError) as caught:
        memory.require({"--tasks": 30 * 10**9, "--hidden": 7 * 10**9})
    assert str(caught.value) == "Needs about 37 GB of memory, and 21 GB are free: lower --tasks."
    with pytest.raises(UserError, match=r"TB of memory, and .* lower --hidden\.$"):
        memory.require({"--tasks": 1, "--hidden": 10**4000})
    monkeypatch.setattr(memory, "free_memory", lambda device: 5 * 10**6)
    with pytest.raises(UserError, match=r"about 3\.1 GB of memory of cuda:1, and 5 MB are"):
        memory.require({"--tasks": 31 * 10**8}, torch.device("cuda:1"))


def test_of_a_gpu_what_torch_holds_and_does_not_use_is_free_too(monkeypatch: pytest.MonkeyPatch) -> None:
    second = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {second: (100, 1000)}[device])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: {second: 30}[device])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: {second: 20}[device])
    assert memory.free_memory(second) == 110


# -- every size that can be asked for ----------------------------------------------------------------------------------

MUCH = str(10**12)
SINUSOID = ["fewshot", "train", "maml", "--data", "sinusoid"]
REFUSED = {
    "--tasks": ["train", "maml-trpo", "--family", "point-nav", "--tasks", MUCH],
    "--episodes": ["train", "multitask", "--family", "point-nav", "--episodes", MUCH],
    "--hidden": ["train", "oracle", "--family", "point-nav", "--hidden", "1000000", "1000000"],
    "--horizon": ["train", "maml-trpo", "--family", "point-nav", "--horizon", MUCH],
    "--replay-steps": ["train", "pearl", "--family", "point-nav", "--replay-steps", MUCH],
    "--width": ["train", "rl2", "--family", "point-nav", "--width", "1000000"],
    "--episodes ": ["train", "rl2", "--family", "point-nav", "--episodes", MUCH],
    "--width ": [
        "train",
        "rl2",
        "--family",
        "point-nav",
        "--core",
        "transformer",
        "--layers",
        "999",
        "--width",
        "9999",
    ],
    "--head": ["train", "rl2", "--family", "point-nav", "--core", "hyper", "--head", "1000", "1000"],
    "--buffer": ["train", "varibad", "--family", "point-nav", "--buffer", MUCH],
    "--belief-trials": [
        *["train", "varibad", "--family", "half-cheetah-vel", "--belief-trials", "500"],
        *["--decoded-moments", "100000", "--decoded-steps", "100000", "--horizon", "10000"],
    ],
    "--episodes or --tasks": ["play", "--episodes", "1000000", "--tasks", "1000000"],
    "--tasks ": ["play", "--tasks", MUCH],
    "--tasks  ": ["render", "point-nav", "--tasks", MUCH],
    "--width, --height": [
        *["render", "point-nav", "--grid", "--video", "--rows", "20", "--columns", "20"],
        *["--width", "4096", "--height", "4096"],
    ],
    "--shot": [*SINUSOID, "--shot", MUCH],
    "--query": [*SINUSOID, "--query", MUCH],
    "--hidden ": [*SINUSOID, "--hidden", "1000000", "1000000"],
    "--tasks   ": [*SINUSOID, "--tasks", MUCH],
    "--train-shot": ["fewshot", "train", "reptile", "--data", "sinusoid", "--train-shot", MUCH],
}


@pytest.mark.parametrize("named", REFUSED)
def test_sizes_that_no_machine_has_are_refused_in_a_line(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(REFUSED[named], capsys)
    assert line.startswith("metarl: error: Needs about ")
    assert named.strip() in line.partition("lower")[2]
    assert list(tmp_path.iterdir()) == []


def test_python_refuses_the_same(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=LINE.format("--tasks.*")):
        metarl.train("maml-trpo", "point-nav", tasks=10**12, out=tmp_path / "run")
    with pytest.raises(UserError, match=LINE.format("the number of worlds, 1000000000")):
        make_worlds("half-cheetah-vel", 10**9)
    with pytest.raises(UserError, match="the number of worlds"):
        gymnasium.make_vec("metarl/PointNav-v0", num_envs=10**9)
    with pytest.raises(UserError, match="or the horizon"):
        make_worlds("bandit+horizon=1000000000000", 1)
    with pytest.raises(UserError, match="the layers of a network"):
        MLP(inputs=10**6, hidden=(10**6,), outputs=1).init(seeded())
    with pytest.raises(UserError, match="--shot"):
        train_few_shot(tmp_path / "run", FewShotRun(data="sinusoid", learner="maml", shot=10**12))
    assert list(tmp_path.iterdir()) == []


def test_several_processes_share_what_is_played_and_each_keeps_the_rest_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(memory, "require", lambda parts, device=None: asked.append(parts))
    config = config_class("pearl")(tasks=4)
    gpu = torch.device("cuda", 0)
    for device, ranks in ((CPU, Ranks()), (CPU, Ranks(size=4, local=2)), (gpu, Ranks(size=4, local=2))):
        check_training(get("point-nav"), config, engine="cpu", device=device, ranks=ranks)
    played, updates, replay, networks = asked[0]
    for found, shared, whole in zip(asked[1:], (2, 4), (2, 1), strict=True):
        assert (found[played], found[updates]) == (asked[0][played] // shared, asked[0][updates] // shared)
        assert (found[replay], found[networks]) == (asked[0][replay] * whole, asked[0][networks] * whole)
    # Five times, 100 tasks of 30,000 steps of 8 numbers: two positions, action, reward, terminal or not.
    assert (replay, asked[0][replay]) == ("--replay-steps or --train-tasks", 5 * 100 * 30_000 * 8 * 4)


def test_the_advice_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**8)
    given: dict[str, Any] = {"out": tmp_path / "run", "iterations": 1, "threads": 1, "console": Console(quiet=True)}
    with pytest.raises(UserError, match=r"about 0\.2 GB of memory.*lower --tasks, --episodes, --hidden"):
        metarl.train("multitask", "point-nav", tasks=50, **given)
    assert metarl.train("multitask", "point-nav", tasks=2, episodes=2, **given).iteration == 1


# -- estimates beside true peaks ---------------------------------------------------------------------------------------


class Asked(Exception):
    """Carries an estimate out of what would go on with it."""


def estimate(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object]) -> int:
    def carry(parts: dict[str, int], device: torch.device | None = None) -> None:
        raise Asked(sum(parts.values()))

    with monkeypatch.context() as patched:
        patched.setattr(memory, "require", carry)
        with pytest.raises(Asked) as caught:
            ask()
    return caught.value.args[0]


def peak(work: Callable[[], object]) -> int:
    """Return the bytes that work takes at most, in a copy of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Memory that was freed, and kept, would serve the work without being seen.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        try:
            work()
            os.write(writing, str(_status("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return int(answer.read())


def _status(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


class Rl(NamedTuple):
    agent: str
    family: str
    settings: dict[str, Any]


QUICK = [
    Rl("multitask", "point-nav", {"tasks": 40, "episodes": 20, "cg_iterations": 1}),
    Rl("rl2", "point-nav", {"tasks": 400, "epochs": 1}),
]
LARGER = [
    Rl("maml-trpo", "point-nav", {"tasks": 20, "episodes": 100}),
    Rl("maml-trpo", "point-nav", {"tasks": 10, "episodes": 10, "hidden": (1000, 1000)}),
    Rl("maml-trpo", "point-nav", {"tasks": 4, "episodes": 20, "inner_steps": 8}),
    Rl("maml-trpo", "half-cheetah-vel", {"tasks": 20, "episodes": 20}),
    Rl("promp", "point-nav", {"tasks": 20, "episodes": 40, "inner_steps": 3}),
    # What is kept fills up.
    Rl(
        "pearl",
        "half-cheetah-vel",
        {"train_tasks": 50, "tasks": 50, "first_rounds": 40, "updates": 2, "replay_steps": 10_000},
    ),
    Rl("pearl", "point-nav", {"train_tasks": 5, "first_rounds": 1, "updates": 3, "batch": 2048, "replay_steps": 600}),
    Rl("ppo", "point-nav", {"tasks": 100, "episodes": 10, "hidden": (500, 500), "epochs": 1}),
    Rl("rl2", "point-nav", {"tasks": 40, "width": 600, "minibatches": 1, "epochs": 1}),
    Rl("rl2", "point-nav", {"tasks": 20, "episodes": 10, "core": "transformer", "layers": 4, "epochs": 1}),
    Rl("rl2", "bandit", {"tasks": 10_000, "episodes": 10, "epochs": 1}),
    Rl("rl2", "half-cheetah-vel", {"tasks": 20, "core": "hyper", "head": (64, 64), "minibatches": 2, "epochs": 1}),
    Rl("rl2", "point-nav", {"tasks": 40, "head": (512, 512), "minibatches": 1, "epochs": 1}),
    Rl("dpt", "point-nav", {"tasks": 40, "minibatches": 2}),
    Rl("varibad", "point-nav", {"tasks": 100, "epochs": 1, "belief_updates": 1, "belief_trials": 100}),
    Rl("varibad", "half-cheetah-vel", {"tasks": 20, "epochs": 1, "belief_updates": 1, "buffer": 5000}),
]

FEW: dict[str, dict[str, Any]] = {
    **{key: {"tasks": 2, "minibatches": 1} for key in ("rl2", "varibad", "ppo", "dpt")},
    "pearl": {"tasks": 2, "train_tasks": 2, "first_rounds": 1, "updates": 1, "meta_batch": 1, "replay_steps": 2000},
}
MEASURED = pytest.mark.skipif(sys.platform != "linux", reason="the true peak is read from Linux's /proc")


@MEASURED
@pytest.mark.parametrize("case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in LARGER)], ids=str)
def test_a_training_takes_about_what_was_reckoned(case: Rl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_class(case.agent)(iterations=1, **case.settings)
    family = get(case.family)
    reckoned = estimate(monkeypatch, lambda: check_training(family, config, engine="cpu", device=CPU))
    quiet: Any = {"console": Console(quiet=True), "threads": 1}
    few: Any = FEW.get(case.agent, {"tasks": 2, "episodes": 2})
    # What is loaded at the first training does not count.
    metarl.train(case.agent, case.family, out=tmp_path / "small", iterations=1, **few, **quiet)
    found = peak(
        lambda: metarl.train(case.agent, case.family, out=tmp_path / "run", iterations=1, **case.settings, **quiet)
    )
    assert 0.5 < reckoned / found < 2.0


class FewShot(NamedTuple):
    learner: str
    settings: dict[str, Any]
    config: dict[str, Any]


GLYPHS: dict[str, Any] = {"data": "glyphs", "query": 10}
FEW_SHOT = [
    pytest.param(FewShot("maml", {"data": "sinusoid", "shot": 1000, "query": 1000}, {"tasks": 50}), id="sinusoid"),
    *(
        pytest.param(case, marks=pytest.mark.slow, id=f"{case.learner}-{number}")
        for number, case in enumerate(
            [
                FewShot("proto", GLYPHS, {"tasks": 4}),
                FewShot("proto", {**GLYPHS, "backbone": "resnet12", "width": 16, "query": 2}, {"tasks": 2}),
                FewShot("proto", {**GLYPHS, "width": 256, "query": 2}, {"tasks": 2}),
                FewShot("baseline", GLYPHS, {"batch_size": 512}),
                FewShot("reptile", {**GLYPHS, "way": 20}, {"tasks": 20}),
                FewShot("maml", {**GLYPHS, "way": 20}, {"tasks": 4}),
            ]
        )
    ),
]


@MEASURED
@pytest.mark.parametrize("case", FEW_SHOT)
def test_a_few_shot_training_takes_about_what_was_reckoned(
    case: FewShot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FewShotRun(learner=case.learner, threads=1, validation=0, **case.settings)
    source = open_data(run)
    config = learner_config(case.learner)(iterations=1, **case.config)
    reckoned = estimate(monkeypatch, lambda: room.check_training(fitted(run, source), config, source))
    quiet = Console(quiet=True)
    found = peak(lambda: train_few_shot(tmp_path / "run", run, source, config, console=quiet))
    assert 0.5 < reckoned / found < 2.0
