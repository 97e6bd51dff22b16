from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.fewshot.report import table, table_of_steps, write
from metarl.fewshot.summary import Test, summarise
from metarl.run.glossary import look_up
from tests.helpers.tiny_fewshot import made_up, row


def test_files_hold_what_was_measured(tmp_path: Path) -> None:
    test, data = made_up()
    summary = summarise([test], data, seed=0)
    (tmp_path / "steps-old.png").touch()
    (picture,) = write([test], summary, tmp_path)
    write([test], summary, tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "fewshot.csv",
        "fewshot.json",
        "steps-5-way-1-shot.png",
        "steps",
        "other",
    }
    assert json.loads((tmp_path / "fewshot.json").read_text()) == summary
    one = summary["tests"][0]
    assert (one["manifest"], one["episodes"], one["label"]) == (test.manifest.hash, 300, "5-way 1-shot")
    assert one["rows"][0]["ece"] == pytest.approx(0.1)
    assert one["rows"][1]["ece"] is None
    with (tmp_path / "fewshot.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300 * (1 + 2 + 1)
    assert {(r["learner"], r["training_seed"], r["step"]) for r in rows} == {
        ("steps", "4", ""),
        ("steps", "4", "0"),
        ("steps", "4", "1"),
        ("other", "0", ""),
    }
    assert float(rows[7]["value"]) == test.rows[0].values[0, 7].item()
    with Image.open(picture) as image:
        assert image.width > 1000

    def logged(folder: str, tag: str) -> list[tuple[int, float]]:
        events = EventAccumulator(str(tmp_path / folder))
        events.Reload()
        for known in events.Tags()["scalars"]:
            look_up(known)
        return [(event.step, event.value) for event in events.Scalars(tag)]

    points = one["rows"][0]["points"]
    assert logged("steps", "steps/accuracy") == [(n, pytest.approx(points[n]["mean"])) for n in (0, 1)]
    assert logged("steps", "steps/upper") == [(n, pytest.approx(points[n]["upper"])) for n in (0, 1)]
    assert logged("other", "test/accuracy") == [(1, pytest.approx(one["rows"][1]["mean"]))]
    assert logged("steps", "test/ece") == [(1, pytest.approx(0.1))]


def test_tables_fit_the_terminal() -> None:
    test, data = made_up()
    many = (*test.rows, row("maml first-order=True inner-rate=0.01", *test.rows[1].values, *test.rows[0].values))
    one = summarise([Test(manifest=test.manifest, file="", rows=many)], data, seed=0)["tests"][0]
    console = Console(width=80, record=True)
    console.print(table(one, "accuracy"))
    console.print(table_of_steps(one, "accuracy"))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert f"{100.0 * one['rows'][0]['mean']:.1f}% [{100.0 * one['rows'][0]['lower']:.1f}," in shown
    assert "10.0%" in shown
    assert "…" not in shown
    error = table(one, "mse")
    assert [column.header for column in error.columns][2:] == ["seeds", "mse \\[95%]", "first - this"]
