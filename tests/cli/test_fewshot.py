from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarl.cli import fewshot as cli_fewshot
from metarl.cli.main import main
from metarl.fewshot import DATA, LEARNERS, FewShotRun
from metarl.run.tracking import read_progress
from tests.cli.test_cli import contents, refused
from tests.fewshot.test_run import logged
from tests.helpers.tiny_fewshot import store
from tests.run.test_driver import assert_same, saved

SHORT = ["--query", "3", "--hidden", "8", "--threads", "1", "--validation", "5", "--test-episodes", "20"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("data") / "mine")


def train(root: Path, folder: Path, learner: str = "proto", *more: str) -> Path:
    size = ["--tasks", "2", "--iterations", "4", "--checkpoint-every", "2"]
    data = ["--data", "arrays", "--data-root", str(root)]
    assert main(["fewshot", "train", learner, *data, *SHORT, *size, "--out", str(folder), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny runs; tests write only to their evaluation folders."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "proto": train(root, folder / "proto"),
        "other-seed": train(root, folder / "other-seed", "proto", "--seed", "1"),
        "maml": train(root, folder / "maml", "maml", "--inner-steps", "2"),
    }


def pictures(folder: Path) -> Path:
    """Write pictures of noise, 20 classes of 10."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    np.save(folder / "items.npy", generator.integers(0, 255, (200, 1, 16, 16), dtype=np.uint8))
    np.save(folder / "classes.npy", np.repeat(np.arange(20), 10))
    return folder


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["fewshot", "evaluate", *arguments, "--threads", "1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# -- train ------------------------------------------------------------------------------------------------------------


def test_train_ends_with_a_test_and_what_to_do_next(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fewshot", "train", "proto", "--data", "arrays", "--data-root", str(root), *SHORT]
    assert main([*arguments, "--iterations", "2", "--shot", "2", "--seed", "3"]) == 0
    run = Path("runs/arrays-proto-5way-2shot-seed3")
    shown = capsys.readouterr().out
    figure = re.search(
        r"Test +accuracy (\d+\.\d)% \[(\d+\.\d), (\d+\.\d)\], 95% interval, 20 episodes, held-out classes\n"
        r" +5-way 2-shot, batch norm none, checkpoint best \(iteration 2\)\n",
        shown,
    )
    assert figure is not None
    estimate, low, high = map(float, figure.groups())
    assert low <= estimate <= high
    assert f"Evaluate     metarl fewshot evaluate {run} --baseline --both\n" in shown
    assert f"TensorBoard  tensorboard --logdir {run}\n" in shown
    (row,) = json.loads((run / "evaluation" / "test" / "fewshot.json").read_text())["tests"][0]["rows"]
    assert 100.0 * row["mean"] == pytest.approx(estimate, abs=0.051)


def test_train_in_json_lines(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run = train(root, tmp_path / "run", "proto", "--log-every", "1", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["iteration"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
    last = lines[-1]
    assert (last["run"], last["iteration"], last["interrupted"]) == (str(run), 4, False)
    assert last["test"]["episodes"] == 20
    assert len(last["test"]["manifest"]) == 64

    train(root, tmp_path / "other", "proto", "--test-episodes", "0", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["test"] is None
    assert not (tmp_path / "other" / "evaluation").exists()


def test_a_stopped_run_goes_on_bit_for_bit(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--iterations", "3000", "--checkpoint-every", "1000", "--log-every", "7", "--tasks", "1"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = ["proto", "--data", "arrays", "--data-root", str(root), *SHORT, *size]
    command = [sys.executable, "-m", "metarl", "fewshot", "train", *arguments, "--out", str(stopped)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60.0
    while len(read_progress(stopped)) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    done = saved(stopped, "last")["iteration"]
    assert 0 < done < 3000
    assert f"Stopped by SIGTERM after iteration {done} of 3000" in output
    assert f"metarl fewshot train --resume {stopped}" in output
    # What the unfinished row has so far is in the checkpoint.
    assert len(saved(stopped, "last")["row"].get("train/loss", [])) == done % 7

    # The settings are those of the first start: a shorter run of both.
    end = str(7 * (done // 7) + 40)
    assert main(["fewshot", "train", "--resume", str(stopped), "--iterations", end, "--json"]) == 0
    assert main(["fewshot", "train", *arguments, "--iterations", end, "--out", str(whole), "--json"]) == 0
    capsys.readouterr()
    for name in ("last", "best"):
        assert_same(saved(stopped, name), saved(whole, name))
    assert logged(stopped) == logged(whole)


def test_resume_finds_data_that_were_moved(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = shutil.copytree(root, tmp_path / "first")
    run = train(first, tmp_path / "run")
    first.rename(tmp_path / "second" if not (tmp_path / "second").exists() else first)
    resume = ["fewshot", "train", "--resume", str(run), "--iterations", "6", "--test-episodes", "0"]
    assert "first" in refused(resume, capsys)
    assert main([*resume, "--data-root", str(tmp_path / "second")]) == 0
    assert [row["step"] for row in read_progress(run)] == [2, 4, 6]
    store(tmp_path / "third", seed=1)
    arrays = tmp_path / "third" / "items.npy"
    assert arrays.exists()
    message = refused([*resume, "--data-root", str(tmp_path / "third")], capsys)
    assert "fingerprint" in message
    assert "--data-root" in message


# -- evaluate ---------------------------------------------------------------------------------------------------------


def test_learners_meet_the_same_episodes(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(runs[name]) for name in ("proto", "maml", "other-seed")]
    options = ["--episodes", "30", "--baseline", "--steps", "3", "--out", str(tmp_path)]
    summary = evaluate(capsys, *names, *options)
    (test,) = summary["tests"]
    proto, maml, pixel = test["rows"]
    assert [row["learner"] for row in test["rows"]] == ["proto", "maml", "pixel-nn"]
    assert (proto["training_seeds"], maml["training_seeds"], pixel["training_seeds"]) == ([0, 1], [0], [])
    assert [len(row["points"]) for row in test["rows"]] == [0, 4, 0]
    assert maml["points"][2]["mean"] == pytest.approx(maml["mean"])
    assert [row["batch_norm"] for row in test["rows"]] == ["none", "none", "-"]
    assert (pixel["ece"], len(test["pairs"])) == (None, 3)
    assert test["pairs"][0]["difference"] == pytest.approx(proto["mean"] - maml["mean"])
    assert json.loads((tmp_path / "fewshot.json").read_text()) == summary
    assert (tmp_path / "steps-5-way-1-shot.png").is_file()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"proto", "maml", "pixel-nn"}

    again = evaluate(capsys, *names, *options, "--manifest", test["manifest_file"])
    assert again == summary
    other = evaluate(capsys, names[0], "--episodes", "30", "--seed", "1", "--out", str(tmp_path / "other"))
    assert other["tests"][0]["manifest"] != test["manifest"]


def test_other_ways_and_shots(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--way", "2", "4", "--shot", "1", "5", "--episodes", "40", "--out", str(tmp_path)]
    summary = evaluate(capsys, str(runs["proto"]), str(runs["maml"]), *options)
    labels = [test["label"] for test in summary["tests"]]
    assert labels == ["2-way 1-shot", "2-way 5-shot", "4-way 1-shot", "4-way 5-shot"]
    means = [test["rows"][0]["mean"] for test in summary["tests"]]
    assert means[1] > means[0] > means[2]
    assert len(list(tmp_path.glob("*.manifest"))) == 4
    assert (tmp_path / "proto 4-way 5-shot").is_dir()
    varied = evaluate(capsys, str(runs["proto"]), "--meta-dataset", "--episodes", "5", "--out", str(tmp_path))
    assert varied["tests"][0]["label"] == "meta-dataset"


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_is_trained_and_evaluated(
    learner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--way", "3", "--shot", "2", "--width", "8", "--iterations", "2", "--test-episodes", "0"]
    data = ["--data", "arrays", "--data-root", str(pictures(tmp_path / "images"))]
    run = tmp_path / "run"
    assert main(["fewshot", "train", learner, *data, *SHORT[:-2], *size, "--out", str(run)]) == 0
    summary = evaluate(capsys, str(run), "--both", "--way", "2", "--episodes", "3", "--steps", "1")
    rows = summary["tests"][0]["rows"]
    assert [row["learner"] for row in rows] == [learner, learner]
    assert [row["batch_norm"] for row in rows] == ["support", "transductive"]
    assert all(0.0 <= row["mean"] <= 1.0 and row["ece"] is not None for row in rows)


def test_batch_norm_is_told_and_both_kinds_are_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(tmp_path / "images")
    more = ["--way", "3", "--train-way", "5", "--width", "4", "--batch-norm"]
    runs = [
        train(images, tmp_path / policy, "proto", *more, policy) for policy in ("support", "transductive", "running")
    ]
    summary = evaluate(capsys, *map(str, runs), "--both", "--episodes", "10")
    rows = summary["tests"][0]["rows"]
    assert [(row["learner"], row["batch_norm"], row["trained_with_it"]) for row in rows] == [
        ("proto batch-norm=support", "support", True),
        ("proto batch-norm=support", "transductive", False),
        ("proto batch-norm=transductive", "transductive", True),
        ("proto batch-norm=transductive", "support", False),
        ("proto batch-norm=running", "running", True),
        ("proto batch-norm=running", "transductive", False),
    ]
    assert len({row["name"] for row in rows}) == 6


def test_evaluate_prints_tables(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    names = [str(runs[name]) for name in ("maml", "proto", "other-seed")]
    assert main(["fewshot", "evaluate", *names, "--episodes", "20", "--baseline", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    folder = runs["maml"] / "evaluation" / "test"
    for text in (
        "5-way 1-shot, 20 episodes of the test split",
        "accuracy [95%]",
        "ECE",
        "first - this",
        "n=10",
        "seeds",
    ):
        assert text in shown
    assert f"Picture      {folder / 'steps-5-way-1-shot.png'}\n" in shown
    assert f"TensorBoard  tensorboard --logdir {runs['maml']}\n" in shown
    assert max(map(len, shown.partition("Picture")[0].splitlines())) <= 80


def test_runs_that_do_not_compare_are_refused(
    runs: dict[str, Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = str(runs["proto"])
    assert "Give each run once" in refused(["fewshot", "evaluate", proto, f"{proto}/../proto"], capsys)
    other = train(store(tmp_path / "else", seed=1), tmp_path / "other")
    assert "fingerprint" in refused(["fewshot", "evaluate", proto, str(other)], capsys)
    line = ["fewshot", "train", "maml", "--data", "sinusoid", *SHORT, "--iterations", "1", "--tasks", "2"]
    assert main([*line, "--out", str(tmp_path / "sine")]) == 0
    assert "trained on sinusoid" in refused(["fewshot", "evaluate", proto, str(tmp_path / "sine")], capsys)


def test_regression_is_told_by_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["fewshot", "train", "maml", "--data", "sinusoid", "--shot", "10", *SHORT, "--iterations", "2"]
    assert main([*line, "--inner-rate", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"Test +mse \d+\.\d+ \[.*held-out tasks\n +10-shot, batch norm none", shown)
    summary = evaluate(capsys, "runs/sinusoid-maml-10shot-seed0", "--episodes", "30", "--steps", "2")
    (test,) = summary["tests"]
    assert (summary["measure"], test["label"], len(test["rows"][0]["points"])) == ("mse", "10-shot", 3)
    assert test["rows"][0]["ece"] is None
    assert "Leave --baseline out" in refused(
        ["fewshot", "evaluate", "runs/sinusoid-maml-10shot-seed0", "--baseline"], capsys
    )


def test_runs_of_the_other_kind_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rl = tmp_path / "rl"
    small = ["--tasks", "2", "--episodes", "2", "--threads", "1", "--hidden", "4", "--iterations", "0"]
    assert main(["train", "maml-trpo", "--family", "point-nav", *small, "--out", str(rl)]) == 0
    before = {**contents(rl), **contents(runs["proto"])}
    for command in ("evaluate", "train --resume"):
        message = refused(["fewshot", *command.split(), str(rl)], capsys)
        assert f"{rl} is a run of another kind, RL: use metarl evaluate" in message
        message = refused([*command.split(), str(runs["proto"])], capsys)
        assert "is a run of another kind, few-shot: use metarl fewshot evaluate" in message
    assert "few-shot" in refused(["render", str(runs["proto"]), "--out", str(tmp_path / "x.gif")], capsys)
    assert {**contents(rl), **contents(runs["proto"])} == before


# -- audit, list, show ------------------------------------------------------------------------------------------------


def test_audit_tells_what_it_found(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fewshot", "audit", "arrays", "--episodes", "20", "--data-root"]
    assert main([*arguments, str(root)]) == 0
    shown = capsys.readouterr().out
    assert "No leaks." in shown
    assert "item both in support and query" in shown
    assert max(map(len, shown.splitlines())) <= 80
    leaky = store(tmp_path / "leaky")
    items = np.load(leaky / "items.npy")
    items[:] = items[:1]
    np.save(leaky / "items.npy", items)
    assert main([*arguments, str(leaky)]) == 1
    assert "There are leaks." in capsys.readouterr().out
    assert main([*arguments, str(leaky), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fewshot", "list"]) == 0
    shown = capsys.readouterr().out
    for name in (*LEARNERS, *DATA):
        assert name in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["fewshot", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found["learners"]] == list(LEARNERS)
    assert [entry["name"] for entry in found["data"]] == list(DATA)
    assert found["learners"][0]["options"]["train_way"] == 20
    assert main(["fewshot", "list", "maml"]) == 0
    assert "--inner-rate" in capsys.readouterr().out
    assert main(["fewshot", "list", "omniglot", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"]


def test_show_draws_a_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(tmp_path / "images")
    out = tmp_path / "new" / "sheet.png"
    arguments = ["fewshot", "show", "arrays", "--data-root", str(images), "--split", "train", "--out", str(out)]
    assert main([*arguments, "--classes", "3", "--items", "4"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as image:
        assert image.height > 3 * 48
    assert "exists already" in refused(arguments, capsys)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fewshot", ["audit", "examples:"]),
        ("fewshot --help", ["train", "evaluate", "audit", "list", "examples:"]),
        ("fewshot train --help", list(LEARNERS)),
        ("fewshot train --resume x --help", ["--iterations", "--data-root"]),
        ("fewshot evaluate --help", ["--both", "--manifest", "examples:"]),
        ("fewshot audit --help", ["--data-root"]),
        ("fewshot list --help", ["--json"]),
        ("fewshot show --help", ["--out"]),
        *((f"fewshot train {name} --help", ["--batch-norm", "--iterations", LEARNERS[name][2]]) for name in LEARNERS),
    ],
)
def test_help_explains(line: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    # tyro ends the process after its help, as argparse does.
    with contextlib.suppress(SystemExit):
        assert main(line.split()) == (2 if line == "fewshot" else 0)
    shown = capsys.readouterr().out
    for text in says:
        assert text in shown


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fewshot trian", ["'fewshot trian'", "Did you mean 'train'?"]),
        ("fewshot train prot", ["Unknown learner 'prot'", "Did you mean 'proto'?"]),
        ("fewshot train --data glyphs", ["learner is needed first", "proto"]),
        ("fewshot train proto --data glyfs", ["Did you mean 'glyphs'?"]),
        ("fewshot train proto --learning-rat 1", ["Did you mean '--learning-rate'?"]),
        ("fewshot train proto --way 0 --data sinusoid", ["--way 0", "at least 2"]),
        ("fewshot train proto --data sinusoid", ["proto compares classes", "Use maml"]),
        ("fewshot train proto --device cuda", ["no CUDA device"]),
        ("fewshot train maml --query 3 --way 30 ARRAYS", ["Got 30 ways, and the split 'test' of", "--test-episodes 0"]),
        (
            "fewshot train proto --query 3 --way 30 --test-episodes 0 ARRAYS",
            ["Got 30 ways, and the split 'train' of"],
        ),
        ("fewshot train proto --query 15 ARRAYS", ["15 queries, 16 items of a class", "has 12"]),
        ("fewshot train --resume nowhere", ["no run in nowhere"]),
        ("fewshot evaluate", ["no run"]),
        ("fewshot evaluate nowhere", ["no run in nowhere"]),
        ("fewshot evaluate nowhere --steps -1", ["--steps -1", "at least 0"]),
        ("fewshot evaluate RUN --way 50", ["Got 50 ways"]),
        ("fewshot evaluate RUN --episodes 0", ["Got --episodes 0", "at least 2"]),
        ("fewshot evaluate RUN --split tset", ["'tset'", "'test'"]),
        ("fewshot evaluate RUN --manifest nowhere", ["no manifest nowhere"]),
        ("fewshot evaluate RUN --meta-dataset --way 5", ["--meta-dataset", "Leave the others out"]),
        ("fewshot evaluate RUN --checkpoint previos", ["'previos'", "'previous'"]),
        ("fewshot audit glyfs", ["Did you mean 'glyphs'?"]),
        ("fewshot audit sinusoid", ["sinusoid", "no classes"]),
        ("fewshot list prot", ["Did you mean 'proto'?"]),
        ("fewshot show sinusoid --out x.png", ["sinusoid", "no images"]),
        ("fewshot show arrays --out x.png --data-root ROOT", ["no images"]),
        ("fewshot show glyphs --out x.gif", ["x.gif", "ends in .png"]),
        ("fewshot show glyphs", ["--out"]),
    ],
)
def test_bad_input_is_one_line(
    line: str,
    says: list[str],
    root: Path,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = line.replace("ARRAYS", "--data arrays --data-root ROOT").replace("ROOT", str(root))
    line = line.replace("RUN", str(runs["proto"]))
    message = refused(line.split(), capsys)
    for text in says:
        assert text in message
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from metarl.cli import main\n"
        "try: main(['fewshot', 'evaluate', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")


def test_options_are_those_of_the_run() -> None:
    options = {field.name: field.default for field in dataclasses.fields(cli_fewshot.TrainOptions)}
    settings = {field.name: field.default for field in dataclasses.fields(FewShotRun)}
    assert set(options) - set(settings) == {"out", "json", "test_episodes"}
    assert set(settings) - set(options) == {"learner", "fingerprint"}
    for name in set(options) & set(settings) - {"data"}:
        assert options[name] == settings[name]
