from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch

from metarl.cli import train as cli_train
from metarl.cli.main import main
from metarl.run import folder, settings
from metarl.run.tracking import read_progress
from tests.helpers.commands import SMALL, TINY, contents, refused, train


def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    message = refused(["train", "maml-trpo", *TINY, "--device", "cuda", "--out", str(tmp_path / "run")], capsys)
    assert "--device cpu" in message
    assert list(tmp_path.iterdir()) == []


def out_of_memory(*arguments: object, **options: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_a_device_without_enough_memory_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "maml-trpo", *TINY, "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        patched.setattr("metarl.api.training.make_worlds", out_of_memory)
        assert "error: The memory of the device does not suffice (CUDA out of" in refused(line, capsys)
    with monkeypatch.context() as patched:
        patched.setattr("metarl.envs.worlds.Worlds.step", out_of_memory)
        message = refused(line, capsys)
    assert f"error: Iteration 1 of {tmp_path / 'run'} failed, The memory of the device does not suffice" in message
    # What it advises: another device, for the run that is there.
    assert "take another device with --device" in message
    again = ["train", "--resume", str(tmp_path / "run"), "--device"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "Got the device 'cuda:1', but torch finds no CUDA device" in refused([*again, "cuda:1"], capsys)
    assert main([*again, "auto"]) == 0
    assert "device: auto" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    for name in ("metarl.api.training.make_worlds", "metarl.envs.worlds.Worlds.step"):
        with monkeypatch.context() as patched:
            patched.setattr(name, broken)
            with pytest.raises(RuntimeError, match="illegal memory access"):
                main(["train", "maml-trpo", *TINY, "--out", str(tmp_path / name)])


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


def test_options_are_those_of_the_run() -> None:
    options = {field.name: field.default for field in dataclasses.fields(cli_train.TrainOptions)}
    defaults = {field.name: field.default for field in dataclasses.fields(settings.RunConfig)}
    assert set(options) - set(defaults) == {"out", "json", "horizon"}
    assert set(defaults) - set(options) == {"agent", "sources"}
    for name in set(options) & set(defaults):
        assert options[name] == defaults[name]
    assert get_args(settings.Checkpoint) == folder.CHECKPOINTS


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
