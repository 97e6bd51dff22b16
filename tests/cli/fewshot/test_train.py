from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarl.cli.fewshot.train import TrainOptions
from metarl.cli.main import main
from metarl.config import to_plain
from metarl.fewshot import DATA, LEARNERS, FewShotRun, config_class, load
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import options_of
from metarl.fewshot.run import stored
from metarl.run.tracking import read_progress
from tests.fewshot.test_run import logged
from tests.helpers.commands import refused
from tests.helpers.processes import Started
from tests.helpers.run_folders import saved
from tests.helpers.same import assert_same
from tests.helpers.tiny_fewshot import SHORT, store, train_by_command


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
    run = train_by_command(root, tmp_path / "run", "proto", "--log-every", "1", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["iteration"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
    last = lines[-1]
    assert (last["run"], last["iteration"], last["interrupted"]) == (str(run), 4, False)
    assert last["test"]["episodes"] == 20
    assert len(last["test"]["manifest"]) == 64

    train_by_command(root, tmp_path / "other", "proto", "--test-episodes", "0", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["test"] is None
    assert not (tmp_path / "other" / "evaluation").exists()


def test_a_stopped_run_goes_on_bit_for_bit(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--iterations", "3000", "--checkpoint-every", "1000", "--log-every", "7", "--tasks", "1"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = ["proto", "--data", "arrays", "--data-root", str(root), *SHORT, *size]
    process = Started("metarl", "fewshot", "train", *arguments, "--out", str(stopped))
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
    run = train_by_command(first, tmp_path / "run")
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


def test_options_are_those_of_the_run() -> None:
    options = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
    settings = {field.name: field.default for field in dataclasses.fields(FewShotRun)}
    assert set(options) - set(settings) == {"out", "json", "test_episodes"}
    assert set(settings) - set(options) == {"learner", "fingerprint", "data_options", "sources"}
    for name in set(options) & set(settings) - {"data"}:
        assert options[name] == settings[name]


def test_options_of_the_data_are_options_of_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for c in range(9):
        (tmp_path / "mine" / f"{c}").mkdir(parents=True)
        for i in range(3):
            levels = np.full((4, 4), 100 * c + i, np.int32)
            Image.fromarray(levels).save(tmp_path / "mine" / f"{c}" / f"{i}.tif")
    run = tmp_path / "run"
    data = ["--data-root", str(tmp_path / "mine")]
    rest = ["--way", "2", "--query", "2", "--iterations", "2", "--validation", "0", "--test-episodes", "2"]
    train = ["fewshot", "train", "maml", "--data=folder@grey", *data, *rest, "--out", str(run)]
    assert "Give --range LEAST GREATEST" in refused(train, capsys)
    assert main([*train, "--range", "0", "1000"]) == 0
    settings = stored(run)[0]
    assert settings.data_options == {"range": [0.0, 1000.0]}
    assert main(["fewshot", "evaluate", str(run), "--episodes", "2"]) == 0
    source = load(run).source
    assert isinstance(source, ClassData)
    found = source.read([tmp_path / "mine" / "7" / "2.tif"])
    assert found.unique().tolist() == [pytest.approx(702 / 1000 * 255)]
    assert "has no option '--range'" in refused([*train[:3], "--data", "glyphs", "--range", "0", "1"], capsys)
    capsys.readouterr()
    for command in (["audit"], ["show", "--out", str(tmp_path / "sheet.png"), "--split", "train"]):
        assert main(["fewshot", *command, "folder", *data, "--range", "0", "1000"]) == 0
    assert main(["fewshot", "list", "folder"]) == 0
    shown = capsys.readouterr().out
    assert "--ground" in shown
    assert "grey" in shown
    for name in DATA:
        taken = {field.name for part in (TrainOptions, FewShotRun) for field in dataclasses.fields(part)}
        taken |= {field.name for learner in LEARNERS for field in dataclasses.fields(config_class(learner))}
        assert not taken & {key for part in options_of(name).values() for key in to_plain(part())}
