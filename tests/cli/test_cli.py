from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from metarl.agents import AGENTS
from metarl.cli import options as cli_options
from metarl.cli import train as cli_train
from metarl.cli.main import main
from metarl.envs import families
from metarl.evaluation.film import Clip, compose
from metarl.run import folder, settings
from metarl.run.glossary import GLOSSARY
from metarl.run.tracking import read_progress
from metarl.version import __version__

SMALL = ["--tasks", "2", "--episodes", "2", "--threads", "1"]
TINY = [*SMALL, "--family", "point-nav", "--iterations", "2", "--hidden", "8"]


def train(folder: Path, agent: str = "maml-trpo", *more: str) -> Path:
    assert main(["train", agent, *TINY, "--out", str(folder), *more]) == 0
    return folder


def remember(folder: Path, *more: str) -> Path:
    """Train an agent with a memory; the family is the last one named."""
    small = ["--tasks", "4", "--minibatches", "1", "--width", "4", "--iterations", "1", "--threads", "1"]
    assert main(["train", "rl2", "--family", "point-nav", *small, "--out", str(folder), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny run of every agent that is trained; tests write only to their evaluation folders."""
    root = tmp_path_factory.mktemp("runs")
    trained = {agent: train(root / agent, agent) for agent in ("maml-trpo", "multitask", "oracle")}
    trained["other-seed"] = train(root / "other-seed", "maml-trpo", "--seed", "1")
    trained["rl2"] = remember(root / "rl2")
    trained["rl2-other-seed"] = remember(root / "rl2-other-seed", "--seed", "1")
    return trained


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on standard error that `arguments` end with."""
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("metarl: error: ")
    return captured.err


# -- bad input --------------------------------------------------------------------------------------------------------


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
        ("train maml-trpo --inner-rate inf", ["Got --inner-rate inf. It must be at least 0.0 and finite."]),
        ("train maml-trpo --threads 100000", ["threads=100000", "1 to 1024"]),
        ("train maml-trpo --tasks 0", ["Got --tasks 0. It must be at least 1."]),
        ("train maml-trpo --estimator dicee", ["'dicee'", "'dice'", "'lvc'"]),
        ("train maml-trpo --device tpu", ["'tpu'", "'cpu'", "'cuda'"]),
        ("train maml-trpo --seed -1", ["seed -1", "from 0"]),
        ("train maml-trpo 5", ["does not take '5'"]),
        ("train --resume nowhere", ["no run in nowhere"]),
        ("train --resume nowhere --seed 3", ["'--seed'", "--iterations", "--checkpoint"]),
        ("evaluate", ["no run"]),
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
        ('render point-nav --task {"goal":[0,9]} --out x.gif', ["goal got [0.0, 9.0]", "-0.5 to 0.5 m"]),
        ("render point-nav --steps 0 --out x.gif", ["--steps 0", "at least 1"]),
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


def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    message = refused(["train", "maml-trpo", *TINY, "--device", "cuda", "--out", str(tmp_path / "run")], capsys)
    assert "--device cpu" in message
    assert list(tmp_path.iterdir()) == []


def test_a_taken_run_folder_is_refused_and_left_alone(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["maml-trpo"]
    before = contents(run)
    message = refused(["train", "maml-trpo", *TINY, "--out", str(run)], capsys)
    assert f"{run} exists already" in message
    assert "--resume" in message
    assert contents(run) == before


def test_folders_that_cannot_be_made_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert "Not a directory" in refused(["train", "maml-trpo", *TINY, "--out", str(file / "run")], capsys)
    assert "File exists" in refused(["evaluate", str(runs["maml-trpo"]), *SMALL, "--out", str(file)], capsys)
    assert file.read_text() == "mine"


def test_a_training_that_diverges_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    message = refused(["train", "maml-trpo", *TINY, "--inner-rate", "1e30", "--json", "--out", str(run)], capsys)
    assert f"Iteration 1 of {run} failed" in message
    assert "lower" in message


def test_a_checkpoint_from_another_family_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["maml-trpo"], run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("point-nav@maml17", "half-cheetah-vel@v5"))
    before = contents(run)
    for arguments in (["evaluate", str(run)], ["train", "--resume", str(run)]):
        message = refused(arguments, capsys)
        assert "family is 'point-nav@maml17' there and 'half-cheetah-vel@v5' here" in message
    assert contents(run) == before


def test_a_damaged_checkpoint_is_refused_and_the_previous_one_offered(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["maml-trpo"], run)
    assert main(["train", "--resume", str(run), "--iterations", "3"]) == 0
    last = run / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    assert "--checkpoint previous" in refused(["evaluate", str(run), *SMALL], capsys)
    assert main(["evaluate", str(run), *SMALL, "--checkpoint", "previous"]) == 0


def test_runs_that_do_not_compare_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maml, multitask = str(runs["maml-trpo"]), str(runs["multitask"])
    assert "Give each run once" in refused(["evaluate", maml, f"{maml}/../maml-trpo", *SMALL], capsys)
    assert "Give each run once" in refused(["evaluate", maml, multitask, multitask, *SMALL], capsys)
    assert "run of 'multitask'" in refused(["evaluate", maml, "--oracle", multitask, *SMALL], capsys)
    other = tmp_path / "other"
    assert main(["train", "multitask", *TINY, "--family", "half-cheetah-dir", "--out", str(other)]) == 0
    assert main(["train", "oracle", *TINY, "--family", "half-cheetah-dir", "--out", str(tmp_path / "oracle")]) == 0
    for arguments in ([maml, str(other)], [maml, "--oracle", str(tmp_path / "oracle")]):
        message = refused(["evaluate", *arguments, *SMALL], capsys)
        assert "half-cheetah-dir@v5" in message
        assert "point-nav@maml17" in message
    wide = train(tmp_path / "wide", "oracle", "--hidden", "9")
    message = refused(["evaluate", maml, "--oracle", str(runs["oracle"]), str(wide), *SMALL], capsys)
    assert "'oracle hidden=[8]' and 'oracle hidden=[9]'" in message
    longer = remember(tmp_path / "longer", "--family", "bandit", "--episodes", "3")
    shorter = remember(tmp_path / "shorter", "--family", "bandit", "--episodes", "2")
    message = refused(["play", "--runs", str(longer), str(shorter), "--tasks", "4"], capsys)
    assert "trials of 3 episodes" in message
    assert "trials of 2" in message


def test_settings_tell_curves_of_one_agent_apart(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = remember(tmp_path / "lstm", "--core", "lstm", "--iterations", "0")
    names = (runs["rl2"], other, runs["rl2-other-seed"], runs["maml-trpo"])
    capsys.readouterr()
    arguments = ["evaluate", *map(str, names), *SMALL, "--steps", "1", "--out", str(tmp_path / "both"), "--json"]
    assert main(arguments) == 0
    agents = json.loads(capsys.readouterr().out)["agents"]
    assert [agent["agent"] for agent in agents] == ["rl2 core=gru", "rl2 core=lstm", "maml-trpo"]
    assert [agent["training_seeds"] for agent in agents] == [[0, 1], [0], [0]]
    assert (tmp_path / "both" / "rl2 core=lstm").is_dir()


def test_more_than_the_memory_holds_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for option, says in (
        ("--tasks", "--tasks 2000000000 with 1 "),
        ("--episodes", "with 2000000000 parallel episodes"),
    ):
        message = refused(["evaluate", str(runs["rl2"]), option, "2000000000", *out], capsys)
        assert says in message
        assert "GiB of memory" in message
    assert not (tmp_path / "out").exists()


# -- help -------------------------------------------------------------------------------------------------------------


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


def test_options_are_those_of_the_run() -> None:
    options = {field.name: field.default for field in dataclasses.fields(cli_train.TrainOptions)}
    defaults = {field.name: field.default for field in dataclasses.fields(settings.RunConfig)}
    assert set(options) - set(defaults) == {"out", "json"}
    assert set(defaults) - set(options) == {"agent"}
    assert {name: options[name] for name in defaults if name != "agent"} == {
        name: default for name, default in defaults.items() if name != "agent"
    }
    assert get_args(cli_options.Which) == folder.CHECKPOINTS


# -- what the commands do ---------------------------------------------------------------------------------------------


def test_train_tells_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "maml-trpo", *TINY, "--seed", "3"]) == 0
    run = Path("runs/point-nav@maml17-maml-trpo-seed3")
    assert (run / "config.yaml").is_file()
    shown = capsys.readouterr().out
    assert f"metarl evaluate {run}" in shown
    assert f"tensorboard --logdir {run}" in shown


def test_train_in_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path / "run", "multitask", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["iteration"] for line in lines if "return/post" in line] == [1, 2]
    assert lines[-1]["run"] == str(run)
    assert lines[-1]["interrupted"] is False


def test_resume_goes_on_as_an_uninterrupted_run(runs: dict[str, Path], tmp_path: Path) -> None:
    straight = train(tmp_path / "straight", "maml-trpo", "--iterations", "4")
    resumed = tmp_path / "resumed"
    shutil.copytree(runs["maml-trpo"], resumed)
    assert main(["train", "--resume", str(resumed), "--iterations", "4"]) == 0
    expected, found = read_progress(straight), read_progress(resumed)
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    assert [row["return/post"] for row in found] == [row["return/post"] for row in expected]


def test_evaluate_writes_everything(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = runs["maml-trpo"]
    others = [str(runs["multitask"]), str(runs["other-seed"]), "--oracle", str(runs["oracle"])]
    arguments = ["evaluate", str(run), *others, *SMALL, "--tasks", "3", "--json"]
    capsys.readouterr()
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    folder = run / "evaluation" / "test"
    names = {"adaptation.csv", "adaptation.json", "adaptation.png"}
    assert names < {path.name for path in folder.iterdir()}
    assert json.loads((folder / "adaptation.json").read_text()) == summary

    assert [agent["agent"] for agent in summary["agents"]] == ["maml-trpo", "multitask"]
    assert summary["agents"][0]["training_seeds"] == [0, 1]
    assert [point["episodes"] for point in summary["agents"][0]["points"]] == [0, 2, 4, 6]
    assert len(summary["task_records"]) == 3
    at = {name: summary[name]["points"][0]["mean"] for name in ("oracle", "random")}
    point = summary["agents"][0]["points"][2]
    if at["oracle"] > at["random"]:
        gap = (point["mean"] - at["random"]) / (at["oracle"] - at["random"])
        assert point["gap_closed"] == pytest.approx(gap)
    else:
        assert summary["gap_note"] is not None


def test_all_agents_share_one_axis(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("rl2", "maml-trpo", "rl2-other-seed")
    arguments = ["evaluate", *(str(runs[name]) for name in names), "--tasks", "3", "--threads", "1"]
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "both"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    rl2, maml = summary["agents"]
    assert (rl2["agent"], rl2["training_seeds"], rl2["pools"]) == ("rl2", [0, 1], False)
    # Two episodes are a trial; MAML-TRPO was trained with two episodes a step, and takes three steps.
    assert [point["episodes"] for point in rl2["points"]] == [0, 1]
    assert [point["episodes"] for point in maml["points"]] == [0, 2, 4, 6]
    assert rl2["parallel"] == maml["parallel"] == 2
    assert {path.name for path in (tmp_path / "both").iterdir() if path.is_dir()} == {"rl2", "maml-trpo"}

    assert main([*arguments, "--out", str(tmp_path / "long"), "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    assert f"tensorboard --logdir {tmp_path / 'long'}\n" in shown
    assert max(map(len, shown.partition("Picture")[0].splitlines())) <= 80
    summary = json.loads((tmp_path / "long" / "adaptation.json").read_text())
    assert [[point["episodes"] for point in agent["points"]] for agent in summary["agents"]] == [[0, 1, 2], [0, 2, 4]]
    assert summary["agents"][0]["total"]["mean"] == pytest.approx(
        sum(point["mean"] for point in summary["agents"][0]["points"])
    )
    assert re.search(r"total +0-2 ", shown)


@pytest.mark.parametrize(("tasks", "trials"), [(2, 10), (100, 4), (500, 1)])
def test_agents_with_a_memory_play_some_trials_of_each_task(
    tasks: int, trials: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = remember(tmp_path / "run", "--family", "bandit", "--episodes", "3")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--tasks", str(tasks), "--json"]) == 0
    (agent,) = json.loads(capsys.readouterr().out)["agents"]
    assert agent["parallel"] == trials
    assert [point["episodes"] for point in agent["points"]] == [0, 1, 2]


def test_evaluate_gives_the_same_numbers_again(runs: dict[str, Path], tmp_path: Path) -> None:
    written: list[dict[str, Any]] = []
    for name in ("a", "b"):
        out = tmp_path / name
        assert main(["evaluate", str(runs["multitask"]), *SMALL, "--split", "ood", "--out", str(out)]) == 0
        written.append(json.loads((out / "adaptation.json").read_text()))
    assert written[0] == written[1]
    assert all(max(map(abs, record["goal"])) > 0.5 for record in written[0]["task_records"])


def test_evaluate_prints_the_table(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(runs["maml-trpo"]), *SMALL, "--random", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for text in (
        "maml-trpo",
        "random",
        "mean [95%]",
        "gain [95%]",
        str(tmp_path / "adaptation.png"),
        "tensorboard --logdir",
    ):
        assert text in shown


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    everything = [family.full_name for variants in families().values() for family in variants]
    assert [family["name"] for family in found["families"]] == everything
    assert [agent["name"] for agent in found["agents"]] == list(AGENTS)

    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in (*families(), *AGENTS):
        assert name in shown


@pytest.mark.parametrize("width", [80, 100])
def test_list_shows_all_of_every_family(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list", "--families"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    words = shown.split()
    for variants in families().values():
        for family in variants:
            row = [family.variant, *map(str, (family.observation_size, family.action_size, family.horizon))]
            assert any(words[at : at + 4] == row for at in range(len(words))), family.full_name
            for parameter in family.space.parameters:
                assert parameter.name in words
                assert parameter.scale in words
                for word in parameter.allowed().split()[:3]:
                    assert word in words
    assert "100 train, 30 test, ood" in " ".join(words)
    # Two-task families say that train and test coincide.
    assert "train = test" in " ".join(words)

    assert main(["list", "--families", "--json"]) == 0
    found = {family["name"]: family for family in json.loads(capsys.readouterr().out)}
    cheetah = found["half-cheetah-vel@pearl19"]
    assert cheetah["fixed_tasks"] == {"train": 100, "test": 30, "seed": 0}
    assert cheetah["splits"] == ["train", "test", "ood"]
    assert cheetah["parameters"][0]["high"] == 3.0
    assert not cheetah["train_and_test_coincide"]
    assert found["ant-dir@v5"]["train_and_test_coincide"]


def test_list_explains_a_family_an_agent_and_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "point-nav@maml17"]) == 0
    shown = capsys.readouterr().out
    for text in ("Finn et al. 2017", "-0.5 to 0.5 m", "y of the point", "metarl/PointNav-v0"):
        assert text in shown
    assert main(["list", "half-cheetah-dir"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("maml17 18 6 200", "half-cheetah-dir@v5: gymnasium.make", "Train and test tasks coincide"):
        assert text in shown
    assert "variant=" not in shown
    assert main(["list", "half-cheetah-vel@pearl19+mass"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert 'gymnasium.make("metarl/HalfCheetahVel-v0", variant="pearl19+mass")' in shown
    assert main(["list", "ant-dir+damage"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert 'gymnasium.make("metarl/AntDir-v0", variant="v5+damage")' in shown
    assert main(["list", "oracle"]) == 0
    assert "--inner-rate" in capsys.readouterr().out
    assert main(["list", "--metrics", "--json"]) == 0
    assert [row["tag"] for row in json.loads(capsys.readouterr().out)] == list(GLOSSARY)
    assert main(["list", "--metrics"]) == 0
    assert "adaptation/mean" in capsys.readouterr().out


def test_render_shows_before_and_after(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "film.gif"
    size = ["--width", "100", "--height", "80"]
    arguments = ["render", str(runs["maml-trpo"]), *size, "--task", '{"goal":[0.3,-0.2]}', "--out", str(out)]
    assert main(arguments) == 0
    assert "before adaptation" in capsys.readouterr().out
    with Image.open(out) as film:
        assert film.width > 200
        film.seek(1)
    before = out.read_bytes()
    assert "exists already" in refused(arguments, capsys)
    assert out.read_bytes() == before


def test_render_shows_the_first_and_the_last_episode_of_a_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # An episode is 100 steps: in the last one the goal is elsewhere.
    run = remember(tmp_path / "run", "--family", "point-nav+switch=150..150", "--episodes", "3")
    size = ["--width", "100", "--height", "80"]
    task = '{"goal": [0.5, 0.5], "later_goal": [-0.5, -0.5], "switch_step": 150}'
    capsys.readouterr()
    assert main(["render", str(run), *size, "--task", task, "--out", str(tmp_path / "film.gif")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^episode 1 of the trial: return -[0-9.]+\nepisode 3 of the trial: return -[0-9.]+$", shown, re.M)
    with Image.open(tmp_path / "film.gif") as film:
        # The goal is green, and above and right in the first picture, below and left in the second.
        image = np.asarray(film.convert("RGB")).astype(int)
    green = (image[:, :, 1] > 2 * image[:, :, 0]) & (image[:, :, 1] > 2 * image[:, :, 2])
    rows, columns = green.nonzero()
    assert np.any(columns < 106)
    assert columns[columns < 106].mean() > 50
    assert columns[columns >= 106].mean() < 156
    assert rows[columns < 106].mean() < rows[columns >= 106].mean() - 10
    message = refused(["render", str(run), "--episodes", "4", "--out", str(tmp_path / "other.gif")], capsys)
    assert "learns from one at a time" in message


def test_a_grid_shows_many_tasks(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--width", "100", "--height", "80", "--rows", "2", "--columns", "2"]
    still, film = tmp_path / "new" / "tasks.png", tmp_path / "tasks.gif"
    assert main(["render", "point-nav", "--grid", *size, "--split", "ood", "--out", str(still)]) == 0
    assert capsys.readouterr().out == f"{still}\n"
    with Image.open(still) as image:
        assert image.width == 206
        cells = [image.crop(box) for box in ((0, 0, 100, 400), (106, 0, 206, 400))]
        # Goals are green.
        assert all(b"\x00\x80\x00" in cell.tobytes() for cell in cells)
        assert cells[0].tobytes() != cells[1].tobytes()
    assert main(["render", str(runs["oracle"]), "--grid", "--video", *size, "--out", str(film)]) == 0
    with Image.open(film) as image:
        first = image.convert("RGB").tobytes()
        image.seek(image.n_frames - 1)  # pyright: ignore[reportAttributeAccessIssue]
        assert image.convert("RGB").tobytes() != first


def test_goals_are_in_the_pictures_of_robots(opengl: bool, tmp_path: Path) -> None:
    if not opengl:
        pytest.skip("no off-screen OpenGL here")
    for name in ("ant-goal", "ant-dir"):
        out = tmp_path / f"{name}.png"
        arguments = ["render", name, "--grid", "--rows", "1", "--columns", "2", "--width", "160", "--height", "120"]
        assert main([*arguments, "--out", str(out)]) == 0
        with Image.open(out) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
        bright = (green > 2 * red) & (green > 2 * blue)
        assert np.any(bright[:, :160]), name
        assert np.any(bright[:, 166:]), name


def test_captions_fit() -> None:
    clip = Clip(
        caption=", ".join(f"parameter{i} {i / 7:.3g} m" for i in range(9)),
        frames=(np.zeros((40, 120, 3), dtype=np.uint8),),
        returns=(0.0,),
    )
    image = np.asarray(compose([clip, clip], "a title that is wider than both", 2, 0))
    assert image.shape[1] == 246
    # Nothing is written over the edge of a cell, or over the picture.
    assert (image[:, 120:126][30:] == 255).all()
    assert (image[-46:-6, 1:119][1:-1] == 0).all()


def test_render_says_how_to_get_opengl(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    # PyOpenGL then refuses both off-screen kinds, as it does where their libraries are missing.
    environment["PYOPENGL_PLATFORM"] = "glx"
    command = [sys.executable, "-m", "metarl", "render", "half-cheetah-vel", "--out", str(tmp_path / "x.gif")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "apt-get install libegl1" in result.stderr
    assert list(tmp_path.iterdir()) == []
