from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.fewshot import LEARNERS
from tests.helpers.commands import contents, refused
from tests.helpers.tiny_fewshot import SHORT, evaluate_by_command, pictures, store, train_by_command


def test_learners_meet_the_same_episodes(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(runs[name]) for name in ("proto", "maml", "other-seed")]
    options = ["--episodes", "30", "--baseline", "--steps", "3", "--out", str(tmp_path)]
    summary = evaluate_by_command(capsys, *names, *options)
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

    again = evaluate_by_command(capsys, *names, *options[2:], "--manifest", test["manifest_file"])
    assert again == summary
    other = evaluate_by_command(capsys, names[0], "--episodes", "30", "--seed", "1", "--out", str(tmp_path / "other"))
    assert other["tests"][0]["manifest"] != test["manifest"]


def test_other_ways_and_shots(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--way", "2", "4", "--shot", "1", "5", "--episodes", "40", "--out", str(tmp_path)]
    summary = evaluate_by_command(capsys, str(runs["proto"]), str(runs["maml"]), *options)
    labels = [test["label"] for test in summary["tests"]]
    assert labels == ["2-way 1-shot", "2-way 5-shot", "4-way 1-shot", "4-way 5-shot"]
    means = [test["rows"][0]["mean"] for test in summary["tests"]]
    assert means[1] > means[0] > means[2]
    assert len(list(tmp_path.glob("*.manifest"))) == 4
    assert (tmp_path / "proto 4-way 5-shot").is_dir()
    varied = evaluate_by_command(
        capsys, str(runs["proto"]), "--meta-dataset", "--episodes", "5", "--out", str(tmp_path)
    )
    assert varied["tests"][0]["label"] == "meta-dataset"


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_is_trained_and_evaluated(
    learner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--way", "3", "--shot", "2", "--width", "8", "--iterations", "2", "--test-episodes", "0"]
    data = ["--data", "arrays", "--data-root", str(pictures(tmp_path / "images"))]
    run = tmp_path / "run"
    assert main(["fewshot", "train", learner, *data, *SHORT[:-2], *size, "--out", str(run)]) == 0
    summary = evaluate_by_command(capsys, str(run), "--both", "--way", "2", "--episodes", "3", "--steps", "1")
    rows = summary["tests"][0]["rows"]
    assert [row["learner"] for row in rows] == [learner, learner]
    assert [row["batch_norm"] for row in rows] == ["support", "transductive"]
    assert all(0.0 <= row["mean"] <= 1.0 and row["ece"] is not None for row in rows)


def test_batch_norm_is_told_and_both_kinds_are_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(tmp_path / "images")
    more = ["--way", "3", "--train-way", "5", "--width", "4", "--batch-norm"]
    runs = [
        train_by_command(images, tmp_path / policy, "proto", *more, policy)
        for policy in ("support", "transductive", "running")
    ]
    summary = evaluate_by_command(capsys, *map(str, runs), "--both", "--episodes", "10")
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
    other = train_by_command(store(tmp_path / "else", seed=1), tmp_path / "other")
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
    summary = evaluate_by_command(capsys, "runs/sinusoid-maml-10shot-seed0", "--episodes", "30", "--steps", "2")
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


def test_what_cannot_be_evaluated_leaves_no_folder(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest").write_text("no such thing")
    out = tmp_path / "out"
    given = ["fewshot", "evaluate", str(runs["proto"]), "--out", str(out)]
    assert "is not a manifest of episodes" in refused([*given, "--manifest", str(tmp_path / "manifest")], capsys)
    assert not out.exists()


def test_a_best_checkpoint_that_leads_nowhere_is_not_taken_for_none(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["proto"], folder)
    best = folder / "checkpoints" / "best.pt"
    best.unlink()
    best.symlink_to("gone.pt")
    assert "best.pt" in refused(["fewshot", "evaluate", str(folder)], capsys)
