"""Runs with `--deterministic`: the same in every run and after every stop, and kept so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import metarl
from metarl.agents import config_class, make
from metarl.cli.main import main
from metarl.devices import repeatable
from metarl.envs import get, make_worlds
from metarl.envs.horizon import with_horizon
from metarl.fewshot import EpisodeShape, from_arrays
from metarl.fewshot.learners import LEARNERS
from metarl.fewshot.learners import config_class as learner_config
from metarl.fewshot.learners import make as make_learner
from metarl.fewshot.parts.backbones import make_backbone
from metarl.fewshot.parts.learner import Setting
from metarl.learning import experience
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig
from metarl.seeding import Streams
from tests.helpers.run_folders import assert_same_run
from tests.helpers.stepping_learners import CPU
from tests.helpers.unrepeatable import refuses

TINY: dict[str, dict[str, Any]] = {
    "maml-trpo": {"tasks": 2, "episodes": 2, "hidden": (8,), "estimator": "dice"},
    "multitask": {"tasks": 2, "episodes": 2, "hidden": (8,)},
    "oracle": {"tasks": 2, "episodes": 2, "hidden": (8,)},
    "rma": {"tasks": 2, "episodes": 2, "hidden": (8,), "minibatches": 1, "student_minibatches": 1, "iterations": 2},
    "rl2": {"tasks": 2, "episodes": 2, "width": 8, "minibatches": 1},
    "dpt": {"tasks": 2, "episodes": 2, "width": 8, "layers": 1, "minibatches": 1},
    "varibad": {
        **{"tasks": 2, "episodes": 2, "width": 8, "hidden": (8,), "minibatches": 1},
        **{"belief_updates": 2, "belief_trials": 2, "buffer": 4},
    },
}
FAMILIES = ("tabular-mdp", "point-nav", "bandit")


def test_torch_is_as_before_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    memory: Any = torch.utils.deterministic
    for on in (False, True):
        with repeatable(on=on):
            assert torch.are_deterministic_algorithms_enabled() == on
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (":4096:8" if on else ":16:8")
            assert memory.fill_uninitialized_memory == (not on)
        assert not torch.are_deterministic_algorithms_enabled()
        assert memory.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with pytest.raises(InterruptedError), repeatable(on=True):
        raise InterruptedError
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("agent", "family"),
    # Tabular MDPs do not say what is best.
    [(agent, family) for agent in TINY for family in FAMILIES if (agent, family) != ("dpt", "tabular-mdp")],
)
def test_agents_ask_for_nothing_that_a_gpu_does_otherwise_each_time(agent: str, family: str) -> None:
    shaped = with_horizon(get(family), 3) if family == "point-nav" else get(family)
    config = config_class(agent)(**TINY[agent])

    def iteration() -> None:
        learner = make(agent, config, shaped.spec(), Streams(0), CPU)
        worlds = make_worlds(shaped, config.worlds, engine="gpu")
        # Of rma an iteration of each phase.
        for _ in range(1 + (agent == "rma")):
            learner.train_iteration(worlds, shaped.space.sample, Streams(0))

    with repeatable(on=True):
        assert not refuses(iteration)


@pytest.mark.parametrize("learner", LEARNERS)
def test_learners_ask_for_nothing_of_that_either(learner: str) -> None:
    items = torch.rand(120, 1, 16, 16, generator=torch.Generator().manual_seed(0)).numpy()
    source = from_arrays(items, [row // 12 for row in range(120)])
    kind = learner_config(learner)
    small = {"tasks": 2, "train_way": 0, "inner_steps": 1, "batch_size": 4}
    config = kind(**{name: value for name, value in small.items() if name in kind.__dataclass_fields__})
    setting = Setting(
        shape=EpisodeShape(way=3, shot=1, query=2),
        backbone=make_backbone("conv4", (1, 16, 16), width=4),
        classes=10,
        most_way=5,
    )

    def update() -> None:
        make_learner(learner, config, setting, Streams(0), CPU).update(source, 0)

    with repeatable(on=True):
        assert not refuses(update)


def test_what_a_gpu_does_otherwise_is_refused_here() -> None:
    numbers = torch.rand(4, 5, requires_grad=True)
    assert refuses(lambda: numbers.cumsum(1))
    assert not refuses(lambda: numbers.detach().long().cumsum(1))
    pooled = torch.nn.functional.adaptive_avg_pool2d
    picture = torch.rand(1, 1, 6, 6, requires_grad=True)
    assert refuses(lambda: pooled(picture, 2).sum().backward())


def test_sums_so_far_are_the_same_either_way() -> None:
    values = torch.randn(3, 2, 7, dtype=torch.float64)
    with repeatable(on=True):
        found = experience._sums_so_far(values)
    torch.testing.assert_close(found, values.cumsum(-1), rtol=1e-14, atol=1e-14)
    assert torch.equal(experience._sums_so_far(values), values.cumsum(-1))


def test_a_run_keeps_it_and_a_resumed_one_may_begin_with_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tasks": 2, "episodes": 2, "hidden": (8,), "iterations": 1}
    seen: list[bool] = []

    def kept(folder: Path) -> bool:
        return RunFolder(folder).settings(RunConfig)[0].deterministic

    def stop(*_: object) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise EOFError

    run = metarl.train("maml-trpo", "point-nav", out=tmp_path / "run", **settings)
    assert not kept(run.folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("metarl.envs.worlds.Worlds.set_tasks", stop)
        with pytest.raises(EOFError):
            metarl.resume(run.folder, 2, deterministic=True)
        assert seen == [True]
        assert kept(run.folder)
        with pytest.raises(EOFError):
            metarl.evaluate(run, tasks=2, steps=0, film=False, deterministic=True)
        assert seen == [True, True]
    # What was so stays so.
    assert main(["train", "--resume", str(run.folder), "--iterations", "2", "--json"]) == 0
    assert kept(run.folder)


def assert_repeated(tmp_path: Path, device: str, tasks: int, horizon: int) -> None:
    """Train on the GPU engine twice, and once with a stop in between."""
    words = ["maml-trpo", "--family", "half-cheetah-vel", "--hidden", "8", "--episodes", "2", "--tasks", str(tasks)]
    words += ["--horizon", str(horizon), "--engine", "gpu", "--device", device, "--deterministic"]
    words += ["--checkpoint-every", "1", "--json"]
    for name, iterations in (("one", "2"), ("two", "2"), ("parts", "1")):
        assert main(["train", *words, "--iterations", iterations, "--out", str(tmp_path / name)]) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--iterations", "2", "--json"]) == 0
    for name in ("two", "parts"):
        assert_same_run(tmp_path / name, tmp_path / "one")


@pytest.mark.warp_cpu
def test_two_runs_on_the_gpu_engine_and_a_resumed_one_are_equal(tmp_path: Path) -> None:
    pytest.importorskip("mujoco_warp")
    assert_repeated(tmp_path, "cpu", tasks=2, horizon=3)


@pytest.mark.gpu
def test_two_runs_on_a_gpu_and_a_resumed_one_are_equal(tmp_path: Path) -> None:
    pytest.importorskip("mujoco_warp")
    assert_repeated(tmp_path, "cuda", tasks=40, horizon=100)
