from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.cli.main import main
from metarl.errors import UserError
from metarl.fewshot import FewShotRun, config_class, load_data, train
from metarl.fewshot.asking import read_task
from metarl.fewshot.data.molecules import from_csv
from tests.helpers.commands import refused
from tests.helpers.tiny_fewshot import arrays

QUIET = ["--threads", "1"]


def task(folder: Path) -> tuple[Path, Path]:
    """Write a task of three classes of `arrays()`; the queries are the items themselves."""
    items, classes = arrays()
    folder.mkdir(exist_ok=True)
    np.save(folder / "items.npy", items[[0, 1, 12, 13, 24]])
    np.save(folder / "labels.npy", np.array(["a", "a", "b", "b", "c"]))
    np.save(folder / "asked.npy", items[[24, 0, 12]])
    assert classes[[0, 12, 24]].tolist() == [0, 1, 2]
    return folder, folder / "asked.npy"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_answers_are_shown_and_written(
    runs: dict[str, Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support, asked = task(tmp_path / "few")
    out = tmp_path / "answers.csv"
    line = ["fewshot", "predict", str(runs["proto"]), "--support", str(support), "--query", str(asked), *QUIET]
    assert main([*line, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "p(a)" in shown
    assert f"Answers      {out} (3 items)" in shown
    found = rows(out)
    assert [row["answer"] for row in found] == ["c", "a", "b"]
    assert [row["item"] for row in found] == [f"{asked}[{number}]" for number in range(3)]
    for row in found:
        chances = {label: float(row[f"p({label})"]) for label in "abc"}
        assert sum(chances.values()) == pytest.approx(1.0)
        assert max(chances, key=lambda label: chances[label]) == row["answer"]
    assert main([*line, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["answer"] for row in printed["answers"]] == ["c", "a", "b"]
    # By default beside the run; folders are queries as well, and maml answers too.
    line[2], line[6] = str(runs["maml"]), str(support)
    assert main(line) == 0
    beside = runs["maml"] / "predictions.csv"
    assert {row["answer"] for row in rows(beside)} <= set("abc")
    assert len(rows(beside)) == 5
    beside.unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("nowhere --support FEW --query ASKED", "no run in nowhere"),
        ("RUN --support none --query ASKED", "There is no none. Give the folder or file"),
        ("RUN --support FEW --query none.npy", "There is no none.npy"),
        ("RUN --support EMPTY --query ASKED", "There is no items.npy in"),
        ("RUN --support FEW --query FEW/labels.npy", "queries of the type <U1"),
        ("RUN --support FEW --query BAD", "cannot be read as an array"),
        ("RUN --support FEW --query ASKED --out x.txt", "Give a file that ends in .csv"),
        ("RUN --support FEW --query ASKED --layout nhwc", "layout nhwc, 4 axes"),
        ("RUN --support FEW", "--query"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    change: str, says: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support, asked = task(tmp_path / "few")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npy").write_bytes(b"x")
    places = {
        "RUN": runs["other-seed"],
        "FEW": support,
        "ASKED": asked,
        "EMPTY": tmp_path / "empty",
        "BAD": tmp_path / "bad.npy",
    }
    for name, path in places.items():
        change = change.replace(name, str(path))
    assert says in refused(["fewshot", "predict", *change.split()], capsys)
    assert not (runs["other-seed"] / "predictions.csv").exists()


def signals(folder: Path, classes: int, begin: int) -> Path:
    generator = np.random.default_rng(begin)
    for number in range(begin, begin + classes):
        (folder / f"c{number}").mkdir(parents=True)
        for item in range(6):
            np.save(folder / f"c{number}" / f"{item}.npy", number + 0.1 * generator.standard_normal((2, 16)))
    return folder


def test_signals_are_asked_about_by_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = FewShotRun(
        data="signals", learner="proto", way=2, shot=1, query=1, threads=1, width=4, validation=0,
        data_root=signals(tmp_path / "mine", 10, 0),
    )  # fmt: skip
    train(tmp_path / "run", run, None, config_class("proto")(train_way=4), iterations=1)
    support = signals(tmp_path / "few", 2, 20)
    one = str(support / "c21" / "3.npy")
    line = ["fewshot", "predict", str(tmp_path / "run"), "--support", str(support), *QUIET]
    assert main([*line, "--query", one, str(support / "c20")]) == 0
    found = rows(tmp_path / "run" / "predictions.csv")
    assert [row["item"] for row in found] == [one, *(str(support / "c20" / f"{item}.npy") for item in range(6))]
    assert {row["answer"] for row in found} <= {"c20", "c21"}
    (tmp_path / "empty").mkdir()
    assert "There are no files in" in refused([*line, "--query", str(tmp_path / "empty")], capsys)


def test_functions_are_asked_about_by_tables(tmp_path: Path) -> None:
    run = FewShotRun(data="sinusoid", learner="maml", shot=3, query=3, threads=1, hidden=(8,), validation=0)
    train(tmp_path / "run", run, None, config_class("maml")(tasks=2), iterations=1)
    (tmp_path / "few.csv").write_text("x,y\n0,0\n1,0.8\n2,0.9\n")
    (tmp_path / "asked.csv").write_text("x\n0.5\n1.5\n")
    np.save(tmp_path / "more.npy", np.array([[0.5]]))
    line = ["fewshot", "predict", str(tmp_path / "run"), "--support", str(tmp_path / "few.csv"), *QUIET]
    assert main([*line, "--query", str(tmp_path / "asked.csv"), str(tmp_path / "more.npy")]) == 0
    found = rows(tmp_path / "run" / "predictions.csv")
    assert list(found[0]) == ["item", "y0"]
    assert found[0]["y0"] == found[2]["y0"] != found[1]["y0"]


def test_molecules_are_asked_about_by_tables(tmp_path: Path) -> None:
    lines = ["smiles,a,b", *("C" * (n + 1) + f",{n % 2},{n // 2 % 2}" for n in range(12))]
    (tmp_path / "m.csv").write_text("\n".join(lines))

    def prints(smiles: Any) -> np.ndarray:
        return np.array([[len(text) % 2, 1 - len(text) % 2, 1] for text in smiles], np.uint8)

    data = from_csv(tmp_path / "m.csv", fingerprint=prints)
    (tmp_path / "few.csv").write_text("SMILES,Label\nC,active\nCC,inactive\n")
    (tmp_path / "asked.csv").write_text("smiles\nCCC\n")
    found = read_task(data, tmp_path / "few.csv", [tmp_path / "asked.csv"])
    assert found.items.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert (found.labels, found.queries.tolist(), found.names) == (["active", "inactive"], [[1, 0, 1]], ("CCC",))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("few.csv", "a,b\n1,2\n", "no column that begins with x; it has a, b"),
        ("few.csv", "x,y\n1,b\n", "could not convert string to float: 'b'"),
        ("few.csv", "x,y\n1\n", "Row 2 of .* has 1 columns, and the first has 2"),
        ("few.csv", "", "is empty. Give a row of column names"),
    ],
)
def test_tables_that_do_not_fit_are_refused(name: str, content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        read_task(load_data("sinusoid"), tmp_path / name, [tmp_path / name])


def test_nothing_but_earlier_answers_is_replaced(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support, asked = task(tmp_path / "few")
    run = tmp_path / "run"
    shutil.copytree(runs["proto"], run)
    line = ["fewshot", "predict", str(run), "--support", str(support), "--query", str(asked), *QUIET, "--out"]
    (tmp_path / "mine.csv").write_text("item,price\n")
    (tmp_path / "empty.csv").touch()
    for kept in (run / "progress.csv", tmp_path / "mine.csv"):
        before = kept.read_bytes()
        assert f"{kept} exists, and holds no answers" in refused([*line, str(kept)], capsys)
        assert kept.read_bytes() == before
    for _ in range(2):
        assert main([*line, str(tmp_path / "empty.csv")]) == 0
    os.mkfifo(tmp_path / "pipe.csv")
    assert "pipe.csv is a pipe" in refused([*line, str(tmp_path / "pipe.csv")], capsys)


def test_a_label_that_is_no_text_is_written_in_other_letters(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support, asked = task(tmp_path / "few")
    np.save(support / "labels.npy", np.array(["a", "a", "\ud800", "\ud800", "c"]))
    out = tmp_path / "answers.csv"
    line = ["fewshot", "predict", str(runs["proto"]), "--support", str(support), "--query", str(asked), *QUIET]
    assert main([*line, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][2]["answer"] == "\ud800"
    assert [row["answer"] for row in rows(out)] == ["c", "a", r"\ud800"]


def test_more_queries_than_fit_into_memory_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    support, asked = task(tmp_path / "few")
    monkeypatch.setattr("metarl.memory.free_memory", lambda device: 100)
    line = ["fewshot", "predict", str(runs["proto"]), "--support", str(support), "--query", str(asked), *QUIET]
    assert "lower the number of items in --query" in refused(line, capsys)
