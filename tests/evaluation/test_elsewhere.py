"""What survives of the gap closed in another reality, and how it is written down."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.errors import UserError
from metarl.evaluation.curve import Evaluation
from metarl.evaluation.elsewhere import Elsewhere, summarise_elsewhere
from metarl.evaluation.report import table, write
from metarl.evaluation.statistics import surviving
from metarl.evaluation.summary import summarise
from tests.helpers.curves import FAMILY, entry
from tests.helpers.toys import seeded

HOME = Evaluation(
    family=FAMILY.full_name,
    split="test",
    seed=0,
    entries=(entry("maml", [[-40.0, -40.0, -40.0, -40.0], [-20.0, -22.0, -18.0, -20.0]]),),
    oracle=entry("oracle", [[-10.0, -12.0, -8.0, -10.0]]),
    random=entry("random", [[-50.0] * 4]),
)
"""Gap closed: (-20 + 50) / (-10 + 50) = 75%."""
THERE = Elsewhere(
    reality={"name": "slow", "summary": "late", "changes": {"lag": 0.1}},
    evaluation=replace(
        HOME,
        entries=(entry("maml", [[-44.0, -44.0, -44.0, -44.0], [-36.0, -38.0, -34.0, -36.0]]),),
        oracle=entry("oracle", [[-20.0] * 4]),
        random=entry("random", [[-48.0, -52.0, -50.0, -50.0]]),
    ),
)
"""Gap closed: (-36 + 50) / (-20 + 50) = 46.7%, which is 62.2% of that at home."""


def both() -> dict[str, object]:
    summary = summarise(HOME)
    summary["realities"] = [summarise_elsewhere(HOME, THERE)]
    return summary


def test_what_survives_is_the_gap_there_over_that_at_home() -> None:
    (agent,) = summarise_elsewhere(HOME, THERE)["agents"]
    assert agent["agent"] == "maml in slow"
    assert agent["points"][1]["gap_closed"] == pytest.approx(14.0 / 30.0)
    assert agent["survives"] == pytest.approx((14.0 / 30.0) / 0.75)
    assert agent["survives_lower"] < agent["survives"] < agent["survives_upper"]
    # Another floor, here and there: (-20 + 30) / (-10 + 30) = 50%, (-36 + 40) / (-20 + 40) = 20%.
    home = replace(HOME, floor=entry("floor", [[-30.0] * 4]))
    low = replace(THERE, evaluation=replace(THERE.evaluation, floor=entry("floor", [[-40.0] * 4])))
    found = summarise_elsewhere(home, low)
    assert found["agents"][0]["survives"] == pytest.approx(0.4)
    assert found["floor"]["agent"] == "floor in slow"
    without = replace(HOME, oracle=None), replace(THERE, evaluation=replace(THERE.evaluation, oracle=None))
    assert summarise_elsewhere(*without)["agents"][0]["survives"] is None


def test_of_one_task_it_has_no_width_and_where_nothing_is_closed_it_is_not_defined() -> None:
    one = torch.tensor([[-20.0]]), torch.tensor([[-50.0]]), torch.tensor([[-10.0]])
    found = surviving(one, one, seeded())
    assert (found.estimate, found.lower, found.upper) == (1.0, 1.0, 1.0)
    worse = torch.tensor([[-60.0]]), *one[1:]
    assert surviving(worse, one, seeded()).estimate == pytest.approx(-0.25 / 0.75)
    with pytest.raises(UserError, match=r"at home the gap closed is -25.0%: nothing can survive"):
        surviving(one, worse, seeded())
    with pytest.raises(UserError, match="there the oracle's mean return -60 is not above the floor, -50"):
        surviving((one[0], one[1], worse[0]), one, seeded())
    lost = replace(THERE, evaluation=replace(THERE.evaluation, oracle=entry("oracle", [[-60.0] * 4])))
    assert "is not above" in summarise_elsewhere(HOME, lost)["agents"][0]["survives_note"]


def test_files_tell_home_and_there_apart(tmp_path: Path) -> None:
    summary = both()
    write(HOME, summary, tmp_path, elsewhere=[THERE])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "adaptation.csv").read_text())))
    assert [row["reality"] for row in rows] == ["home"] * 16 + ["slow"] * 16
    last = [float(row["return"]) for row in rows if row["reality"] == "slow" and row["agent"] == "maml"]
    assert last[1::2] == [-36.0, -38.0, -34.0, -36.0]
    kept = json.loads((tmp_path / "adaptation.json").read_text())
    assert kept["realities"][0]["reality"] == THERE.reality
    assert kept["agents"] == json.loads(json.dumps(summarise(HOME)["agents"]))
    with Image.open(tmp_path / "adaptation.png") as picture:
        assert picture.size[0] > 500
    events = EventAccumulator(str(tmp_path / "maml in slow")).Reload()
    assert events.Scalars("adaptation/survives")[0].value == pytest.approx(0.6222, abs=1e-4)
    assert [event.value for event in events.Scalars("adaptation/mean")] == [-44.0, -36.0]
    # Without other realities nothing of it is there.
    write(HOME, summarise(HOME), tmp_path / "home")
    assert "reality" not in (tmp_path / "home" / "adaptation.csv").read_text()
    assert "realit" not in (tmp_path / "home" / "adaptation.json").read_text()


def test_the_table_shows_both_within_80_columns() -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(table(both()))
    shown = text.getvalue()
    words = [line.split()[:2] for line in shown.splitlines() if line.strip()]
    order = [first[0] for first in words if first[0] in ("maml", "random", "in")]
    assert order == ["maml", "random", "in", "maml", "random"]
    assert ["in", "slow"] in words
    assert "…" not in shown
    assert next(line for line in shown.splitlines() if "survives" in line).split()[1] == "62%"
