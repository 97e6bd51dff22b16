from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from metarl.cli.main import main
from tests.helpers.commands import SMALL, TINY, refused, remember, train


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
    arguments = [
        "evaluate",
        *map(str, names),
        *SMALL,
        "--steps",
        "1",
        "--out",
        str(tmp_path / "both"),
        "--json",
        "--no-film",
    ]
    assert main(arguments) == 0
    agents = json.loads(capsys.readouterr().out)["agents"]
    assert [agent["agent"] for agent in agents] == ["rl2 core=gru", "rl2 core=lstm", "maml-trpo"]
    assert [agent["training_seeds"] for agent in agents] == [[0, 1], [0], [0]]
    assert (tmp_path / "both" / "rl2 core=lstm").is_dir()


def test_more_than_the_memory_holds_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for option, says in (("--tasks", "lower --tasks"), ("--episodes", "lower --tasks, --episodes or --horizon")):
        message = refused(["evaluate", str(runs["rl2"]), option, "2000000000", *out], capsys)
        assert says in message
        assert "TB of memory" in message
    assert not (tmp_path / "out").exists()


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


def test_another_horizon_has_its_own_folder(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = runs["multitask"]
    assert main(["evaluate", str(run), *SMALL, "--tasks", "2", "--horizon", "7", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["family"] == "point-nav@maml17+horizon=7"
    assert [path.name for path in (run / "evaluation").iterdir()] == ["test-horizon-7"]
    assert json.loads((run / "evaluation" / "test-horizon-7" / "adaptation.json").read_text()) == summary
    assert "give a whole number from 1" in refused(["evaluate", str(run), "--horizon", "0"], capsys)


def test_all_agents_share_one_axis(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("rl2", "maml-trpo", "rl2-other-seed")
    arguments = ["evaluate", *(str(runs[name]) for name in names), "--tasks", "3", "--threads", "1", "--no-film"]
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
    assert main(["evaluate", str(run), "--tasks", str(tasks), "--json", "--no-film"]) == 0
    (agent,) = json.loads(capsys.readouterr().out)["agents"]
    assert agent["parallel"] == trials
    assert [point["episodes"] for point in agent["points"]] == [0, 1, 2]


def test_evaluate_gives_the_same_numbers_again(runs: dict[str, Path], tmp_path: Path) -> None:
    written: list[dict[str, Any]] = []
    for name in ("a", "b"):
        out = tmp_path / name
        assert main(["evaluate", str(runs["multitask"]), *SMALL, "--split", "ood", "--out", str(out), "--no-film"]) == 0
        written.append(json.loads((out / "adaptation.json").read_text()))
    assert written[0] == written[1]
    assert all(max(map(abs, record["goal"])) > 0.5 for record in written[0]["task_records"])


def test_evaluate_prints_the_table(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(runs["maml-trpo"]), *SMALL, "--random", "--out", str(tmp_path), "--no-film"]) == 0
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


def test_a_student_stands_beside_ppo_and_its_teacher_is_their_oracle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--minibatches", "2", "--iterations", "2"]
    student = train(tmp_path / "rma", "rma", *few, "--student-minibatches", "2", "--rewards")
    plain, teacher = (train(tmp_path / name, name, *few) for name in ("ppo", "teacher"))
    capsys.readouterr()
    told = ["--oracle", str(teacher), "--probe", "--probe-tasks", "10", "--steps", "1", "--no-film"]
    assert main(["evaluate", str(student), str(plain), *told, *SMALL, "--out", str(tmp_path / "all"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    rma, ppo = summary["agents"]
    assert [point["episodes"] for point in rma["points"]] == [0, 1]
    assert [point["episodes"] for point in ppo["points"]] == [0, 2]
    assert summary["oracle"]["agent"] == "teacher"
    probe = json.loads((tmp_path / "all" / "probe.json").read_text())
    assert [result["agent"] for result in probe["results"]] == ["rma"]
    assert "run of 'ppo'. Give one of 'oracle' or 'teacher'" in refused(
        ["evaluate", str(student), "--oracle", str(plain), *SMALL], capsys
    )

    other = train(tmp_path / "multitask", "multitask")
    capsys.readouterr()
    # From those that are told nothing, in place of untrained ones.
    gap = [
        "--oracle",
        str(teacher),
        "--floor",
        str(plain),
        "--steps",
        "1",
        "--no-film",
        "--record",
        str(tmp_path / "l"),
    ]
    assert main(["evaluate", str(student), str(plain), *gap, *SMALL, "--out", str(tmp_path / "gap"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agents"][0]["points"][0]["mean"] == summary["agents"][0]["points"][0]["mean"]
    assert (found["floor_agent"], found["floor"]["runs"], found["random"]) == ("ppo", [str(plain)], None)
    low, high, at = (part["points"][0]["mean"] for part in (found["floor"], found["oracle"], found["agents"][0]))
    assert low == found["agents"][1]["points"][0]["mean"]
    closed = [agent["points"][0]["gap_closed"] for agent in found["agents"]]
    assert closed == (pytest.approx([(at - low) / (high - low), 0.0]) if high > low else [None, None])
    assert sorted(file.name for file in (tmp_path / "l").iterdir()) == [
        f"{name}-seed0.npz" for name in ("floor", "ppo", "rma", "teacher")
    ]
    for words, told in (
        (["--floor", str(plain)], "Got --floor without --oracle: the gap closed lies between the two. Give both"),
        (["--oracle", str(teacher), "--floor", str(teacher)], "run of 'teacher' and is told the task. Give one of an"),
        (["--oracle", str(teacher), "--floor", str(student)], "run of 'rma' and adapts in its first episode. Give one"),
        (
            ["--oracle", str(teacher), "--floor", str(plain), str(other)],
            "floors of several kinds, 'ppo' and 'multitask'",
        ),
    ):
        assert told in refused(["evaluate", str(student), *words, *SMALL], capsys)
    assert "Ask for 2 or more" in refused(["train", "rma", "--family", "point-nav", "--iterations", "1"], capsys)
    assert "--activation relu" in refused(
        ["train", "ppo", "--family", "point-nav", "--hidden", "--activation", "relu"], capsys
    )
