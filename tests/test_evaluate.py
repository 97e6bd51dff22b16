from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
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

from metarl.agents import config_class, make
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluate import Curve, Entry, Evaluation, adaptation_curve, summarise, table, task_kind, write
from metarl.rollout import collect
from metarl.seeding import Streams
from metarl.types import MetaAgent, Tasks
from tests.toys import seeded

FAMILY = get("point-nav")
TASKS = FAMILY.space.sample(4, "test", seeded(0))


def untrained() -> MetaAgent:
    config = config_class("random")(hidden=(8,), inner_rate=0.5)
    return make("random", config, FAMILY.spec(), Streams(0), torch.device("cpu"))


def entry(agent: str, *seeds: Sequence[Sequence[float]], tasks: Tasks = TASKS) -> Entry:
    """Return an entry with made-up returns: for every seed, for every point, one return per task."""
    curves = tuple(
        Curve(
            episodes=tuple(range(0, 5 * len(points), 5)),
            returns=torch.tensor(points, dtype=torch.float64),
            tasks=tasks,
            failures=0,
        )
        for points in seeds
    )
    names = tuple(f"runs/{agent}{i}" for i in range(len(seeds)))
    return Entry(agent=agent, curves=curves, runs=names, seeds=tuple(range(len(seeds))))


def made_up(oracle: Entry | None = None, random: Entry | None = None) -> Evaluation:
    agent = entry("maml-trpo", [[-10.0, -20.0, -30.0, -40.0], [-4.0, -5.0, -6.0, -45.0], [-1.0, -2.0, -3.0, -4.0]])
    return Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(agent,), oracle=oracle, random=random)


def test_curve_is_the_learner_stepped_by_hand() -> None:
    agent, worlds = untrained(), make_worlds(FAMILY, 12, threads=1)
    curve = adaptation_curve(agent, worlds, TASKS, steps=2, episodes=3, generator=seeded(1))

    generator, learner, expected = seeded(1), agent.start(TASKS), []
    for _ in range(3):
        episodes = collect(worlds, learner.policy, TASKS, 3, generator)
        expected.append(episodes.rewards.sum(2).double().mean(1))
        learner = learner.learn(episodes)
    assert curve.episodes == (0, 3, 6)
    assert torch.equal(curve.returns, torch.stack(expected))
    assert not torch.equal(curve.returns[0], curve.returns[1])


@pytest.mark.parametrize(("steps", "episodes"), [(-1, 2), (1, 0)])
def test_impossible_lengths_are_refused(steps: int, episodes: int) -> None:
    with pytest.raises(UserError, match="0 or more steps"):
        adaptation_curve(
            untrained(), make_worlds(FAMILY, 4), TASKS, steps=steps, episodes=episodes, generator=seeded(0)
        )


def test_mean_and_iqm_by_hand() -> None:
    points = summarise(made_up())["agents"][0]["points"]
    assert [point["mean"] for point in points] == [-25.0, -15.0, -2.5]
    # Four values: one is cut at each end.
    assert [point["iqm"] for point in points] == [-25.0, -5.5, -2.5]
    assert all(point["lower"] < point["mean"] < point["upper"] for point in points)
    assert [point["gap_closed"] for point in points] == [None, None, None]


def test_gap_closed_by_hand() -> None:
    random = entry("random", [[-50.0, -50.0, -50.0, -50.0]])
    oracle = entry("oracle", [[-1.0, -1.0, 1.0, 1.0]])
    points = summarise(made_up(random=random, oracle=oracle))["agents"][0]["points"]
    # (agent + 50) / (0 + 50)
    assert [point["gap_closed"] for point in points] == pytest.approx([0.5, 0.7, 0.95])
    assert all(point["gap_lower"] < point["gap_closed"] < point["gap_upper"] for point in points)


def test_gap_is_drawn_with_the_same_tasks_for_all() -> None:
    # Every task's gap is closed by half: whichever tasks are drawn, so is their mean's.
    random, oracle = [[-8.0, -40.0, -2.0, -100.0]], [[0.0, 0.0, 0.0, 0.0]]
    agent = entry("maml-trpo", [[-4.0, -20.0, -1.0, -50.0]])
    evaluation = Evaluation(
        family=FAMILY.full_name,
        split="test",
        seed=0,
        entries=(agent,),
        random=entry("random", random),
        oracle=entry("oracle", oracle),
    )
    point = summarise(evaluation)["agents"][0]["points"][0]
    assert [point["gap_lower"], point["gap_closed"], point["gap_upper"]] == pytest.approx([0.5, 0.5, 0.5])


def test_no_gap_without_an_oracle_above_random() -> None:
    same = [[-5.0, -5.0, -5.0, -5.0]]
    summary = summarise(made_up(random=entry("random", same), oracle=entry("oracle", same)))
    assert "not above the random policy" in summary["gap_note"]
    assert all(point["gap_closed"] is None for point in summary["agents"][0]["points"])


def test_seeds_are_pooled() -> None:
    agent = entry("maml-trpo", [[-1.0, -1.0, -1.0, -1.0]], [[-3.0, -3.0, -3.0, -3.0]])
    evaluation = Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(agent,))
    described = summarise(evaluation)["agents"][0]
    assert described["training_seeds"] == [0, 1]
    # Seeds are strata: each has no spread of its own.
    assert [described["points"][0][key] for key in ("lower", "mean", "upper")] == [-2.0, -2.0, -2.0]


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
    low = replace(entry("random", [[-5000.0] * 4]).curves[0], success=rates[:1])
    wide = Evaluation(
        family=FAMILY.full_name,
        split="test",
        seed=0,
        entries=(replace(agent, curves=(worst,)),),
        random=Entry(agent="random", curves=(low,), runs=(), seeds=(0,)),
        oracle=Entry(agent="oracle", curves=(replace(low, returns=low.returns / 5000.0),), runs=(), seeds=(0,)),
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table(summarise(wide)))
    assert "\u2026" not in console.export_text()
    with (tmp_path / "adaptation.csv").open(newline="") as file:
        by_task = [float(row["success"]) for row in csv.DictReader(file)]
    assert by_task == [0.0, 1.0, 0.0, 1.0, 0.2, 0.6, 0.0, 0.8]
    read = EventAccumulator(str(next(tmp_path.glob("events.*")))).Reload()
    assert [scalar.value for scalar in read.Scalars("adaptation/success")] == pytest.approx([0.05, 0.85])


def test_other_tasks_are_refused() -> None:
    others = FAMILY.space.sample(4, "test", seeded(9))
    with pytest.raises(ValueError, match="same tasks"):
        made_up(oracle=entry("oracle", [[0.0, 0.0, 0.0, 0.0]], tasks=others))


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


def test_tensorboard_shows_the_band(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as training:
        training.add_scalar("return/post", 1.0, 7)
    before = set(tmp_path.iterdir())
    evaluation = made_up()
    summary = summarise(evaluation)
    for _ in range(2):
        write(evaluation, summary, tmp_path)
    events = set(tmp_path.glob("events.*"))
    # The second evaluation replaced the events of the first one, and left the training's alone.
    assert before < events
    assert len(events) == 2

    read = EventAccumulator(str((events - before).pop())).Reload()
    points = summary["agents"][0]["points"]
    for key in ("mean", "lower", "upper", "iqm"):
        scalars = read.Scalars(f"adaptation/{key}")
        assert [scalar.step for scalar in scalars] == [0, 5, 10]
        assert [scalar.value for scalar in scalars] == pytest.approx([point[key] for point in points])
    stored = read.Tensors("custom_scalars__config__")[0].tensor_proto
    layout: Any = cast(Any, layout_pb2).Layout.FromString(stored.string_val[0])
    margin = layout.category[0].chart[0].margin.series[0]
    assert (margin.value, margin.lower, margin.upper) == ("adaptation/mean", "adaptation/lower", "adaptation/upper")


def test_table_has_a_row_for_every_point() -> None:
    evaluation = made_up(random=entry("random", [[-50.0] * 4]), oracle=entry("oracle", [[0.0] * 4]))
    shown = table(summarise(evaluation))
    assert shown.row_count == 3 + 1 + 1
    assert str(list(shown.columns[-1].cells)[2]).startswith("95.0% ")


def test_a_curve_of_one_point_can_be_drawn(tmp_path: Path) -> None:
    evaluation = Evaluation(
        family=FAMILY.full_name, split="ood", seed=0, entries=(entry("maml-trpo", [[-1.0, -2.0, -3.0, -4.0]]),)
    )
    write(evaluation, summarise(evaluation), tmp_path)
    assert (tmp_path / "adaptation.png").stat().st_size > 1000


def test_tasks_are_called_held_out_only_where_they_are() -> None:
    assert task_kind("test", coincide=False) == "held-out tasks"
    assert "held-out" not in task_kind("test", coincide=True)
    assert "coincide" in task_kind("test", coincide=True)
    assert task_kind("ood", coincide=True) == "out-of-distribution tasks"
