from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch.utils.tensorboard import SummaryWriter

from metarl.evaluation.curve import Entry, Evaluation
from metarl.evaluation.report import MOST_ROWS, table, write
from metarl.evaluation.summary import summarise
from tests.helpers.curves import FAMILY, TASKS, entry, made_up


def test_success_is_told_beside_the_return(tmp_path: Path) -> None:
    agent = entry("maml-trpo", [[-10.0, -20.0, -30.0, -40.0], [-1.0, -2.0, -3.0, -4.0]])
    rates = torch.tensor([[0.0, 0.0, 0.2, 0.0], [1.0, 1.0, 0.6, 0.8]], dtype=torch.float64)
    curve = replace(agent.curves[0], success=rates)
    evaluation = Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(replace(agent, curves=(curve,)),))
    summary = summarise(evaluation)
    points = summary["agents"][0]["points"]
    assert [point["success"] for point in points] == pytest.approx([0.05, 0.85])
    assert points[1]["success_lower"] < 0.85 < points[1]["success_upper"]
    column = next(column for column in table(summary).columns if str(column.header).startswith("success"))
    assert str(list(column.cells)[1]).startswith("85.0% ")
    write(evaluation, summary, tmp_path)
    # With the gap beside it the table still fits 80 columns, uncut.
    worst = replace(curve, returns=curve.returns * 100.0 - 1000.0)
    long = entry("rl2", [[-3999.0, -20.0, -1300.0, -40.0]] * 9, pools=False)
    many = rates[:1].expand(9, 4)
    low = replace(entry("random", [[-5000.0] * 4]).curves[0], success=rates[:1])
    wide = Evaluation(
        family=FAMILY.full_name,
        split="test",
        seed=0,
        entries=(replace(agent, curves=(worst,)), replace(long, curves=(replace(long.curves[0], success=many),))),
        random=Entry(agent="random", curves=(low,), runs=(), seeds=(0,)),
        oracle=Entry(agent="oracle", curves=(replace(low, returns=low.returns / 5000.0),), runs=(), seeds=(0,)),
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table(summarise(wide)))
    assert "\u2026" not in console.export_text()
    with (tmp_path / "adaptation.csv").open(newline="") as file:
        by_task = [float(row["success"]) for row in csv.DictReader(file)]
    assert by_task == [0.0, 1.0, 0.0, 1.0, 0.2, 0.6, 0.0, 0.8]
    read = EventAccumulator(str(tmp_path / "maml-trpo")).Reload()
    assert [scalar.value for scalar in read.Scalars("adaptation/success")] == pytest.approx([0.05, 0.85])


def test_where_an_agent_passes_its_oracle_the_table_says_so_in_place_of_a_gap() -> None:
    oracle = entry("teacher", [[-25.0, -25.0, -25.0, -25.0]])
    summary = summarise(made_up(random=entry("random", [[-50.0, -50.0, -50.0, -50.0]]), oracle=oracle))
    # (agent + 50) / 25
    assert [point["gap_closed"] for point in summary["agents"][0]["points"]] == pytest.approx([1.0, 1.4, 1.9])
    column = next(column for column in table(summary).columns if str(column.header).startswith("gap"))
    cells = [str(cell) for cell in column.cells]
    assert cells[0].startswith("100% ")
    assert cells[1:3] == ["oracle passed"] * 2


def test_large_returns_with_a_gap_fit_a_terminal() -> None:
    wide = [[-195.25, -181.5, -167.25, -120.0], [-150.25, -151.5, -132.0, -110.0], [-101.0, -102.0, -103.0, -104.0]]
    references = {
        name: entry(name, [[height, height - 20.0, height - 10.0, height - 5.0]])
        for name, height in (("random", -300.0), ("oracle", -100.0))
    }
    evaluation = replace(made_up(**references), entries=(entry("maml-trpo", wide),))
    console = Console(file=io.StringIO(), width=80, record=True, force_terminal=False)
    console.print(table(summarise(evaluation)))
    printed = console.export_text()
    assert "\u2026" not in printed
    assert re.search(r"maml-trpo +0 +0 +-166.0 \[-1\d\d\.\d, -1\d\d\.\d\] +\d\d% \[", printed)


def test_files_hold_what_was_measured(tmp_path: Path) -> None:
    evaluation = made_up(random=entry("random", [[-50.0, -51.0, -52.0, -53.0]]))
    summary = summarise(evaluation)
    write(evaluation, summary, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"

    assert json.loads((folder / "adaptation.json").read_text()) == summary
    with (folder / "adaptation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4 + 4
    goal = TASKS["goal"][3].tolist()
    assert rows[10] == {
        "agent": "maml-trpo",
        "training_seed": "0",
        "task": "3",
        "goal[0]": str(goal[0]),
        "goal[1]": str(goal[1]),
        "step": "1",
        "episodes": "5",
        "return": "-45.0",
    }
    with Image.open(folder / "adaptation.png") as picture:
        picture.load()
        assert picture.width > 800
        # A curve, bands and text: not an empty page.
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colours is not None
        assert len(colours) > 100


def both() -> Evaluation:
    """Return an evaluation of two agents, of which one has 2 episodes of experience where the other has 10."""
    rl2 = entry("rl2", [[-9.0, -8.0, -7.0, -6.0], [-3.0, -4.0, -5.0, -6.0], [-1.0, -2.0, -1.0, -2.0]], pools=False)
    return replace(made_up(), entries=(rl2, *made_up().entries))


def test_tensorboard_shows_all_agents_in_one_chart(tmp_path: Path) -> None:
    for training in (tmp_path, tmp_path / "multitask"):
        with SummaryWriter(str(training)) as writer:
            writer.add_scalar("return/post", 1.0, 7)
    before = set(tmp_path.rglob("events.*"))
    # Neither a second evaluation nor one of other agents leaves anything of those before it; training's events stay.
    others = replace(made_up(), entries=(entry("multitask", [[0.0] * 4]), entry("random", [[0.0] * 4])))
    for evaluation in (others, both(), both()):
        summary = summarise(evaluation)
        write(evaluation, summary, tmp_path)
    events = set(tmp_path.rglob("events.*")) - before
    assert before < set(tmp_path.rglob("events.*"))
    assert sorted(path.parent.name for path in events) == ["maml-trpo", "rl2"]
    assert not (tmp_path / "random").exists()

    for agent, steps in zip(summary["agents"], ([0, 1, 2], [0, 5, 10]), strict=True):
        read = EventAccumulator(str(tmp_path / agent["agent"])).Reload()
        for key in ("mean", "lower", "upper", "iqm"):
            scalars = read.Scalars(f"adaptation/{key}")
            assert [scalar.step for scalar in scalars] == steps
            assert [scalar.value for scalar in scalars] == pytest.approx([point[key] for point in agent["points"]])
        stored = read.Tensors("custom_scalars__config__")[0].tensor_proto
        layout: Any = cast(Any, layout_pb2).Layout.FromString(stored.string_val[0])
        margin = layout.category[0].chart[0].margin.series[0]
        assert (margin.value, margin.lower, margin.upper) == ("adaptation/mean", "adaptation/lower", "adaptation/upper")


def test_the_total_of_a_trial_is_told() -> None:
    rl2, maml = summarise(both())["agents"]
    # Sums of the tasks: -13, -14, -13, -14.
    assert rl2["total"]["mean"] == -13.5
    assert -14.0 <= rl2["total"]["lower"] < -13.5 < rl2["total"]["upper"] <= -13.0
    assert (rl2["pools"], rl2["parallel"]) == (False, 5)
    assert maml["total"] is None
    two = entry("rl2", [[-9.0] * 4, [-3.0] * 4], pools=False)
    assert summarise(replace(made_up(), entries=(two,)))["agents"][0]["total"] is None
    rows = [str(cell) for cell in table(summarise(both())).columns[0].cells]
    assert rows == ["rl2", "", "", "total", "maml-trpo", "", ""]
    assert str(list(table(summarise(both())).columns[2].cells)[3]) == "0-2"


def test_of_long_curves_the_table_shows_some_points() -> None:
    points = [[0.5 + n / 500.0] * 4 for n in range(100)]
    evaluation = replace(made_up(), entries=(entry("rl2", points, pools=False),))
    shown = table(summarise(evaluation))
    steps = [str(cell) for cell in shown.columns[1].cells]
    assert steps == ["0", "1", "3", "6", "13", "26", "51", "99", ""]
    means = [str(cell).split()[0] for cell in shown.columns[3].cells]
    assert means == ["0.500", "0.502", "0.506", "0.512", "0.526", "0.552", "0.602", "0.698", "59.9"]
    assert "some points" in str(shown.caption)
    assert len(summarise(evaluation)["agents"][0]["points"]) == 100
    for count in range(1, 30):
        some = replace(evaluation, entries=(entry("rl2", points[:count], pools=False),))
        steps = [str(cell) for cell in table(summarise(some)).columns[1].cells if cell]
        assert len(steps) <= MOST_ROWS
        assert (steps[0], steps[-1]) == ("0", str(count - 1))


def test_table_has_a_row_for_every_point() -> None:
    evaluation = made_up(random=entry("random", [[-50.0] * 4]), oracle=entry("oracle", [[0.0] * 4]))
    shown = table(summarise(evaluation))
    assert shown.row_count == 3 + 1 + 1
    assert str(list(shown.columns[-1].cells)[2]).startswith("95% ")


def test_a_curve_of_one_point_can_be_drawn(tmp_path: Path) -> None:
    evaluation = Evaluation(
        family=FAMILY.full_name, split="ood", seed=0, entries=(entry("maml-trpo", [[-1.0, -2.0, -3.0, -4.0]]),)
    )
    write(evaluation, summarise(evaluation), tmp_path)
    assert (tmp_path / "adaptation.png").stat().st_size > 1000
