from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.agents import AGENTS
from metarl.cli.fewshot.main import COMMANDS as FEWSHOT
from metarl.cli.main import main
from metarl.version import __version__
from tests.helpers.commands import refused


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("trian", ["'trian'", "Did you mean 'train'?", "evaluate", "bench"]),
        ("train maml", ["'maml'", "Did you mean 'maml-trpo'?", "multitask"]),
        ("train random", ["never trained", "maml-trpo"]),
        ("train --family point-nav", ["agent is needed first", "maml-trpo"]),
        ("train maml-trpo --family point-nva", ["Did you mean 'point-nav'?", "half-cheetah-vel"]),
        ("train maml-trpo --family point-nav@maml18", ["Did you mean 'maml17'?"]),
        ("train maml-trpo --inner-rat 1", ["'--inner-rat'", "Did you mean '--inner-rate'?", "--family", "--hidden"]),
        ("train maml-trpo --inner-rate fast", ["--inner-rate", "'fast'"]),
        ("train maml-trpo --inner-rate", ["--inner-rate", "Missing value"]),
        (
            "train maml-trpo --inner-rate inf",
            ["Got --inner-rate inf. It must be finite: 0, or from 1e-30 to 1e+30 in size."],
        ),
        ("train maml-trpo --threads 100000", ["threads=100000", "1 to 1024"]),
        ("train maml-trpo --tasks 0", ["Got --tasks 0. It must be at least 1."]),
        ("train maml-trpo --estimator dicee", ["'dicee'", "'dice'", "'lvc'"]),
        ("train maml-trpo --device tpu", ["Unknown device 'tpu'", "cpu, cuda, cuda:0"]),
        ("train maml-trpo --seed -1", ["seed -1", "from 0"]),
        ("train maml-trpo 5", ["does not take '5'"]),
        ("train --resume nowhere", ["no run in nowhere"]),
        ("train --resume nowhere --seed 3", ["'--seed'", "--iterations", "--checkpoint"]),
        ("evaluate", ["no run"]),
        ("evaluate nowhere --oracle --floor runs/ppo", ["Got --oracle with nothing behind it", "leave --oracle out"]),
        ("train rl2 --seed 1 --head", ["Got --head with nothing behind it", "leave --head out"]),
        ("evaluate nowhere", ["no run in nowhere", "metarl train"]),
        ("evaluate nowhere --split tset", ["'tset'", "'test'", "'ood'"]),
        ("evaluate nowhere --tasks 2.5", ["--tasks", "'2.5'"]),
        ("list point", ["Did you mean 'point-nav'?", "maml-trpo"]),
        ("list point-nav@v9", ["no variant 'v9'", "maml17"]),
        ("list point-nav --metrics", ["one of them"]),
        ("list --families --metrics", ["one of them"]),
        ("render nowhere", ["neither a run folder nor a family", "half-cheetah-dir"]),
        ("render point-nav --task 40 --out x.gif", ["--task 40", "0 to 39", '"goal"']),
        ('render point-nav --task {"gaol":[0,0]} --out x.gif', ["'gaol'", "Did you mean 'goal'?"]),
        ('render point-nav --task {"goal":[0,9]} --out x.gif', ["goal got [0, 9]", "-0.5 to 0.5 m"]),
        ("render point-nav --steps 0 --out x.gif", ["--steps 0", "it needs a run"]),
        ("render point-nav --tasks 0 --out x.gif", ["--tasks 0", "at least 1"]),
        ("render point-nav --width 0 --out x.gif", ["0 x 300 pixels", "16 to 4096"]),
        ("render point-nav --out x.mp4", ["x.mp4", ".gif"]),
        ("render point-nav --out x.png", ["x.png", "ends in .gif"]),
        ("render point-nav --grid --out x.jpg", ["x.jpg", "ends in .png"]),
        ("render point-nav --grid --video --out x.png", ["x.png", "ends in .gif"]),
        ("render point-nav --grid --out x.gif", ["x.gif", "ends in .png"]),
        ("render point-nav --rows 1 --out x.gif", ["--rows 1", "without --grid"]),
        ("render point-nav --grid --task 3 --out x.png", ["--task 3", "Leave one of them out"]),
        (
            "train maml-trpo --family bandit+switch",
            ["bandit@bernoulli-5+switch", "agent is 1 steps long"],
        ),
        ("train maml-trpo --family point-nav+switch=50..100", ["step 100", "below 100"]),
        ("render point-nav --video", ["without --grid"]),
        ("render point-nav --grid --rows 0", ["--rows 0 --columns 3", "at least 1"]),
        ("render point-nav --grid --rows 30 --columns 30", ["at most 400"]),
        ("render half-cheetah-dir --grid --split ood", ["no out-of-distribution part"]),
        ("fingerprint point-nva", ["Did you mean 'point-nav'?"]),
        ("bench maml --rounds 0", ["error: Got --rounds 0. It must be at least 1."]),
        ("bench engine", ["Did you mean 'engines'?"]),
        ("bench maml --famly x", ["Did you mean '--family'?"]),
    ],
)
def test_bad_input_is_one_line(
    line: str, says: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(line.split(), capsys)
    for text in says:
        assert text in message
    # Nothing of tyro's box, which it draws with these where the terminal is not known to have better ones.
    assert "----" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--help", ["train", "evaluate", "list", "render", "bench", "examples:"]),
        ("train --help", [name for name in AGENTS if name != "random"]),
        ("train maml-trpo --help", ["--family", "--inner-rate", "Adaptation steps in training", "--out"]),
        ("train --resume x --help", ["--iterations", "--checkpoint"]),
        ("evaluate --help", ["--oracle", "gap closed", "examples:"]),
        ("list --help", ["--metrics", "--json"]),
        ("render --help", ["libegl1", "--task"]),
        ("bench --help", ["engines", "maml"]),
        ("bench engines --help", ["--worlds"]),
    ],
)
def test_help_explains(line: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    # tyro ends the process after its help, as argparse does.
    with contextlib.suppress(SystemExit):
        assert main(line.split()) == 0
    shown = capsys.readouterr().out
    for text in says:
        assert text in shown


def test_help_needs_neither_torch_nor_mujoco() -> None:
    program = (
        "import sys; from metarl.cli.main import main\n"
        "try: main(['evaluate', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"metarl {__version__}\n"


def test_module_runs_as_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "metarl", "evaluat"], capture_output=True, text=True)
    assert result.returncode == 2
    assert "Did you mean 'evaluate'?" in result.stderr


def test_the_help_names_every_command_of_fewshot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert f"few-shot learning: {', '.join(FEWSHOT)}\n" in capsys.readouterr().out


REGRESSION = ["fewshot", "train", "maml", "--data", "sinusoid"]
UNUSED = {
    "--layers 3 for rl2": (["train", "rl2", "--family", "point-nav", "--layers", "3"], "--core transformer"),
    "--initial-std 2.0 for rl2": (["train", "rl2", "--family", "bandit", "--initial-std", "2"], "numbers"),
    "--reward-likelihood bernoulli for varibad": (
        ["train", "varibad", "--family", "bandit", "--decode", "state", "--reward-likelihood", "bernoulli"],
        "--decode reward",
    ),
    "--no-encode-pictures for rl2": (["train", "rl2", "--family", "point-nav", "--no-encode-pictures"], "pictures"),
    "--gpu-memory 5": (["train", "maml-trpo", "--family", "point-nav", "--gpu-memory", "5"], "--device cuda"),
    "--first-order": (
        ["train", "maml-trpo", "--family", "point-nav", "--inner-steps", "0", "--first-order"],
        "--inner-steps from 1",
    ),
    "--estimator dice": (
        ["train", "maml-trpo", "--family", "point-nav", "--first-order", "--estimator", "dice"],
        "no --first-order",
    ),
    "--inner-rate 0.5 for oracle": (["train", "oracle", "--family", "point-nav", "--inner-rate", "0.5"], "multitask"),
    "--width 30": ([*REGRESSION, "--width", "30"], "conv4"),
    "--hidden 30": ([*REGRESSION, "--backbone", "identity", "--hidden", "30"], "--backbone mlp"),
    "--no-channels-last": ([*REGRESSION, "--no-channels-last"], "conv4"),
    "--batch-norm running": ([*REGRESSION, "--batch-norm", "running"], "batch norm"),
    "--way 7": ([*REGRESSION, "--way", "7"], "classes"),
    "--size 32": ([*REGRESSION, "--size", "32"], "images"),
    "--data-root here": ([*REGRESSION, "--data-root", "here"], "files"),
    "--first-order-updates 3": ([*REGRESSION, "--first-order", "--first-order-updates", "3"], "no --first-order"),
    "--multi-step-updates 3": (
        [*REGRESSION, "--inner-steps", "1", "--multi-step-updates", "3"],
        "--inner-steps from 2",
    ),
    "--test-batch 3": (
        ["fewshot", "train", "reptile", "--data", "sinusoid", "--test-steps", "0", "--test-batch", "3"],
        "--test-steps from 1",
    ),
    "--cg-damping 3.0": (
        ["fewshot", "train", "imaml", "--data", "sinusoid", "--cg-iterations", "0", "--cg-damping", "3"],
        "--cg-iterations from 1",
    ),
    "--probe-tasks 3": (["evaluate", "run", "--probe-tasks", "3"], "--probe"),
    "--checkpoint best": (["play", "--checkpoint", "best"], "--runs"),
    "--checkpoint previous": (["render", "point-nav", "--checkpoint", "previous"], "a run"),
    "--steps 3": (["render", "point-nav", "--steps", "3"], "a run"),
    "--tasks 50": (["render", "point-nav", "--grid", "--tasks", "50"], "no --grid"),
    "--split ood": (["render", "point-nav", "--task", '{"goal": [0, 0]}', "--split", "ood"], "a --task by its number"),
}


@pytest.mark.parametrize("given", UNUSED)
def test_an_option_that_changes_nothing_is_refused(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, needs = UNUSED[given]
    line = refused(arguments, capsys)
    assert line.startswith(f"metarl: error: Got {given}")
    assert needs in line.partition("which changes nothing there: it needs ")[2]
    assert line.endswith("Leave it out.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_of_no_width_shows_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in ("0", "00", ""):
        monkeypatch.setenv("COLUMNS", width)
        monkeypatch.setenv("LINES", width)
        assert main(["list"]) == 0
        assert "point-nav" in capsys.readouterr().out
