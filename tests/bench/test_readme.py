"""The commands of the benchmarks' README run, with smaller numbers; `--help` explains every column."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from metarl.bench import agents, engines, external, fewshot, gpu, limits, maml, pearl, rl2
from metarl.bench.meta_updates import OMNIGLOT, PROBLEMS
from metarl.cli.bench import BENCHMARKS
from metarl.cli.main import main
from metarl.envs import get
from metarl.envs.metaworld.family import make
from tests.helpers.meta_world import interpreter
from tests.helpers.readme import commands

SMALLER = {
    "engines": "--rounds 1 --env-steps 40 --threads 1",
    "agents": "--family point-nav --agents ppo rma --tasks 5 --rounds 1 --threads 1",
    "external": "--worlds 2 --processes 1 --steps 3 --rounds 1",
    "maml": "--family point-nav --tasks 2 --episodes 2 --steps 3 --rounds 1 --threads 1",
    "rl2": "--width 3 --worlds 2 2 --steps 3 --trials 2 --length 4 --contexts 4 --rounds 1 --threads 1",
    "pearl": "--family point-nav --train-tasks 2 --meta-batch 2 --batch 3 --hidden 4 --steps 3 --updates 1 --rounds 1 "
    "--threads 1",
    "fewshot": "--rounds 1 --threads 1",
    "gpu": "--family point-nav --worlds 2 --cpu-worlds 2 --steps 2 --rounds 1 --tasks 2 --episodes 2 --horizon 2 "
    "--case omniglot-1 --threads 1",
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PROBLEMS, "sinusoid", replace(PROBLEMS["sinusoid"], executors=("grouped",)))
    monkeypatch.setitem(PROBLEMS, "omniglot-1", replace(OMNIGLOT, item_shape=(1, 16, 16), width=4))
    monkeypatch.setitem(limits.SIDES, "cpu", 64)
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(fewshot, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(engines, "families", lambda: {"reacher-goal": [get("reacher-goal")]})


LONG = ("metarl bench gpu", "metarl bench maml", "metarl bench agents")
"""Commands that take seconds even with small numbers."""


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow) if command in LONG else command
        for command in commands("metarl/bench/README.md", "metarl bench")
    ],
)
def test_commands_of_the_readme_run(
    command: str, small: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if "gpu" in command:
        pytest.importorskip("mujoco_warp")
    if "ml1" in command:
        monkeypatch.setenv("METARL_METAWORLD", str(interpreter(tmp_path / "small")))
        monkeypatch.setenv("METARL_CACHE", str(tmp_path / "answers"))
        make.cache_clear()
    _, _, kind, *options = command.replace("--worlds 32 256 1024", "--worlds 2").split()
    assert main(["bench", kind, *options, *SMALLER[kind].split()]) == 0
    assert "of " in capsys.readouterr().out


def test_the_readme_shows_every_benchmark():
    shown = {command.split()[2] for command in commands("metarl/bench/README.md", "metarl bench")}
    assert shown == set(BENCHMARKS)


# Their names as ids would mark one of the tests as in need of a GPU.
@pytest.mark.parametrize(
    "module", [agents, engines, external, maml, rl2, pearl, fewshot, gpu], ids=lambda module: module.__name__
)
def test_help_explains_every_column(module, capsys: pytest.CaptureFixture[str]):
    # tyro ends the process after its help.
    with contextlib.suppress(SystemExit):
        main(["bench", module.__name__.rpartition(".")[2], "--help"])
    lines = capsys.readouterr().out.splitlines()
    for column, meaning in module.COLUMNS.items():
        (line,) = (line for line in lines if line.startswith(f"  {column} ") and line.endswith(meaning))
        assert len(line) <= 80
